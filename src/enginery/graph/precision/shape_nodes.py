"""The nodes that compute sizes and indices, which must be exact, and so stay float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from enginery.graph.passes.base import is_op
from enginery.graph.precision.slots import MOVEMENT

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["shape_nodes"]

# They make tensors of a size: what comes out are values, not sizes.
_FILLERS = ("ConstantOfShape", "EyeLike", "Expand", "Range", "Tile", "RandomNormalLike", "RandomUniformLike")
_ELEMENTWISE = (
    "Abs", "Add", "Cast", "Ceil", "Clip", "Div", "Erf", "Exp", "Floor", "Log", "Max", "Min", "Mod", "Mul", "Neg",
    "Pow", "Round", "Sqrt", "Sub", "Where",
)  # fmt: skip


def shape_nodes(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Return the nodes that compute on sizes alone, and those whose values end as integers.

    The first are found forwards: everything that follows from ``Shape`` and constants. The second backwards, through
    elementwise operators only, from a ``Cast`` to int32 or int64: positions, such as those of relative attention.

    Args:
        nodes: of a whole graph, those before their readers.
    """
    derived: set[ir.Node] = set()
    for node in nodes:
        if is_op(node, "Shape", "Size") or (not is_op(node, *_FILLERS) and _follows(node, derived)):
            derived.add(node)
    ending: set[ir.Node] = set()
    for node in reversed(nodes):
        if _casts_to_index(node) or (is_op(node, *_ELEMENTWISE, *MOVEMENT) and _ends(node, ending)):
            ending.add(node)
    return derived | ending


def _follows(node: ir.Node, derived: set[ir.Node]) -> bool:
    """Say whether a node reads at least one size, and constants besides."""
    producers = [value.producer() for value in node.inputs if value is not None and not value.is_initializer()]
    made = [producer for producer in producers if producer is None or not is_op(producer, "Constant")]
    return bool(made) and all(producer is not None and producer in derived for producer in made)


def _ends(node: ir.Node, ending: set[ir.Node]) -> bool:
    uses = [use for value in node.outputs for use in value.uses()]
    return (
        bool(uses)
        and all(use.node in ending for use in uses)
        and not any(value.is_graph_output() for value in node.outputs)
    )


def _casts_to_index(node: ir.Node) -> bool:
    import onnx_ir as ir

    return is_op(node, "Cast") and node.attributes["to"].as_int() in (ir.DataType.INT32, ir.DataType.INT64)
