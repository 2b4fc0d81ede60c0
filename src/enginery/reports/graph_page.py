"""A graph as one HTML page: its own style and program inside, nothing to fetch, readable without a network."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

from enginery.plain import to_plain
from enginery.records import GraphRecord, TensorInfo

if TYPE_CHECKING:
    from enginery.graph.base import Outline, OutlineNode

__all__ = ["graph_page"]

_SCRIPTS = ("tree.js", "layout.js", "draw.js", "panels.js", "main.js")
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def graph_page(outline: Outline, record: GraphRecord) -> str:
    """Render a page that shows a graph: modules to open and close, a search, details of every node.

    Args:
        outline: the nodes and edges.
        record: the totals.

    Returns:
        HTML text. Names and attributes stand in it as data only: none of them can end a script or become markup.
    """
    parts = {
        "TITLE": html.escape(record.name or "Graph"),
        "STYLE": _read("style.css"),
        "DATA": _embeddable(_data(outline, record)),
        "SCRIPT": "\n".join(_read(name) for name in _SCRIPTS),
    }
    # Split, not replaced: a name in the graph that looks like a place of the template is left alone.
    first, *rest = _read("page.html").split("%")
    return first + "".join(parts.get(piece, piece) for piece in rest)


def _read(name: str) -> str:
    return (resources.files("enginery.reports") / "page" / name).read_text(encoding="utf-8")


def _embeddable(data: dict[str, Any]) -> str:
    """Write JSON that may stand inside a script element, whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    return text


def _data(outline: Outline, record: GraphRecord) -> dict[str, Any]:
    nodes = {node.id: node for node in outline.nodes}
    places = {number: at for at, number in enumerate(nodes)}
    plain: dict[str, Any] = to_plain(record)
    return {
        **{name: plain[name] for name in _TOTALS},
        "name": record.name or outline.name,
        "inputs": [_tensor(info) for info in outline.inputs],
        "outputs": [_tensor(info) for info in outline.outputs],
        "tensors": _tensors(outline),
        "nodes": [_node(node, nodes) for node in outline.nodes],
        "edges": [
            [places[edge.source], places[edge.target], edge.tensor]
            for edge in outline.edges
            if edge.source in places and edge.target in places
        ],
    }


_TOTALS = (
    "producer", "opsets", "ir_version", "parameters", "parameter_bytes", "flops", "dynamic_dims", "functions",
    "subgraphs", "operators",
)  # fmt: skip


def _node(node: OutlineNode, nodes: dict[str, OutlineNode]) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "domain": node.domain,
        "path": _path(node, nodes),
        "attributes": node.attributes,
        "inputs": list(node.inputs),
        "outputs": [info.name for info in node.outputs],
        "bytes": node.parameter_bytes,
    }


def _path(node: OutlineNode, nodes: dict[str, OutlineNode]) -> list[str]:
    """Return the modules around a node; a subgraph is a module beside the node that holds it."""
    if node.parent is None:
        return list(node.module)
    holder = nodes[node.parent]
    branch = node.id.removeprefix(f"{node.parent}/").rpartition("/")[0]
    return [*_path(holder, nodes), f"{holder.op} {holder.name or holder.id}: {branch}"]


def _tensors(outline: Outline) -> dict[str, dict[str, Any]]:
    """Describe every tensor by name; a weight has its bytes as well."""
    made: Iterable[TensorInfo] = (*outline.inputs, *outline.outputs, *(i for n in outline.nodes for i in n.outputs))
    found = {info.name: _tensor(info) for info in made}
    for weight in (weight for node in outline.nodes for weight in node.weights):
        found[weight.name] = {"dtype": weight.dtype, "shape": list(weight.shape), "bytes": weight.bytes}
    return found


def _tensor(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": info.dtype, "shape": None if info.shape is None else list(info.shape)}
