"""Cast a graph to the precision of a plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import PrecisionPlan

__all__ = ["apply_plan"]


def apply_plan(model: ir.Model, plan: PrecisionPlan, *, say: Callable[[str], None] | None = None) -> ir.Model:
    """Return the graph with element types as a plan says; see `enginery.graph.base.apply_plan`."""
    raise NotImplementedError
