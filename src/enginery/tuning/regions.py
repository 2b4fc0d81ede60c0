"""Regions of a plan that are lower for nothing: where a region higher is no slower, it is raised.

A quantised region pays for its quantisers at its ends; where there is little work between them, they cost more than
the narrow numbers save. That shows on the clock alone, so both engines take turns on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from enginery.benchmark.base import time_in_turns
from enginery.errors import EngineryError
from enginery.inputs.base import load_cases
from enginery.records import BenchRecord, SearchStepRecord
from enginery.spec import PrecisionPlan
from enginery.tuning.journal import Journal
from enginery.tuning.lane import Lane
from enginery.tuning.search import Outcome
from enginery.tuning.trials import Builder

__all__ = ["Regions", "raise_slow_regions"]

_NO_GAP = 0.01
_TIME_S = 2.0


@dataclass
class Regions:
    """Timing of regions against each other.

    Args:
        builder: builds and verifies plans.
        journal: what is known already.
        about: what else a time depends on.
        steps: written down here.
        deadline: of the monotonic clock, after which no region is tried.
        slow: nodes that were raised because lower they were no faster.
        trouble: why a region could not be tried or timed, the last of them; empty where all were.
    """

    builder: Builder
    journal: Journal
    about: Mapping[str, Any]
    steps: list[SearchStepRecord]
    deadline: float = math.inf
    slow: list[str] = field(default_factory=list)
    trouble: str = ""
    _current: Lane | None = field(default=None, init=False)

    def compare(self, low: PrecisionPlan, high: PrecisionPlan) -> tuple[float, float]:
        """Return both medians in milliseconds.

        Raises:
            EngineryError: one of them does not run.
        """
        key = {"what": "timed", **self.about, "low": dict(low.nodes), "high": dict(high.nodes)}
        if (known := self.journal.recall(key)) is not None:
            return known[0], known[1]
        lanes: dict[str, Lane] = {}
        try:
            lanes["low"] = self._lane(low, self._current)
            lanes["high"] = self._lane(high, self.builder.best)
            found = _time(lanes, self.builder)
        finally:
            for lane in lanes.values():
                lane.close()
        self._current = lanes["low"]
        self.journal.keep(key, found)
        return found

    def tries(self, low: PrecisionPlan, high: PrecisionPlan) -> tuple[Outcome, tuple[float, float] | None]:
        """Build the higher plan, and time both where it holds the bounds; no times where it does not, or one failed."""
        begin = time.monotonic()
        outcome = Outcome(holds=False, reason="", error=None, cosine=None, seconds=0.0)
        try:
            outcome = self.builder(high)
            return outcome, self.compare(low, high) if outcome.holds else None
        except EngineryError as error:
            self.trouble = error.message
            seconds = time.monotonic() - begin
            return replace(outcome, reason=f"not timed: {error.message}", seconds=seconds), None

    def _lane(self, plan: PrecisionPlan, known: Lane | None) -> Lane:
        """Return a lane of a plan: the one that is built already, or another."""
        if known is not None and known.builds(plan):
            return known
        lane = self.builder.lane(plan)
        lane.prepare(self.builder.pace.wait, lambda _: None)
        return lane

    def adopt(self, nodes: Sequence[str]) -> None:
        """Go on from the plan that was measured last."""
        self.slow += nodes
        self._current = self.builder.best


def raise_slow_regions(plan: PrecisionPlan, regions: Mapping[str, Sequence[str]], timing: Regions) -> PrecisionPlan:
    """Raise each region whose lower numbers buy no time, if the bounds hold without them.

    A region that cannot be tried or timed stays as it is: the plan holds the bounds with it.

    Args:
        plan: that holds the bounds.
        regions: names of nodes by the name of their region.
        timing: measures, and writes every step down.
    """
    for name, nodes in regions.items():
        inside = [node for node in nodes if node in plan.nodes]
        if not inside or len(inside) == len(plan.nodes) or time.monotonic() >= timing.deadline:
            continue
        left = {node: word for node, word in plan.nodes.items() if node not in set(inside)}
        raised = replace(plan, nodes=left, reasons={node: why for node, why in plan.reasons.items() if node in left})
        outcome, times = timing.tries(plan, raised)
        gain = times is not None and times[1] > times[0] * (1 + _NO_GAP)
        timing.steps.append(_step(name, inside, outcome, times, gain=gain))
        if times is not None and not gain:
            plan = raised
            timing.adopt(inside)
    return plan


def _step(
    name: str, inside: Sequence[str], outcome: Outcome, times: tuple[float, float] | None, *, gain: bool
) -> SearchStepRecord:
    verdict = "keep lower" if gain or times is None else "raise"
    shown = "" if times is None else f": {times[0]:.4g} ms lower, {times[1]:.4g} ms higher"
    return SearchStepRecord(
        "timed", f"{verdict} {name} ({len(inside)} nodes){shown}", len(inside), outcome.holds, outcome.reason,
        outcome.error, outcome.cosine, outcome.seconds, p50_ms=None if times is None else times[1], again=outcome.again,
    )  # fmt: skip


def _time(lanes: Mapping[str, Lane], builder: Builder) -> tuple[float, float]:
    course = builder.course
    feeds = next(case.feeds for case in load_cases(course.cases) if case.name == course.bench_case)
    spec = replace(course.spec.bench, limit_s=min(course.spec.bench.limit_s, _TIME_S))
    found = time_in_turns(
        {name: lane.entry for name, lane in lanes.items()}, feeds, spec,
        pids=lambda: [pid for lane in lanes.values() for pid in lane.pids],
    )  # fmt: skip
    medians = []
    for record in found.values():
        if not isinstance(record, BenchRecord):
            raise record
        medians.append(record.p50_ms)
    return medians[0], medians[1]
