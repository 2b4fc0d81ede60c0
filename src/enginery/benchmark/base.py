"""What other stages need of the bench: how a contestant is timed, and all of them timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from enginery.errors import EngineryError
from enginery.records import BenchRecord
from enginery.spec import BenchSpec

__all__ = ["Entry", "Timer", "call_timer", "feed_shapes", "time_in_turns"]


class Timer(Protocol):
    """Times one contestant for one turn."""

    def __call__(self, warmup_ms: float, seconds: float, min_calls: int) -> list[float]:
        """Warm up, then time calls for `seconds` and at least `min_calls` of them; return milliseconds."""
        ...


@dataclass
class Entry:
    """One contestant of a benchmark.

    Args:
        timer: how it is timed.
        placement: what it really runs on.
        first_call_ms: the first call of its session, apart from all samples.
        load_ms: opening its engine, apart from all samples.
        parts_ms: mean of each part in the last turn, where backends share its engine.
    """

    timer: Timer
    placement: str
    first_call_ms: float | None = None
    load_ms: float | None = None
    parts_ms: Mapping[str, float] = field(default_factory=dict)


def call_timer(call: Callable[[], object]) -> Timer:
    """Return the timer of a function in this process."""
    from enginery.benchmark.clock import sample, warm_up

    def timer(warmup_ms: float, seconds: float, min_calls: int) -> list[float]:
        warm_up(call, warmup_ms)
        return sample(call, seconds, min_calls)

    return timer


def feed_shapes(feeds: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Return the shape of each array by name, and the batch: rows of the first input, 1 for a scalar.

    Example:
        >>> import numpy as np
        >>> feed_shapes({"image": np.zeros((8, 3)), "size": np.float32(1)})
        ({'image': (8, 3), 'size': ()}, 8)
    """
    shapes = {name: tuple(map(int, array.shape)) for name, array in feeds.items() if hasattr(array, "shape")}
    first = next(iter(shapes.values()), ())
    return shapes, first[0] if first else 1


def time_in_turns(
    entries: Mapping[str, Entry],
    feeds: Mapping[str, Any],
    spec: BenchSpec,
    *,
    pids: Callable[[], Iterable[int]] = tuple,
    on_turn: Callable[[str, list[float], bool], None] | None = None,
) -> dict[str, BenchRecord | EngineryError]:
    """Time contestants against each other on the same inputs.

    Args:
        entries: the contestants by label.
        feeds: the inputs that all are timed on; only their shapes are looked at here.
        spec: when to stop.
        pids: asked for the living worker processes, whose load is our own.
        on_turn: told after each turn: label, samples in milliseconds, and whether the contestant has finished.

    Returns:
        For each label its record, or the error that ended it. All share one record of the machine's load.
    """
    from enginery.benchmark.load import LoadWatch
    from enginery.benchmark.summary import summarise
    from enginery.benchmark.turns import take_turns

    watch = LoadWatch(pids)
    found = take_turns({label: entry.timer for label, entry in entries.items()}, spec, on_turn=on_turn)
    load = watch.record()
    shapes, batch = feed_shapes(feeds)
    records: dict[str, BenchRecord | EngineryError] = {}
    for label, turns in found.items():
        entry = entries[label]
        records[label] = turns if isinstance(turns, EngineryError) else summarise(
            turns, shapes=shapes, batch=batch, first_call_ms=entry.first_call_ms, load_ms=entry.load_ms,
            placement=entry.placement, spec=spec, load=load, parts_ms=entry.parts_ms,
        )  # fmt: skip
    return records
