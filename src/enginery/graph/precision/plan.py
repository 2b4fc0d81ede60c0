"""Which precision each node computes in: uniform plans, and what a quantised graph already says."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import all_nodes
from enginery.graph.passes.base import constant_value
from enginery.spec import QUANTISED, PrecisionPlan, check_precision

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_plan", "check_quantised", "make_plan", "quantised_nodes"]

_QUANTISED = "its inputs are quantised in the graph"
_CALIBRATE = "give recorded inputs to calibrate with: --calibration PATH, or calibration=... in Python"
_SHOWN = 3


def make_plan(model: ir.Model, precision: str, *, rest: str = "fp32") -> PrecisionPlan:
    """Give every node of a graph the same precision; in a quantised graph, name the nodes that are int8.

    Args:
        model: the graph; not changed.
        precision: one of `enginery.spec.PRECISIONS`.
        rest: for ``int8`` and ``fp8``, the precision of the nodes that are not quantised: ``fp32`` or ``fp16``.

    Raises:
        UnknownNameError: there is no such precision.
        GraphError: int8 or fp8 was asked for, and nothing in the graph is quantised.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, [3])
        >>> graph = ir.Graph([x], [], nodes=[ir.node("Relu", [x])], opset_imports={"": 20})
        >>> make_plan(ir.Model(graph, ir_version=10), "fp16").of("any")
        'fp16'
    """
    check_precision(precision)
    if precision not in QUANTISED:
        return PrecisionPlan(precision)
    nodes = quantised_nodes(model)
    if not nodes:
        raise GraphError(f"{precision} was asked for, and the graph has no QuantizeLinear nodes", mend=_CALIBRATE)
    return PrecisionPlan(rest, dict.fromkeys(nodes, precision), dict.fromkeys(nodes, _QUANTISED))


def quantised_nodes(model: ir.Model) -> tuple[str, ...]:
    """Return the names of the nodes that compute on quantised activations: what follows a DequantizeLinear, once each.

    A node whose weights alone are stored in few bits is none of them.
    """
    found = dict.fromkeys(
        node.name
        for node in all_nodes(model)
        if node.op_type not in _QUANTISERS and node.name and any(map(_is_dequantised, node.inputs))
    )
    return tuple(name for name in found if name)


def _is_dequantised(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return False
    return constant_value(producer.inputs[0]) is None


def check_plan(model: ir.Model, plan: PrecisionPlan) -> None:
    """Refuse a plan that names nodes which the graph does not have, or precisions that there are not.

    Raises:
        UnknownNameError: there is no such precision or node; the nearest is suggested.
    """
    for precision in plan.words:
        check_precision(precision)
    known = {node.name for node in all_nodes(model) if node.name}
    if missing := sorted(set(plan.nodes) - known):
        shown = ", ".join(repr(name) for name in missing[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        near = difflib.get_close_matches(missing[0], known, n=1, cutoff=0.5)
        nearest = f"did you mean {near[0]!r}? or " if near else ""
        raise UnknownNameError(
            f"the precision plan names {shown}{more}, which the graph does not have",
            mend=f"{nearest}make the plan from this graph, after it was simplified",
        )


def check_quantised(model: ir.Model, plan: PrecisionPlan) -> None:
    """Raise `GraphError` where a plan has nodes in int8 or fp8, and nothing in the graph quantises what they read.

    One that has int8 or fp8 for all that it does not name needs a graph in which something is quantised.

    Raises:
        UnknownNameError: the plan names a node that the graph does not have.
    """
    check_plan(model, plan)
    quantised = set(quantised_nodes(model))
    if plan.precision in QUANTISED and not quantised:
        message = (
            f"the plan has all nodes that it does not name in {plan.precision}, and nothing quantises what they read"
        )
        raise GraphError(message, mend=_CALIBRATE)
    lacking = [name for name, word in plan.nodes.items() if word in QUANTISED and name not in quantised]
    if lacking:
        shown = ", ".join(lacking[:_SHOWN]) + (f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else "")
        they = "it reads" if len(lacking) == 1 else "they read"
        raise GraphError(
            f"the plan has {shown} in {plan.of(lacking[0])}, and nothing quantises what {they}", mend=_CALIBRATE
        )


_QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
