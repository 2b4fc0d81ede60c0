"""What the steps do by themselves, beside joining the stages."""

from __future__ import annotations

from enginery import steps


def test_an_engine_named_twice_is_timed_twice():
    """Timing an engine against itself shows how far two measurements of one thing lie apart."""
    labels = list(steps._by_label(["a/x.engine", "a/x.engine", "b/x.engine", "b/x.engine"]))
    assert labels == ["x.engine", "a/x.engine", "b/x.engine", "b/x.engine (2)"]
