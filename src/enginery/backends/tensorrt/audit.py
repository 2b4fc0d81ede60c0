"""Whether the engine that was built computes in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enginery.records import LayerRecord
    from enginery.spec import PrecisionPlan

__all__ = ["check"]


def check(layers: Sequence[LayerRecord], plan: PrecisionPlan, allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Raise `PrecisionMismatchError` where hardly a layer was built as asked; returns notes for the user."""
    raise NotImplementedError
