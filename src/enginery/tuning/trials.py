"""Trials of plans on one design: simulated, and built by a contestant's own backend; what is measured is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from enginery.backends.base import Design
from enginery.errors import (
    BuildError,
    DeviceMemoryError,
    EngineryError,
    FeatureError,
    GraphError,
    PrecisionError,
    PrecisionMismatchError,
    ProviderError,
)
from enginery.plain import from_plain, to_plain
from enginery.progress import Advance, Progress
from enginery.records import VerifyRecord
from enginery.spec import PrecisionPlan
from enginery.tuning.candidates import Contestant
from enginery.tuning.journal import Journal
from enginery.tuning.lane import Course, Lane
from enginery.tuning.search import Outcome
from enginery.tuning.simulation import Simulator

__all__ = ["Builder", "Pace", "Quantise", "bare", "simulated"]

Quantise: TypeAlias = Callable[[PrecisionPlan], Design]
"""Makes a design in which a plan's int8 nodes read such numbers, in the form that a contestant's backend wants."""

_REFUSALS = (BuildError, FeatureError, GraphError, PrecisionError, PrecisionMismatchError, ProviderError)
"""What a backend says of a plan each time it is asked, but for a device's memory that ran out.

All others, such as a worker that ran out of time or memory, say as much of the machine at that moment: they are not
written down, and a later run asks again.
"""


@dataclass
class Pace:
    """Tells how far a search has come, by how many trials it is expected to take.

    Args:
        progress: told after each trial.
        expected: trials that are expected; more are expected when that many are done.
    """

    progress: Progress
    expected: int = 16
    done: int = 0

    def step(self, phase: str) -> None:
        """One trial begins."""
        self.done += 1
        self.expected = max(self.expected, self.done + 2)
        self.progress.advanced(Advance((self.done - 1) / self.expected, phase))

    def wait(self) -> None:
        """Nothing new; called while a worker works."""
        self.progress.changed()


def simulated(
    simulator: Simulator,
    journal: Journal,
    about: Mapping[str, Any],
    pace: Pace,
    quantise: Quantise | None,
) -> Callable[[PrecisionPlan], Outcome]:
    """Return a trial that rounds in a float32 graph; with `quantise`, one that runs the quantised graph.

    Args:
        simulator: of the float32 graph.
        journal: what is known already.
        about: what else the outcome depends on: graph, data and bounds.
        pace: told of each trial.
        quantise: makes the graph of a plan, where rounding does not.
    """

    def trial(plan: PrecisionPlan) -> Outcome:
        key = {"what": "simulated", **about, "plan": bare(plan)}
        pace.step("simulating")
        if (known := journal.recall(key)) is not None:
            return replace(_outcome(known), again=True)
        begin = time.monotonic()
        record = simulator.judge(plan) if quantise is None else simulator.judge_graph(quantise(plan).path)
        found = _judged(record, time.monotonic() - begin)
        journal.keep(key, found)
        return found

    return trial


@dataclass
class Builder:
    """Builds and verifies plans on a contestant's own backend, one after another; the last that held is kept.

    Args:
        contestant: what to build, apart from the plan.
        course: what all contestants have in common.
        folder: its own; each trial gets a folder in it.
        journal: what is known already.
        about: what else the outcome depends on.
        pace: told of each trial.
        quantise: for int8, makes the design of a plan.
        best: the lane of the last plan that held, closed, where it was built in this run.
        refused: why the backend takes no such plan; empty where it does.
    """

    contestant: Contestant
    course: Course
    folder: Path
    journal: Journal
    about: Mapping[str, Any]
    pace: Pace
    quantise: Quantise | None = None
    best: Lane | None = None
    refused: str = ""
    _built: int = field(default=0, init=False)

    def __call__(self, plan: PrecisionPlan) -> Outcome:
        """Build, open and verify a plan; a backend that refuses it does not hold the bounds."""
        key = {"what": "built", **self.about, "plan": bare(plan)}
        self.pace.step("building and verifying")
        if (known := self.journal.recall(key)) is not None:
            return replace(_outcome(known), again=True)
        begin = time.monotonic()
        lane = self.lane(plan)
        try:
            lane.prepare(self.pace.wait, lambda _: None)
        except EngineryError as error:
            self.refused = error.message
            found = Outcome(holds=False, reason=error.message, error=None, cosine=None, seconds=_since(begin))
            if isinstance(error, _REFUSALS) and not isinstance(error, DeviceMemoryError):
                self.journal.keep(key, found)
            return found
        lane.close()
        assert lane.verify is not None  # noqa: S101 - a course with expected outputs verifies
        found = _judged(lane.verify, _since(begin))
        if found.holds:
            self.best = lane
        self.journal.keep(key, found)
        return found

    def lane(self, plan: PrecisionPlan) -> Lane:
        """Return a lane of its own for a plan, still to be prepared."""
        self._built += 1
        name, course, contestant = f"trial-{self._built}", self.course, replace(self.contestant, plan=plan)
        if self.quantise is not None:
            course = replace(course, designs={**course.designs, name: self.quantise(plan)})
            contestant = replace(contestant, design=name)
        return Lane(contestant, course, self.folder / name)


def _judged(record: VerifyRecord, seconds: float) -> Outcome:
    return Outcome(record.passed, record.reason, record.error, record.cosine, seconds)


def bare(plan: PrecisionPlan) -> Any:
    """Return a plan as it is written into a key: without the reasons, which change no figure."""
    return to_plain(replace(plan, reasons={}))


def _outcome(known: Mapping[str, Any]) -> Outcome:
    return from_plain(Outcome, known)


def _since(begin: float) -> float:
    return time.monotonic() - begin
