"""One part of a graph as a whole model: its inputs, outputs, initializers, functions, operator sets and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import axis_name
from enginery.graph.infer import infer_shapes
from enginery.graph.parts.dependence import nested_graphs, reads
from enginery.graph.passes.lift_constants import LiftConstants
from enginery.graph.passes.remove_unused import RemoveUnused

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_hand_over", "extract", "working_copy"]


def working_copy(model: ir.Model) -> tuple[ir.Model, str]:
    """Return a copy that can be cut anywhere: nodes in order and named, constants as initializers, shapes inferred.

    An output that is a constant gets an Identity of its own. What no output needs is removed.

    Returns:
        The copy, and why shapes could not be inferred; empty where they could.
    """
    copy = model.clone()
    LiftConstants().apply(copy)
    for graph in copy.graphs():
        graph.sort()
    _make_outputs(copy)
    _remove(copy.graph, _unneeded(copy.graph))
    RemoveUnused().apply(copy)
    reason = infer_shapes(copy)
    _name(copy.graph)
    return copy, reason


def check_hand_over(value: ir.Value, reason: str = "") -> None:
    """Raise `GraphError` unless the type and rank of a tensor that goes from part to part are known; name its axes.

    Dimensions that nobody named get a name of the tensor's own, so that they are known to vary.

    Args:
        value: the tensor.
        reason: why shapes could not be inferred, where that failed.
    """
    import onnx_ir as ir

    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    lacking = "element type" if value.type is None else "rank" if tensor and value.shape is None else ""
    if lacking:
        maker = value.producer()
        by = f", which {maker.name!r} ({maker.op_type}) makes," if maker is not None else ""
        because = f": {reason}" if reason else ""
        raise GraphError(
            f"the graph cannot be cut at {value.name!r}: its {lacking}{by} is not known{because}",
            mend="export the model again with the types and shapes of its tensors, or write them into its value_info",
        )
    if value.shape is None:
        return
    dims = [
        dim if isinstance(dim, int) or dim.value else axis_name(axis, value.name or "")
        for axis, dim in enumerate(value.shape)
    ]
    value.shape = ir.Shape(dims)


def extract(work: ir.Model, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> ir.Model:
    """Return the model of the nodes of a working copy that make some values of others.

    Args:
        work: where they are; it is not changed, and shares its weights.
        name: of the new graph.
        inputs: names of the values they read, the whole's own inputs among them; weights are not.
        outputs: names of the values they make.
    """
    import onnx_ir as ir

    graph = ir.convenience.extract(work.graph, inputs, outputs)
    graph.name = name
    model = ir.Model(
        graph,
        ir_version=work.ir_version,
        producer_name=work.producer_name,
        producer_version=work.producer_version,
        domain=work.domain,
        model_version=work.model_version,
        doc_string=work.doc_string,
        functions=[function.clone() for function in work.functions.values()],
        metadata_props=dict(work.metadata_props),
    )
    version = model.opset_imports.get("", 0)
    RemoveUnused().apply(model)
    if version:
        model.opset_imports[""] = version  # every reader expects it, even where all nodes are others' own
    return model


def _unneeded(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that no output needs; what a node's subgraphs capture, it needs."""
    needed = set(graph.outputs)
    found = []
    for node in reversed(graph):
        if needed.isdisjoint(node.outputs):
            found.append(node)
        else:
            needed.update(reads(node))
    return found


def _remove(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Remove nodes; the nodes in their subgraphs let go of what they read, or it would still count as used."""
    for node in nodes:
        for body in nested_graphs(node):
            for inner in body:
                for at in range(len(inner.inputs)):
                    inner.replace_input_with(at, None)
    graph.remove(nodes, safe=True)


def _make_outputs(model: ir.Model) -> None:
    """Let a node make each output that is a constant, so that a part can make it."""
    import onnx_ir as ir

    graph = model.graph
    for at, value in enumerate(graph.outputs):
        if value.is_initializer():
            node = ir.Node("", "Identity", [value], name=f"{value.name}/output")
            made, name = node.outputs[0], value.name
            made.shape, made.type = value.shape, value.type
            if made.type is None and value.const_value is not None:
                made.type = ir.TensorType(value.const_value.dtype)
                made.shape = ir.Shape(value.const_value.shape.numpy())
            graph.outputs[at] = made
            graph.append(node)
            value.name, made.name = f"{name}/constant", name


def _name(graph: ir.Graph) -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for at, node in enumerate(graph):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{at}"
            while node.name in seen:
                node.name += "_"
        seen.add(node.name)
