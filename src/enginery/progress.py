"""How long work says what it is doing: steps with an expected duration, and loud lines.

The library reports to a `Progress`; by default nobody listens, and loud lines go to the ``enginery`` logger. The
command line shows a bar on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeAlias

from enginery.errors import WorkerTimeoutError

__all__ = ["Advance", "Listener", "Progress", "Step", "announce", "listener", "listening", "within"]

_LOG = logging.getLogger("enginery")
_OVERDUE = 0.15
"""A step that takes longer than earlier ones is expected to take this share of its time more."""


@dataclass(frozen=True)
class Advance:
    """How far one step has come, as the library that works on it tells.

    Args:
        fraction: how much of it is done, 0 to 1.
        phase: what it does now, in a few words.
        expected_s: how long the whole step takes, as far as earlier ones tell; None where none do.
    """

    fraction: float
    phase: str
    expected_s: float | None = None


Listener: TypeAlias = Callable[[Advance], None]
"""Takes how far a step has come. What it raises cancels the step, where the library can be cancelled."""

_LISTENER: ContextVar[Listener | None] = ContextVar("enginery_listener", default=None)


@contextlib.contextmanager
def listening(hear: Listener) -> Iterator[None]:
    """Hand what is announced within the block to `hear`; a listener outside the block hears nothing of it.

    Example:
        >>> heard = []
        >>> with listening(heard.append):
        ...     announce(0.5, "timing kernels")
        >>> heard
        [Advance(fraction=0.5, phase='timing kernels', expected_s=None)]
    """
    token = _LISTENER.set(hear)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> Listener | None:
    """Return who listens in this context; a library's own threads have another one, so ask before they start."""
    return _LISTENER.get()


def within(limit_s: float, hear: Listener) -> Listener:
    """Return a listener that hands on to `hear`, and cancels what announces itself after `limit_s` from now.

    A worker is killed at its time limit; this ends a step of this very process, where it can be cancelled.
    """
    deadline = time.monotonic() + limit_s

    def check(advance: Advance) -> None:
        if time.monotonic() >= deadline:
            raise WorkerTimeoutError(
                f"it was not done within {limit_s:g} s, {advance.fraction:.0%} done ({advance.phase})",
                mend="raise the time limit",
            )
        hear(advance)

    return check


def announce(fraction: float, phase: str, expected_s: float | None = None) -> None:
    """Tell whoever listens how far the step that runs now has come; see `Advance`."""
    hear = _LISTENER.get()
    if hear is not None:
        hear(Advance(fraction, phase, expected_s))


@dataclass
class Step:
    """One step of the work: its name, how long it is expected to take, when it ran, and how far it says it is."""

    name: str
    expected_s: float
    started: float | None = None
    ended: float | None = None
    advance: Advance | None = None

    def total_s(self, now: float) -> float | None:
        """Return how long the whole step takes, by how far it says it is; None where it says nothing.

        The more of it is done, the more its own pace counts against what earlier ones took.
        """
        if self.advance is None or self.started is None:
            return None
        spent, done = now - self.started, self.advance.fraction
        expected = self.advance.expected_s if self.advance.expected_s is not None else self.expected_s
        left = max(expected - spent, _OVERDUE * spent)
        if done <= 0:
            return spent + left
        trust = (1 - done) ** 2
        return spent + trust * left + (1 - trust) * spent * (1 - done) / done

    def fraction(self, now: float) -> float | None:
        """Return how much of it is done, 0 to 1; None where it does not say.

        A library is silent for long in its longest phases; what earlier ones took goes on meanwhile.
        """
        total = self.total_s(now)
        if total is None or self.advance is None or self.started is None:
            return None
        by_time = (now - self.started) / total if self.advance.expected_s is not None and total > 0 else 0.0
        return max(self.advance.fraction, min(by_time, 0.99))


@dataclass
class Progress:
    """Follows the steps of one piece of work; subclasses show it.

    The remaining time is the sum of what the steps to come are expected to take, scaled by how the steps that are
    done compare with what was expected of them.

    Example:
        >>> progress = Progress()
        >>> progress.plan(("build", 2.0), ("bench", 8.0))
        >>> with progress.step("build"):
        ...     pass
        >>> progress.remaining_s() is not None
        True
    """

    steps: list[Step] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def plan(self, *steps: tuple[str, float]) -> None:
        """Add steps to come: their names and expected seconds."""
        self.steps.extend(Step(name, max(expected, 1e-3)) for name, expected in steps)
        self.changed()

    def drop(self, name: str) -> None:
        """Take back a planned step that will not be needed."""
        self.steps = [step for step in self.steps if step.name != name or step.started is not None]
        self.changed()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a block as the planned step of that name, or as a step that nobody planned."""
        step = next((s for s in self.steps if s.name == name and s.started is None), None)
        if step is None:
            step = Step(name, 1.0)
            self.steps.append(step)
        step.started = time.monotonic()
        self.changed()
        try:
            yield step
        finally:
            step.ended = time.monotonic()
            self.changed()

    def advanced(self, advance: Advance | None) -> None:
        """Hear how far the step that runs now has come; a `Listener`. None where it does not tell any more."""
        step = self.current()
        if step is not None:
            step.advance = advance
            self.changed()

    def current(self) -> Step | None:
        """Return the step that runs now: the one that began last."""
        running = [step for step in self.steps if step.started is not None and step.ended is None]
        return max(running, key=lambda step: step.started or 0.0, default=None)

    def say(self, line: str) -> None:
        """Tell a loud line: something the user should see even when all goes well."""
        _LOG.warning(line)

    def changed(self) -> None:
        """React to a step that was planned, began, advanced or ended; the base class shows nothing."""

    def elapsed_s(self) -> float:
        """Return the seconds since the work began."""
        return time.monotonic() - self.started

    def remaining_s(self) -> float | None:
        """Return the seconds that are expected to be left; None where nothing was planned."""
        if not self.steps:
            return None
        now = time.monotonic()
        done = [step for step in self.steps if step.ended is not None]
        expected = sum(step.expected_s for step in done)
        taken = sum((step.ended or now) - (step.started or now) for step in done)
        scale = min(max(taken / expected, 0.2), 5.0) if expected else 1.0
        left = 0.0
        for step in self.steps:
            if step.ended is None:
                spent = now - step.started if step.started is not None else 0.0
                told = step.total_s(now)
                left += max((step.expected_s * scale if told is None else told) - spent, 0.0)
        return left

    def fraction(self) -> float:
        """Return how much of the work is done, 0 to 1, by time."""
        left = self.remaining_s()
        elapsed = self.elapsed_s()
        return 0.0 if left is None or elapsed + left <= 0 else elapsed / (elapsed + left)
