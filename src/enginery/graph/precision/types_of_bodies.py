"""The types of all tensors, those of subgraphs among them, which often do not say what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.base import is_op
from enginery.graph.precision.slots import has_type

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["infer_types"]


def infer_types(model: ir.Model) -> str:
    """Write the type of every tensor that follows from the graph's inputs, in place.

    The inputs of the bodies of ``Loop`` and ``Scan`` take theirs from what the node is given; then what follows from
    them is inferred again, until nothing new is found.

    Returns:
        Why nothing could be inferred; empty where it worked.
    """
    while True:
        if problem := infer_shapes(model):
            return problem
        if not sum(_give_types(node) for node in all_nodes(model) if is_op(node, "Loop", "Scan")):
            return ""


def _give_types(node: ir.Node) -> int:
    """Hand types from a node's inputs to those of its body; return how many were not known."""
    body = node.attributes["body"].as_graph()
    count = 0
    for outer, inner in zip(node.inputs, body.inputs, strict=False):  # an older Scan has one input more
        if outer is not None and outer.type is not None and has_type(outer) and not has_type(inner):
            inner.type = outer.type
            count += 1
    return count
