"""Between building and timing: candidates that miss the bounds get plans that hold them, and take part as new ones.

Nothing is searched for a candidate that holds the bounds as it is: its plan is the fastest already.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enginery.errors import EngineryError
from enginery.graph import base
from enginery.inputs.base import load_cases
from enginery.plain import from_plain, to_plain
from enginery.progress import Progress
from enginery.records import SearchRecord, SensitivityRecord
from enginery.spec import PrecisionPlan
from enginery.tuning.candidates import Contestant
from enginery.tuning.journal import Journal
from enginery.tuning.lane import Course, Lane
from enginery.tuning.search import Found, Limits, search_plan
from enginery.tuning.sensitivity import sensitivity
from enginery.tuning.simulation import Simulator
from enginery.tuning.trials import Builder, Pace, simulated
from enginery.tuning.words import kept_words

__all__ = ["NARROW", "Refined", "refine", "search_step", "to_refine"]

NARROW = ("fp16", "bf16")
"""Precisions that a plan may mix with float32 node by node."""


@dataclass(frozen=True)
class Refined:
    """What came of the searches.

    Args:
        lanes: of the new candidates, built and verified.
        searches: one for each that was refined.
    """

    lanes: tuple[Lane, ...]
    searches: tuple[SearchRecord, ...]


def to_refine(lanes: Sequence[Lane]) -> list[Lane]:
    """Return the lanes that were built, miss a bound and could mix precisions: one for each backend and precision."""
    found: dict[tuple[str, ...], Lane] = {}
    for lane in lanes:
        contestant = lane.contestant
        if contestant.role == "candidate" and contestant.precision in NARROW and contestant.plan is None:
            found.setdefault(_kind(contestant), lane)
    return [lane for lane in found.values() if lane.error is None and lane.verify and not lane.verify.passed]


def search_step(lane: Lane) -> str:
    """Name the step that `Progress` is told."""
    return f"search {lane.contestant.label}"


def refine(lanes: Sequence[Lane], course: Course, folder: Path, progress: Progress) -> Refined:
    """Search a plan for each lane that misses the bounds, and ready the candidates that follow it.

    Args:
        lanes: built and verified.
        course: what all have in common.
        folder: for the trials.
        progress: told what is going on.
    """
    roots = to_refine(lanes)
    progress.plan(*((search_step(root), 60.0) for root in roots))
    desk = _Desk(course, folder.absolute(), progress)
    made: list[Lane] = []
    searches: list[SearchRecord] = []
    for root in roots:
        with progress.step(search_step(root)):
            record, found = desk.search(
                root, [lane for lane in lanes if _kind(lane.contestant) == _kind(root.contestant)]
            )
        searches.append(record)
        made += found
    return Refined(tuple(made), tuple(searches))


@dataclass
class _Desk:
    """What all searches of a race share: the journal, the rankings, and what they depend on."""

    course: Course
    folder: Path
    progress: Progress
    rankings: dict[tuple[Path, str], SensitivityRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = self.course.spec.resume
        self.journal = Journal(Path(kept) if kept is not None else None)
        self.data = _hash_cases(self.course.cases)

    def search(self, root: Lane, siblings: Sequence[Lane]) -> tuple[SearchRecord, list[Lane]]:
        """Search from one lane; return the record, and a lane for each set of options of its backend."""
        begin = time.monotonic()
        contestant = root.contestant
        graph = self.course.designs[contestant.design].path
        own = self.folder / f"search-{contestant.backend}-{contestant.environment}-{contestant.precision}"
        pace = Pace(self.progress)
        ranking, found, builder = None, Found(None, None, ()), self._builder(root, own, pace)
        trouble = ""
        try:
            with self._simulator(graph, own, pace) as simulator:
                ranking = self._ranking(simulator, contestant.precision, pace)
                about = {**self._about(contestant), "precision": contestant.precision}
                trial = simulated(simulator, self.journal, about, pace, None)
                found = search_plan(ranking, trial, builder, limits=self._limits())
        except EngineryError as error:
            trouble = error.message
        lanes = self._follow(found.plan, builder, siblings) if found.plan is not None and found.kept else []
        record = _record(root, ranking, found, lanes, trouble or builder.refused)
        return replace(record, seconds=time.monotonic() - begin), lanes

    def _simulator(self, graph: Path, own: Path, pace: Pace) -> Simulator:
        course = self.course
        assert course.expected is not None  # noqa: S101 - only what was verified is refined
        return Simulator(
            graph, cases=course.cases, expected=course.expected, folder=own, spec=course.spec.verify,
            reference=course.reference, inputs=course.inputs, limit_s=course.spec.job_limit_s, on_wait=pace.wait,
        )  # fmt: skip

    def _builder(self, root: Lane, own: Path, pace: Pace) -> Builder:
        contestant = root.contestant
        about = {
            **self._about(contestant),
            "backend": contestant.backend,
            "version": root.build.backend_version if root.build is not None else "",
            "environment": contestant.environment,
            "options": dict(contestant.options),
            "shapes": {name: str(shape) for name, shape in self.course.spec.shapes.items()},
        }
        return Builder(contestant, self.course, own, self.journal, about, pace)

    def _about(self, contestant: Contestant) -> dict[str, Any]:
        """Say what every outcome depends on: the graph, the data and the bounds."""
        design = self.course.designs[contestant.design]
        names = [node.name for node in base.all_nodes(base.load_model(design.path))]
        return {
            "source": design.source_sha256,
            "nodes": hashlib.sha256("\n".join(name or "" for name in names).encode()).hexdigest(),
            "data": self.data,
            "bounds": to_plain(self.course.spec.verify),
        }

    def _ranking(self, simulator: Simulator, precision: str, pace: Pace) -> SensitivityRecord:
        """Return how nodes bear a precision; measured once for each graph, and known from an earlier run."""
        place = simulator.graph, precision
        if place not in self.rankings:
            names = [node.name for node in base.all_nodes(simulator.model)]
            key = {"what": "sensitivity", "precision": precision, "nodes": names, "data": self.data}
            known = self.journal.recall(key)
            if known is None:
                pace.step("measuring the sensitivity of each part")
                known = to_plain(sensitivity(simulator, precision, progress=self.progress))
                self.journal.keep(key, known)
            self.rankings[place] = from_plain(SensitivityRecord, known)
        return self.rankings[place]

    def _limits(self) -> Limits:
        return Limits(seconds=self.course.spec.search_limit_s)

    def _follow(self, plan: PrecisionPlan, builder: Builder, siblings: Sequence[Lane]) -> list[Lane]:
        """Ready a lane for each set of options; the one that the search has built already is taken over."""
        found = []
        for at, sibling in enumerate(siblings):
            contestant = _mixed(sibling.contestant, plan)
            best = builder.best
            if (
                at == 0
                and best is not None
                and best.contestant.plan is not None
                and best.contestant.plan.nodes == plan.nodes
            ):
                best.contestant = contestant
                found.append(best)
                continue
            lane = Lane(contestant, self.course, builder.folder / f"mixed-{at}")
            try:
                lane.prepare(self.progress.changed, lambda _: None)
            except EngineryError as error:
                lane.error = error
            found.append(lane)
        return found


def _record(
    root: Lane, ranking: SensitivityRecord | None, found: Found, lanes: Sequence[Lane], trouble: str
) -> SearchRecord:
    plan, contestant = found.plan, root.contestant
    words = f"no plan between {contestant.precision} and fp32 holds the bounds"
    if trouble and plan is None:
        words = f"{words}: {trouble}"
    elif plan is not None and ranking is not None:
        words = kept_words(plan, found.kept or (), ranking)
    return SearchRecord(
        label=contestant.label,
        found=lanes[0].contestant.label if lanes else "",
        precision=contestant.precision,
        kept=dict(plan.nodes) if plan is not None else {},
        reasons=dict(plan.reasons) if plan is not None else {},
        total=ranking.total if ranking is not None else 0,
        steps=found.steps,
        sensitivity=ranking,
        words=f"{words} (the search ended at its limit)" if found.unfinished else words,
        seconds=0.0,
    )


def _kind(contestant: Contestant) -> tuple[str, ...]:
    return contestant.backend, contestant.environment, contestant.precision, contestant.design


def _mixed(contestant: Contestant, plan: PrecisionPlan) -> Contestant:
    mixed = f"{contestant.precision}+fp32"
    return replace(contestant, label=contestant.label.replace(contestant.precision, mixed, 1), plan=plan)


def _hash_cases(folder: Path) -> str:
    found = hashlib.sha256()
    for case in load_cases(folder):
        for name, array in case.feeds.items():
            found.update(f"{case.name} {name} ".encode())
            found.update(array.tobytes() if hasattr(array, "tobytes") else repr(array).encode())
    return found.hexdigest()
