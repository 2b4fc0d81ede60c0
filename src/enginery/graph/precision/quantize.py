"""Put QuantizeLinear and DequantizeLinear nodes into a graph: static INT8, with ranges seen on recorded inputs.

Every input of a node that shall read INT8 stands behind such a pair: of an activation one pair for all these readers,
of a weight a DequantizeLinear alone, behind the quantised numbers. Other readers read what they did, so the nodes of
a plan are INT8 and no others. What differs between backends is the form of the numbers, see `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import Ranges, all_nodes, convert_opset
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.base import is_op
from enginery.graph.precision.calibrate import calibrate
from enginery.graph.precision.forms import FORMS
from enginery.graph.precision.quantisable import OPERATORS, QUANTISERS, nothing_to_quantise, quantisable
from enginery.graph.precision.quantiser import Quantiser

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

__all__ = ["quantize"]

_LOWEST_OPSET = 13  # the first with scales per channel


def quantize(
    model: ir.Model,
    batches: Iterable[Feeds] | Ranges,
    *,
    nodes: Iterable[str] | None = None,
    method: str = "minmax",
    form: str = "symmetric",
    exclude: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> ir.Model:
    """Return a graph some of whose nodes read INT8; see `enginery.graph.base.quantize`."""
    if form not in FORMS:
        raise UnknownNameError.from_choices("form", form, FORMS)
    _check_graph(model)
    version = model.opset_imports.get("", 1)
    needed = FORMS[form].lowest_opset
    copy = model.clone() if version >= needed else convert_opset(model, needed)
    infer_shapes(copy)
    chosen = _choose(copy, nodes, exclude, few_depthwise=FORMS[form].few_depthwise)
    ranges = batches if isinstance(batches, Ranges) else calibrate(model, batches, method=method)
    if not quantisable(copy):
        raise nothing_to_quantise(copy)
    counted = Quantiser(copy, ranges, FORMS[form]).run(chosen)
    if chosen and not any(is_op(node, "DequantizeLinear") for node in all_nodes(copy)):
        raise GraphError(f"no matrix product of the graph has a weight for {form}", mend="leave --weight-bits out")
    if say is not None:
        by = f", by {ranges.method} over {ranges.batches} batches" if ranges.batches else ""  # weights alone need none
        say(f"quantised {counted}{by}")
    return copy


def _check_graph(model: ir.Model) -> None:
    if any(is_op(node, *QUANTISERS) for node in all_nodes(model)):
        raise GraphError("the graph is quantised already", mend="give the graph as it was before")
    if (version := model.opset_imports.get("", 1)) < _LOWEST_OPSET:
        mend = f"convert it first: enginery export MODEL -o converted.onnx --opset {_LOWEST_OPSET}"
        raise GraphError(f"the graph has opset {version}, and scales per channel came with {_LOWEST_OPSET}", mend=mend)


def _choose(
    model: ir.Model, nodes: Iterable[str] | None, exclude: Sequence[str], *, few_depthwise: bool
) -> list[ir.Node]:
    """Return the nodes that shall read INT8, in the graph's order.

    Raises:
        UnknownNameError: the graph has no node of a name.
        GraphError: a node cannot read INT8.
    """
    able = {node.name or "": node for node in quantisable(model)}
    named = [node.name or "" for node in quantisable(model, few_depthwise=few_depthwise)] if nodes is None else nodes
    asked = list(named)
    known = {node.name or "": node for node in all_nodes(model)}
    for name in (*asked, *exclude):
        if name not in known:
            raise UnknownNameError.from_choices("node", name, known)
    if wrong := [name for name in asked if name not in able]:
        kinds = ", ".join(OPERATORS)
        message = f"node {wrong[0]!r} ({known[wrong[0]].op_type}) cannot read INT8"
        mend = f"take it out of the plan; what can: {kinds} in float32, and sums behind convolutions"
        raise GraphError(message, mend=mend)
    taken = set(asked) - set(exclude)
    return [node for name, node in able.items() if name in taken]
