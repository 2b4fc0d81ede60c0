"""The stages that measure: latency, pipelines, PyTorch in turns, threads, memory, and where the time goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.h200.clock import median_ratio, summary_ms
from benchmarks.h200.jobs import TANH, TIMED, Job, engine_names
from benchmarks.h200.making import prepare_baselines
from benchmarks.h200.plan import Run
from benchmarks.h200.sides import Side

__all__ = ["breakdown", "latency", "memory", "pipeline", "pytorch", "take_engines_turns", "threads"]

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
    prepare_baselines(run, ("eager", "compiled") if run.alone else ("eager",))
    for model in (model for model in TIMED if model in run.models):
        for batch in (1, run.largest):
            run.put("pytorch", f"{model} b{batch}", partial(_against, run, model, batch))
    run.close()  # what comes next has the device for itself


def _against(run: Run, model: str, batch: int) -> dict[str, Any]:
    timed = {job.name for job in run.list_jobs() if job.level < 0 and run.is_built(job)}
    engines = {label: run.engine(name) for label, name in engine_names(model, batch).items() if name in timed}
    baselines = _baselines(run, model, batch)
    if not engines or not baselines:
        raise RuntimeError(f"{model} at batch {batch} has the engines {list(engines)} and the baselines {[*baselines]}")
    turns, opened = take_engines_turns(run, engines, model, batch, baselines)
    medians = summary_ms(turns)
    return {"turns_ms": turns, "median_ms": medians, "opened": opened, **_compared(turns, medians, list(engines))}


def take_engines_turns(
    run: Run, engines: Mapping[str, Path], model: str, batch: int, baselines: Mapping[str, Side] | None = None
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Let engines and baselines take turns on the device alone; returns milliseconds by label, and how each opened."""
    sides = baselines or {}
    case = min((size for size in run.batches if size >= batch), default=run.largest)
    calls = (200 if batch == 1 else 20) if run.real else 2
    turns: dict[str, list[float]] = {label: [] for label in (*engines, *sides)}
    opened = {
        label: run.ask_kept("open_engine", limit_s=60, engine=engine, case=run.case(model, case), rows=batch)
        for label, engine in engines.items()
    }

    def take(label: str) -> float:
        if label in engines:
            return float(run.ask_kept("engine_turn", limit_s=20, engine=engines[label], calls=calls))
        asked: dict[str, Any] = {"model": model, "batch": batch, "kind": label, "calls": calls}
        return float(sides[label].ask("turn", limit_s=20, **asked))

    order = deque(turns)
    for _ in range(_ROUNDS):
        for label in order:
            turns[label].append(take(label))
        order.rotate(1)  # what is hot from its neighbour is another one each round
    return turns, opened


def _baselines(run: Run, model: str, batch: int) -> dict[str, Side]:
    """Return the side that holds each kind of baseline that is ready."""
    done, found = run.store.found.get("baselines", {}), {}
    for how, kinds in (("eager", ("eager",)), ("compiled", ("compiled", "captured"))):
        side = run.torch.get(f"{model} {how}")
        if side is not None and side.alive and f"{model} b{batch} {how}" in done:
            found.update(dict.fromkeys(kinds, side))
    return found


def _compared(turns: Mapping[str, list[float]], medians: Mapping[str, float], engines: list[str]) -> dict[str, Any]:
    """Return by what the fastest engine beats the better of the two usual baselines, and the compiled and captured one.

    Few users capture what they compiled by hand; it is told beside, for it is the hardest to beat.
    """
    fastest = min((label for label in engines if label != TANH), key=lambda label: medians[label])
    usual = [kind for kind in ("eager", "compiled") if kind in turns]
    best = min(usual, key=lambda kind: medians[kind])
    found = {"fastest": fastest, "best": best, "speed": median_ratio(turns[best], turns[fastest])}
    if TANH in turns:
        found["speed_with_tanh"] = median_ratio(turns[best], turns[TANH])
    if "captured" in turns:
        found["speed_over_captured"] = median_ratio(turns["captured"], turns[fastest])
    return found


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
