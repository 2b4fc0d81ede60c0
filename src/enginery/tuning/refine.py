"""Between building and timing: candidates that miss the bounds get plans that hold them, and take part as new ones.

Nothing is searched for a candidate that holds the bounds as it is: its plan is the fastest already.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from enginery.backends.base import Design
from enginery.errors import EngineryError
from enginery.graph.base import NodeStudy
from enginery.plain import from_plain, to_plain
from enginery.progress import Progress
from enginery.records import SearchRecord, SensitivityRecord
from enginery.spec import QUANTISED, PrecisionPlan
from enginery.tuning.candidates import Contestant
from enginery.tuning.journal import Journal
from enginery.tuning.keys import design_key, hash_cases, machine_key
from enginery.tuning.lane import Course, Lane
from enginery.tuning.regions import Regions, raise_slow_regions
from enginery.tuning.search import Found, Limits, search_plan
from enginery.tuning.sensitivity import group_nodes, quantised_sensitivity, sensitivity
from enginery.tuning.simulation import Simulator
from enginery.tuning.trials import Builder, Pace, Quantise, bare, simulated
from enginery.tuning.words import kept_words

__all__ = ["NARROW", "Quantiser", "Refined", "refine", "search_step", "to_refine"]

NARROW = ("fp16", "bf16")
"""Precisions that a plan may mix with float32 node by node."""

Quantiser: TypeAlias = Callable[[Design, PrecisionPlan, str], Design]
"""Makes a quantised design of a float one: of the plan's nodes, in a form."""

_REGIONS = 6
_NO_FASTER = "it is no faster lower"


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
    """Return the lanes that a search may better: one for each backend and precision.

    Those that miss a bound, and quantised ones, parts of which may be lower for nothing.
    """
    found: dict[tuple[str, ...], Lane] = {}
    for lane in lanes:
        contestant = lane.contestant
        mixes = contestant.precision in NARROW and contestant.plan is None
        ran = lane.error is None and lane.verify is not None
        if ran and contestant.role == "candidate" and (mixes or _is_quantised(contestant)):
            found.setdefault(_kind(contestant), lane)
    return [lane for lane in found.values() if _may_gain(lane)]


def _may_gain(lane: Lane) -> bool:
    return lane.verify is not None and (not lane.verify.passed or _is_quantised(lane.contestant))


def _is_quantised(contestant: Contestant) -> bool:
    return contestant.precision in QUANTISED and bool(contestant.origin) and contestant.plan is not None


def search_step(lane: Lane) -> str:
    """Name the step that `Progress` is told."""
    return f"search {lane.contestant.label}"


def refine(
    lanes: Sequence[Lane], course: Course, folder: Path, progress: Progress, quantise: Quantiser | None = None
) -> Refined:
    """Search a plan for each lane that misses the bounds, and ready the candidates that follow it.

    Args:
        lanes: built and verified.
        course: what all have in common.
        folder: for the trials.
        progress: told what is going on.
        quantise: makes quantised designs; None where there is no data to do so.
    """
    roots = [root for root in to_refine(lanes) if quantise is not None or not _is_quantised(root.contestant)]
    progress.plan(*((search_step(root), 60.0) for root in roots))
    desk = _Desk(course, folder.absolute(), progress, quantise)
    searches: list[SearchRecord] = []
    try:
        for root in roots:
            with progress.step(search_step(root)):
                record = desk.search(root, [lane for lane in lanes if _kind(lane.contestant) == _kind(root.contestant)])
            if not record.found and not (root.verify and root.verify.passed):
                progress.say(f"{record.label}: {record.words}")
            searches.append(record)
    except BaseException:
        desk.discard()  # the race does not know of these lanes yet
        raise
    return Refined(tuple(desk.made), tuple(searches))


@dataclass
class _Desk:
    """What all searches of a race share: the journal, the rankings, and what they depend on."""

    course: Course
    folder: Path
    progress: Progress
    quantiser: Quantiser | None = None
    made: list[Lane] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = self.course.spec.resume
        self.journal = Journal(Path(kept) if kept is not None else None)
        self.data = hash_cases(self.course.cases)

    def discard(self) -> None:
        """End the workers of all lanes that were made, and remove what they have written."""
        for lane in self.made:
            lane.kill()
            shutil.rmtree(lane.folder, ignore_errors=True)

    def search(self, root: Lane, siblings: Sequence[Lane]) -> SearchRecord:
        """Search from one lane; make a lane of what is found for each set of options of its backend."""
        begin = time.monotonic()
        contestant = root.contestant
        own = self.folder / f"search-{contestant.backend}-{contestant.environment}-{contestant.precision}"
        builder = self._builder(root, own, Pace(self.progress))
        deadline = begin + self.course.spec.search_limit_s
        ranking, found, trouble = None, Found(None, None, ()), ""
        try:
            with self._simulator(self._graph(contestant), own, builder.pace) as simulator:
                ranking = self._ranking(simulator, builder)
                found = self._find(root, simulator, ranking, builder, deadline)
        except EngineryError as error:
            trouble = error.message
        lanes = (
            self._follow(found.plan, builder, siblings) if found.plan is not None and _is_mixed(found, ranking) else []
        )
        record = _record(root, ranking, found, lanes, trouble or builder.refused)
        return replace(record, seconds=time.monotonic() - begin)

    def _find(
        self, root: Lane, simulator: Simulator, ranking: SensitivityRecord, builder: Builder, deadline: float
    ) -> Found:
        contestant, base_plan = root.contestant, builder.quantise and root.contestant.plan
        passed = root.verify is not None and root.verify.passed
        found = Found((), contestant.plan, ())
        if not passed:
            about = {**self._about(contestant), "precision": contestant.precision, "form": contestant.int8_form}
            trial = simulated(simulator, self.journal, about, builder.pace, builder.quantise)
            limits = Limits(seconds=max(deadline - time.monotonic(), 0.0))
            found = search_plan(ranking, trial, builder, limits=limits, base=base_plan)
        if base_plan is None or found.plan is None or not found.plan.nodes:
            return found
        steps = list(found.steps)
        regions = _regions(ranking, found.plan)
        timing = Regions(builder, self.journal, {**builder.about, "case": self.course.bench_case}, steps, deadline)
        plan = raise_slow_regions(found.plan, regions, timing)
        if timing.trouble:
            self.progress.say(f"{contestant.label}: not every region was timed: {timing.trouble}")
        kept = tuple(name for name in base_plan.nodes if name not in plan.nodes)
        return replace(found, plan=plan, kept=kept, steps=tuple(steps), slow=tuple(timing.slow))

    def _graph(self, contestant: Contestant) -> Path:
        """Return the float graph that a contestant is made from."""
        return self.course.designs[contestant.origin or contestant.design].path

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
            "machine": machine_key(),
        }
        return Builder(contestant, self.course, own, self.journal, about, pace, self._quantise(contestant))

    def _quantise(self, contestant: Contestant) -> Quantise | None:
        quantiser = self.quantiser
        if quantiser is None or not _is_quantised(contestant):
            return None
        design = self.course.designs[contestant.origin]
        form = "fp8" if contestant.precision == "fp8" else contestant.int8_form
        return lambda plan: quantiser(design, plan, form)

    def _about(self, contestant: Contestant) -> dict[str, Any]:
        designs = self.course.designs
        quantised = designs[contestant.design] if _is_quantised(contestant) else None
        design = designs[contestant.origin or contestant.design]
        return design_key(design, quantised, self.data, self.course.spec.verify)

    def _ranking(self, simulator: Simulator, builder: Builder) -> SensitivityRecord:
        """Return how nodes bear a precision; measured once for each graph, and known from an earlier run."""
        contestant, quantise = builder.contestant, builder.quantise
        form = contestant.int8_form if quantise is not None else ""
        plan = bare(contestant.plan) if contestant.plan is not None else None
        about = {**self._about(contestant), "precision": contestant.precision, "form": form, "plan": plan}
        key = {"what": "sensitivity", **about}
        if (known := self.journal.recall(key)) is None:
            builder.pace.step("measuring the sensitivity of each part")
            known = to_plain(self._measured(simulator, contestant, quantise))
            self.journal.keep(key, known)
        return from_plain(SensitivityRecord, known)

    def _measured(self, simulator: Simulator, contestant: Contestant, quantise: Quantise | None) -> SensitivityRecord:
        if quantise is None or contestant.plan is None:
            return sensitivity(simulator, contestant.precision, progress=self.progress)
        return quantised_sensitivity(
            simulator, contestant.plan, lambda plan: quantise(plan).path, progress=self.progress
        )

    def _follow(self, plan: PrecisionPlan, builder: Builder, siblings: Sequence[Lane]) -> list[Lane]:
        """Ready a lane for each set of options; the one that the search has built already is taken over."""
        found = []
        for at, sibling in enumerate(siblings):
            contestant, best = _mixed(sibling.contestant, plan), builder.best
            if sibling.contestant is builder.contestant and best is not None and best.builds(plan):
                best.contestant, lane = contestant, best
                self.made.append(lane)
            else:
                bare_one = replace(contestant, plan=None)
                lane = replace(builder, contestant=bare_one, folder=builder.folder / f"mixed-{at}").lane(plan)
                self.made.append(lane)  # before its worker starts, so that none is left behind
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
    if plan is None and (why := trouble or (found.steps[-1].reason if found.steps else "")):
        words = f"{words}: {why}"
    elif plan is not None and ranking is not None and len(found.kept or ()) == len(ranking.nodes):
        words = f"only with every node kept higher than {contestant.precision} do the bounds hold"
    elif plan is not None and ranking is not None:
        words = kept_words(plan, found.kept or (), ranking, found.slow)
    return SearchRecord(
        label=contestant.label,
        found=tuple(lane.contestant.label for lane in lanes),
        precision=contestant.precision,
        kept={name: _high(contestant, plan) for name in found.kept or ()},
        reasons={name: _NO_FASTER if name in found.slow else found.reasons[name] for name in found.kept or ()},
        total=ranking.total if ranking is not None else 0,
        steps=found.steps,
        sensitivity=ranking,
        words=f"{words} (the search ended at its limit)" if found.unfinished else words,
        seconds=0.0,
    )


def _is_mixed(found: Found, ranking: SensitivityRecord | None) -> bool:
    """Say whether a plan is between two precisions: some nodes are kept, and not all."""
    return ranking is not None and 0 < len(found.kept or ()) < len(ranking.nodes)


def _high(contestant: Contestant, plan: PrecisionPlan | None) -> str:
    """Return the precision of what is kept: of a quantised plan its rest, else float32."""
    return plan.precision if plan is not None and contestant.precision in QUANTISED else "fp32"


def _kind(contestant: Contestant) -> tuple[str, ...]:
    return contestant.backend, contestant.environment, contestant.precision, contestant.design


def _regions(ranking: SensitivityRecord, plan: PrecisionPlan) -> dict[str, tuple[str, ...]]:
    """Cut what a plan has quantised into a few regions, the one with most nodes first."""
    nodes = [
        NodeStudy(row.name, row.operator, row.module, lowers=True, inputs=(), outputs=(), losses={})
        for row in ranking.nodes
        if row.name in plan.nodes
    ]
    order = {name: at for at, name in enumerate(plan.nodes)}
    nodes.sort(key=lambda node: order[node.name])
    return dict(sorted(group_nodes(nodes, _REGIONS).items(), key=lambda item: -len(item[1])))


def _mixed(contestant: Contestant, plan: PrecisionPlan) -> Contestant:
    mixed = f"{contestant.precision}+{plan.precision if plan.precision != contestant.precision else 'fp32'}"
    return replace(contestant, label=contestant.label.replace(contestant.precision, mixed, 1), plan=plan)
