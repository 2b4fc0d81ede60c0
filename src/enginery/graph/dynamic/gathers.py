"""Indices that count through the axis: they count on to its new size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.dynamic.edit import Editor, input_of
from enginery.graph.dynamic.facts import Array, varies
from enginery.graph.dynamic.sizes import size_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["mend_gather", "mend_gather_nd"]


def mend_gather(node: ir.Node, edit: Editor) -> str:
    """Indices that count through the whole axis, row after row, count through all of it as it is now."""
    data, known = edit.facts.of(input_of(node, 0)), edit.facts.of(input_of(node, 1))
    array, dim = known.data[0], data.dim(node.attributes.get_int("axis", 0))
    ratio = edit.ratio(dim)
    if array is None or known.moves or ratio is None or not varies(dim) or array.size != dim[0] or not array.ndim:
        return ""
    place = next((axis for axis, size in enumerate(array.shape) if size != 1 or edit.sizes[0] == 1), 0)
    if array.shape[place] % edit.sizes[0] or not np.array_equal(array.reshape(-1), np.arange(array.size)):
        return ""
    shape = [-1 if axis == place else size for axis, size in enumerate(array.shape)]
    form = edit.constant(node, np.array(shape), "shape")
    node.replace_input_with(1, edit.insert(node, "Reshape", [edit.counted(node, ratio), form], "counted_on"))
    return f"indices 0 to {array.size - 1} count on to the end of the axis"


def mend_gather_nd(node: ir.Node, edit: Editor) -> str:
    """Indices that count the places along the axis count to its new size."""
    if node.attributes.get_int("batch_dims", 0):
        return ""
    data, done = edit.facts.of(input_of(node, 0)), []
    for part in range(edit.facts.of(input_of(node, 1)).dim(-1)[0] or 0):
        indices = input_of(node, 1)
        known = edit.facts.of(indices)
        array, dim = known.data[0], data.dim(part)
        if array is None or not varies(dim) or edit.ratio(dim) != 1:
            continue
        axis = _counting_axis(array[..., part], edit.sizes[0])
        if axis is not None and not varies(known.dim(axis)):
            node.replace_input_with(1, _recounted(node, edit, indices, part, axis))
            done.append(f"index {part} counts on along axis {axis}")
    return ", ".join(done)


def _counting_axis(array: Array, size: int) -> int | None:
    """Return the axis along which an array counts from 0, and along no other; the first one for a single 0."""
    for axis in range(array.ndim):
        counted = np.arange(size).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
        if array.shape[axis] == size and np.array_equal(array, np.broadcast_to(counted, array.shape)):
            return axis
    return None


def _recounted(node: ir.Node, edit: Editor, indices: ir.Value, part: int, axis: int) -> ir.Value:
    """Write indices anew, one part of which counts along an axis to its new size; the others repeat there."""
    rank = edit.facts.of(indices).rank
    one = edit.constant(node, np.array([1]), "one")
    sizes = [size_of(node, edit, indices, a, "old_size") for a in range(rank - 1)]
    shape = edit.insert(node, "Concat", [*sizes[:axis], edit.size(node), *sizes[axis + 1 :], one], "sizes", axis=0)
    parts = []
    for place in range(edit.facts.of(indices).dim(-1)[0] or 0):
        if place == part:
            form = edit.constant(node, np.array([-1 if a == axis else 1 for a in range(rank)]), "shape")
            found = edit.insert(node, "Reshape", [edit.counted(node), form], "counted_on")
        else:
            found = edit.pick(node, edit.pick(node, indices, place, rank - 1), 0, axis)
        parts.append(edit.insert(node, "Expand", [found, shape], "part"))
    return edit.insert(node, "Concat", parts, "indices", axis=rank - 1)
