"""Random inputs of declared ranges, the same for the same seed.

Without a range, floats are standard normal, integers 0 or 1, booleans either, strings a few fixed words. Integers that
index a table of known size (token ids of an embedding, say) have the range that `index_limits` finds in the graph.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.dtypes import DTYPES, is_float, numpy_dtype
from enginery.errors import DataError, InputShapeError, UnknownNameError, UsageError
from enginery.inputs.base import Array, Case, Range, Which, resolve_shapes
from enginery.machine import free_memory_bytes
from enginery.records import TensorInfo
from enginery.spec import show_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["WORDS", "describe", "index_limits", "random_case"]

WORDS = ("the", "engine", "runs", "fast", "")
"""What random strings are drawn from."""

_BITS = Range(0, 1)
_POWERS_OF_TWO = Range(0.5, 2.0)

_INDEXED = {"Gather": 0, "GatherElements": 0, "ScatterElements": 0}
"""Operators whose second input indexes an axis of the first, and the axis they take where none is named."""

_TRANSPARENT = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand"})
"""Operators whose output holds the values of their first input."""


def random_case(
    inputs: Sequence[TensorInfo],
    which: Which,
    *,
    seed: int,
    ranges: Mapping[str, Range] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Case:
    """Make random inputs at one end of the profile, or at the size it is tuned for.

    The stream of each input depends on `seed` and the input's name alone, so a smaller case holds the first elements
    of a larger one. numpy fixes the bits of its PCG64 generator for good, its distributions in practice.

    Args:
        inputs: with the profile of each where it has one.
        which: ``min``, ``opt`` or ``max``; also the name of the case.
        seed: at least 0.
        ranges: values of inputs by name, uniform and with both ends; they stand over all defaults. A caller that
            has the graph starts from `index_limits`.
        sizes: of symbolic dimensions that no profile sizes, as for `resolve_shapes`.

    Raises:
        UnknownNameError: a range names no input.
        UsageError: a range does not fit the input's element type.
        DataError: an input is no tensor.
        InputShapeError: the inputs do not fit into memory.

    Example:
        >>> case = random_case([TensorInfo("ids", "int64", (2, 3))], "opt", seed=0, ranges={"ids": Range(5, 5)})
        >>> case.feeds["ids"].tolist()
        [[5, 5, 5], [5, 5, 5]]
    """
    ranges = _checked(inputs, ranges)
    shapes = resolve_shapes(inputs, which, sizes)
    _check_memory(inputs, which, shapes)
    feeds: dict[str, Any] = {}
    for info in inputs:
        stream = np.random.SeedSequence([seed, zlib.crc32(info.name.encode())])
        generator = np.random.Generator(np.random.PCG64(stream))
        feeds[info.name] = _random(info, shapes[info.name], ranges.get(info.name), generator)
    return Case(which, feeds)


def describe(inputs: Sequence[TensorInfo], ranges: Mapping[str, Range] | None = None, seed: int = 0) -> str:
    """Say in one line which random inputs `random_case` makes.

    Example:
        >>> describe([TensorInfo("x", "float32", (1,)), TensorInfo("ids", "int64", (1,))], {"ids": Range(0, 9)}, 7)
        'random, seed 7: x normal(0,1); ids 0..9'
    """
    ranges = _checked(inputs, ranges)
    said = (f"{info.name} {_described(info, ranges.get(info.name))}" for info in inputs)
    return f"random, seed {seed}: " + ("; ".join(said) or "no inputs")


def index_limits(model: ir.Model) -> dict[str, Range]:
    """Find the integer inputs that index a table, and the indices the smallest such table has.

    An input counts where it reaches the indices of a Gather, GatherElements or ScatterElements, perhaps through
    operators that only cast or reshape it, and the axis has a known size. Functions of the model are not looked into.

    Returns:
        0 to the last index, for each such input by name.
    """
    limits: dict[str, Range] = {}
    for value in model.graph.inputs:
        sizes = [size for size in _indexed_sizes(value, set()) if size > 0]
        if value.name and value.dtype is not None and value.dtype.is_integer() and sizes:
            limits[value.name] = Range(0, min(sizes) - 1)
    return limits


def _indexed_sizes(value: ir.Value, seen: set[int]) -> Iterator[int]:
    """Yield the size of every axis that the value's elements are indices of."""
    if id(value) in seen:
        return
    seen.add(id(value))
    for node, place in value.uses():
        if node.domain:  # not one of ONNX's own
            continue
        if node.op_type in _INDEXED and place == 1:
            size = _axis_size(node)
            if size is not None:
                yield size
        elif node.op_type in _TRANSPARENT and place == 0:
            yield from _indexed_sizes(node.outputs[0], seen)


def _axis_size(node: ir.Node) -> int | None:
    import onnx_ir as ir

    table = node.inputs[0]
    if table is None:
        return None
    constant = ir.convenience.get_const_tensor(table)
    shape = constant.shape if constant is not None else table.shape
    attribute = node.attributes.get("axis")
    axis = attribute.as_int() if attribute is not None else _INDEXED[node.op_type]
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) else None


def _checked(inputs: Sequence[TensorInfo], ranges: Mapping[str, Range] | None) -> Mapping[str, Range]:
    names = [info.name for info in inputs]
    for name in ranges or {}:
        if name not in names:
            raise UnknownNameError.from_choices("input", name, names)
    return ranges or {}


def _described(info: TensorInfo, values: Range | None) -> str:
    found = values or _default_range(info.dtype)
    if found is not None:
        return str(found)
    return "words" if info.dtype == "string" else "normal(0,1)"


def _default_range(dtype: str) -> Range | None:
    """Return the range an element type has by itself; None for a normal distribution, and for strings."""
    if dtype == "float8e8m0":
        return _POWERS_OF_TWO  # it has neither zero nor negative numbers
    return None if is_float(dtype) or dtype.startswith("complex") or dtype == "string" else _BITS


def _check_memory(inputs: Sequence[TensorInfo], which: Which, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse inputs that are larger than the memory that is free, before any is made."""
    free = free_memory_bytes()
    sizes = {info.name: math.prod(shapes[info.name]) * _itemsize(info.dtype) for info in inputs}
    if free and sum(sizes.values()) > free:
        largest = max(sizes, key=lambda name: sizes[name])
        raise InputShapeError(
            f"the {which} inputs need {sum(sizes.values()) / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are "
            f"free: {largest!r} is {show_sizes(shapes[largest])}",
            mend=f"give smaller sizes, for example --shapes {largest}=...",
        )


def _itemsize(dtype: str) -> int:
    return numpy_dtype(dtype).itemsize if dtype in DTYPES else 0


def _random(info: TensorInfo, shape: tuple[int, ...], values: Range | None, generator: np.random.Generator) -> Array:
    if info.dtype not in DTYPES:
        raise DataError(
            f"input {info.name!r} is a {info.dtype}: random inputs are made for tensors only",
            mend="give recorded inputs",
        )
    if info.dtype == "string":
        return _random_words(info, shape, values, generator)
    dtype = numpy_dtype(info.dtype)
    values = values or _default_range(info.dtype)
    if is_float(info.dtype):
        return _random_floats(info, shape, values, dtype, generator)
    if info.dtype.startswith("complex"):
        pairs = _random_floats(info, (*shape, 2), values, np.dtype(f"float{dtype.itemsize * 4}"), generator)
        return pairs.view(dtype).reshape(shape)
    return _random_integers(info, shape, values or _BITS, generator)


def _random_floats(
    info: TensorInfo,
    shape: tuple[int, ...],
    values: Range | None,
    dtype: np.dtype[Any],
    generator: np.random.Generator,
) -> Array:
    double = dtype == np.float64
    array: Array
    if values is None:
        array = generator.standard_normal(shape) if double else generator.standard_normal(shape, dtype=np.float32)
        return np.asarray(array).astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.array([values.low, values.high]).astype(dtype).astype(np.float64)).all():
            raise UsageError(
                f"the range {values} of input {info.name!r} holds more than {dtype} can", mend="give a narrower range"
            )
    array = np.asarray(generator.random(shape) if double else generator.random(shape, dtype=np.float32))
    array *= values.high - values.low
    array += values.low
    return np.clip(array, values.low, values.high, out=array).astype(dtype, copy=False)


def _random_integers(info: TensorInfo, shape: tuple[int, ...], values: Range, generator: np.random.Generator) -> Array:
    low, high = math.ceil(values.low), math.floor(values.high)
    smallest, largest = _integer_limits(info.dtype)
    if low > high or low < smallest or high > largest:
        raise UsageError(
            f"the range {values} of input {info.name!r} holds no {info.dtype}, or more than {smallest}..{largest}",
            mend="give a range of whole numbers that the element type can hold",
        )
    drawn = np.uint64 if low >= 0 else np.int64
    return generator.integers(low, high, shape, dtype=drawn, endpoint=True).astype(numpy_dtype(info.dtype))


def _integer_limits(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    import ml_dtypes  # comes with onnx; knows numpy's own types as well

    limits = ml_dtypes.iinfo(numpy_dtype(dtype))  # type: ignore[no-untyped-call]
    return int(limits.min), int(limits.max)


def _random_words(
    info: TensorInfo, shape: tuple[int, ...], values: Range | None, generator: np.random.Generator
) -> Array:
    if values is not None:
        raise UsageError(f"input {info.name!r} takes strings, which have no range {values}", mend="leave its range out")
    return np.array(WORDS, dtype=object)[generator.integers(0, len(WORDS), math.prod(shape))].reshape(shape)
