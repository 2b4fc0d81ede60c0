"""Operators that have sizes and places of the axis written down: Expand, Slice, Resize, Squeeze."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.dynamic.edit import Blocked, Editor, input_of
from enginery.graph.dynamic.facts import PROBES, varies

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["mend_expand", "mend_resize", "mend_slice", "mend_squeeze", "size_of"]


_NO_END = np.iinfo(np.int64).max


def mend_expand(node: ir.Node, edit: Editor) -> str:
    """A size that is the axis's own is left to it, and what is repeated already is repeated from one slice."""
    data, sizes = edit.facts.of(input_of(node, 0)), edit.facts.of(input_of(node, 1)).data
    known = [at for at in sizes if at is not None]
    if len(known) < len(sizes) or len({len(at) for at in known}) > 1:
        return ""
    written = np.array(known)
    count = written.shape[1]
    done, new = [], written[0].copy()
    for place, size in enumerate(written[0].tolist()):
        dim = data.dim(place - count)
        follows = len(set(written[:PROBES, place].tolist())) > 1
        if varies(dim) and size == dim[0] and size != 1 and len(set(written[:, place].tolist())) == 1:
            new[place] = 1
        elif follows and size == dim[0] and size != 1 and not varies(dim):
            axis = place - count + len(data.shapes[0] or ())
            node.replace_input_with(0, edit.thin(node, 0, axis))
            done.append(f"one slice along axis {axis} is repeated")
    if not np.array_equal(new, written[0]):
        node.replace_input_with(1, edit.constant(node, new, "sizes"))
        done.append(f"expands to {new.tolist()} instead of {written[0].tolist()}")
    return ", ".join(done)


def mend_slice(node: ir.Node, edit: Editor) -> str:
    """A slice that ends where the axis ended ends where it ends now."""
    data = edit.facts.of(input_of(node, 0))
    parts = [_part(node, edit, name, place) for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)]
    starts, ends = parts[0], parts[1]
    if starts is None or ends is None:
        return ""
    axes = parts[2] if parts[2] is not None else np.arange(len(starts))
    steps = parts[3] if parts[3] is not None else np.ones(len(starts), np.int64)
    new = ends.copy()
    for place, axis in enumerate(axes):
        dim = data.dim(int(axis))
        if varies(dim) and starts[place] == 0 and steps[place] > 0 and (dim[0] or 0) <= ends[place] < _NO_END // 2:
            new[place] = _NO_END
    if np.array_equal(new, ends):
        return ""
    if "ends" in node.attributes:
        import onnx_ir as ir

        node.attributes["ends"] = ir.AttrInt64s("ends", new.tolist())
    else:
        node.replace_input_with(2, edit.constant(node, new.astype(np.int64), "ends"))
        for index in (1, 3, 4):  # starts, axes and steps have the type of the ends
            value = node.inputs[index] if index < len(node.inputs) else None
            array = edit.facts.of(value).data[0] if value is not None else None
            if array is not None and array.dtype != np.int64:
                node.replace_input_with(index, edit.constant(node, array.astype(np.int64), "part"))
    return f"ends {ends.tolist()} are now the end of the axis"


def _part(node: ir.Node, edit: Editor, name: str, place: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
    """Read a part of a Slice, an attribute before opset 10; None where it is not given, or differs between probes."""
    if name in node.attributes:
        return np.array(node.attributes[name].as_ints(), np.int64)
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None or edit.facts.of(value).moves:
        return None
    array = edit.facts.of(value).data[0]
    return None if array is None else array.astype(np.int64)


def mend_resize(node: ir.Node, edit: Editor) -> str:
    """Sizes written down become as many times the input's own as they were, where that is a whole number of times."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else None  # noqa: PLR2004 - x, region, scales, sizes
    written = edit.facts.of(sizes).data if sizes is not None else (None,)
    source, first = input_of(node, 0), written[0]
    if sizes is None or first is None:
        return ""
    axes = node.attributes["axes"].as_ints() if "axes" in node.attributes else range(edit.facts.of(source).rank)
    parts, done = [], []
    for place, axis in enumerate(axes):
        dim = edit.facts.of(source).dim(axis)
        still = all(at is not None and at[place] == first[place] for at in written)
        ratio = Fraction(int(first[place]), dim[0] or 1)
        if still and varies(dim) and 1 in (ratio.numerator, ratio.denominator):
            done.append(f"size {first[place]} is now {ratio} of the input's along axis {axis}")
            parts.append(edit.scale(node, size_of(node, edit, source, axis, "own_size"), ratio))
        else:
            parts.append(size_of(node, edit, sizes, place, "old_size", shape=False))
    if done:
        node.replace_input_with(3, edit.insert(node, "Concat", parts, "sizes", axis=0))
    return ", ".join(done)


def size_of(node: ir.Node, edit: Editor, value: ir.Value, place: int, role: str, *, shape: bool = True) -> ir.Value:
    """Take one size, as an int64 of shape [1], from a value's shape, or from sizes."""
    if shape:
        value = edit.insert(node, "Shape", [value], "shape")
    return edit.insert(node, "Gather", [value, edit.constant(node, np.array([place]), "place")], role, axis=0)


def mend_squeeze(node: ir.Node, edit: Editor) -> str:
    """An axis that shall vary cannot be removed."""
    data = edit.facts.of(input_of(node, 0))
    axes = _part(node, edit, "axes", 1)
    for axis in data.varying():
        size = data.dim(axis)[0]
        rank = len(data.shapes[0] or ())
        if size == 1 and (axes is None or axis in [int(other) % rank for other in axes]):
            raise Blocked(f"it removes axis {axis}, whose size was 1")
    return ""
