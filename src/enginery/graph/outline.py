"""A graph as plain data for a picture of it: nodes, edges, and the module each node came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from enginery.graph.base import Edge, Outline, OutlineNode, Weight, tensor_infos
from enginery.graph.modules import module_parts
from enginery.spec import show_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Edge", "Outline", "OutlineNode", "Weight", "module_path", "outline"]

_LONGEST_TEXT = 80
_MOST_ELEMENTS = 8


def outline(model: ir.Model) -> Outline:
    """Describe a graph and its subgraphs; function bodies are left out, their calls are nodes.

    Args:
        model: the graph; it is not changed, and no weight is read.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, [3])
        >>> node = ir.node("Relu", [x], name="/act/Relu")
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> found = outline(ir.Model(graph, ir_version=10))
        >>> found.nodes[0].module, [(edge.source, edge.target) for edge in found.edges]
        (('act',), [('input:x', '0'), ('0', 'output:val_0')])
    """
    ids = dict(_numbered(model.graph, ""))
    nodes = tuple(_node(node, number, parent) for node, (number, parent) in ids.items())
    makers = {value: number for node, (number, _) in ids.items() for value in node.outputs}
    makers.update({value: f"input:{value.name}" for value in model.graph.inputs})
    edges = [
        Edge(makers[value], number, value.name or "", tensor_infos([value])[0].shape)
        for node, (number, _) in ids.items()
        for value in node.inputs
        if value is not None and value in makers
    ]
    edges += [
        Edge(makers[value], f"output:{value.name}", value.name or "", tensor_infos([value])[0].shape)
        for value in model.graph.outputs
        if value in makers
    ]
    inputs, outputs = tensor_infos(model.graph.inputs), tensor_infos(model.graph.outputs)
    return Outline(model.graph.name or "", inputs, outputs, nodes, tuple(edges))


def module_path(node: ir.Node) -> tuple[str, ...]:
    """Return the modules a node came from, outermost first; empty where nothing tells.

    `enginery.graph.modules.note_modules` writes them into the node's metadata; without that, the exporter's own
    metadata, the node's name and its weights' names are read.
    """
    return module_parts(node)


def _numbered(graph: ir.Graph, prefix: str) -> Iterator[tuple[ir.Node, tuple[str, str | None]]]:
    """Yield each node with its id and its parent's, subgraphs after the node that holds them."""
    import onnx_ir as ir

    parent = prefix.rsplit("/", 2)[0] if prefix else None
    for index, node in enumerate(graph):
        number = f"{prefix}{index}"
        yield node, (number, parent)
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _numbered(attribute.as_graph(), f"{number}/{name}/")
            elif attribute.type == ir.AttributeType.GRAPHS:
                for at, body in enumerate(attribute.as_graphs()):
                    yield from _numbered(body, f"{number}/{name}{at}/")


def _node(node: ir.Node, number: str, parent: str | None) -> OutlineNode:
    weights = tuple(_weights(node))
    return OutlineNode(
        id=number,
        name=node.name or "",
        op=node.op_type,
        domain=node.domain,
        module=module_path(node),
        attributes={name: _short(attribute) for name, attribute in node.attributes.items()},
        inputs=tuple((value.name or "") if value is not None else "" for value in node.inputs),
        outputs=tensor_infos(value for value in node.outputs if value.name),
        weights=weights,
        parameter_bytes=sum(weight.bytes for weight in weights),
        parent=parent,
    )


def _weights(node: ir.Node) -> Iterator[Weight]:
    for index, value in enumerate(node.inputs):
        tensor = value.const_value if value is not None and value.is_initializer() else None
        if value is not None and tensor is not None:
            info = tensor_infos([value])[0]
            yield Weight(index, info.name, info.dtype, tuple(tensor.shape.numpy()), tensor.nbytes)


def _short(attribute: ir.Attr) -> str:
    """Write an attribute in a few words: a small tensor's values, else its type and shape."""
    import onnx_ir as ir

    if attribute.is_ref():
        return f"@{attribute.ref_attr_name}"
    kind, value = attribute.type, attribute.value
    if kind == ir.AttributeType.TENSOR:
        return _short_tensor(attribute.as_tensor())
    if kind == ir.AttributeType.GRAPH:
        return f"graph of {len(attribute.as_graph())} nodes"
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return _cut(", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value))
    if kind in (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING):
        return _cut(f"{value:.6g}" if isinstance(value, float) else str(value))
    return kind.name.lower()


def _short_tensor(tensor: ir.TensorProtocol) -> str:
    import onnx_ir as ir

    shape = show_sizes(tensor.shape.numpy())
    text = f"{tensor.dtype.name.lower()} {shape}"
    small = tensor.size <= _MOST_ELEMENTS and tensor.dtype != ir.DataType.STRING
    return _cut(f"{text}: {tensor.numpy().tolist()}") if small else text


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
