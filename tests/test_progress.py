"""Steps, and the time that is expected to be left."""

from __future__ import annotations

import pytest

from enginery.errors import WorkerTimeoutError
from enginery.progress import Advance, Progress, announce, listening, within


def test_remaining_time_follows_what_the_steps_took(monkeypatch):
    """When the first step took twice what was expected, the rest is expected to take twice as well."""
    now = [100.0]
    monkeypatch.setattr("enginery.progress.time.monotonic", lambda: now[0])
    progress = Progress(started=now[0])
    progress.plan(("build", 2.0), ("bench", 8.0))
    assert progress.remaining_s() == pytest.approx(10.0)
    with progress.step("build"):
        now[0] += 4.0
    assert progress.remaining_s() == pytest.approx(16.0)
    assert progress.fraction() == pytest.approx(4 / 20)
    progress.drop("bench")
    assert progress.remaining_s() == 0.0


def test_loud_lines_reach_the_log(caplog):
    """Where nobody listens, a loud line goes to the logger."""
    Progress().say("pass x was dropped")
    assert "pass x was dropped" in caplog.text


def test_a_step_that_tells_how_far_it_is_corrects_what_was_expected(monkeypatch):
    """Half done in ten seconds is twenty in all; without an own pace, what earlier ones took counts."""
    now = [0.0]
    monkeypatch.setattr("enginery.progress.time.monotonic", lambda: now[0])
    progress = Progress(started=now[0])
    progress.plan(("build", 3.0))
    with progress.step("build") as step:
        progress.advanced(Advance(0.0, "reading", expected_s=60.0))
        assert progress.remaining_s() == pytest.approx(60.0)
        now[0] = 10.0
        assert progress.remaining_s() == pytest.approx(50.0), "a library that is silent is not stuck"
        assert step.fraction(now[0]) == pytest.approx(1 / 6)
        progress.advanced(Advance(0.5, "timing", expected_s=20.0))
        assert progress.remaining_s() == pytest.approx(10.0)
        progress.advanced(Advance(0.9, "timing", expected_s=1000.0))
        assert progress.remaining_s() < 12.0, "near the end its own pace counts"
        progress.advanced(None)
        assert step.advance is None
    assert progress.remaining_s() == 0.0


def test_announcements_reach_the_listener_of_their_block():
    """Outside nobody listens; within another block only the inner one hears."""
    outer, inner = [], []
    announce(0.1, "nobody")
    with listening(outer.append):
        announce(0.2, "outer")
        with listening(inner.append):
            announce(0.3, "inner", expected_s=5.0)
    assert outer == [Advance(0.2, "outer")]
    assert inner == [Advance(0.3, "inner", 5.0)]


def test_a_time_limit_cancels_what_announces_itself(monkeypatch):
    """Before it, announcements are handed on; after it, the listener raises."""
    now = [0.0]
    monkeypatch.setattr("enginery.progress.time.monotonic", lambda: now[0])
    heard = []
    hear = within(5.0, heard.append)
    hear(Advance(0.1, "timing"))
    now[0] = 5.0
    with pytest.raises(WorkerTimeoutError, match=r"not done within 5 s, 40% done \(timing conv1\)"):
        hear(Advance(0.4, "timing conv1"))
    assert heard == [Advance(0.1, "timing")]
