"""Remove what no output needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.passes.base import Pass, run_library_pass

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RemoveUnused"]


class RemoveUnused(Pass):
    """Remove nodes, initializers, functions and operator sets that no output needs."""

    name = "remove unused"

    def apply(self, model: ir.Model) -> bool:
        """Remove nodes first: what they alone needed is unused then."""
        from onnx_ir.passes import common

        changed = run_library_pass(common.RemoveUnusedNodesPass(), model)
        changed |= run_library_pass(common.RemoveUnusedFunctionsPass(), model)  # type: ignore[no-untyped-call]
        return changed | run_library_pass(common.RemoveUnusedOpsetsPass(), model)
