"""One contestant on its way: a worker that builds, opens, verifies and then waits, warm, for its turns to be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginery.backends.base import Design
from enginery.benchmark.base import Entry
from enginery.errors import EngineryError
from enginery.machine import free_memory_bytes
from enginery.plain import from_plain
from enginery.progress import Advance, Listener
from enginery.records import BuildRecord, ManifestRecord, VerifyRecord
from enginery.spec import BuildSpec, OptimizeSpec, PrecisionPlan
from enginery.tuning.candidates import Contestant
from enginery.worker import Worker

__all__ = ["Course", "Lane"]


@dataclass(frozen=True)
class Course:
    """What all contestants have in common.

    Args:
        cases: folder of the inputs, as `enginery.inputs.base.save_cases` writes it.
        bench_case: name of the one that is timed.
        spec: limits and bounds.
        expected: folder of the reference's outputs; None where nothing is verified.
        designs: what contestants are built from, by the name that `Contestant.design` has.
        reference, inputs: for the verify records.
    """

    cases: Path
    bench_case: str
    spec: OptimizeSpec
    expected: Path | None = None
    designs: Mapping[str, Design] = field(default_factory=dict)
    reference: str = ""
    inputs: str = ""


@dataclass
class Lane:
    """A contestant, its worker and what was found so far; `error` ends it.

    A warm lane keeps its worker and the opened engine between turns. A cold one, for want of memory, opens the engine
    anew in each turn: slower to run, but timed in the same order and on the same clock.

    Args:
        contestant: what to build.
        course: what all have in common.
        folder: its own folder, for the worker and the engine.
    """

    contestant: Contestant
    course: Course
    folder: Path
    build: BuildRecord | None = None
    verify: VerifyRecord | None = None
    error: EngineryError | None = None
    cold: bool = False
    entry: Entry = field(init=False)
    _worker: Worker | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.entry = Entry(self._time, "")

    @property
    def engine(self) -> Path:
        """The engine folder."""
        return self.contestant.engine or self.folder / "engine"

    @property
    def pids(self) -> tuple[int, ...]:
        """The living worker's process id."""
        pid = self._worker.pid if self._worker is not None else None
        return () if pid is None else (pid,)

    @property
    def memory_bytes(self) -> int:
        """What its living worker holds; 0 without one."""
        return (self._worker.memory_bytes or 0) if self._worker is not None else 0

    def builds(self, plan: PrecisionPlan) -> bool:
        """Say whether it is a lane of this plan: the same precision for the same nodes."""
        own = self.contestant.plan
        return own is not None and own.nodes == plan.nodes

    def prepare(self, on_wait: Callable[[], None], on_progress: Callable[[Advance | None], None]) -> None:
        """Build, open, run once and verify, in a worker that stays warm.

        Args:
            on_wait: called about ten times a second.
            on_progress: told how far the build has come; None when it is done.

        Raises:
            EngineryError: whatever ended it; the worker is gone then.
        """
        try:
            self._start()
            if self.contestant.engine is None:
                self._build(on_wait, on_progress)
                on_progress(None)
            opened = self._open(on_wait)
            first = self._call("first", self._timed_case(), on_wait)
            self.entry = Entry(self._time, opened["placement"], first["ms"], opened["load_ms"])
            if self.course.expected is not None:
                self._verify(on_wait)
        except BaseException:
            self.kill()
            raise

    def chill(self) -> None:
        """Give the worker's memory back; from now on every turn opens the engine anew."""
        self.cold = True
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def kill(self) -> None:
        """End the worker at once."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _start(self) -> None:
        worker = Worker(
            self.contestant.label,
            folder=self.folder / "worker",
            python=self.contestant.python,
            memory_limit_bytes=self.course.spec.memory_limit_bytes,
        )
        worker.start()
        self._worker = worker

    def _call(
        self,
        job: str,
        arguments: Mapping[str, Any],
        on_wait: Callable[[], None] | None = None,
        on_progress: Listener | None = None,
    ) -> Any:
        assert self._worker is not None  # noqa: S101 - _start() made it
        limit_s = self.course.spec.job_limit_s
        return self._worker.call(job, arguments, limit_s=limit_s, on_wait=on_wait, on_progress=on_progress)

    def _build(self, on_wait: Callable[[], None], on_progress: Listener) -> None:
        course, contestant = self.course, self.contestant
        arguments = {
            **course.designs[contestant.design].as_arguments(),
            "backend": contestant.backend,
            "spec": BuildSpec(course.spec.shapes, contestant.precision, contestant.options, plan=contestant.plan),
            "output": self.engine,
        }
        self.build = from_plain(ManifestRecord, self._call("build", arguments, on_wait, on_progress)).build

    def _open(self, on_wait: Callable[[], None] | None = None) -> dict[str, Any]:
        # An engine that is built here has its options in the manifest.
        options = {} if self.contestant.engine is None else self.contestant.options
        opened: dict[str, Any] = self._call("open", {"engine": self.engine, "options": options}, on_wait)
        return opened

    def _verify(self, on_wait: Callable[[], None]) -> None:
        course = self.course
        arguments = {
            "cases": course.cases,
            "expected": course.expected,
            "spec": course.spec.verify,
            "reference": course.reference,
            "inputs": course.inputs,
        }
        self.verify = from_plain(VerifyRecord, self._call("verify", arguments, on_wait))

    def _timed_case(self) -> dict[str, Any]:
        return {"cases": self.course.cases, "case": self.course.bench_case}

    def _time(self, warmup_ms: float, seconds: float, min_calls: int) -> list[float]:
        """Take one turn; nobody waits on this side meanwhile, so that nothing else is at work."""
        if self._worker is None:
            self._start()
            self._open()
            warmup_ms = max(warmup_ms, self.course.spec.bench.warmup_ms)
        turn = {"warmup_ms": warmup_ms, "seconds": seconds, "min_calls": min_calls}
        found = self._call("time", {**self._timed_case(), **turn})
        samples: list[float] = found["samples_ms"]
        self.entry.parts_ms = found.get("parts_ms", {})  # an older Enginery in another environment tells none
        if self.cold:
            self.close()
        return samples


def make_room(lanes: list[Lane], needed_bytes: int) -> None:
    """Chill warm lanes, the largest first, until `needed_bytes` are free."""
    warm = sorted((lane for lane in lanes if lane.pids), key=lambda lane: lane.memory_bytes, reverse=True)
    for lane in warm:
        if free_memory_bytes() >= needed_bytes:
            return
        lane.chill()
