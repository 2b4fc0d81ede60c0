"""What one export of a TensorFlow model needs to know: which axes are open, and the arrays that it is tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enginery.dtypes import numpy_dtype
from enginery.errors import UnknownNameError, UsageError
from enginery.sources.axes import check_shapes, name_axes, resize, tracing_sizes
from enginery.sources.base import Array
from enginery.sources.plan import ExportPlan, make_example
from enginery.sources.tensorflow.routes import DEFAULT_OPSET, HIGHEST_OPSET
from enginery.spec import Dim, Example, Shape, show_sizes

__all__ = ["Input", "make_plan"]

_TRIED = Dim(1, 2, 3)  # an open first axis that nobody sized


@dataclass(frozen=True)
class Input:
    """One input as the model has it; a size is None where it is open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def make_plan(
    title: str,
    inputs: Sequence[Input],
    outputs: Sequence[str],
    shapes: Mapping[str, Shape],
    *,
    opset: int | None,
    given: Mapping[str, Array] | None,
    examples: Sequence[Example],
) -> ExportPlan:
    """Decide which axes are open, and make arrays to convert and compare with.

    Only ranged dimensions of `shapes` are open. An input that `shapes` does not name keeps its open first axis, which
    is as long as that of the others; its other open axes take the sizes of its example.

    Args:
        title: what the graph is called.
        inputs: in their order.
        outputs: their names.
        shapes: the profiles asked for.
        opset: version of ONNX's operator set, lowered to the highest that the converter writes; None for its best.
        given: real inputs by name; None where there are none.
        examples: sizes of inputs without values.

    Raises:
        UnknownNameError: `shapes` or `examples` name no input.
        UsageError: a shape or an example does not fit the model's own, or an open axis has no size.
    """
    unknown = [example.name for example in examples if example.name not in {info.name for info in inputs}]
    if unknown:
        raise UnknownNameError.from_choices("input", unknown[0], [info.name for info in inputs])
    feeds = {**(given or {}), **{example.name: make_example(example) for example in examples}}
    for info in inputs:
        _check_fit(info, feeds.get(info.name))
    check_shapes(shapes, {info.name: tuple(size or 0 for size in info.shape) for info in inputs})
    batch = next((shapes[i.name].dims[0] for i in inputs if i.name in shapes and i.shape[:1] == (None,)), _TRIED)
    profiles = {info.name: _profile(info, shapes.get(info.name), batch, feeds.get(info.name)) for info in inputs}
    made = {
        info.name: feeds[info.name]
        if info.name in feeds
        else make_example(Example(info.name, info.dtype, profiles[info.name].at("opt")))
        for info in inputs
    }
    sized = {name: resize(array, tracing_sizes(profiles[name], array.shape)) for name, array in made.items()}
    axes = {name: found for name, found in name_axes(profiles).items() if found}
    written = min(opset or DEFAULT_OPSET, HIGHEST_OPSET)
    return ExportPlan(sized, tuple(outputs), axes, profiles, written, title)


def _check_fit(info: Input, example: Array | None) -> None:
    """Refuse an example whose element type, dimensions or fixed sizes are not the model's."""
    if example is None:
        return
    sizes = zip(info.shape, example.shape, strict=False)
    fits = len(info.shape) == example.ndim and all(own in (None, size) for own, size in sizes)
    alike = info.dtype == "string" or example.dtype == numpy_dtype(info.dtype)  # strings come in several types
    if not (fits and alike):
        own = ",".join("?" if size is None else str(size) for size in info.shape)
        given = ",".join(map(str, example.shape))
        raise UsageError(
            f"the example of {info.name!r} is {example.dtype}[{given}], the model takes {info.dtype}[{own}]",
            mend="give one that fits; ? may be any size",
        )


def _profile(info: Input, asked: Shape | None, batch: Dim, example: Array | None) -> Shape:
    """Return the sizes of one input: those asked for, where they fit, or the model's own."""
    if asked is not None:
        for axis, (own, dim) in enumerate(zip(info.shape, asked.dims, strict=True)):
            if own is not None and (dim.min, dim.max) != (own, own):
                raise UsageError(
                    f"input {info.name!r}, axis {axis} is {own} in the model, {dim} was asked for",
                    mend=f"give {own}, or save the model with an open size (None) there",
                )
        return asked
    unsized = [axis for axis, size in enumerate(info.shape) if size is None and axis > 0]
    if unsized and example is None:
        shown = "x".join("?" if size is None else str(size) for size in info.shape)
        wanted = show_sizes("1..8..32" if axis == 0 else "1..64..128" for axis in range(len(info.shape)))
        raise UsageError(
            f"input {info.name!r} is {shown}, and nobody said how large axes {', '.join(map(str, unsized))} are",
            mend=f"give sizes or ranges, such as --shapes {info.name}={wanted}",
        )
    own_sizes = example.shape if example is not None else info.shape
    return Shape(
        tuple(
            Dim.fixed(own) if own is not None else batch if axis == 0 else Dim.fixed(int(own_sizes[axis] or 0))
            for axis, own in enumerate(info.shape)
        )
    )
