"""Operands of one operator that must have one size along the axis: broadcast, joined, or states of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.dynamic.edit import Blocked, Editor, input_of
from enginery.graph.dynamic.facts import varies
from enginery.graph.passes.base import constant_value

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["mend_along", "mend_concat", "mend_gemm", "mend_matmul", "mend_operands", "mend_recurrent"]


def mend_operands(node: ir.Node, edit: Editor, places: Sequence[int] | None = None, skip: int = 0) -> str:
    """Let operands that repeat one slice along the axis, as often as it was long, be broadcast instead.

    Args:
        node: reads operands that are broadcast against each other.
        edit: makes the changes.
        places: of the operands; all inputs by default.
        skip: how many of the last axes are not broadcast.
    """
    done = []
    chosen = [i for i in (range(len(node.inputs)) if places is None else places) if i < len(node.inputs)]
    facts = {i: edit.facts.of(value) for i in chosen if (value := node.inputs[i]) is not None}
    for from_end in range(skip + 1, 1 + max((fact.rank for fact in facts.values()), default=0)):
        dims = {i: fact.dim(-from_end) for i, fact in facts.items() if fact.rank >= from_end}
        varying = next((dim for dim in dims.values() if varies(dim)), None)
        for i, dim in dims.items():
            if varying is None or varies(dim) or dim[0] in (1, None):
                continue
            if dim[0] != varying[0]:
                name = input_of(node, i).name
                raise Blocked(f"its input {name!r} has size {dim[0]} where another has {varying[0]}")
            done.append(_follow(node, edit, i, facts[i].rank - from_end, varying))
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


def mend_matmul(node: ir.Node, edit: Editor) -> str:
    """Operands are broadcast along all axes but the last two."""
    return mend_operands(node, edit, skip=2)


def mend_gemm(node: ir.Node, edit: Editor) -> str:
    """The bias of a Gemm may have been repeated for every row."""
    if len(node.inputs) < 3 or node.inputs[2] is None or edit.facts.of(node.inputs[2]).rank < 2:  # noqa: PLR2004
        return ""
    rows = edit.facts.of(input_of(node, 0)).dim(1 if node.attributes.get_int("transA", 0) else 0)
    bias = edit.facts.of(node.inputs[2]).dim(0)
    return _follow(node, edit, 2, 0, rows) if varies(rows) and not varies(bias) and bias[0] != 1 else ""


def mend_concat(node: ir.Node, edit: Editor) -> str:
    """Inputs that do not follow the axis are repeated along it."""
    rank = max((edit.facts.of(value).rank for value in node.inputs if value is not None), default=0)
    joined = node.attributes.get_int("axis", 0) % max(rank, 1)
    done = [_stretch_all(node, edit, range(len(node.inputs)), axis) for axis in range(rank) if axis != joined]
    return ", ".join(said for said in done if said)


def _stretch_all(node: ir.Node, edit: Editor, places: Sequence[int], axis: int) -> str:
    """Give all of these inputs one size along an axis, where one of them varies there."""
    values = {i: node.inputs[i] for i in places if i < len(node.inputs)}
    dims = {i: edit.facts.of(value).dim(axis) for i, value in values.items() if value is not None}
    varying = next((dim for dim in dims.values() if varies(dim)), None)
    if varying is None:
        return ""
    still = [i for i, dim in dims.items() if not varies(dim) and dim[0] == varying[0]]
    return ", ".join(edit.stretch(node, i, axis, varying) for i in still)


def mend_along(node: ir.Node, edit: Editor) -> str:
    """Indices (and updates) have the size of the data along every axis but the operator's own."""
    rank = edit.facts.of(input_of(node, 0)).rank
    own = node.attributes.get_int("axis", 0) % max(rank, 1)
    done = [_stretch_all(node, edit, range(len(node.inputs)), axis) for axis in range(rank) if axis != own]
    return ", ".join(said for said in done if said)


def mend_recurrent(node: ir.Node, edit: Editor) -> str:
    """Initial states have one row for each row of the batch; lengths that say "all of it" are left out."""
    rows = node.attributes.get_int("layout", 0) == 1
    data = edit.facts.of(input_of(node, 0))
    batch, steps = data.dim(0 if rows else 1), data.dim(1 if rows else 0)
    done = []
    lengths = node.inputs[4] if len(node.inputs) > 4 else None  # noqa: PLR2004 - x, w, r, bias, lengths
    if lengths is not None and (varies(batch) or varies(steps)):
        array = constant_value(lengths)
        if array is not None and bool(np.all(array == steps[0])):
            node.replace_input_with(4, None)
            done.append("the lengths, all of them the longest, are left out")
    for index in (5, 6):
        state = node.inputs[index] if index < len(node.inputs) else None
        axis = 0 if rows else 1
        if state is not None and varies(batch) and not varies(edit.facts.of(state).dim(axis)):
            done.append(edit.stretch(node, index, axis, batch))
    return ", ".join(done)
