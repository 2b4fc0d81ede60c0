"""Remove Identity nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, is_op, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EliminateIdentities"]


class EliminateIdentities(Pass):
    """Let the readers of an Identity read its input; one between an input and an output of the graph stays."""

    name = "eliminate identities"

    def requires(self, model: ir.Model) -> bool:
        """There must be one."""
        return any(is_op(node, "Identity") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Remove each that can go."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if is_op(node, "Identity") and node.inputs[0] is not None:
                changed |= replace_node(node, node.inputs[0])
        return changed
