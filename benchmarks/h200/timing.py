"""One session timed beside what could be written by hand, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import enginery
from benchmarks.h200.clock import median_ratio, summary_ms, take_turns
from benchmarks.h200.device_arrays import on_device
from benchmarks.h200.loops import Loop, polygraphy_call
from enginery.backends.session import Session
from enginery.storage import read_manifest

__all__ = ["HANDLERS", "PLAN", "feeds_at", "open_loop"]

State = dict[str, Any]
Array = np.ndarray[Any, Any]
PLAN = "model.plan"


def feeds_at(case: str, rows: int | None = None) -> dict[str, Array]:
    """Return the inputs of a case as the references were computed on, or the first rows of them."""
    with np.load(case) as found:
        return {name[3:]: np.ascontiguousarray(found[name][:rows]) for name in found.files if name.startswith("in_")}


def open_loop(engine: str, feeds: Mapping[str, Array]) -> Loop | None:
    """Return the hand-written loop on an engine's plan; None where it has none, as in a trial without TensorRT."""
    plan = Path(engine) / PLAN
    if not plan.is_file():
        return None
    loop = Loop(plan, {name: array.shape for name, array in feeds.items()})
    loop.fill(feeds)
    return loop


def latency(state: State, *, engine: str, case: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Numpy in, numpy out: a session, the hand-written loop, and Polygraphy's runner, on the same engine in turns."""
    del state
    feeds = feeds_at(case)
    loop = open_loop(engine, feeds)
    with enginery.load(engine) as session:
        ours, hand, poly = _three(session, loop, Path(engine), feeds)
        turns = take_turns({"ours": ours, "hand": hand, "polygraphy": poly}, rounds=rounds, seconds=seconds)
        _check_alike(session, ours(), hand(), poly())
    found = {
        "turns_ms": turns, "median_ms": summary_ms(turns),
        "by_hand_written": median_ratio(turns["ours"], turns["hand"]),
        "polygraphy_by_ours": median_ratio(turns["polygraphy"], turns["ours"]),
    }  # fmt: skip
    if loop is None:
        return found
    return {**found, "engine_alone_ms": loop.engine_ms(200), "profile": loop.profile}


def _three(
    session: Session, loop: Loop | None, engine: Path, feeds: Mapping[str, Array]
) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
    if loop is None:  # a trial: the session stands for all three
        return (lambda: session.run(feeds),) * 3
    poly = polygraphy_call(engine / PLAN, loop.profile)
    return lambda: session.run(feeds), lambda: loop.run(feeds), lambda: poly(feeds)


def _check_alike(session: Session, *found: Mapping[str, Array]) -> None:
    """Raise `RuntimeError` unless all gave the same numbers: a loop that computes nothing is fast."""
    name = session.outputs[0].name
    first = np.asarray(found[0][name], np.float64)
    for other in found[1:]:
        error = np.linalg.norm(np.asarray(other[name], np.float64) - first) / np.linalg.norm(first)
        if not error < 1e-3:
            raise RuntimeError(f"the loops disagree by {error:.2e}, so their times say nothing")


def device_latency(state: State, *, engine: str, case: str, rounds: int, seconds: float, kind: str) -> dict[str, Any]:
    """Arrays of the device in and out, beside the replay of the engine's graph; both wait for the result."""
    del state
    feeds = feeds_at(case)
    loop = open_loop(engine, feeds)
    with enginery.load(engine) as session:
        right = session.run(feeds)
        here = on_device(kind, feeds, right)

        def ours() -> Any:
            outputs = session.run(here.inputs, here.outputs)
            here.wait()
            return outputs

        _check_alike(session, right, here.fetch(ours()))
        bare = loop.replay if loop is not None else lambda: session.run(feeds)
        turns = take_turns({"ours": ours, "replay": bare}, rounds=rounds, seconds=seconds)
    added = [(a - b) * 1e3 for a, b in zip(turns["ours"], turns["replay"], strict=True)]
    return {
        "turns_ms": turns, "median_ms": summary_ms(turns), "arrays": here.kind,
        "added_us": statistics.median(added),
    }  # fmt: skip


def open_engine(state: State, *, engine: str, case: str, rows: int | None = None) -> dict[str, Any]:
    """Keep an engine open for `engine_turn`, its arrays on the device; `rows` are those of the case that it takes."""
    feeds = feeds_at(case, rows)
    loop = open_loop(engine, feeds)
    if loop is not None:
        state[engine] = loop.engine_ms
        return {"timed": "the engine alone, as a CUDA graph, on the device", "profile": loop.profile}
    session = enginery.load(engine)

    def on_the_host(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            session.run(feeds)
        return (time.perf_counter() - begin) * 1e3 / calls

    state[engine] = on_the_host
    return {"timed": "a session on the host: a trial"}


def engine_turn(state: State, *, engine: str, calls: int) -> float:
    """Return the time of one call in milliseconds: the mean of some in a row."""
    return float(state[engine](calls))


def breakdown(state: State, *, engine: str, case: str) -> dict[str, Any]:
    """Where the time of one call goes, by Enginery's own profiler, and the layers that take most."""
    del state
    with enginery.load(engine) as session:
        if not (Path(engine) / PLAN).is_file():
            return {"profile": f"{read_manifest(Path(engine)).backend} does not tell the parts of a call apart"}
        return _shown(session.profile(feeds_at(case)))


def _shown(record: Any) -> dict[str, Any]:
    from enginery.plain import to_plain  # noqa: PLC0415 - only where there is a record

    plain = to_plain(record)
    layers = sorted(plain.pop("layers", ()), key=lambda layer: -layer.get("average_ms", 0.0))
    return {**plain, "layers": len(layers), "top_layers": layers[:15]}


HANDLERS = {
    "latency": latency, "device_latency": device_latency, "open_engine": open_engine, "engine_turn": engine_turn,
    "breakdown": breakdown,
}  # fmt: skip
