"""Whether data to calibrate with look like a model's inputs: ranges that follow from others are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.errors import DataError
from enginery.graph.base import tensor_infos
from enginery.spec import show_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.records import TensorInfo

    Array = np.ndarray[Any, np.dtype[Any]]
    Feeds = Mapping[str, Array]

__all__ = ["checked"]

_FACTOR = 16.0
"""How many times larger or smaller than the example inputs the data may be."""

_USUAL = 1e6
"""Where there are no examples, data are told of whose largest value is beyond it, or below its inverse."""


def checked(
    model: ir.Model, batches: Iterable[Feeds], examples: Feeds | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Feeds]:
    """Hand batches on, and refuse those from which no range follows, the last with the whole seen.

    Args:
        model: whose inputs they are.
        batches: arrays by name, a dict for each call.
        examples: inputs that are known to be like real ones; None where there are none.
        say: told of an input that is the same number everywhere, beside others that vary; and of one whose values are
            very large or very small, where no example says that they should be.

    Raises:
        DataError: there is none, or one row alone, once or many times; an input is missing, or has another type or
            shape than the model's, is not finite, or is far larger or smaller than the examples; or none varies.
    """
    infos = tensor_infos(model.graph.inputs)
    ends: dict[str, tuple[float, float]] = {}
    first: dict[str, Array] = {}
    rows, differ = 0, False
    for feeds in batches:
        arrays = {info.name: _checked_array(info, feeds) for info in infos}
        for name, array in arrays.items():
            if not array.size:
                continue
            if array.dtype.kind == "f":
                low, high = ends.get(name, (np.inf, -np.inf))
                ends[name] = min(low, float(array.min())), max(high, float(array.max()))
            differ = differ or _differs(array, first.setdefault(name, _first_row(array)))
        rows += max((len(array) if array.ndim else 1 for array in arrays.values()), default=1)
        yield arrays
    if not rows:
        raise DataError("there is no data to calibrate with", mend="record a hundred real inputs or more")
    if rows == 1:
        mend = "record a hundred real inputs or more"
        raise DataError("there is one row of data to calibrate with: no range follows from it", mend=mend)
    _check_variation(ends, say)
    for name, (low, high) in ends.items():
        _check_ends(name, low, high, None if examples is None else examples.get(name), say)
    if not differ:
        message = f"all {rows} rows of data to calibrate with are the same: no range follows from one"
        raise DataError(message, mend="record a hundred real inputs or more")


def _checked_array(info: TensorInfo, feeds: Feeds) -> Array:
    """Return an input's array of one batch."""
    if info.name not in feeds:
        given = ", ".join(sorted(feeds)) or "nothing"
        mend = f"record every input; the data holds {given}"
        raise DataError(f"the data to calibrate with lacks the input {info.name!r}", mend=mend)
    array = np.asarray(feeds[info.name])
    dtype = array.dtype.name
    if (
        info.dtype in ("float32", "float64", "float16", "int64", "int32", "bool", "uint8", "int8")
        and dtype != info.dtype
    ):
        mend = f"record it as {info.dtype}"
        raise DataError(f"the data for {info.name!r} is {dtype}, and the model takes {info.dtype}", mend=mend)
    if info.shape is not None and not _fits(array.shape, info.shape):
        mend = f"record it as {show_sizes(info.shape)}"
        message = f"the data for {info.name!r} is {show_sizes(array.shape)}, and the model takes "
        raise DataError(message + show_sizes(info.shape), mend=mend)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"the data for {info.name!r} is not finite", mend="look at how it was recorded")
    return array


def _first_row(array: Array) -> Array:
    return np.array(array[:1] if array.ndim else array)


def _differs(array: Array, row: Array) -> bool:
    """Say whether any of an array's rows is another than this one; one of another length is."""
    return array.shape[1:] != row.shape[1:] or bool((array != row).any())


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        isinstance(dim, str) or dim == size for size, dim in zip(shape, wanted, strict=True)
    )


def _check_variation(ends: Mapping[str, tuple[float, float]], say: Callable[[str], None] | None) -> None:
    """Refuse data of which no input varies; say which does not, beside others that do."""
    constant = {name: low for name, (low, high) in ends.items() if low == high}
    for name, value in constant.items():
        if len(constant) == len(ends):
            mend = "record real inputs: ranges that follow from these are wrong for all others"
            raise DataError(f"the data for {name!r} is {value:g} everywhere", mend=mend)
        if say is not None:
            say(f"the data for {name!r} is {value:g} everywhere: ranges that follow from it hold for no other value")


def _check_ends(name: str, low: float, high: float, example: Array | None, say: Callable[[str], None] | None) -> None:
    if low == high:
        return
    largest = max(-low, high)
    if example is None or example.dtype.kind != "f" or not example.size or float(np.ptp(example)) == 0:
        if say is not None and not 1 / _USUAL <= largest <= _USUAL:
            said = (
                f"the data for {name!r} lies in {low:g}..{high:g}, and there are no example inputs to hold it against"
            )
            say(f"{said}: make sure that it is prepared as the model's inputs are")
        return
    known = float(np.abs(example).max())
    if not known / _FACTOR <= largest <= known * _FACTOR:
        message = (
            f"the data for {name!r} lies in {low:g}..{high:g}, and the example inputs in "
            f"{float(example.min()):g}..{float(example.max()):g}"
        )
        raise DataError(message, mend="prepare the data as the model's inputs are, mean and scale as well")
