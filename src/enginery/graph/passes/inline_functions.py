"""Put the body of each of the model's own functions in the place of its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.passes.base import Pass, run_library_pass

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["InlineFunctions"]


class InlineFunctions(Pass):
    """Replace calls of model-local functions by their bodies; not every backend reads functions."""

    name = "inline functions"

    def requires(self, model: ir.Model) -> bool:
        """There must be functions."""
        return bool(model.functions)

    def apply(self, model: ir.Model) -> bool:
        """Inline all calls; the functions go."""
        from onnx_ir.passes.common import InlinePass

        return run_library_pass(InlinePass(), model)

    def ensures(self, model: ir.Model) -> str:
        """No function that was called is left."""
        return f"{len(model.functions)} functions are left" if model.functions else ""
