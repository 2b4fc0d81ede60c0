"""The stage that builds: some processes build one engine after another, the most telling first; each is verified."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from benchmarks.h200 import making, proving
from benchmarks.h200.jobs import ERRORS, Job
from benchmarks.h200.plan import ENGINES, Run, on_gpu
from benchmarks.h200.sides import Side
from benchmarks.h200.store import keep_log

__all__ = ["build", "verify"]

_LIMIT_S = 150.0
_TIMED_LIMIT_S = 400.0
"""What is timed is built at a higher level, and once for each of its profiles."""


class _Yard:
    """The jobs left to do; a thread takes the first whose graph is there."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._left = [job for job in run.list_jobs() if not run.is_built(job)]
        self._lock = threading.Lock()

    def take(self, *, timed: bool) -> Job | None:
        """Return a job whose graph is there, waiting for one; None when there is none, or no build may begin.

        Args:
            timed: whether jobs whose speed is asked may be taken, for which a GPU must not be shared.
        """
        while time.monotonic() < self._run.build_until:
            with self._lock:
                left = [job for job in self._left if timed or job.level >= 0]
                if not left:
                    return None
                for job in left:
                    if self._is_ready(job):
                        self._left.remove(job)
                        return job
            time.sleep(0.2)
        return None

    def _is_ready(self, job: Job) -> bool:
        told = self._run.told(job.model, "cases" if job.precision == "int8" else "graphs")
        return told is not None

    def tell(self) -> None:
        """Say what was left out."""
        with self._lock:
            self._run.store.put("yard", not_begun=[job.name for job in self._left])


def build(run: Run) -> None:
    """Build what there is time for; what proves something without being timed, and baselines, go on beside.

    With one GPU all share it. With more, the first is for the baselines and for what is not timed, and then for the
    rest; the last is for builds that are compared with one another first, and of three or more for all that proves
    something. In between, an engine whose speed is asked has a GPU for itself.
    """
    yard = _Yard(run)
    (run.work / "timings").mkdir(parents=True, exist_ok=True)
    run.building = True
    try:
        with ThreadPoolExecutor(max_workers=run.jobs + run.gpus + 4) as pool:
            shared = [pool.submit(_work, run, yard, f"0-{at}", 0, timed=run.gpus == 1) for at in range(run.jobs)]
            if not run.alone:
                shared.append(pool.submit(making.prepare_baselines, run))
                if run.gpus < 3:
                    shared.append(pool.submit(_prove_alone, run))
            if run.gpus == 2:
                shared.append(pool.submit(proving.environments, run))
            futures = [pool.submit(_work, run, yard, str(gpu), gpu, timed=True) for gpu in range(1, run.gpus - 1)]
            if run.gpus > 1:
                futures.append(pool.submit(_prove_beside if run.gpus > 2 else _compare_first, run, yard))
                futures.append(pool.submit(_work_after, shared, run, yard))
            for future in (*shared, *futures):
                future.result()
    finally:
        run.building = False
        yard.tell()
        run.store.put("models", **{model: run.told(model) for model in run.models})
        run.store.put("references", **{model: run.told(model, "cases") for model in run.models})


def _prove_alone(run: Run) -> None:
    small = {work.__name__: partial(work, run) for work in (
        proving.errors, proving.dynamic_outputs, proving.partition, _kill_one, making.describe, proving.same_plan,
    )}  # fmt: skip
    run.in_parallel(2, small)


def _prove_beside(run: Run, yard: _Yard) -> None:
    """Prove everything on the last GPU, the builds that are compared with nothing beside them; then build there."""
    _prove_alone(run)
    proving.cache(run)
    with ThreadPoolExecutor(max_workers=1) as pool:
        optimised = pool.submit(proving.environments, run)
        _work(run, yard, str(run.gpus - 1), run.gpus - 1, timed=True)
        optimised.result()


def _compare_first(run: Run, yard: _Yard) -> None:
    """Compare builds on the last GPU with nothing beside them, once there is a graph; then build there."""
    while run.told("resnet50") is None and time.monotonic() < run.build_until:
        time.sleep(0.2)
    proving.cache(run)
    _work(run, yard, str(run.gpus - 1), run.gpus - 1, timed=True)


def _work_after(others: Sequence[Future[None]], run: Run, yard: _Yard) -> None:
    """Build on the first GPU what is timed, once nothing else uses it."""
    wait(others)
    _work(run, yard, "0", 0, timed=True)


def _kill_one(run: Run) -> None:
    """Kill a build of ResNet-50 on its way, once its graph is there."""
    if "resnet50" not in run.models or "killed_leaves_nothing" in run.store.found.get("cache", {}):
        return
    while run.told("resnet50") is None and time.monotonic() < run.build_until:
        time.sleep(0.2)
    proving.killed(run)


def _work(run: Run, yard: _Yard, label: str, gpu: int, *, timed: bool) -> None:
    """Build one engine after another in one process; after a failure in another one."""
    cache = run.work / "cache" / label
    side: Side | None = None
    try:
        while (job := yard.take(timed=timed)) is not None:
            log = run.work / "logs" / f"yard-{label}.log"
            if side is None:
                side = Side(run.python, ENGINES, log, {"ENGINERY_CACHE": str(cache), **on_gpu(gpu)}, run.left)
            begin = time.time()
            went_well = _build_one(run, side, job)
            keep_log(cache / "logs", run.work / "logs" / f"build-{job.name}.log", begin)
            if not went_well:
                side.close(wait_s=1.0)
                side = None
    finally:
        if side is not None:
            side.close(wait_s=1.0)


def _build_one(run: Run, side: Side, job: Job) -> bool:
    if not run.put("engines", job.name, partial(_built, run, side, job)):
        return False
    if run.real:
        run.put("layers", job.name, partial(_inspected, run, side, job))
    return side.alive and _verify_one(run, side, job)


def _built(run: Run, side: Side, job: Job) -> dict[str, Any]:
    kind = "pixels" if job.pixels else "int8" if job.precision == "int8" else ""
    shapes, graph = run.shapes(job), run.graph(job.model, kind)
    found: dict[str, Any] = {}
    if job.pixels:
        side.ask("pixels", limit_s=120, graph=run.graph(job.model), output=graph)
    elif kind == "int8":
        name, middle = next(iter(shapes)), run.case(job.model, run.batches[1])
        found["quantised_s"] = side.ask(
            "quantise", limit_s=120, graph=run.graph(job.model), output=graph, cases=middle, name=name
        )["seconds"]
    options: dict[str, Any] = {"timing_cache": "off"} if run.real else {}
    if job.tanh and run.real:
        options["gelu"] = "tanh"
    if job.level >= 0 and run.real:
        options["optimization_level"] = job.level
    found |= side.ask(
        "build", limit_s=_TIMED_LIMIT_S if job.level < 0 else _LIMIT_S, graph=graph, output=run.engine(job),
        backend=run.backend, precision=run.precision(job), shapes=shapes, options=options, in_process=True,
        profiles=[run.sizes(job.model, str(batch)) for batch in job.narrow] if run.real else [],
        kept=job.kept if run.real else (),
    )  # fmt: skip
    return found


def _inspected(run: Run, side: Side, job: Job) -> dict[str, Any]:
    output = run.work / "fixtures" / f"{job.name}.json"
    found: dict[str, Any] = side.ask("inspect", limit_s=60, engine=run.engine(job), output=output)
    return found


def _verify_one(run: Run, side: Side, job: Job) -> bool:
    """Verify an engine where its cases are there; they come later than its graph."""
    told = run.told(job.model, "cases")
    if told is None:
        return True
    return run.put("verified", job.name, partial(_verified, run, side, job))


def _verified(run: Run, side: Side, job: Job) -> dict[str, Any]:
    engine = run.engine(job)
    if job.pixels:
        found: dict[str, Any] = side.ask(
            "verify_bytes", limit_s=90, engine=engine, graph=run.graph(job.model, "pixels")
        )
        return found
    batches = list(run.batches) if ".." in job.batch else [int(job.batch)]
    found = side.ask("verify", limit_s=90, engine=engine, cases=run.cases(job.model), batches=batches, options={})
    return {**found, "bound": ERRORS[job.precision]}


def verify(run: Run) -> None:
    """Verify what was built and is not verified yet, some at once."""
    known = run.store.found.get("verified", {})
    left = [job for job in run.list_jobs() if run.is_built(job) and job.name not in known]

    def one(job: Job) -> None:
        with run.side(f"verify-{job.name}") as side:
            _verify_one(run, side, job)

    run.in_parallel(min(4, run.jobs), {job.name: partial(one, job) for job in left})
