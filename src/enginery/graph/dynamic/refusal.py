"""Why a graph cannot have a dynamic axis: the nodes in the way, and what is fixed in each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from enginery.errors import GraphError
from enginery.graph.base import tensor_info
from enginery.graph.dynamic.request import DynamicAxes
from enginery.graph.outline import module_path
from enginery.spec import show_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Blocker", "named_in", "place_of", "refuse"]

_MOST_SHOWN = 5
_ORT_NODE = re.compile(r"running (?P<op>\w+) node\. Name:'(?P<name>[^']*)'")


@dataclass(frozen=True)
class Blocker:
    """A node in the way.

    Args:
        node: the node.
        place: which one it is, in words.
        why: what is fixed in it.
        certain: whether the graph is wrong with it; else it is only where the axis gets lost.
    """

    node: ir.Node
    place: str
    why: str
    certain: bool

    @classmethod
    def of(cls, node: ir.Node, why: str, *, certain: bool) -> Blocker:
        """Describe a node by its operator, name, output and module."""
        return cls(node, place_of(node), why, certain)

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


def place_of(node: ir.Node) -> str:
    """Say which node it is: operator, name, output with its shape, and module where that is known.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, [1, 3])
        >>> place_of(ir.node("Relu", [x], name="/act/Relu"))
        "Relu '/act/Relu' in act"
    """
    name = node.name or (node.outputs[0].name if node.outputs else "") or ""
    path = ".".join(module_path(node))
    info = tensor_info(node.outputs[0]) if node.outputs else None
    shape = f" [{show_sizes(info.shape)}]" if info is not None and info.shape else ""
    return f"{node.op_type} {name!r}{shape}" + (f" in {path}" if path else "")


def refuse(group: DynamicAxes, blockers: Sequence[Blocker], found: str = "") -> NoReturn:
    """Raise the error that names the nodes in the way.

    Args:
        group: what was asked for.
        blockers: the nodes, in the graph's order.
        found: what went wrong when the graph was run, if it was.

    Raises:
        GraphError: always.
    """
    shown = "; ".join(str(blocker) for blocker in blockers[:_MOST_SHOWN])
    if len(blockers) > _MOST_SHOWN:
        shown += f"; and {len(blockers) - _MOST_SHOWN} more"
    parts = [part for part in (found, shown) if part]
    axes = ", ".join(str(axis) for axis in group.axes)
    raise GraphError(
        f"this graph cannot have a dynamic {group.name!r}: {' ('.join(parts)}{')' if len(parts) > 1 else ''}",
        mend=f"export the model again with {axes} dynamic",
    )


def named_in(error: str, model: ir.Model) -> Blocker | None:
    """Find the node that ONNX Runtime's message names.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, [1, 3])
        >>> node = ir.node("Relu", [x], name="act")
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> said = "Non-zero status code returned while running Relu node. Name:'act' Status Message: no"
        >>> str(named_in(said, ir.Model(graph, ir_version=10)))
        "Relu 'act': ONNX Runtime fails here: no"
    """
    match = _ORT_NODE.search(error)
    if match is None:
        return None
    nodes = [node for node in model.graph.all_nodes() if node.op_type == match["op"]]
    same = [node for node in nodes if match["name"] in (node.name, *(v.name for v in node.outputs))] or nodes
    if len(same) != 1:
        return None
    said = error[match.end() :].partition("Status Message:")[2].strip().split("\n", 1)[0]
    return Blocker.of(same[0], f"ONNX Runtime fails here: {said}", certain=True)
