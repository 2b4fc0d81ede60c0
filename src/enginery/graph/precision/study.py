"""What a precision may do to each node of a graph, as far as the graph itself tells: constants, and who reads what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from enginery.graph.base import NodeStudy, Study, all_nodes
from enginery.graph.modules import module_parts
from enginery.graph.passes.base import constant_value, is_op
from enginery.graph.precision.convert import Loss, loss_of, range_of
from enginery.graph.precision.decide import Types, low_type
from enginery.graph.precision.prepare import prepared
from enginery.graph.precision.slots import is_float32
from enginery.spec import PrecisionPlan

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["study"]


def study(model: ir.Model, precision: str) -> Study:
    """Look at a graph without running it; see `enginery.graph.base.study`.

    Example:
        >>> import onnx_ir as ir
        >>> text = '''<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
        ... c = Constant<value = float {7e4}>() [mul] a = Mul(x, c) [neg] y = Neg(a)}'''
        >>> found = study(ir.from_onnx_text(text), "fp16")
        >>> found.largest, found.watched, dict(found.nodes[0].losses)
        (65504.0, ('a', 'y'), {'c': Loss(clamped=1, largest=70000.0, vanished=0, subnormal=0)})
    """
    dtype = low_type(precision)
    copy = prepared(model, {dtype.name}, convert=False)
    types, known = Types(copy, PrecisionPlan(precision)), {node.name for node in all_nodes(model)}
    constants = _constants(types)
    losses = {value: loss_of(tensor, dtype) for value, tensor in constants.items()}
    nodes = tuple(_study(node, types.of_node[node] == dtype, losses) for node in types.nodes if _counts(node, known))
    own = {value.name for node in model.graph for value in node.outputs}  # without what a function makes inside
    made = [value for node in copy.graph if _counts(node, known) for value in node.outputs if is_float32(value)]
    largest, normal, smallest = range_of(dtype)
    return Study(
        largest, normal, smallest, nodes,
        watched=tuple(value.name or "" for value in made if value.name in own),
        constants={value.name or "": tuple(map(int, tensor.shape.numpy())) for value, tensor in constants.items()},
    )  # fmt: skip


def _constants(types: Types) -> dict[ir.Value, ir.TensorProtocol]:
    """Return every float32 tensor that always is the same, of those that nodes read."""
    read = {value: None for node in types.nodes for value in node.inputs if value is not None}
    return {value: tensor for value in read if (tensor := _constant(value)) is not None}


def _study(node: ir.Node, lowers: bool, losses: Mapping[ir.Value, Loss]) -> NodeStudy:  # noqa: FBT001 - private
    lost = {value: losses[value] for value in node.inputs if value is not None and value in losses} if lowers else {}
    return NodeStudy(
        name=node.name or "",
        operator=node.op_type,
        module=".".join(module_parts(node)),
        lowers=lowers,
        inputs=tuple((value.name or "") if value is not None else "" for value in node.inputs),
        outputs=tuple(value.name or "" for value in node.outputs if is_float32(value)),
        losses={value.name or "": loss for value, loss in lost.items() if loss != Loss()},
    )


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    import onnx_ir as ir

    if value.is_initializer() and not value.is_graph_input():
        tensor = value.const_value
        return tensor if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None
    node = value.producer()
    if node is None or not is_op(node, "Constant") or not is_float32(value):
        return None
    array = constant_value(value)
    return None if array is None else ir.Tensor(array, name=value.name)


def _counts(node: ir.Node, known: Collection[str | None]) -> bool:
    """Say whether a plan can name a node: what comes out of a function that was inlined it cannot."""
    return bool(node.name) and node.name in known and not is_op(node, "Constant")
