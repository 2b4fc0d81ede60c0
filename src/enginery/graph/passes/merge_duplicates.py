"""Keep one of several equal initializers, and one of several equal computations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes, constants
from enginery.graph.passes.base import Pass, is_random, run_library_pass

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MergeEqualInitializers", "MergeEqualNodes"]

_LARGEST_COMPARED = 1 << 24
_LARGEST_ON_DISK = 1 << 14


class MergeEqualInitializers(Pass):
    """Keep one of several equal initializers. Where weights are on disk, only small ones are compared."""

    name = "merge equal initializers"

    def requires(self, model: ir.Model) -> bool:
        """There must be two."""
        return any(len(graph.initializers) > 1 for graph in model.graphs())

    def apply(self, model: ir.Model) -> bool:
        """Compare by hash, then by value."""
        import onnx_ir as ir
        from onnx_ir.passes.common import DeduplicateHashedInitializersPass

        on_disk = any(isinstance(tensor, ir.ExternalTensor) for tensor in constants(model))
        limit = _LARGEST_ON_DISK if on_disk else _LARGEST_COMPARED
        return run_library_pass(DeduplicateHashedInitializersPass(size_limit=limit), model)


class MergeEqualNodes(Pass):
    """Keep one of several nodes that do the same with the same inputs (common subexpressions)."""

    name = "merge equal nodes"

    def requires(self, model: ir.Model) -> bool:
        """Nothing may be random: two equal dice are still two."""
        return not any(is_random(node) for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Compare operator, inputs and attributes."""
        from onnx_ir.passes.common import CommonSubexpressionEliminationPass

        return run_library_pass(CommonSubexpressionEliminationPass(), model)
