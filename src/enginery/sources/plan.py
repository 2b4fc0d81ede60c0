"""What one export of a module needs to know, and the arrays it is traced with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from enginery.dtypes import numpy_dtype
from enginery.errors import ExportError, UsageError
from enginery.sources.axes import other_sizes, resize
from enginery.sources.base import Array
from enginery.spec import Dim, Example, Shape, show_sizes

__all__ = ["ExportPlan", "check_agreement", "check_batch", "check_opset", "make_example", "show_shapes"]

_FIXED = re.compile(r"static shape of (\d+) for dimension inputs\['tensors'\]\[(\d+)\]\.shape\[(\d+)\]")
_SAME = 1e-2


@dataclass
class ExportPlan:
    """One export.

    Args:
        feeds: the inputs to trace with, by name and in order.
        outputs: names of the outputs.
        axes: names of the dynamic axes of each input that has any.
        shapes: the profiles asked for.
        opset: version of ONNX's operator set.
        title: what the graph is called.
        notes: grows with what a user should know.
        checks: inputs, and what the module gives for them: as traced, at other sizes, at the smallest.
    """

    feeds: dict[str, Array]
    outputs: tuple[str, ...]
    axes: dict[str, dict[int, str]]
    shapes: Mapping[str, Shape]
    opset: int
    title: str
    notes: list[str] = field(default_factory=list)
    checks: list[tuple[dict[str, Array], dict[str, Array]]] = field(default_factory=list)

    @property
    def dims(self) -> dict[str, Dim]:
        """The range of each dynamic axis by its name."""
        return {
            symbol: self.shapes[name].dims[axis] for name, found in self.axes.items() for axis, symbol in found.items()
        }

    def other_feeds(self, *, alike: bool = False) -> dict[str, Array]:
        """Return inputs at another size of every dynamic axis than is traced with; see `other_sizes`."""
        traced = {
            symbol: self.feeds[name].shape[axis] for name, found in self.axes.items() for axis, symbol in found.items()
        }
        return self._resized(other_sizes(self.dims, traced, alike=alike))

    def smallest_feeds(self) -> dict[str, Array]:
        """Return inputs at the small end of the profile."""
        return self._resized({symbol: max(dim.min, 1) for symbol, dim in self.dims.items()})

    def checked_feeds(self) -> list[dict[str, Array]]:
        """Return inputs at the sizes a graph is checked at, each once: as traced, at others, at the smallest."""
        feeds = (self.feeds, self.other_feeds(), self.smallest_feeds())
        return list({show_shapes(found): found for found in feeds}.values())

    def _resized(self, sizes: Mapping[str, int]) -> dict[str, Array]:
        feeds = {}
        for name, array in self.feeds.items():
            axes = self.axes.get(name, {})
            feeds[name] = resize(
                array, tuple(sizes[axes[axis]] if axis in axes else size for axis, size in enumerate(array.shape))
            )
        return feeds

    def fixed_axes(self, text: str) -> str:
        """Say in the inputs' own names which axes an error of ``torch.export`` found to be constant."""
        names, found = list(self.feeds), []
        for size, place, axis in _FIXED.findall(text):
            name = names[int(place)]
            symbol = self.axes.get(name, {}).get(int(axis), "?")
            found.append(f"input {name!r}, axis {axis} ({symbol}) is fixed at {size}")
        return ", ".join(dict.fromkeys(found))


def check_agreement(
    expected: Mapping[str, Array], found: Mapping[str, Array], what: str, *, than: str = "the module"
) -> None:
    """Compare outputs loosely: whether a graph computes the same thing, not how precisely.

    Args:
        expected: outputs of the source by name.
        found: those of what was made of it.
        what: what messages call the second.
        than: what they call the first.

    Raises:
        ExportError: an output has another shape, or is further away than rounding explains.
    """
    for name, right in expected.items():
        got = found[name]
        if right.shape != got.shape:
            raise ExportError(f"{what} gives {name!r} the shape {got.shape}, {than} {right.shape}")
        if right.dtype.kind not in "fc":
            error = float(np.mean(right != got)) if right.size else 0.0
        else:
            finite = np.isfinite(right)
            norm = float(np.linalg.norm(right[finite])) or 1.0
            error = float(np.linalg.norm((right - got)[finite])) / norm
        if not error <= _SAME:
            raise ExportError(f"{what} gives another {name!r} than {than}: relative error {error:.2g}")


def check_batch(
    plan: ExportPlan, label: str, *, example: Mapping[str, Array] | None = None, blame: Callable[[], str] = str
) -> None:
    """Refuse a model that folds a batch of another size into the rows it was written for, as ``x.reshape(4, -1)`` does.

    Args:
        plan: with its checks.
        label: what messages call the model.
        example: inputs as the user gave them, whose batch may be the one that is written into the code.
        blame: returns the line that fixes the batch, as far as can be told. An output that has the rows of such a
            batch, at every batch, is refused where there is such a line, or where its rows grow with the batch; one
            that has other rows is noted.

    Raises:
        ExportError: an output has as many rows as the first call, or the example, at every batch.
    """
    rows = [_batches(plan, feeds) for feeds, _ in plan.checks]
    if len(plan.checks) == 1 or any(len(found) != 1 for found in rows):
        return
    sizes = [found.pop() for found in rows]
    written = {sizes[0], *_batches(plan, example or {})}
    for name in plan.outputs:
        shapes = [outputs[name].shape for _, outputs in plan.checks]
        if not shapes[0] or len({shape[0] for shape in shapes}) > 1:
            continue
        line, count = blame(), shapes[0][0]
        grown = [axis for axis in range(1, len(shapes[0])) if len({shape[axis] for shape in shapes}) > 1]
        folded = count in written and any([shape[axis] for shape in shapes] != sizes for axis in grown)
        if folded or (line and any(count % size == 0 for size in written if size > 1 or count == 1)):
            raise ExportError(
                f"{label} gives {name!r} {count} row{'s' * (count != 1)} at every batch: "
                f"{', '.join(map(show_sizes, shapes))} at batch {', '.join(map(str, sizes))}; its code fixes the batch"
                + (f", most likely at {line}" if line else ""),
                mend="take the batch from the input's shape there, x.shape[0]; if it is meant, tune for another batch, "
                "with an example of that batch",
            )
        if line:
            plan.notes.append(f"output {name!r} has {count} rows at every batch, most likely because of {line}")


def _batches(plan: ExportPlan, feeds: Mapping[str, Array]) -> set[int]:
    return {feeds[name].shape[0] for name, found in plan.axes.items() if found.get(0) and name in feeds}


def check_opset(opset: int | None) -> None:
    """Refuse an opset that the installed onnx does not know, before a framework works for it.

    Raises:
        ExportError: there is no such opset.
    """
    from onnx import defs

    newest = defs.onnx_opset_version()
    if opset is not None and opset > newest:
        raise ExportError(f"there is no opset {opset} in the installed onnx", mend=f"give {newest} at the most")


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
    raise UsageError(
        f"no example of {example.dtype} can be made up for {example.name!r}",
        mend="give real inputs, in Python: example_inputs=..., or a model that takes numbers",
    )


def show_shapes(feeds: Mapping[str, Array]) -> str:
    """Write the sizes of some arrays for a message.

    Example:
        >>> show_shapes({"image": np.zeros((2, 3)), "scale": np.zeros(())})
        'image 2x3, scale scalar'
    """
    return ", ".join(f"{name} {show_sizes(array.shape)}" for name, array in feeds.items())
