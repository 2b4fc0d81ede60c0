"""What a run was asked for, what it works with, and how its stages are taken one after another."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.h200.jobs import Job
from benchmarks.h200.sides import Side, SideError
from benchmarks.h200.store import Store

__all__ = ["ENGINES", "TORCH", "Run", "Stage"]

ENGINES, TORCH = "benchmarks.h200.engine_side", "benchmarks.h200.torch_side"


@dataclass
class Run:
    """What a run was asked for.

    Args:
        work: for graphs, engines and logs; kept, so that a later run goes on from there.
        store: takes the results.
        python: the interpreter with the engines' library.
        torch_python: the interpreter with PyTorch.
        backend: that is measured.
        models, convolutional: names of the models, and of those that are made of convolutions.
        batches: that are verified; the last is the largest.
        deadline: of `time.monotonic`; nothing is begun after it.
        tiny: whether the models are tiny ones, for a trial.
        jobs, timed_jobs: how many engines are built at once: those only verified, and those that are timed.
        level: optimisation level of engines that are only verified; -1 for the library's own.
    """

    work: Path
    store: Store
    python: str
    torch_python: str
    backend: str
    models: tuple[str, ...]
    convolutional: tuple[str, ...]
    batches: tuple[int, ...]
    deadline: float
    tiny: bool
    jobs: int
    timed_jobs: int
    level: int
    torch: dict[str, Side] = field(default_factory=dict)

    @property
    def largest(self) -> int:
        """The largest batch."""
        return self.batches[-1]

    @property
    def real(self) -> bool:
        """Whether TensorRT is measured; else this is a trial with another backend."""
        return self.backend == "tensorrt"

    def precision(self, job: Job) -> str:
        """Return the precision to ask for: a trial's backend has one only."""
        return job.precision if self.real else "fp32"

    def graph(self, model: str, kind: str = "") -> Path:
        """Return the path of a model's graph: as exported, ``pixels`` or ``int8``."""
        return self.work / "graphs" / f"{model}{'.' if kind else ''}{kind}.onnx"

    def engine(self, job: Job) -> Path:
        """Return the path of a job's engine folder."""
        return self.work / "engines" / f"{job.name}.engine"

    def cases(self, model: str) -> Path:
        """Return the folder with a model's inputs and right outputs."""
        return self.work / "cases" / model

    def case(self, model: str, batch: int) -> Path:
        """Return the file with one batch's."""
        return self.cases(model) / f"{batch}.npz"

    def shapes(self, job: Job) -> dict[str, str]:
        """Return the shape of each input for a job, from what the export told."""
        told = self.store.found["models"][job.model]["shapes"]
        return {name: "x".join([f"batch:{job.batch}" if ".." in job.batch else job.batch, *map(str, sizes)])
                for name, sizes in told.items()}  # fmt: skip

    @contextmanager
    def side(self, label: str, module: str = ENGINES, **variables: str) -> Iterator[Side]:
        """Start a side for a few requests; its log is named by the label."""
        python = self.python if module == ENGINES else self.torch_python
        with Side(python, module, self.work / "logs" / f"{label}.log", variables) as side:
            yield side

    def ask(self, label: str, what: str, *, limit_s: float = 300.0, **arguments: Any) -> Any:
        """Ask a new engines' side for one thing."""
        with self.side(label) as side:
            return side.ask(what, limit_s=limit_s, **arguments)

    def put(self, stage: str, key: str, work: Callable[[], Any]) -> bool:
        """Do one step and keep what it found, or how it failed; says whether it went well."""
        begin = time.monotonic()
        self.store.drop(stage, f"{key} failed")
        try:
            found = work()
        except (SideError, OSError, RuntimeError, KeyError) as error:
            if not isinstance(error, SideError):
                traceback.print_exc()
            self.store.put(stage, **{f"{key} failed": f"{type(error).__name__}: {error}"})
            print(f"  {stage}, {key}: FAILED: {str(error)[:300]}", flush=True)
            return False
        self.store.put(stage, **{key: found})
        print(f"  {stage}, {key}: {time.monotonic() - begin:.1f} s", flush=True)
        return True

    def late(self) -> bool:
        """Whether the budget is spent."""
        return time.monotonic() > self.deadline

    def in_parallel(self, count: int, work: Mapping[str, Callable[[], Any]]) -> None:
        """Do some things at once, none after the deadline; each tells its own failure."""
        with ThreadPoolExecutor(max_workers=max(1, count)) as pool:
            futures = [pool.submit(self._unless_late, label, one) for label, one in work.items()]
            for future in as_completed(futures):
                future.result()

    def _unless_late(self, label: str, work: Callable[[], Any]) -> None:
        if self.late():
            print(f"  {label}: skipped, for the budget is spent", flush=True)
            return
        work()

    def close(self) -> None:
        """End the sides that lasted."""
        for side in self.torch.values():
            side.close()
        self.torch.clear()


@dataclass(frozen=True)
class Stage:
    """One part of a run: its name, what it does, and the seconds it is thought to take on the H200."""

    name: str
    work: Callable[[Run], None]
    expected_s: float

    def take(self, run: Run) -> None:
        """Do it, unless the budget is spent; whatever goes wrong is told and kept, and the next stage goes on."""
        if run.late():
            run.store.put("stages", **{self.name: "skipped: the budget is spent"})
            print(f"{self.name}: skipped, for the budget is spent", flush=True)
            return
        print(f"{self.name} (about {self.expected_s:.0f} s)", flush=True)
        begin = time.monotonic()
        try:
            self.work(run)
        except Exception as error:  # noqa: BLE001 - the other stages must go on, and this is told
            traceback.print_exc()
            run.store.put("stages", **{self.name: f"crashed: {type(error).__name__}: {error}"})
            return
        run.store.put("stages", **{self.name: f"{time.monotonic() - begin:.1f} s"})


Stages = Sequence[Stage]
