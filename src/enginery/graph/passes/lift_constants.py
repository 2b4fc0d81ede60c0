"""Turn Constant nodes into initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, is_op, run_library_pass

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LiftConstants"]


class LiftConstants(Pass):
    """Turn Constant nodes into initializers, which every other pass and backend knows to be constant."""

    name = "lift constants"

    def requires(self, model: ir.Model) -> bool:
        """There must be one."""
        return any(is_op(node, "Constant") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Lift those of the main graph and of its subgraphs, each into its own graph."""
        from onnx_ir.passes.common import LiftConstantsToInitializersPass

        return run_library_pass(LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0), model)
