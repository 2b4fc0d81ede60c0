"""Steps, and the time that is expected to be left."""

from __future__ import annotations

import pytest

from enginery.progress import Progress


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
