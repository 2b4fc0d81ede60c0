"""Bounds besides the largest error: the smallest cosine, and how far a metric may fall below the reference's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from enginery.records import CheckRecord, OutputRecord
from enginery.spec import VerifySpec
from enginery.verification.accuracy import Accuracy

__all__ = ["check_bounds", "fall"]


def check_bounds(records: Sequence[OutputRecord], accuracy: Accuracy, spec: VerifySpec) -> list[CheckRecord]:
    """Return a check for each bound that was given; a figure that is missing does not hold a bound.

    Args:
        records: of every output of every case that ran.
        accuracy: over all cases with labels.
        spec: the bounds.

    Example:
        >>> row = OutputRecord("y", "opt", "float32", (2, 3), cosine=0.97)
        >>> check_bounds([row], Accuracy(), VerifySpec(min_cosine=0.98))
        [CheckRecord(name='cosine at least 0.98', passed=False, detail='it is 0.97')]
    """
    found = []
    if spec.min_cosine is not None:
        cosine = _worst([record.cosine for record in records])
        detail = "no output has one" if cosine is None else f"it is {cosine:.7g}"
        held = cosine is not None and cosine >= spec.min_cosine
        found.append(CheckRecord(f"cosine at least {spec.min_cosine:g}", held, detail))
    for metric, bound in spec.max_drop.items():
        drop = fall(metric, records, accuracy)
        detail = _MISSING[metric] if drop is None else f"it fell by {drop:.4g}"
        held = drop is not None and round(drop, _DIGITS) <= bound  # shares of rows are not exact in binary
        found.append(CheckRecord(f"drop of {metric} at most {bound:g}", held, detail))
    return found


def fall(metric: str, records: Sequence[OutputRecord], accuracy: Accuracy) -> float | None:
    """Return how far a metric of `enginery.spec.DROPS` fell below the reference's; None where nothing tells it."""
    if metric == "top1":
        own, reference = accuracy.engine, accuracy.reference
        return None if own is None or reference is None else reference - own
    worst = _worst([record.top1_agreement if metric == "agreement" else record.cosine for record in records])
    return None if worst is None else 1 - worst


_DIGITS = 12
_MISSING = {
    "top1": "the data has no labels that an output could be held against",
    "agreement": "no output has a row of scores",
    "cosine": "no output has one",
}


def _worst(figures: Sequence[float | None]) -> float | None:
    told = [figure for figure in figures if figure is not None]
    return math.nan if any(map(math.isnan, told)) else min(told, default=None)
