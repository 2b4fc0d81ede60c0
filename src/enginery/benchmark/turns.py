"""Contestants take turns, A B A B, so that whatever drifts (heat, clocks, other guests) hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from enginery.benchmark.base import Timer
from enginery.benchmark.summary import is_stable
from enginery.errors import EngineryError
from enginery.spec import BenchSpec

__all__ = ["OnTurn", "take_turns"]

OnTurn = Callable[[str, list[float], bool], None]
"""Told after each turn: the contestant, the turn's samples in milliseconds, and whether it has finished."""

_REWARM_SHARE = 0.1
_FEW_CALLS = 3


def take_turns(
    timers: Mapping[str, Timer], spec: BenchSpec, *, on_turn: OnTurn | None = None
) -> dict[str, list[list[float]] | EngineryError]:
    """Time all contestants in rounds until each is stable, has failed, or has used up its time.

    In each round every contestant that is left has one turn, and the one that begins moves on by one from round to
    round, so that nobody always follows the same neighbour. A turn begins with a warm-up that is not counted: long in
    the first, a tenth of a turn in the later ones, for the others have had the caches. A call that is longer than a
    turn is not warmed up again.

    Args:
        timers: how to time each contestant, by label.
        spec: when to stop.
        on_turn: told after each turn.

    Returns:
        For each label the samples of each turn in milliseconds, or the error that ended it.
    """
    found: dict[str, list[list[float]]] = {label: [] for label in timers}
    failed: dict[str, EngineryError] = {}
    spent_ms = dict.fromkeys(timers, 0.0)
    left = list(timers)
    round_number = 0
    while left:
        shift = round_number % len(left)
        for label in left[shift:] + left[:shift]:
            turns = found[label]
            warmup_ms, seconds, min_calls = _plan(turns, spent_ms[label], spec)
            try:
                samples = timers[label](warmup_ms, seconds, min_calls)
            except EngineryError as error:
                failed[label] = error
                left.remove(label)
                continue
            turns.append(samples)
            spent_ms[label] += sum(samples) + (max(warmup_ms, samples[0]) if warmup_ms else 0.0)
            finished = spent_ms[label] >= spec.limit_s * 1e3 or is_stable(turns, spec)
            if finished:
                left.remove(label)
            if on_turn is not None:
                on_turn(label, samples, finished)
        round_number += 1
    return {label: failed.get(label, turns) for label, turns in found.items()}


def _plan(turns: list[list[float]], spent_ms: float, spec: BenchSpec) -> tuple[float, float, int]:
    """Return the warm-up in ms, the seconds and the least number of calls of a contestant's next turn."""
    left_ms = max(spec.limit_s * 1e3 - spent_ms, 0.0)
    seconds = min(spec.turn_ms, left_ms) / 1e3
    if not turns:
        return spec.warmup_ms, seconds, 1
    call_ms = statistics.median(turns[-1])
    warmup_ms = 0.0 if call_ms >= spec.turn_ms else min(spec.warmup_ms, _REWARM_SHARE * spec.turn_ms)
    # Several calls for one warm-up, where that leaves time for the turns that the rule asks for.
    few = _FEW_CALLS * call_ms * spec.min_turns <= left_ms
    return warmup_ms, seconds, _FEW_CALLS if few else 1
