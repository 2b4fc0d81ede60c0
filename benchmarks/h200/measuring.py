"""The stages that measure: latency, pipelines, PyTorch in turns, threads, memory, and where the time goes."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.h200.clock import median_ratio, summary_ms
from benchmarks.h200.jobs import TIMED, Job, engine_names
from benchmarks.h200.making import prepare_baselines
from benchmarks.h200.plan import Run
from benchmarks.h200.sides import Side

__all__ = ["breakdown", "latency", "memory", "pipeline", "pytorch", "threads"]

_ROUNDS = 9


def latency(run: Run) -> None:
    """ResNet-50 of batch 1, from numpy and from the device."""
    asked = _at(run, 1, rounds=_ROUNDS, seconds=0.25 if run.real else 0.02)
    if run.put("latency", "numpy", partial(run.ask_kept, "latency", limit_s=60, **asked)):
        run.store.put("latency", **run.store.found["latency"].pop("numpy"))
    for kind in ("torch", "cupy", "interface"):
        work = partial(
            run.ask, f"device-{kind}", "device_latency", limit_s=90, variables=run.arrays, kind=kind, **asked
        )
        run.put("device", kind, work)


def pipeline(run: Run) -> None:
    """ResNet-50 of the largest batch, three slots: four kinds of inputs."""
    for pixels in (False, True):
        for locked in (True, False):
            key = f"{'locked' if locked else 'pageable'}_{'uint8' if pixels else 'float32'}"
            job = Job("resnet50", "fp16", str(run.largest), pixels=pixels)
            engine = run.engine(job) if pixels else run.fastest("resnet50", run.largest)
            asked: dict[str, Any] = {
                "engine": engine, "case": run.case("resnet50", run.largest), "pixels": pixels,
                "locked": locked, "slots": 3, "batches": 60 if run.real else 6, "rounds": 3,
            }  # fmt: skip
            run.put("pipeline", key, partial(run.ask_kept, "pipeline", limit_s=60, **asked))


def pytorch(run: Run) -> None:
    """Each timed model at batch 1 and the largest: its engines and both baselines in turns, on the device alone."""
    prepare_baselines(run, ("eager",))
    for model in (model for model in TIMED if model in run.models):
        for batch in (1, run.largest):
            run.put("pytorch", f"{model} b{batch}", partial(_against, run, model, batch))
    run.close()  # what comes next has the device for itself


def _against(run: Run, model: str, batch: int) -> dict[str, Any]:
    engines = {label: run.engine(name) for label, name in engine_names(model, batch).items() if run.is_built(name)}
    done = run.store.found.get("baselines", {})
    sides = {kind: run.torch[f"{model} {kind}"] for kind in ("eager", "compiled") if f"{model} {kind}" in run.torch}
    kinds = [kind for kind, side in sides.items() if side.alive and f"{model} b{batch} {kind}" in done]
    if not engines or not kinds:
        raise RuntimeError(f"{model} at batch {batch} has the engines {list(engines)} and the baselines {kinds}")
    calls = (200 if batch == 1 else 20) if run.real else 2
    turns: dict[str, list[float]] = {label: [] for label in (*engines, *kinds)}
    opened = {
        label: run.ask_kept("open_engine", limit_s=60, engine=engine, case=run.case(model, batch))
        for label, engine in engines.items()
    }
    for _ in range(_ROUNDS):
        for label, engine in engines.items():
            turns[label].append(run.ask_kept("engine_turn", limit_s=20, engine=engine, calls=calls))
        for kind in kinds:
            turns[kind].append(_baseline_turn(sides[kind], model, batch, kind, calls))
    medians = summary_ms(turns)
    best = min(kinds, key=lambda kind: medians[kind])
    speeds = {label: median_ratio(turns[best], turns[label]) for label in engines}
    return {
        "turns_ms": turns, "median_ms": medians, "best": best, "speeds": speeds, "opened": opened,
        "speed": max(speeds.values()),
    }  # fmt: skip


def _baseline_turn(side: Side, model: str, batch: int, kind: str, calls: int) -> float:
    asked: dict[str, Any] = {"model": model, "batch": batch, "compiled": kind == "compiled", "calls": calls}
    return float(side.ask("turn", limit_s=20, **asked))


def threads(run: Run) -> None:
    """Eight threads on one session, and four with one each."""
    for key, count, own in (("one_session", 8, False), ("own_sessions", 4, True)):
        asked = _at(run, 1, count=count, own=own, seconds=1.5 if run.real else 0.2)
        run.put("threads", key, partial(run.ask, f"threads-{key}", "threads", limit_s=60, **asked))


def memory(run: Run) -> None:
    """Ten thousand calls of ResNet-50."""
    asked = _at(run, 1, calls=10_000 if run.real else 200)
    if run.put("memory", "calls", partial(run.ask, "memory", "memory", limit_s=60, **asked)):
        run.store.put("memory", **run.store.found["memory"].pop("calls"))


def breakdown(run: Run) -> None:
    """Where the time of each timed model goes."""
    for model in (model for model in TIMED if model in run.models):
        for batch in (1, run.largest):
            label = f"{model} b{batch}"
            run.put("breakdown", label, partial(_broken_down, run, model, batch))


def _broken_down(run: Run, model: str, batch: int) -> dict[str, Any]:
    engine = run.fastest(model, batch)
    asked = {"engine": engine, "case": run.case(model, batch)}
    found: dict[str, Any] = run.ask_kept("breakdown", limit_s=60, **asked)
    return {"engine": engine.name, **found}


def _at(run: Run, batch: int, **more: Any) -> dict[str, Any]:
    return {"engine": run.fastest("resnet50", batch), "case": run.case("resnet50", batch), **more}
