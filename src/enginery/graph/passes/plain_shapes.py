"""Write Shape nodes that give a part of a shape as a whole Shape and a Slice of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PlainShapes"]

_WHOLE_END = np.iinfo(np.int64).max


class PlainShapes(Pass):
    """Write ``Shape(x, start, end)`` as ``Slice(Shape(x), start, end)``.

    The attributes came with opset 15; readers that were made for older graphs pass them over without a word and go on
    with the whole shape, TensorRT 8.6's among them.
    """

    name = "write partial shapes as slices"

    def requires(self, model: ir.Model) -> bool:
        """There must be one."""
        return any(_is_partial(node) for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Rewrite each."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if _is_partial(node) and node.graph is not None:
                _rewrite(node)
                changed = True
        return changed

    def ensures(self, model: ir.Model) -> str:
        """None is left."""
        left = [str(node.name) for node in model.graph.all_nodes() if _is_partial(node)]
        return f"partial shapes are left: {', '.join(left)}" if left else ""


def _is_partial(node: ir.Node) -> bool:
    return is_op(node, "Shape") and ("start" in node.attributes or "end" in node.attributes)


def _rewrite(node: ir.Node) -> None:
    import onnx_ir as ir

    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", _WHOLE_END)
    for name in ("start", "end"):
        node.attributes.pop(name, None)
    output, graph = node.outputs[0], node.graph
    if graph is None or (start == 0 and end == _WHOLE_END):
        return
    bounds = [
        ir.node("Constant", [], attributes={"value": ir.tensor(np.array([bound], np.int64))}) for bound in (start, end)
    ]
    whole = ir.node("Shape", [node.inputs[0]], metadata_props=dict(node.metadata_props), name=_part_name(node, "whole"))
    cut = ir.node(
        "Slice",
        [whole.outputs[0], *(bound.outputs[0] for bound in bounds)],
        metadata_props=dict(node.metadata_props),
        name=node.name,
    )
    graph.insert_before(node, [*bounds, whole, cut])
    made = cut.outputs[0]
    made.type, made.shape = output.type, output.shape
    ir.convenience.replace_all_uses_with(output, made, replace_graph_outputs=True)
    kept = output.name
    graph.remove(node, safe=True)
    made.name = kept


def _part_name(node: ir.Node, role: str) -> str | None:
    return f"{node.name}.{role}" if node.name else None
