"""Samples → figures: percentiles, the confidence interval of the median, and when enough has been seen."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from enginery.records import BenchRecord, LoadRecord
from enginery.spec import BenchSpec

__all__ = ["is_stable", "median_interval", "percentile", "rule_text", "summarise"]

_CONFIDENCE = 0.95
_EXACT_BELOW = 1000
_DRIFT_FACTOR = 2.0


def percentile(samples: Sequence[float] | np.ndarray[Any, Any], percent: float) -> float:
    """Return a percentile by linear interpolation between the two nearest ranks.

    It is definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), which numpy and R use: the
    smallest sample is percentile 0, the largest is percentile 100. With fewer than 100 samples, p99 leans on the two
    slowest alone.

    Example:
        >>> percentile([1.0, 2.0, 3.0, 4.0], 50)
        2.5
    """
    return float(np.percentile(np.asarray(samples), percent))


def median_interval(samples: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the median from order statistics; no distribution is assumed.

    The number of samples below the true median is binomial (n, 1/2). The interval reaches from the l-th smallest to the
    l-th largest sample, l the largest number with ``P(Binomial(n, 1/2) < l) <= 0.025`` (Hahn and Meeker, "Statistical
    Intervals", 1991, section 5.2). Below 6 samples no such interval exists, and the range of all is returned.

    Example:
        >>> median_interval([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])
        (1.0, 6.0)
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    rank = max(_lower_rank(len(ordered)), 1)
    return float(ordered[rank - 1]), float(ordered[-rank])


@functools.cache
def _lower_rank(count: int) -> int:
    """Return the l of `median_interval`: exact for few samples, by the normal approximation for many."""
    if count >= _EXACT_BELOW:
        return math.floor((count - 1.959964 * math.sqrt(count)) / 2)
    below, rank = 0.0, 0
    while (below := below + math.comb(count, rank) * 0.5**count) <= (1 - _CONFIDENCE) / 2:
        rank += 1
    return rank


def is_stable(turns: Sequence[Sequence[float]], spec: BenchSpec) -> bool:
    """Say whether the rule of `rule_text` is met.

    The interval alone takes samples as independent, and on a busy machine neighbours are not; so the turns, which lie
    apart in time, must also agree.
    """
    samples = np.concatenate([np.asarray(turn, dtype=np.float64) for turn in turns]) if turns else np.empty(0)
    if len(turns) < spec.min_turns or len(samples) < spec.min_samples:
        return False
    median = float(np.median(samples))
    low, high = median_interval(samples)
    near = max(median - low, high - median) <= spec.stable_within * median
    return near and _drift(turns) <= _DRIFT_FACTOR * spec.stable_within * median


def rule_text(spec: BenchSpec) -> str:
    """Say in words when a benchmark stops.

    Example:
        >>> print(rule_text(BenchSpec(stable_within=0.02)))  # doctest: +ELLIPSIS
        95 % confidence interval of the median within 2 % of it on either side, at least 20 samples in 3 turns, ...
    """
    within, drift = (100 * share for share in (spec.stable_within, _DRIFT_FACTOR * spec.stable_within))
    return (
        f"95 % confidence interval of the median within {within:.3g} % of it on either side, "
        f"at least {spec.min_samples} samples in {spec.min_turns} turns, "
        f"medians of the earlier and the later turns within {drift:.3g} % of each other; or {spec.limit_s:g} s"
    )


def summarise(
    turns: Sequence[Sequence[float]],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    batch: int,
    first_call_ms: float | None,
    load_ms: float | None,
    placement: str,
    spec: BenchSpec,
    load: LoadRecord | None = None,
    parts_ms: Mapping[str, float] | None = None,
) -> BenchRecord:
    """Turn the samples of all turns, in milliseconds, into a record.

    Args:
        turns: the samples of each turn; at least one sample in all.
        shapes: of the inputs that were timed.
        batch: rows of one call.
        first_call_ms: the first call of the session, apart.
        load_ms: opening the engine, apart.
        placement: what it really ran on.
        spec: when to stop.
        load: what else kept the machine busy.
        parts_ms: mean of each part, where backends share the engine.
    """
    turns = [turn for turn in turns if len(turn)]
    samples = np.concatenate([np.asarray(turn, dtype=np.float64) for turn in turns])
    low, high = median_interval(samples)
    p50, p90, p95, p99 = (percentile(samples, percent) for percent in (50, 90, 95, 99))
    return BenchRecord(
        shapes=dict(shapes),
        batch=batch,
        samples=len(samples),
        min_ms=float(samples.min()),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        mean_ms=float(samples.mean()),
        ci_low_ms=low,
        ci_high_ms=high,
        throughput=1000 * batch / p50 if p50 > 0 else math.inf,
        stable=is_stable(turns, spec),
        rule=rule_text(spec),
        turns_ms=tuple(float(np.median(turn)) for turn in turns),
        first_call_ms=first_call_ms,
        load_ms=load_ms,
        placement=placement,
        load=load,
        parts_ms=dict(parts_ms or {}),
    )


def _drift(turns: Sequence[Sequence[float]]) -> float:
    """Return how far the medians of the first half of the turns lie from those of the second half, in ms."""
    medians = [float(np.median(turn)) for turn in turns]
    half = len(medians) // 2
    return abs(float(np.median(medians[:half]) - np.median(medians[-half:]))) if half else 0.0
