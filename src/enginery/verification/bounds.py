"""Bounds besides the largest error: the smallest cosine, and how far a metric may fall below the reference's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from enginery.inputs.base import Which
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
    """Return how far a metric of `enginery.spec.DROPS` fell below the reference's; None where nothing tells it.

    Accuracy and agreement are shares of all rows of the data, however they are cut into batches.

    Example:
        >>> batches = [OutputRecord("y", f"data {at}", "float32", (4, 3), top1_agreement=1 - at / 4) for at in (0, 1)]
        >>> fall("agreement", batches, Accuracy())
        0.125
    """
    if metric == "top1":
        own, reference = accuracy.engine, accuracy.reference
        return None if own is None or reference is None else reference - own
    worst = _agreement(records) if metric == "agreement" else _worst([record.cosine for record in records])
    return None if worst is None else 1 - worst


_DIGITS = 12
_MISSING = {
    "top1": "the data has no labels that an output could be held against",
    "agreement": "no output has a row of scores",
    "cosine": "no output has one",
}


def _agreement(records: Sequence[OutputRecord]) -> float | None:
    """Return the smallest share of an output's rows that agree, over the data; over all cases where there are none.

    The cases at the ends hold rows of the data again, or random ones, which would outweigh a small set.
    """
    scored = [record for record in records if record.top1_agreement is not None]
    data = [record for record in scored if record.case not in get_args(Which)]
    rows, agree = Counter[str](), Counter[str]()
    for record in data or scored:
        count = math.prod(record.shape[:-1])
        rows[record.name] += count
        agree[record.name] += round(count * (record.top1_agreement or 0.0))
    return min((agree[name] / rows[name] for name in rows), default=None)


def _worst(figures: Sequence[float | None]) -> float | None:
    told = [figure for figure in figures if figure is not None]
    return math.nan if any(map(math.isnan, told)) else min(told, default=None)
