"""What becomes of a plan in a graph: the precision that each node really takes, and why where that is another one.

A node that the plan wants in fp16 stays in fp32 where ONNX has no such operator, or where it computes sizes. That is
the same for every backend, so it stands in the plan's file: see `enginery.graph.precision.plan_file`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import is_op
from enginery.graph.precision.decide import Types, low_type
from enginery.graph.precision.plan import check_plan
from enginery.graph.precision.prepare import prepared
from enginery.graph.precision.shape_nodes import shape_nodes
from enginery.graph.precision.slots import HOLDERS, SOURCES, castable_slots

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import PrecisionPlan

__all__ = ["settle_plan"]

_FOLLOWERS = (
    *HOLDERS, *SOURCES, "Cast", "CastLike", "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "Shape",
    "Size",
)  # fmt: skip
_FLOATING = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_LOW = ("fp16", "bf16")


def settle_plan(model: ir.Model, plan: PrecisionPlan) -> dict[str, tuple[str, str]]:
    """Return what each node computes in under a plan, with the reason; see `enginery.graph.base.settle_plan`."""
    check_plan(model, plan)
    asked = {low_type(word).name for word in plan.words} - {"FLOAT"}
    if not asked:
        return {node.name: _as_asked(node, plan) for node in all_nodes(model) if node.name and _matters(node, plan)}
    typed = prepared(model, asked, convert=False)  # a backend that takes no types needs no other opset
    types = Types(typed, plan)
    own = {node.name for node in all_nodes(model)}
    sizes = shape_nodes(types.nodes)
    found: dict[str, tuple[str, str]] = {}
    for node in types.nodes:
        if not node.name or node.name not in own or not _matters(node, plan):
            continue
        precision, reason = _as_asked(node, plan)
        takes_it = types.of_node[node] == low_type(precision) or _own_types(node) == {low_type(precision).name}
        if precision in _LOW and not takes_it and not is_op(node, *_FOLLOWERS):
            precision, reason = "fp32", _why_not(node, precision, types.version, in_sizes=node in sizes)
        found[node.name] = precision, reason
    return found


def _as_asked(node: ir.Node, plan: PrecisionPlan) -> tuple[str, str]:
    name = node.name or ""
    return plan.of(name), plan.reasons.get(name, "")


def _matters(node: ir.Node, plan: PrecisionPlan) -> bool:
    """Say whether a node computes on floating-point values, or is named; a type that is not known may be one."""
    if (node.name or "") in plan.nodes:
        return True
    if not node.domain and is_op(node, *_FOLLOWERS):
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return any(value.dtype is None or value.dtype.name in _FLOATING for value in values)


def _own_types(node: ir.Node) -> set[str]:
    """Return the floating-point types of a node's tensors, as the graph has them."""
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.dtype is not None]
    return {value.dtype.name for value in values if value.dtype is not None} & set(_FLOATING)


def _why_not(node: ir.Node, precision: str, version: int, *, in_sizes: bool) -> str:
    """Say why a node stays in float32 where less was asked for."""
    if in_sizes:
        return f"it computes sizes or indices, which {precision} would round"
    if node.domain:
        return f"{node.domain}.{node.op_type} is no operator of ONNX's own, so nothing says that it takes {precision}"
    if (own := _own_types(node)) and "FLOAT" not in own:
        return f"the graph has it in {' and '.join(sorted(own)).lower()}, and only what is float32 is cast"
    inputs, outputs = castable_slots(node, version, low_type(precision))
    if not (inputs or outputs):
        return f"{node.op_type} has nothing that ONNX lets be {precision} here"
    return "it only moves values between places that stay in fp32"
