"""The stages that measure: latency, pipelines, PyTorch in turns, threads, memory, and where the time goes."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

from benchmarks.h200.clock import median_ratio
from benchmarks.h200.jobs import TIMED, Job
from benchmarks.h200.making import prepare_baselines
from benchmarks.h200.plan import Run
from benchmarks.h200.sides import Side

__all__ = ["breakdown", "latency", "memory", "pipeline", "pytorch", "threads"]

_ROUNDS = 9


def latency(run: Run) -> None:
    """ResNet-50 of batch 1, from numpy and from the device."""
    asked = _at(run, 1, rounds=_ROUNDS, seconds=0.5 if run.real else 0.02)
    for what, key in (("latency", "numpy"), ("device_latency", "device")):
        if run.put("latency", key, partial(run.ask, f"latency-{key}", what, limit_s=120, **asked)):
            run.store.put("latency", **run.store.found["latency"].pop(key))


def pipeline(run: Run) -> None:
    """ResNet-50 of the largest batch, three slots: four kinds of inputs, each in a process of its own."""
    for pixels in (False, True):
        for locked in (True, False):
            key = f"{'locked' if locked else 'pageable'}_{'uint8' if pixels else 'float32'}"
            job = Job("resnet50", "fp16", str(run.largest), pixels=pixels)
            asked: dict[str, Any] = {
                "engine": run.engine(job), "case": run.case("resnet50", run.largest), "pixels": pixels,
                "locked": locked, "slots": 3, "batches": 60 if run.real else 6, "rounds": 5,
            }  # fmt: skip
            run.put("pipeline", key, partial(run.ask, f"pipeline-{key}", "pipeline", limit_s=120, **asked))


def pytorch(run: Run) -> None:
    """Each timed model at batch 1 and the largest: the engine and both baselines in turns, on the device alone."""
    prepare_baselines(run)
    for model in (model for model in TIMED if model in run.models):
        for batch in (1, run.largest):
            run.put("pytorch", f"{model} b{batch}", partial(_against, run, model, batch))
    for side in run.torch.values():
        side.ask("free", limit_s=60)


def _against(run: Run, model: str, batch: int) -> dict[str, Any]:
    engine = run.engine(Job(model, "fp16", str(batch)))
    done = run.store.found.get("baselines", {})
    kinds = [kind for kind in ("eager", "compiled") if f"{model} b{batch} {kind}" in done]
    calls = 200 if batch == 1 else 20
    turns: dict[str, list[float]] = {"tensorrt": [], **{kind: [] for kind in kinds}}
    with run.side(f"against-{model}-b{batch}") as side:
        side.ask("open_engine", limit_s=120, engine=engine, case=run.case(model, batch))
        for _ in range(_ROUNDS):
            turns["tensorrt"].append(side.ask("engine_turn", limit_s=60, engine=engine, calls=calls))
            for kind in kinds:
                turns[kind].append(_baseline_turn(run.torch[model], model, batch, kind, calls))
    medians = {label: statistics.median(found) for label, found in turns.items()}
    if not kinds:
        raise RuntimeError(f"no baseline of {model} at batch {batch} could be prepared")
    best = min(kinds, key=lambda kind: medians[kind])
    speed = median_ratio(turns[best], turns["tensorrt"])
    return {"turns_ms": turns, "median_ms": medians, "best": best, "speed": speed}


def _baseline_turn(side: Side, model: str, batch: int, kind: str, calls: int) -> float:
    asked: dict[str, Any] = {"model": model, "batch": batch, "compiled": kind == "compiled", "calls": calls}
    return float(side.ask("turn", limit_s=60, **asked))


def threads(run: Run) -> None:
    """Eight threads on one session, and four with one each."""
    for key, count, own in (("one_session", 8, False), ("own_sessions", 4, True)):
        asked = _at(run, 1, count=count, own=own, seconds=3.0 if run.real else 0.2)
        run.put("threads", key, partial(run.ask, f"threads-{key}", "threads", limit_s=120, **asked))


def memory(run: Run) -> None:
    """Ten thousand calls of ResNet-50."""
    asked = _at(run, 1, calls=10_000 if run.real else 200)
    if run.put("memory", "calls", partial(run.ask, "memory", "memory", limit_s=120, **asked)):
        run.store.put("memory", **run.store.found["memory"].pop("calls"))


def breakdown(run: Run) -> None:
    """Where the time of each timed model goes."""
    for model in (model for model in TIMED if model in run.models):
        for batch in (1, run.largest):
            job = Job(model, "fp16", str(batch))
            asked = {"engine": run.engine(job), "case": run.case(model, batch)}
            label = f"{model} b{batch}"
            run.put("breakdown", label, partial(run.ask, f"breakdown-{model}", "breakdown", limit_s=120, **asked))


def _at(run: Run, batch: int, **more: Any) -> dict[str, Any]:
    engine = run.engine(Job("resnet50", "fp16", str(batch)))
    return {"engine": engine, "case": run.case("resnet50", batch), **more}
