"""What one export of a module needs to know, and the arrays it is traced with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from enginery.dtypes import numpy_dtype
from enginery.errors import ExportError, UsageError
from enginery.sources.axes import resize
from enginery.sources.base import Array
from enginery.spec import Example, Shape, show_sizes

__all__ = ["ExportPlan", "check_agreement", "make_example", "show_shapes"]

_FIXED = re.compile(r"static shape of (\d+) for dimension inputs\['tensors'\]\[(\d+)\]\.shape\[(\d+)\]")
_SAME = 1e-2
_ENDS: tuple[Literal["min", "max"], ...] = ("min", "max")


@dataclass(frozen=True)
class ExportPlan:
    """One export.

    Args:
        feeds: the inputs to trace with, by name and in order.
        outputs: names of the outputs.
        axes: names of the dynamic axes of each input that has any.
        shapes: the profiles asked for.
        opset: version of ONNX's operator set.
        notes: grows with what a user should know.
    """

    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    shapes: Mapping[str, Shape]
    opset: int
    notes: list[str]

    def other_feeds(self) -> dict[str, Array]:
        """Return inputs at an end of the profile that is not what is traced with."""
        for end in _ENDS:
            other = {
                name: resize(array, self.shapes[name].at(end)) if name in self.axes else array
                for name, array in self.feeds.items()
            }
            if all(array.size for array in other.values()) and show_shapes(other) != show_shapes(self.feeds):
                return other
        return self.feeds

    def fixed_axes(self, text: str) -> str:
        """Say in the inputs' own names which axes an error of ``torch.export`` found to be constant."""
        names, found = list(self.feeds), []
        for size, place, axis in _FIXED.findall(text):
            name = names[int(place)]
            symbol = self.axes.get(name, {}).get(int(axis), "?")
            found.append(f"input {name!r}, axis {axis} ({symbol}) is fixed at {size}")
        return ", ".join(dict.fromkeys(found))


def check_agreement(expected: Mapping[str, Array], found: Mapping[str, Array], what: str) -> None:
    """Compare outputs loosely: whether a graph computes the same thing, not how precisely.

    Raises:
        ExportError: an output has another shape, or is further away than rounding explains.
    """
    for name, right in expected.items():
        got = found[name]
        if right.shape != got.shape:
            raise ExportError(f"{what} gives {name!r} the shape {got.shape}, the module {right.shape}")
        if right.dtype.kind not in "fc":
            error = float(np.mean(right != got)) if right.size else 0.0
        else:
            finite = np.isfinite(right)
            norm = float(np.linalg.norm(right[finite])) or 1.0
            error = float(np.linalg.norm((right - got)[finite])) / norm
        if not error <= _SAME:
            raise ExportError(f"{what} gives another {name!r} than the module: relative error {error:.2g}")


def make_example(example: Example) -> Array:
    """Make an array for an example that has no values: normal floats, True, and 0, which always is a valid index.

    Raises:
        UsageError: its element type is neither a number that numpy has nor a boolean.
    """
    dtype = numpy_dtype(example.dtype)
    if dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(example.shape).astype(dtype)
    if dtype.kind in "iu":
        return np.zeros(example.shape, dtype)
    if dtype.kind == "b":
        return np.ones(example.shape, dtype)
    raise UsageError(f"no example of {example.dtype} can be made up for {example.name!r}", mend="give real inputs")


def show_shapes(feeds: Mapping[str, Array]) -> str:
    """Write the sizes of some arrays for a message.

    Example:
        >>> show_shapes({"image": np.zeros((2, 3)), "scale": np.zeros(())})
        'image 2x3, scale scalar'
    """
    return ", ".join(f"{name} {show_sizes(array.shape)}" for name, array in feeds.items())
