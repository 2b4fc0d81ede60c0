"""Calls timed in turns, A B C, A B C, so that whatever drifts hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["median_ratio", "summary_ms", "take_turns", "time_calls"]

Call = Callable[[], Any]


def time_calls(call: Call, *, seconds: float, least: int = 5) -> list[float]:
    """Time single calls for `seconds`, and at least `least` times; in milliseconds."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < least or time.perf_counter() < end:
        begin = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - begin) / 1e6)
    return samples


def take_turns(
    calls: Mapping[str, Call], *, rounds: int, seconds: float, warm: int = 20, least: int = 5
) -> dict[str, list[float]]:
    """Time each call in turns.

    Args:
        calls: by label; each returns when its work is done.
        rounds: how many turns each has.
        seconds: of one turn.
        warm: calls of each before the first turn.
        least: calls of one turn at the least.

    Returns:
        The median of each turn in milliseconds, by label.

    Example:
        >>> sorted(take_turns({"a": list, "b": dict}, rounds=2, seconds=0.001, warm=1))
        ['a', 'b']
    """
    for call in calls.values():
        for _ in range(warm):
            call()
    medians: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(rounds):
        for label, call in calls.items():
            medians[label].append(statistics.median(time_calls(call, seconds=seconds, least=least)))
    return medians


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median over the rounds of one's time by the other's.

    Example:
        >>> median_ratio([2.0, 4.0, 3.0], [1.0, 2.0, 2.0])
        2.0
    """
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def summary_ms(turns: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each label's turns.

    Example:
        >>> summary_ms({"a": [1.0, 3.0, 2.0]})
        {'a': 2.0}
    """
    return {label: statistics.median(found) for label, found in turns.items()}
