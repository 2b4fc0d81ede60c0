"""Time calls, one by one, on the clock that only goes forward."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator

__all__ = ["sample", "warm_up"]

Clock = Callable[[], int]


def warm_up(call: Callable[[], object], duration_ms: float, *, clock: Clock = time.perf_counter_ns) -> int:
    """Call for at least `duration_ms`, and once at the least where that is above 0; return the number of calls.

    Caches fill, clocks rise, lazy set-up and threads wake: none of that is what a benchmark is asked for.
    """
    end = clock() + int(duration_ms * 1e6)
    calls = 0
    while clock() < end:
        call()
        calls += 1
    return calls


def sample(
    call: Callable[[], object], seconds: float, min_calls: int = 1, *, clock: Clock = time.perf_counter_ns
) -> list[float]:
    """Time calls one by one for `seconds`, and at least `min_calls` of them; return milliseconds.

    What one call returns is dropped outside its own time, and Python's cyclic garbage collector rests meanwhile.

    Example:
        >>> len(sample(lambda: None, 0.0, min_calls=3))
        3
    """
    taken: list[int] = []
    with _no_collection():
        begin = clock()
        end = begin + int(seconds * 1e9)
        while begin < end or len(taken) < min_calls:
            begin = clock()
            result = call()
            taken.append(clock() - begin)
            del result
            begin = clock()
    return [duration / 1e6 for duration in taken]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
