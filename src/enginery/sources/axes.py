"""Which axes of an exported graph are dynamic, what they are called, and at which sizes a model is traced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from enginery.errors import UnknownNameError, UsageError
from enginery.graph.base import axis_name
from enginery.spec import Dim, Shape, show_sizes

__all__ = ["check_shapes", "name_axes", "other_sizes", "resize", "tracing_sizes"]

_NEARBY = 8


def name_axes(shapes: Mapping[str, Shape]) -> dict[str, dict[int, str]]:
    """Name every dynamic axis: its own name, else ``batch`` for the first axis and ``dim1``, ``dim2``... for others.

    Axes of several inputs share a name, and so have one size in every call, where place and range are equal; the
    same place with another range is another name, ``mask_dim1`` for the input ``mask``.

    Args:
        shapes: the profile of each input by name.

    Raises:
        UsageError: one name is given to two different ranges.

    Example:
        >>> name_axes({"ids": Shape.parse("1..4x2..8x3"), "mask": Shape.parse("1..4xlength:2..8")})
        {'ids': {0: 'batch', 1: 'dim1'}, 'mask': {0: 'batch', 1: 'length'}}
    """
    ranges: dict[str, tuple[int | None, int, int, int]] = {}
    axes: dict[str, dict[int, str]] = {name: {} for name in shapes}
    for name, shape in shapes.items():
        for axis, dim in enumerate(shape.dims):
            if dim.dynamic:
                axes[name][axis] = _name(dim, axis, name, ranges)
    return axes


def _name(dim: Dim, axis: int, tensor: str, ranges: dict[str, tuple[int | None, int, int, int]]) -> str:
    sizes = (dim.min, dim.opt, dim.max)
    if dim.name is not None:
        known = ranges.setdefault(dim.name, (None, *sizes))
        if known[1:] != sizes:
            raise UsageError(
                f"the dimension {dim.name!r} is {known[1]}..{known[2]}..{known[3]} and, in input {tensor!r}, {dim}",
                mend="one name is one size in every call: give equal ranges, or two names",
            )
        return dim.name
    alone = axis_name(axis, tensor)
    for candidate in (axis_name(axis), alone):
        if ranges.setdefault(candidate, (axis, *sizes)) == (axis, *sizes):
            return candidate
    return f"{alone}_"  # somebody gave that very name to another axis


def check_shapes(shapes: Mapping[str, Shape], inputs: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the shapes asked for with the example inputs' names and ranks.

    Raises:
        UnknownNameError: a shape names no input.
        UsageError: a shape has another rank than the example input.
    """
    for name, shape in shapes.items():
        if name not in inputs:
            raise UnknownNameError.from_choices("input", name, inputs)
        if len(shape.dims) != len(inputs[name]):
            raise UsageError(
                f"the shape {shape} for input {name!r} has {len(shape.dims)} dimensions, its example has "
                f"{len(inputs[name])}: {show_sizes(inputs[name])}",
                mend="give one range for each axis",
            )


def tracing_sizes(shape: Shape | None, example: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sizes to trace a model at: the `opt` sizes, but at least 2 on a dynamic axis.

    A tracer takes a size of 1 (or 0) to be a constant, because broadcasting depends on it.

    Args:
        shape: the profile; None for the example's own sizes.
        example: sizes of the example input.

    Example:
        >>> tracing_sizes(Shape.parse("1..1..8x3"), (1, 3))
        (2, 3)
    """
    if shape is None:
        return example
    return tuple(max(dim.opt, 2) if dim.dynamic else dim.opt for dim in shape.dims)


def other_sizes(dims: Mapping[str, Dim], traced: Mapping[str, int], *, alike: bool = False) -> dict[str, int]:
    """Choose a second size for every dynamic axis, to see whether the first became a constant.

    It is small, differs from the first, and is 1 only where nothing else is in the range: a size of 1 fits
    whatever it meets, so that it would hide what it should show. Where the ranges allow, no two axes change alike.

    Args:
        dims: the range of each axis by its name.
        traced: the first sizes.
        alike: whether axes of equal ranges change alike after all, as a model may need that knows them by two names.

    Example:
        >>> other_sizes({"batch": Dim.parse("1..8..32"), "length": Dim.parse("1..8..32")}, {"batch": 8, "length": 8})
        {'batch': 3, 'length': 5}
    """
    sizes: dict[str, int] = {}
    taken: set[tuple[int, int]] = set()
    for name, dim in dims.items():
        low = max(dim.min, 2)
        # From 2 on, any size will do; a larger minimum may be one of a few that the model takes, as the maximum is.
        near = list(range(low, min(low + _NEARBY, dim.max + 1)) if dim.min < low else (low,))
        # No divisor of the first: a reshape to a fixed size then fails in its own line, and not in a later one.
        first = traced[name]
        near = [size for size in near if math.gcd(size, first) == 1] + near
        choices = [size for size in (*near, dim.max, dim.min) if size in dim and size != first]
        free = [size for size in choices if alike or (first, size) not in taken]
        sizes[name] = next(iter((*free, *choices)), first)
        taken.add((first, sizes[name]))
    return sizes


def resize(array: np.ndarray[Any, Any], sizes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Cut or repeat an array along each axis, so that every value in it is one that was there.

    Example:
        >>> resize(np.array([[1, 2]]), (2, 3))
        array([[1, 2, 1],
               [1, 2, 1]])
    """
    for axis, (own, size) in enumerate(zip(array.shape, sizes, strict=True)):
        if own == 0 and size:
            array = np.zeros((*array.shape[:axis], size, *array.shape[axis + 1 :]), array.dtype)
        elif own != size:
            array = np.take(array, np.arange(size) % max(own, 1), axis=axis)
    return array
