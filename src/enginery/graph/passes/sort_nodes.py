"""Put nodes in an order in which each comes after those it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.passes.base import Pass, run_library_pass

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SortNodes"]


class SortNodes(Pass):
    """Sort the nodes topologically; those that do not depend on each other keep their order."""

    name = "sort nodes"

    def apply(self, model: ir.Model) -> bool:
        """Sort the graph, its subgraphs and the functions."""
        from onnx_ir.passes.common import TopologicalSortPass

        return run_library_pass(TopologicalSortPass(), model)
