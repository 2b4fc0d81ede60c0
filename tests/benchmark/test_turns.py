"""Contestants take turns in rotating order, and leave when they are stable, have failed or are out of time."""

from __future__ import annotations

import itertools

from enginery.benchmark.turns import take_turns
from enginery.errors import RunError, WorkerCrashError
from enginery.spec import BenchSpec

SPEC = BenchSpec(warmup_ms=200, turn_ms=300, min_samples=20, min_turns=3, stable_within=0.01, limit_s=10)


class FakeTimer:
    """Takes a fixed time for each call, or times from a list; keeps what it was asked for."""

    def __init__(self, call_ms, *, fails_at=None, journal=None, name=""):
        self.call_ms = itertools.cycle(call_ms if isinstance(call_ms, list) else [call_ms])
        self.asked = []
        self.fails_at = fails_at
        self.journal = journal if journal is not None else []
        self.name = name

    def __call__(self, warmup_ms, seconds, min_calls):
        self.journal.append(self.name)
        self.asked.append((warmup_ms, seconds, min_calls))
        if self.fails_at == len(self.asked):
            raise WorkerCrashError("it died")
        samples = []
        while sum(samples) < seconds * 1e3 or len(samples) < min_calls:
            samples.append(next(self.call_ms))
        return samples


def make(journal, **call_ms):
    """Return a timer for each name, all writing into one journal."""
    return {name: FakeTimer(each, journal=journal, name=name) for name, each in call_ms.items()}


def test_steady_contestants_take_three_turns_each():
    """Who is stable leaves after the least number of turns; the order rotates by one in each round."""
    journal = []
    found = take_turns(make(journal, a=1.0, b=2.0, c=3.0), SPEC)
    assert journal == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {name: len(turns) for name, turns in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert list(found) == ["a", "b", "c"]


def test_an_unsteady_contestant_goes_on_alone():
    """The others are spared, and the time limit ends it."""
    journal = []
    found = take_turns(make(journal, a=1.0, b=[1.0, 3.0, 30.0, 80.0]), SPEC)
    assert len(found["a"]) == 3
    assert len(found["b"]) > 10
    assert 10_000 <= sum(map(sum, found["b"])) + 200 + 30 * (len(found["b"]) - 1) < 10_400


def test_one_that_fails_is_told_and_leaves():
    """Its error takes the place of its samples, and the others are timed to the end."""
    journal = []
    timers = make(journal, a=1.0, b=1.0)
    timers["b"] = FakeTimer(1.0, fails_at=2, journal=journal, name="b")
    found = take_turns(timers, SPEC)
    assert isinstance(found["b"], WorkerCrashError)
    assert journal == ["a", "b", "b", "a", "a"]
    assert len(found["a"]) == 3


def test_all_failing_ends_the_benchmark():
    """Nothing is left to do where everyone has failed."""
    error = RunError("no")

    def fail(*_asked):
        raise error

    assert take_turns({"a": fail, "b": fail}, SPEC) == {"a": error, "b": error}
    assert take_turns({}, SPEC) == {}


def test_warm_up_is_long_once_and_short_later():
    """The first turn warms up in full, later ones by a tenth of a turn."""
    timer = FakeTimer(1.0)
    take_turns({"a": timer}, SPEC)
    assert timer.asked == [(200, 0.3, 1), (30, 0.3, 3), (30, 0.3, 3)]


def test_a_call_longer_than_a_turn_is_taken_one_by_one():
    """It is not warmed up again, and the time limit ends it without its being stable."""
    timer = FakeTimer(2000.0)
    found = take_turns({"a": timer}, SPEC)
    # One call of warm-up and one sample, then samples until ten seconds are used.
    assert found["a"] == [[2000.0]] * 4
    assert timer.asked[0] == (200, 0.3, 1)
    assert timer.asked[1][0] == 0
    assert timer.asked[1][2] == 1


def test_a_call_longer_than_the_limit_is_taken_once():
    """Even the slowest model gets one sample, and no more."""
    assert take_turns({"a": FakeTimer(60_000.0)}, SPEC) == {"a": [[60_000.0]]}


def test_turns_are_told():
    """Each turn is told, with whether it was the contestant's last."""
    told = []
    take_turns({"a": FakeTimer(50.0)}, SPEC, on_turn=lambda label, samples, last: told.append((label, samples, last)))
    assert told[0] == ("a", [50.0] * 6, False)
    assert [last for _, _, last in told] == [False, False, False, True]
