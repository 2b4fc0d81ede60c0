"""The nested phases of TensorRT's progress monitor as one fraction, 0 to 1.

A phase has a span of the whole; its steps divide the span evenly, and a phase that begins within a step has that
step's part. That holds badly for the few phases in which nearly all time passes: their own steps are moments, and one
of the phases within is the work. So in those a step weighs little, and a phase within takes most of what is left.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

__all__ = ["Phases"]

_FRAMES = frozenset({
    "Building engine", "Building engine from subgraph", "Computing profile costs", "Timing tactics",
})  # fmt: skip
"""Phases whose time passes in a phase within them."""

_LONG = frozenset({*_FRAMES, "Timing graph nodes", "Determining refit engines", "Assigning tactics"})
_STEP_OF_A_FRAME = 0.01
_SHARE_OF_A_LONG_PHASE = 0.9


@dataclass
class _Phase:
    begin: float
    end: float
    steps: int
    at: float


class Phases:
    """Follows phases as they begin, step and end; safe for several threads.

    Example:
        >>> phases = Phases()
        >>> phases.start("Cloning network graph", None, 2)
        >>> phases.step("Cloning network graph", 0)
        >>> phases.fraction
        0.5
    """

    def __init__(self) -> None:
        self.fraction = 0.0
        self.current = ""
        self._running: dict[str, _Phase] = {}
        self._lock = threading.Lock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase of so many steps within its parent's current step; None for the outermost."""
        with self._lock:
            outer = self._running.get(parent) if parent is not None else None
            begin, end = (0.0, 1.0) if outer is None else self._span_within(outer, parent or "", name)
            self._running[name] = _Phase(begin, end, max(steps, 1), begin)
            self.current = name
            self._reach(begin)

    def step(self, name: str, step: int) -> None:
        """Note that a step, counted from 0, is done."""
        with self._lock:
            phase = self._running.get(name)
            if phase is None:
                return
            done = (step + 1) / phase.steps
            if name in _FRAMES:
                done *= _STEP_OF_A_FRAME * phase.steps
            phase.at = max(phase.at, min(phase.begin + (phase.end - phase.begin) * min(done, 1.0), phase.end))
            self._reach(phase.at)

    def finish(self, name: str) -> None:
        """Note that a phase has ended."""
        with self._lock:
            phase = self._running.pop(name, None)
            if phase is None:
                return
            for outer in self._running.values():
                if outer.begin <= phase.begin and phase.end <= outer.end:
                    outer.at = max(outer.at, phase.end)
            self.current = next(reversed(self._running), "finishing")
            self._reach(phase.end)

    def _span_within(self, outer: _Phase, parent: str, name: str) -> tuple[float, float]:
        left = outer.end - outer.at
        if parent in _FRAMES:
            share = _SHARE_OF_A_LONG_PHASE if name in _LONG else _STEP_OF_A_FRAME
            return outer.at, outer.at + left * share
        return outer.at, outer.at + min((outer.end - outer.begin) / outer.steps, left)

    def _reach(self, fraction: float) -> None:
        self.fraction = max(self.fraction, fraction)
