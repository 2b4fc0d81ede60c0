"""Contestants → records: each is built and verified in a worker of its own, then all take turns on the clock.

Builds run one after another, for each would like all processors. What fails is a row with its reason, never the end
of the run; what is too far off is timed as well, for its row shows what its error would have bought. A worker stays
warm until its turns come, unless the next build may need its memory: then its engine is opened anew for each turn.
"""

from __future__ import annotations

import functools
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enginery import storage
from enginery.backends.base import Design
from enginery.benchmark.base import Entry, Timer, time_in_turns
from enginery.errors import (
    EngineryError,
    PrecisionMismatchError,
    SourceError,
    WorkerCrashError,
    WorkerError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from enginery.inputs.base import load_cases
from enginery.progress import Progress, Step
from enginery.records import BenchRecord, CandidateRecord, SearchRecord
from enginery.spec import HERE, BenchSpec, OptimizeSpec, Option
from enginery.tuning.candidates import Contestant
from enginery.tuning.choose import choose
from enginery.tuning.lane import Course, Lane, make_room
from enginery.tuning.refine import Quantiser, Refined, refine

__all__ = ["Race", "race", "reason_of", "time_engines"]

_PREPARE_S = 5.0
_BUILD_ROOM = 1.25
_REASON_CHARACTERS = 400
_ENDS = {WorkerCrashError: "crashed", WorkerTimeoutError: "timed out", WorkerMemoryError: "out of memory"}


@dataclass(frozen=True)
class Race:
    """What became of the contestants.

    Args:
        records: a row for each, in their order; the source framework's stands first.
        chosen: label of the chosen candidate.
        engines: the engine folder of each that was built, by label.
        notes: what a user should know about the run.
        searches: for plans between two precisions.
    """

    records: tuple[CandidateRecord, ...]
    chosen: str
    engines: Mapping[str, Path]
    notes: tuple[str, ...] = ()
    searches: tuple[SearchRecord, ...] = ()


def race(
    contestants: Sequence[Contestant],
    *,
    designs: Mapping[str, Design],
    cases: Path,
    expected: Path,
    bench_case: str,
    spec: OptimizeSpec,
    folder: Path,
    reference: str,
    inputs: str,
    frameworks: Mapping[str, Timer] | None = None,
    quantise: Quantiser | None = None,
    progress: Progress | None = None,
) -> Race:
    """Build, verify and time all contestants, and choose one.

    Args:
        contestants: from `enginery.tuning.candidates.list_candidates`.
        designs: what they are built from, by the name that each contestant's ``design`` has.
        cases: folder of the inputs.
        expected: folder of the reference's outputs, each case under its name.
        bench_case: name of the case that is timed.
        spec: what was asked for.
        folder: where each contestant gets a folder; an interrupt removes them, otherwise they are the caller's.
        reference: what the outputs are compared with, in words.
        inputs: what the cases are, in words.
        frameworks: by label, what times the source framework on the timed case.
        quantise: makes quantised designs for plans that a search tries; None where there is no data to do so.
        progress: told what is going on.

    Raises:
        NoCandidateError: none was acceptable; the message lists every reason.
    """
    progress = progress or Progress()
    course = Course(
        cases=cases.absolute(), bench_case=bench_case, spec=spec, expected=expected.absolute(), designs=designs,
        reference=reference, inputs=inputs,
    )  # fmt: skip
    lanes = _lanes(contestants, course, folder)
    refiner = functools.partial(refine, course=course, folder=folder, progress=progress, quantise=quantise)
    benches, searches = _run(lanes, course, dict(frameworks or {}), progress, refiner)
    rows = [_framework_row(label, benches[label]) for label in frameworks or {}]
    rows += [_row(lane, benches.get(lane.contestant.label)) for lane in lanes]
    records, chosen = choose(rows, spec)
    engines = {lane.contestant.label: lane.engine for lane in lanes if lane.build is not None}
    return Race(records, chosen, engines, tuple(_notes(lanes)), searches)


def time_engines(
    engines: Mapping[str, Path],
    *,
    cases: Path,
    bench_case: str,
    folder: Path,
    options: Mapping[str, Option] | None = None,
    spec: BenchSpec | None = None,
    progress: Progress | None = None,
) -> dict[str, BenchRecord]:
    """Time engine folders against each other, and write each record into its manifest.

    Args:
        engines: engine folders by label.
        cases: folder of the inputs; all engines take the same.
        bench_case: name of the case that is timed.
        folder: for the workers.
        options: stand over those that the engines were built with.
        spec: when to stop.
        progress: told what is going on.

    Raises:
        EngineryError: one of them could not be opened or run.
    """
    course = Course(cases=cases.absolute(), bench_case=bench_case, spec=OptimizeSpec(bench=spec or BenchSpec()))
    contestants = [
        Contestant(
            label, "candidate", storage.read_manifest(path).backend, options=options or {}, engine=path.absolute()
        )
        for label, path in engines.items()
    ]
    lanes = _lanes(contestants, course, folder)
    progress = progress or Progress()
    benches, _ = _run(lanes, course, {}, progress)
    records: dict[str, BenchRecord] = {}
    for lane in lanes:
        found = lane.error or benches[lane.contestant.label]
        if isinstance(found, EngineryError):
            raise found
        storage.keep_records(lane.engine, replace(storage.read_manifest(lane.engine), bench=found), progress.say)
        records[lane.contestant.label] = found
    return records


def reason_of(error: EngineryError) -> str:
    """Say in one line of bounded length why a contestant failed."""
    # The mend of a precision that was not built is an option, which here is another candidate's.
    said = error.message if isinstance(error, (WorkerError, PrecisionMismatchError)) else str(error)
    kind = next((word for known, word in _ENDS.items() if isinstance(error, known)), "")
    line = " | ".join(part.strip() for part in said.splitlines() if part.strip())
    if len(line) > _REASON_CHARACTERS:  # the beginning says what, the end of a log why
        half = _REASON_CHARACTERS // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return f"{kind}: {line}" if kind else line


def _lanes(contestants: Sequence[Contestant], course: Course, folder: Path) -> list[Lane]:
    return [
        Lane(contestant, course, folder.absolute() / f"{at:02d}-{re.sub(r'[^A-Za-z0-9.=-]+', '-', contestant.label)}")
        for at, contestant in enumerate(contestants)
    ]


def _run(
    all_lanes: list[Lane],
    course: Course,
    frameworks: Mapping[str, Timer],
    progress: Progress,
    refiner: Callable[[Sequence[Lane]], Refined] | None = None,
) -> tuple[dict[str, BenchRecord | EngineryError], tuple[SearchRecord, ...]]:
    """Prepare all lanes one after another, time those that stand, and leave no worker behind.

    What `refiner` makes of candidates that miss the bounds is added to `all_lanes`.
    """
    lanes = [lane for lane in all_lanes if not lane.contestant.missing]
    searches: tuple[SearchRecord, ...] = ()
    _plan(lanes, course.spec.bench, len(frameworks), progress)
    try:
        for at, lane in enumerate(lanes):
            with progress.step(_step(lane)):
                _prepare(lane, lanes[:at], progress)
        if refiner is not None and course.spec.search_limit_s > 0 and course.spec.plan is None:
            refined = refiner(lanes)
            searches = refined.searches
            lanes += refined.lanes
            all_lanes += refined.lanes
        with progress.step("time") as step:
            standing = [lane for lane in lanes if lane.error is None]
            foresee = functools.partial(_foresee, progress, step, course.spec.bench)
            return _time(standing, course, frameworks, foresee), searches
    except BaseException:
        for lane in lanes:
            lane.kill()
            shutil.rmtree(lane.folder, ignore_errors=True)
        raise
    finally:
        for lane in lanes:
            lane.close()


def _prepare(lane: Lane, before: list[Lane], progress: Progress) -> None:
    peaks = [other.build.peak_memory_bytes or 0 for other in before if other.build is not None]
    make_room(before, int(_BUILD_ROOM * max(peaks, default=0)))
    try:
        lane.prepare(progress.changed, progress.advanced)
    except WorkerMemoryError as error:
        warm = [other for other in before if other.pids]
        if not warm:
            lane.error = error
            return
        for other in warm:
            other.chill()
        _prepare(lane, [], progress)
    except EngineryError as error:
        lane.error = error


def _time(
    lanes: Sequence[Lane],
    course: Course,
    frameworks: Mapping[str, Timer],
    foresee: Callable[[set[str]], None],
) -> dict[str, BenchRecord | EngineryError]:
    feeds = next(case.feeds for case in load_cases(course.cases) if case.name == course.bench_case)
    entries = {label: _framework_entry(timer) for label, timer in frameworks.items()}
    entries |= {lane.contestant.label: lane.entry for lane in lanes}
    running = set(entries)

    def follow(label: str, _samples: list[float], finished: bool) -> None:  # noqa: FBT001 - the bench calls it so
        if finished:
            running.discard(label)
        foresee(running)

    return time_in_turns(
        entries, feeds, course.spec.bench,
        pids=lambda: [pid for lane in lanes for pid in lane.pids],
        on_turn=follow,
    )  # fmt: skip


def _framework_entry(measure: Timer) -> Entry:
    """Return the entry of the source framework; its first call is timed at its first turn."""

    def timer(warmup_ms: float, seconds: float, min_calls: int) -> list[float]:
        try:
            if entry.first_call_ms is None:
                entry.first_call_ms = measure(0.0, 0.0, 1)[0]
            return measure(warmup_ms, seconds, min_calls)
        except EngineryError:
            raise
        except Exception as error:
            raise SourceError(f"it failed with {type(error).__name__}: {error}") from error

    entry = Entry(timer, "as its framework runs it")
    return entry


def _row(lane: Lane, bench: BenchRecord | EngineryError | None) -> CandidateRecord:
    contestant = lane.contestant
    error = lane.error or (bench if isinstance(bench, EngineryError) else None)
    reason = contestant.missing or (reason_of(error) if error is not None else "")
    return CandidateRecord(
        label=contestant.label,
        role=contestant.role,
        backend=contestant.backend,
        environment=contestant.environment,
        precision=contestant.precision,
        options=contestant.options,
        status="failed" if reason else "timed",
        reason=reason,
        build=lane.build,
        verify=lane.verify,
        bench=bench if isinstance(bench, BenchRecord) else None,
        plan=contestant.plan,
    )


def _framework_row(label: str, bench: BenchRecord | EngineryError) -> CandidateRecord:
    row = CandidateRecord(
        label=label, role="baseline", backend=label.split(maxsplit=1)[0].lower(), environment=HERE, precision="fp32",
        options={}, status="timed", reason="",
    )  # fmt: skip
    if isinstance(bench, EngineryError):
        return replace(row, status="failed", reason=reason_of(bench))
    return replace(row, bench=bench)


def _plan(lanes: Sequence[Lane], bench: BenchSpec, others: int, progress: Progress) -> None:
    each_s = min(2 * (bench.warmup_ms + bench.min_turns * bench.turn_ms) / 1e3, bench.limit_s)
    progress.plan(*((_step(lane), _PREPARE_S) for lane in lanes), ("time", each_s * (len(lanes) + others)))


def _foresee(progress: Progress, step: Step, bench: BenchSpec, running: set[str]) -> None:
    """Expect two more turns of each that is still running: nobody knows when a median settles."""
    spent_s = time.monotonic() - (step.started or time.monotonic())
    step.expected_s = max(step.expected_s, spent_s + 2 * len(running) * bench.turn_ms / 1e3)
    progress.changed()


def _step(lane: Lane) -> str:
    return f"open {lane.contestant.label}" if lane.contestant.engine else f"build and verify {lane.contestant.label}"


def _notes(lanes: Sequence[Lane]) -> list[str]:
    cold = [lane.contestant.label for lane in lanes if lane.cold]
    if not cold:
        return []
    return [f"memory was short, so these were opened anew for every turn: {', '.join(cold)}"]
