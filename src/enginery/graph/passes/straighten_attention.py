"""Bring attention into the one form that compilers know: three projections, Reshape, Transpose, MatMul, Softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, replace_node
from enginery.graph.passes.movements import UnknownMovementError, back_to_source, moved, scalar_factor
from enginery.graph.passes.projections import Projection, projection_after, projection_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["StraightenAttention"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_RANK = 4
_HEADS_FIRST = (0, 2, 1, 3)
_TRANSPOSED = (0, 2, 3, 1)
_PROBES = ((2, 5), (3, 7))
"""Sizes for a batch and a length that the graph leaves open: two pairs, so that no size is taken for another."""


class StraightenAttention(Pass):
    """Write ``softmax(q k + mask) v`` with q, k and v straight from the tensor that they are projected from.

    Exporters write what their framework's code did: sequence first, one projection cut in three, heads merged with the
    batch and parted again, shapes computed at run time, both q and k scaled. Each operand is followed back to its
    projection, and where the numbers go is found by moving counted ones; where that is the common layout, the operand
    becomes ``Transpose(Reshape(x W + b))``, with all scales of q, k and their product in the weights that make q, and
    likewise the way from the heads to the projection behind them. The guard ``Where(IsNaN(p), 0, p)`` goes where no
    mask makes a row of p NaN.
    """

    name = "straighten attention"

    def requires(self, model: ir.Model) -> bool:
        """There must be a Softmax."""
        return any(is_op(node, "Softmax") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Rewrite each attention whose parts are all found."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if is_op(node, "Softmax") and node.graph is not None and (found := _find(node)) is not None:
                changed |= _rewrite(found)
        return changed


@dataclass(frozen=True)
class _Operand:
    """An operand of one of the two products, and the projection it comes from.

    Args:
        projection: of the tensor x.
        first: the projection's first column that is read.
        heads, size: how many heads, and how wide.
        order: how (batch, length, heads, size) is transposed.
        factor: what it is multiplied with.
        straight: whether it is written as it should be.
    """

    projection: Projection
    first: int
    heads: int
    size: int
    order: tuple[int, ...]
    factor: float
    straight: bool


@dataclass(frozen=True)
class _Attention:
    scores: ir.Node
    scale: ir.Node | None
    context: ir.Node
    weights: ir.Value
    q: _Operand
    k: _Operand
    v: _Operand


def _find(softmax: ir.Node) -> _Attention | None:
    """Find both products around a Softmax, and where their operands come from."""
    product, context = _scores(softmax.inputs[0]), _context(softmax.outputs[0])
    scores, scale = product if product is not None else (None, None)
    if scores is None or context is None or softmax.attributes.get_int("axis", -1) not in {-1, _RANK - 1}:
        return None
    q = _operand(scores.inputs[0], (_HEADS_FIRST,))
    k = _operand(scores.inputs[1], (_TRANSPOSED,))
    v = _operand(context.inputs[1], (_HEADS_FIRST,))
    if q is None or k is None or v is None or v.factor != 1 or (q.heads, q.size) != (k.heads, k.size):
        return None
    return _Attention(scores, scale, context, softmax.outputs[0], q, k, v)


def _scores(value: ir.Value | None) -> tuple[ir.Node, ir.Node | None] | None:
    """Return the product of q and k before a Softmax, behind the mask and a scale, and that scale."""
    node = None if value is None else value.producer()
    if node is not None and is_op(node, "Add"):
        found = [_scaled_product(given) for given in node.inputs]
        return next((one for one in found if one is not None), None)
    return _scaled_product(value)


def _scaled_product(value: ir.Value | None) -> tuple[ir.Node, ir.Node | None] | None:
    """Return a MatMul and the node that scales it, if any."""
    node, scale = None if value is None else value.producer(), None
    if node is not None and (scaled := scalar_factor(node)) is not None:
        node, scale = scaled[0].producer(), node
    return (node, scale) if node is not None and is_op(node, "MatMul") else None


def _context(value: ir.Value) -> ir.Node | None:
    """Return the product with v behind a Softmax, or behind the guard behind it."""
    users = {use.node for use in value.uses()}
    if len(users) == 2:  # noqa: PLR2004 - IsNaN and Where
        guard = next((node for node in users if is_op(node, "Where")), None)
        if guard is None or not _is_needless_guard(guard, value):
            return None
        value, users = guard.outputs[0], {use.node for use in guard.outputs[0].uses()}
    if len(users) != 1 or value.is_graph_output():
        return None
    node = next(iter(users))
    return node if is_op(node, "MatMul") and node.inputs[0] is value else None


def _is_needless_guard(where: ir.Node, weights: ir.Value) -> bool:
    """Say whether ``Where(IsNaN(p), 0, p)`` never takes the 0: all of the mask before p's Softmax is finite."""
    asks, zero = where.inputs[0], constant_value(where.inputs[1])
    isnan, softmax = None if asks is None else asks.producer(), weights.producer()
    if isnan is None or not is_op(isnan, "IsNaN") or isnan.inputs[0] is not weights or where.inputs[2] is not weights:
        return False
    if zero is None or np.any(zero != 0) or softmax is None:
        return False
    add = None if softmax.inputs[0] is None else softmax.inputs[0].producer()
    if add is None or not is_op(add, "Add"):
        return True
    masks = [value for value in add.inputs if _scaled_product(value) is None]
    return len(masks) == 1 and _is_finite(masks[0])


def _is_finite(mask: ir.Value | None) -> bool:
    """Say whether a mask is a finite constant or picks from finite ones."""
    array, node = constant_value(mask), None if mask is None else mask.producer()
    if array is not None:
        return bool(np.isfinite(array).all())
    return node is not None and is_op(node, "Where") and all(_is_finite(value) for value in node.inputs[1:])


def _operand(value: ir.Value | None, orders: tuple[tuple[int, ...], ...]) -> _Operand | None:
    if value is None or value.shape is None or len(value.shape) != _RANK:
        return None
    source, path, factor = back_to_source(value)
    for projection in projection_of(source):
        found = [_layout(value, projection, probe, orders) for probe in _PROBES]
        if found[0] is None or found[0] != found[1]:
            continue
        first, heads, size, order = found[0]
        straight = (
            [node.op_type for node in path] == ["Reshape", "Transpose"]
            and constant_value(path[0].inputs[1]) is not None
            and projection.is_plain
            and heads * size == projection.columns
        )
        return _Operand(projection, first, heads, size, order, factor, straight)
    return None


def _layout(
    value: ir.Value, projection: Projection, probe: tuple[int, int], orders: tuple[tuple[int, ...], ...]
) -> tuple[int, int, int, tuple[int, ...]] | None:
    """Find from which columns an operand is read, how it is cut in heads and transposed; None if otherwise."""
    counted = projection.counted(probe)
    if counted is None:
        return None
    known = projection.known(counted)
    try:
        result = moved(value, known)
    except UnknownMovementError:
        return None
    batch, length, columns = counted.shape
    for order in orders:
        if result.ndim != _RANK:
            return None
        sizes = tuple(result.shape[order.index(axis)] for axis in range(_RANK))
        first, width = int(result.flat[0]), sizes[2] * sizes[3]
        if sizes[:2] != (batch, length) or first + width > columns:
            continue
        expected = counted[:, :, first : first + width].reshape(sizes).transpose(order)
        if np.array_equal(result, expected):
            return first, sizes[2], sizes[3], order
    return None


def _rewrite(found: _Attention) -> bool:
    """Write what is not straight; say whether anything was."""
    changed = False
    factor = found.q.factor * found.k.factor * _take_scale(found)
    if not found.q.straight or factor != 1:
        _replace(found.scores, 0, found.q, factor)
        changed = True
    if not found.k.straight or found.k.factor != 1:
        _replace(found.scores, 1, found.k, 1.0)
        changed = True
    if not found.v.straight:
        _replace(found.context, 1, found.v, 1.0)
        changed = True
    if found.context.inputs[0] is not found.weights:
        found.context.replace_input_with(0, found.weights)
        changed = True
    return _straighten_output(found) or changed


def _take_scale(found: _Attention) -> float:
    """Remove the scale behind the product where nothing else reads the product, and return it."""
    scale, product = found.scale, found.scores.outputs[0]
    scaled = None if scale is None else scalar_factor(scale)
    if scale is None or scaled is None or len(product.uses()) != 1 or product.is_graph_output():
        return 1.0
    return scaled[1] if replace_node(scale, product) else 1.0


def _replace(node: ir.Node, index: int, operand: _Operand, factor: float) -> None:
    """Give a product an operand that comes straight from its projection, with a factor in the weights.

    Compilers fuse attention with a mask only where nothing stands between the projection and the product.
    """
    import onnx_ir as ir

    graph, projection = node.graph, operand.projection
    if graph is None:
        return
    tape = ir.tape.Tape()
    width = operand.heads * operand.size
    made = projection.write(tape, slice(operand.first, operand.first + width), factor=factor)
    shape = _constant(tape, np.array([0, 0, operand.heads, operand.size], np.int64))
    made = tape.op("Transpose", [tape.op("Reshape", [made, shape])], {"perm": list(operand.order)})
    old = node.inputs[index]
    if old is not None:
        made.shape, made.type = old.shape, old.type
    _insert(graph, node, tape, projection.node)
    node.replace_input_with(index, made)


def _straighten_output(found: _Attention) -> bool:
    """Write the way from the heads to the projection behind them as Transpose, Reshape, MatMul and Add."""
    import onnx_ir as ir

    behind = projection_after(found.context.outputs[0])
    graph = found.context.graph
    if behind is None or behind.is_straight or graph is None:
        return False
    if not all(_joins_heads(found, behind, probe) for probe in _PROBES):
        return False
    tape = ir.tape.Tape()
    heads = tape.op("Transpose", [found.context.outputs[0]], {"perm": list(_HEADS_FIRST)})
    joined = tape.op("Reshape", [heads, _constant(tape, np.array([0, 0, behind.projection.rows], np.int64))])
    made = behind.projection.write(tape, slice(None), joined)
    old = behind.result
    made.shape, made.type = old.shape, old.type
    _insert(graph, behind.first, tape, behind.projection.node)
    ir.convenience.replace_all_uses_with(old, made)
    return True


def _joins_heads(found: _Attention, behind: Any, probe: tuple[int, int]) -> bool:
    """Say whether each row that is projected is all heads of one place, and ends at that place."""
    counted = found.v.projection.counted(probe)
    if counted is None or behind.projection.rows != behind.projection.columns:
        return False
    batch, length, _ = counted.shape
    width = found.v.heads * found.v.size
    rows = np.arange(batch * length * width).reshape(batch, length, width)
    heads = rows.reshape(batch, length, found.v.heads, found.v.size).transpose(_HEADS_FIRST)
    known = {found.context.outputs[0]: heads}
    try:
        projected = moved(behind.projection.source, known)
        known[behind.projection.node.outputs[0]] = projected
        result = moved(behind.result, known)
    except UnknownMovementError:
        return False
    lines = projected.reshape(-1, projected.shape[-1])
    whole = projected.shape[-1] == width and np.array_equal(lines, lines[:, :1] + np.arange(width))
    return bool(whole and np.array_equal(result, rows))


def _constant(tape: Any, array: Array) -> ir.Value:
    import onnx_ir as ir

    value: ir.Value = tape.op("Constant", [], {"value": ir.tensor(array)})
    return value


def _insert(graph: Any, before: ir.Node, tape: Any, like: ir.Node) -> None:
    """Insert what a tape holds, as parts of the module that a node came from."""
    for node in tape.nodes:
        node.metadata_props.update(like.metadata_props)
    graph.insert_before(before, list(tape.nodes))
