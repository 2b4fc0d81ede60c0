"""What has the old size of an axis written into it, operator by operator, and how that is mended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.dynamic.edit import Blocked, Editor
from enginery.graph.dynamic.facts import PROBES, Array
from enginery.graph.dynamic.reshape import mend_reshape
from enginery.graph.passes.base import constant_value

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MENDS", "Mend"]

Mend = Callable[["ir.Node", Editor], str]
"""Changes one node so that it follows the axis; returns what was done, empty for nothing. Raises `Blocked`."""

_NO_END = np.iinfo(np.int64).max


def _broadcast(node: ir.Node, edit: Editor, places: Sequence[int] | None = None, skip: int = 0) -> str:
    """Let operands that repeat one slice along the axis, as often as it was long, be broadcast instead.

    Args:
        node: reads operands that are broadcast against each other.
        edit: makes the changes.
        places: of the operands; all inputs by default.
        skip: how many of the last axes are not broadcast.
    """
    done = []
    chosen = [i for i in (range(len(node.inputs)) if places is None else places) if i < len(node.inputs)]
    values = {i: value for i in chosen if (value := node.inputs[i]) is not None}
    for from_end in range(skip + 1, 1 + max((_rank(edit, value) for value in values.values()), default=0)):
        dims = {i: edit.facts.of(value).dim(-from_end) for i, value in values.items() if _rank(edit, value) >= from_end}
        varying = next((dim for dim in dims.values() if _varies(dim)), None)
        for i, dim in dims.items():
            value = node.inputs[i]
            if varying is None or value is None or _varies(dim) or dim[0] in (1, None):
                continue
            if dim[0] != varying[0]:
                raise Blocked(f"its input {value.name!r} has size {dim[0]} where another has {varying[0]}")
            done.append(_follow(node, edit, i, _rank(edit, value) - from_end, varying))
    return ", ".join(done)


def _follow(node: ir.Node, edit: Editor, index: int, axis: int, dim: Sequence[int | None]) -> str:
    """Let one operand be broadcast along an axis, or count on along it."""
    value = node.inputs[index]
    try:
        node.replace_input_with(index, edit.thin(node, index, axis))
    except Blocked:
        said = edit.count_on(node, index, axis, dim)
        if not said:
            raise
        return said
    return f"{value.name if value is not None else ''!r} is broadcast along axis {axis}"


def _matmul(node: ir.Node, edit: Editor) -> str:
    return _broadcast(node, edit, skip=2)


def _gemm(node: ir.Node, edit: Editor) -> str:
    """The bias of a Gemm may have been repeated for every row."""
    if len(node.inputs) < 3 or node.inputs[2] is None or _rank(edit, node.inputs[2]) < 2:  # noqa: PLR2004
        return ""
    rows = edit.facts.of(_input(node, 0)).dim(1 if node.attributes.get_int("transA", 0) else 0)
    bias = edit.facts.of(node.inputs[2]).dim(0)
    return _follow(node, edit, 2, 0, rows) if _varies(rows) and not _varies(bias) and bias[0] != 1 else ""


def _concat(node: ir.Node, edit: Editor) -> str:
    """Inputs that do not follow the axis are repeated along it."""
    rank = max((_rank(edit, value) for value in node.inputs if value is not None), default=0)
    joined = node.attributes.get_int("axis", 0) % max(rank, 1)
    done = [_stretch_all(node, edit, range(len(node.inputs)), axis) for axis in range(rank) if axis != joined]
    return ", ".join(said for said in done if said)


def _stretch_all(node: ir.Node, edit: Editor, places: Sequence[int], axis: int) -> str:
    """Give all of these inputs one size along an axis, where one of them varies there."""
    values = {i: node.inputs[i] for i in places if i < len(node.inputs)}
    dims = {i: edit.facts.of(value).dim(axis) for i, value in values.items() if value is not None}
    varying = next((dim for dim in dims.values() if _varies(dim)), None)
    if varying is None:
        return ""
    still = [i for i, dim in dims.items() if not _varies(dim) and dim[0] == varying[0]]
    return ", ".join(edit.stretch(node, i, axis, varying) for i in still)


def _along(node: ir.Node, edit: Editor) -> str:
    """Indices (and updates) have the size of the data along every axis but the operator's own."""
    rank = _rank(edit, _input(node, 0))
    own = node.attributes.get_int("axis", 0) % max(rank, 1)
    done = [_stretch_all(node, edit, range(len(node.inputs)), axis) for axis in range(rank) if axis != own]
    return ", ".join(said for said in done if said)


def _recurrent(node: ir.Node, edit: Editor) -> str:
    """Initial states have one row for each row of the batch; lengths that say "all of it" are left out."""
    rows = node.attributes.get_int("layout", 0) == 1
    data = edit.facts.of(_input(node, 0))
    batch, steps = data.dim(0 if rows else 1), data.dim(1 if rows else 0)
    done = []
    lengths = node.inputs[4] if len(node.inputs) > 4 else None  # noqa: PLR2004 - x, w, r, bias, lengths
    if lengths is not None and (_varies(batch) or _varies(steps)):
        array = constant_value(lengths)
        if array is not None and bool(np.all(array == steps[0])):
            node.replace_input_with(4, None)
            done.append("the lengths, all of them the longest, are left out")
    for index in (5, 6):
        state = node.inputs[index] if index < len(node.inputs) else None
        axis = 0 if rows else 1
        if state is not None and _varies(batch) and not _varies(edit.facts.of(state).dim(axis)):
            done.append(edit.stretch(node, index, axis, batch))
    return ", ".join(done)


def _expand(node: ir.Node, edit: Editor) -> str:
    """A size that is the axis's own is left to it, and what is repeated already is repeated from one slice."""
    data, sizes = edit.facts.of(_input(node, 0)), edit.facts.of(_input(node, 1)).data
    known = [at for at in sizes if at is not None]
    if len(known) < len(sizes) or len({len(at) for at in known}) > 1:
        return ""
    written = np.array(known)
    count = written.shape[1]
    done, new = [], written[0].copy()
    for place, size in enumerate(written[0].tolist()):
        dim = data.dim(place - count)
        follows = len(set(written[:PROBES, place].tolist())) > 1
        if _varies(dim) and size == dim[0] and size != 1 and len(set(written[:, place].tolist())) == 1:
            new[place] = 1
        elif follows and size == dim[0] and size != 1 and not _varies(dim):
            axis = place - count + len(data.shapes[0] or ())
            node.replace_input_with(0, edit.thin(node, 0, axis))
            done.append(f"one slice along axis {axis} is repeated")
    if not np.array_equal(new, written[0]):
        node.replace_input_with(1, edit.constant(node, new, "sizes"))
        done.append(f"expands to {new.tolist()} instead of {written[0].tolist()}")
    return ", ".join(done)


def _slice(node: ir.Node, edit: Editor) -> str:
    """A slice that ends where the axis ended ends where it ends now."""
    data = edit.facts.of(_input(node, 0))
    parts = [_part(node, edit, name, place) for place, name in enumerate(("starts", "ends", "axes", "steps"), 1)]
    starts, ends = parts[0], parts[1]
    if starts is None or ends is None:
        return ""
    axes = parts[2] if parts[2] is not None else np.arange(len(starts))
    steps = parts[3] if parts[3] is not None else np.ones(len(starts), np.int64)
    new = ends.copy()
    for place, axis in enumerate(axes):
        dim = data.dim(int(axis))
        if _varies(dim) and starts[place] == 0 and steps[place] > 0 and (dim[0] or 0) <= ends[place] < _NO_END // 2:
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


def _resize(node: ir.Node, edit: Editor) -> str:
    """Sizes written down become as many times the input's own as they were, where that is a whole number of times."""
    sizes = node.inputs[3] if len(node.inputs) > 3 else None  # noqa: PLR2004 - x, region, scales, sizes
    written = edit.facts.of(sizes).data if sizes is not None else (None,)
    source, first = _input(node, 0), written[0]
    if sizes is None or first is None:
        return ""
    axes = node.attributes["axes"].as_ints() if "axes" in node.attributes else range(_rank(edit, source))
    parts, done = [], []
    for place, axis in enumerate(axes):
        dim = edit.facts.of(source).dim(axis)
        still = all(at is not None and at[place] == first[place] for at in written)
        ratio = Fraction(int(first[place]), dim[0] or 1)
        if still and _varies(dim) and 1 in (ratio.numerator, ratio.denominator):
            done.append(f"size {first[place]} is now {ratio} of the input's along axis {axis}")
            parts.append(edit.scale(node, _size_of(node, edit, source, axis, "own_size"), ratio))
        else:
            parts.append(_size_of(node, edit, sizes, place, "old_size", shape=False))
    if done:
        node.replace_input_with(3, edit.insert(node, "Concat", parts, "sizes", axis=0))
    return ", ".join(done)


def _size_of(node: ir.Node, edit: Editor, value: ir.Value, place: int, role: str, *, shape: bool = True) -> ir.Value:
    """Take one size, as an int64 of shape [1], from a value's shape, or from sizes."""
    if shape:
        value = edit.insert(node, "Shape", [value], "shape")
    return edit.insert(node, "Gather", [value, edit.constant(node, np.array([place]), "place")], role, axis=0)


def _squeeze(node: ir.Node, edit: Editor) -> str:
    """An axis that shall vary cannot be removed."""
    data = edit.facts.of(_input(node, 0))
    axes = _part(node, edit, "axes", 1)
    for axis in data.varying():
        size = data.dim(axis)[0]
        rank = len(data.shapes[0] or ())
        if size == 1 and (axes is None or axis in [int(other) % rank for other in axes]):
            raise Blocked(f"it removes axis {axis}, whose size was 1")
    return ""


def _gather(node: ir.Node, edit: Editor) -> str:
    """Indices that count through the whole axis, row after row, count through all of it as it is now."""
    data, known = edit.facts.of(_input(node, 0)), edit.facts.of(_input(node, 1))
    array, dim = known.data[0], data.dim(node.attributes.get_int("axis", 0))
    ratio = edit.ratio(dim)
    if array is None or known.moves or ratio is None or not _varies(dim) or array.size != dim[0] or not array.ndim:
        return ""
    place = next((axis for axis, size in enumerate(array.shape) if size != 1 or edit.sizes[0] == 1), 0)
    if array.shape[place] % edit.sizes[0] or not np.array_equal(array.reshape(-1), np.arange(array.size)):
        return ""
    shape = [-1 if axis == place else size for axis, size in enumerate(array.shape)]
    form = edit.constant(node, np.array(shape), "shape")
    node.replace_input_with(1, edit.insert(node, "Reshape", [edit.counted(node, ratio), form], "counted_on"))
    return f"indices 0 to {array.size - 1} count on to the end of the axis"


def _gather_nd(node: ir.Node, edit: Editor) -> str:
    """Indices that count the places along the axis count to its new size."""
    if node.attributes.get_int("batch_dims", 0):
        return ""
    data, done = edit.facts.of(_input(node, 0)), []
    for part in range(edit.facts.of(_input(node, 1)).dim(-1)[0] or 0):
        indices = _input(node, 1)
        known = edit.facts.of(indices)
        array, dim = known.data[0], data.dim(part)
        if array is None or not _varies(dim) or edit.ratio(dim) != 1:
            continue
        axis = _counting_axis(array[..., part], edit.sizes[0])
        if axis is not None and not _varies(known.dim(axis)):
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
    rank = _rank(edit, indices)
    one = edit.constant(node, np.array([1]), "one")
    sizes = [_size_of(node, edit, indices, a, "old_size") for a in range(rank - 1)]
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


def _varies(dim: Sequence[int | None]) -> bool:
    """Say whether a dimension follows the axis that is made dynamic."""
    own = dim[:PROBES]
    return None not in own and len(set(own)) > 1


def _rank(edit: Editor, value: ir.Value) -> int:
    shape = edit.facts.of(value).shapes[0]
    return len(shape) if shape is not None else 0


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise Blocked(f"its input {index} is left out")
    return value


_BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Where", "Sum", "Mean", "Max", "Min", "And", "Or", "Xor",
    "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip

MENDS: dict[str, Mend] = {
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("GatherElements", "ScatterElements", "Scatter"), _along),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Concat": _concat,
    "Reshape": mend_reshape,
    "Expand": _expand,
    "Slice": _slice,
    "Resize": _resize,
    "Squeeze": _squeeze,
}
"""The mend of each operator of ONNX's own that may have the size of an axis written into it."""
