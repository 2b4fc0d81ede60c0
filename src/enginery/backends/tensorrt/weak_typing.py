"""Precision where TensorRT takes it from flags and layers, not from the graph: 8.5 and 8.6."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enginery.backends.tensorrt.versions import Api
    from enginery.spec import PrecisionPlan

__all__ = ["constrain"]


def constrain(api: Api, network: Any, config: Any, plan: PrecisionPlan) -> tuple[str, ...]:
    """Set the flags and the precision of single layers that a plan asks for; returns notes for the user."""
    raise NotImplementedError
