"""What a run was asked for, what it works with, and how its stages are taken one after another."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.h200.jobs import TANH, Job, choose, engine_names, list_jobs
from benchmarks.h200.sides import Side, SideError
from benchmarks.h200.store import Store

__all__ = ["ENGINES", "TORCH", "Run", "Stage", "on_gpu"]

ENGINES, TORCH = "benchmarks.h200.engine_side", "benchmarks.h200.torch_side"
_NONE: Mapping[str, str] = {}


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
        tiny: whether the models are tiny ones, for a trial.
        jobs: how many engines whose speed is not asked are built at once, on the first GPU.
        pattern: of the engines' names; others are not built.
        alone: whether nothing goes on beside the builds.
        without, quick: patterns likewise: see `benchmarks.h200.jobs.choose`.
        gpus: of the machine; builds are spread over them, and whatever is timed runs on the first.
        arrays: variables of the environment in which the engines' interpreter finds PyTorch or CuPy, for arrays of
            the device; empty where it has none.
        deadline: of `time.monotonic`; whatever still runs then is ended.
        build_until, build_end: likewise; no build is begun after the one, and none runs on after the other.
    """

    work: Path
    store: Store
    python: str
    torch_python: str
    backend: str
    models: tuple[str, ...]
    convolutional: tuple[str, ...]
    batches: tuple[int, ...]
    tiny: bool
    jobs: int
    pattern: str
    gpus: int
    arrays: Mapping[str, str]
    deadline: float
    build_until: float
    build_end: float
    without: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    alone: bool = False
    torch: dict[str, Side] = field(default_factory=dict)
    building: bool = False
    kept: Side | None = None

    @property
    def largest(self) -> int:
        """The largest batch."""
        return self.batches[-1]

    @property
    def proving_gpu(self) -> int:
        """Where things are proved while engines are built: with three or more, a GPU that nothing else uses."""
        return self.gpus - 1 if self.gpus > 2 else 0

    @property
    def real(self) -> bool:
        """Whether TensorRT is measured; else this is a trial with another backend."""
        return self.backend == "tensorrt"

    def list_jobs(self) -> list[Job]:
        """Return the engines to build, the most telling first."""
        jobs = list_jobs(self.models, self.convolutional, largest=self.largest)
        return choose(jobs, only=self.pattern, without=self.without, quick=self.quick)

    def precision(self, job: Job) -> str:
        """Return the precision to ask for: a trial's backend has one only."""
        return job.precision if self.real else "fp32"

    def graph(self, model: str, kind: str = "") -> Path:
        """Return the path of a model's graph: as exported, ``pixels`` or ``int8``."""
        return self.work / "graphs" / f"{model}{'.' if kind else ''}{kind}.onnx"

    def told(self, model: str, folder: str = "graphs") -> dict[str, Any] | None:
        """Return what an export said of a model's graph (or its ``cases``), maybe in another run; None before."""
        path = self.work / folder / f"{model}.json"
        told: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return told

    def tell(self, model: str, folder: str, told: Mapping[str, Any]) -> None:
        """Say that a model's graph or cases are there, or failed."""
        path = self.work / folder / f"{model}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(told), encoding="utf-8")
        part.replace(path)

    def engine(self, job: Job | str) -> Path:
        """Return the path of a job's engine folder."""
        return self.work / "engines" / f"{job if isinstance(job, str) else job.name}.engine"

    def is_built(self, job: Job | str) -> bool:
        """Whether an engine is there."""
        return (self.engine(job) / "engine.json").is_file()

    def fastest(self, model: str, batch: int) -> Path:
        """Return the engine of a model in half precision for one batch: of that size alone, or with profiles.

        Raises:
            SideError: neither was built.
        """
        for label, name in engine_names(model, batch).items():
            if label != TANH and self.is_built(name):
                return self.engine(name)
        raise SideError(f"no engine of {model} for batch {batch} was built")

    def cases(self, model: str) -> Path:
        """Return the folder with a model's inputs and right outputs."""
        return self.work / "cases" / model

    def case(self, model: str, batch: int) -> Path:
        """Return the file with one batch's."""
        return self.cases(model) / f"{batch}.npz"

    def shapes(self, job: Job) -> dict[str, str]:
        """Return the shape of each input for a job, from what the export told."""
        return self.sizes(job.model, f"batch:{job.batch}" if ".." in job.batch else job.batch)

    def sizes(self, model: str, batch: str) -> dict[str, str]:
        """Return the shape of each input for a batch."""
        told = self.told(model) or {}
        if "shapes" not in told:
            raise SideError(f"{model} was not exported: {told.get('failed', 'nothing is there')}")
        return {name: "x".join([batch, *map(str, sizes)]) for name, sizes in told["shapes"].items()}

    @contextmanager
    def side(self, label: str, module: str = ENGINES, **variables: str) -> Iterator[Side]:
        """Start a side for a few requests; its log is named by the label."""
        python = self.python if module == ENGINES else self.torch_python
        if self.building:
            variables = {**on_gpu(self.proving_gpu), **variables}
        with Side(python, module, self.work / "logs" / f"{label}.log", variables, self.left) as side:
            yield side

    def left(self) -> float:
        """Return the seconds until what runs now is ended."""
        return (self.build_end if self.building else self.deadline) - time.monotonic()

    def ask(
        self, label: str, what: str, *, limit_s: float = 300.0, variables: Mapping[str, str] = _NONE, **arguments: Any
    ) -> Any:
        """Ask a new engines' side for one thing."""
        with self.side(label, **variables) as side:
            return side.ask(what, limit_s=limit_s, **arguments)

    def ask_kept(self, what: str, *, limit_s: float, **arguments: Any) -> Any:
        """Ask the one engines' side that is kept for what is timed; after a failure it is another one."""
        if self.kept is None:
            self.kept = Side(self.python, ENGINES, self.work / "logs" / "kept.log", {}, self.left)
        try:
            return self.kept.ask(what, limit_s=limit_s, **arguments)
        except SideError:
            self.kept.kill()
            self.kept = None
            raise

    def put(self, stage: str, key: str, work: Callable[[], Any]) -> bool:
        """Do one step and keep what it found, or how it failed; says whether it went well."""
        begin = time.monotonic()
        self.store.drop(stage, f"{key} failed")
        if self.left() <= 0:
            self.store.put(stage, **{f"{key} failed": {"error": "not begun: its time was up"}})
            return False
        try:
            found = work()
        except Exception as error:  # noqa: BLE001 - it is told, and the other steps go on
            if not isinstance(error, SideError):
                traceback.print_exc()
            self.store.put(stage, **{f"{key} failed": _failure(error)})
            print(f"  {stage}, {key}: FAILED after {time.monotonic() - begin:.1f} s: {str(error)[:400]}", flush=True)
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
        for side in tuple(self.torch.values()):
            side.close(wait_s=1.0)
        self.torch.clear()
        if self.kept is not None:
            self.kept.close(wait_s=1.0)
            self.kept = None


def on_gpu(number: int) -> dict[str, str]:
    """Return the variables of an environment that has one GPU.

    Example:
        >>> on_gpu(2)
        {'CUDA_VISIBLE_DEVICES': '2'}
    """
    return {"CUDA_VISIBLE_DEVICES": str(number)}


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


def _failure(error: Exception) -> dict[str, Any]:
    """Return all that mending needs: the error's words, its mend, and the end of the log."""
    mend, log = getattr(error, "mend", None), getattr(error, "log", "")
    return {"error": f"{type(error).__name__}: {error}"[:4000], "mend": mend, "log": log}
