"""Calls are timed one by one, on a clock that only the calls move."""

from __future__ import annotations

import gc

import pytest

from enginery.benchmark.clock import sample, warm_up


class FakeClock:
    """A clock in nanoseconds that moves only when something takes time."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def take_ms(self, duration_ms):
        self.now += int(duration_ms * 1e6)


def test_each_call_is_timed_by_itself():
    """Samples are the calls' own durations, in their order and in milliseconds."""
    clock, durations = FakeClock(), iter([3.0, 1.0, 2.0])
    assert sample(lambda: clock.take_ms(next(durations)), 0.0, 3, clock=clock) == [3.0, 1.0, 2.0]


def test_it_stops_when_the_time_is_over():
    """No call begins after the time is over."""
    clock = FakeClock()
    assert sample(lambda: clock.take_ms(4.0), 0.01, clock=clock) == [4.0, 4.0, 4.0]


def test_a_call_longer_than_the_time_is_taken_once():
    """A slow model still gives a sample, and no more than it must."""
    clock = FakeClock()
    assert sample(lambda: clock.take_ms(900.0), 0.3, 1, clock=clock) == [900.0]


def test_warm_up_lasts_its_time():
    """It calls until its time is over, and not at all where there is none."""
    clock = FakeClock()
    assert warm_up(lambda: clock.take_ms(3.0), 10.0, clock=clock) == 4
    assert warm_up(lambda: clock.take_ms(3.0), 0.0, clock=clock) == 0


def test_the_collector_rests_and_comes_back():
    """Garbage collection is off while calls are timed and as it was afterwards, also after an error."""
    seen = []
    sample(lambda: seen.append(gc.isenabled()), 0.0, 2)
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        sample(lambda: 1 // 0, 0.0, 1)
    assert gc.isenabled()
