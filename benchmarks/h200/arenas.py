"""A session under load: pipelines, threads, and ten thousand calls."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import enginery
from benchmarks.h200.clock import take_turns
from benchmarks.h200.loops import Loop, call, cuda
from benchmarks.h200.timing import PLAN, feeds_at, open_loop
from enginery.backends.session import Session

__all__ = ["HANDLERS"]

State = dict[str, Any]
Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_SOURCES = 6
"""Arrays that are taken in turns, so that no cache of the processor holds the next one."""


def threads(state: State, *, engine: str, case: str, count: int, own: bool, seconds: float) -> dict[str, Any]:
    """Call from several threads, each with its own inputs, on one session or on one each; every answer is checked."""
    del state
    feeds = [_rolled(feeds_at(case), at) for at in range(count)]
    options = {} if own or not (Path(engine) / PLAN).is_file() else {"contexts": count}
    sessions = [enginery.load(engine, options=options) for _ in range(count if own else 1)]
    try:
        right = [sessions[0].run(each) for each in feeds]
        runs: list[Run] = [sessions[at % len(sessions)].run for at in range(count)]
        alone = _calls_a_second(runs[:1], feeds, right, seconds)
        together = _calls_a_second(runs, feeds, right, seconds)
    finally:
        for session in sessions:
            session.close()
    return {
        "right": alone["wrong"] + together["wrong"] == 0, "wrong": together["wrong"], "errors": together["errors"],
        "one_thread_per_s": alone["per_s"], "per_s": together["per_s"], "threads": count,
    }  # fmt: skip


def _calls_a_second(runs: list[Run], feeds: list[Any], right: list[Any], seconds: float) -> dict[str, Any]:
    counts, wrong, errors = [0] * len(runs), [0] * len(runs), []
    start = threading.Barrier(len(runs) + 1)
    stop = threading.Event()

    def work(at: int) -> None:
        start.wait()
        try:
            while not stop.is_set():
                found = runs[at](feeds[at])
                counts[at] += 1
                wrong[at] += not all(_close(found[name], right[at][name]) for name in right[at])
        except Exception as error:  # noqa: BLE001 - told as what it is
            errors.append(f"{type(error).__name__}: {error}")
            wrong[at] += 1

    workers = [threading.Thread(target=work, args=(at,)) for at in range(len(runs))]
    for worker in workers:
        worker.start()
    start.wait()
    begin = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return {"per_s": sum(counts) / (time.perf_counter() - begin), "wrong": sum(wrong), "errors": errors[:3]}


def _close(found: Array, right: Array) -> bool:
    return bool(np.linalg.norm(found - right) <= 1e-3 * np.linalg.norm(right))


def _rolled(feeds: Mapping[str, Array], by: int) -> dict[str, Array]:
    """Return inputs that differ from thread to thread."""
    return {name: np.ascontiguousarray(np.roll(array, 17 * by, axis=-1)) for name, array in feeds.items()}


def memory(state: State, *, engine: str, case: str, calls: int) -> dict[str, Any]:
    """Call many times; tells by how much the host's and the device's memory grew after the first tenth."""
    del state
    feeds = feeds_at(case)
    readings = []
    with enginery.load(engine) as session:
        begin = time.perf_counter()
        for at in range(calls):
            session.run(feeds)
            if at % max(1, calls // 10) == max(1, calls // 10) - 1:
                readings.append((_resident_mib(), _device_mib()))
        seconds = time.perf_counter() - begin
    host, device = zip(*readings, strict=True)
    return {
        "calls": calls, "seconds": seconds, "host_mib": host, "device_mib": device,
        "host_grew_mib": max(host) - host[0], "device_grew_mib": max(device) - device[0],
    }  # fmt: skip


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def _device_mib() -> float:
    """Return the device's memory in use; 0 where there is no device."""
    try:
        free, total = call(cuda().cudaMemGetInfo)
    except (ImportError, RuntimeError):
        return 0.0
    return float(total - free) / 2**20


def pipeline(
    state: State, *, engine: str, case: str, pixels: bool, locked: bool, slots: int, batches: int, rounds: int
) -> dict[str, Any]:
    """Run many batches in a row through `session.pipeline`, beside the engine alone, the copy alone, and a plain loop.

    Args:
        state: not used.
        engine: of one batch.
        case: its inputs.
        pixels: whether the input is bytes.
        locked: whether the inputs lie in page-locked memory: the pipeline's own slots, filled before.
        slots: of the pipeline.
        batches: in one turn.
        rounds: turns of each.
    """
    del state
    feeds = _bytes_of(feeds_at(case)) if pixels else feeds_at(case)
    sources = [{name: array.copy() for name, array in feeds.items()} for _ in range(_SOURCES)]
    loop = open_loop(engine, feeds)
    few = max(1, batches // 4)
    with enginery.load(engine) as session:
        through = _through(session, sources, slots=slots, batches=batches, locked=locked, real=loop is not None)
        _check_last(through(), session.run(feeds))
        plain = session.run if loop is None else loop.run
        many = {"pipeline": through, "plain": lambda: [plain(sources[at % _SOURCES]) for at in range(few)]}
        turns = take_turns(many, rounds=rounds, seconds=0.0, least=2, warm=1)
    found = {
        "pipeline": statistics.median(turns["pipeline"]) / batches,
        "plain": statistics.median(turns["plain"]) / few,
    }
    return {**_shares(found, _parts(loop, feeds), len(next(iter(feeds.values())))), "turns_ms": turns}


def _through(
    session: Session, sources: Sequence[Mapping[str, Array]], *, slots: int, batches: int, locked: bool, real: bool
) -> Callable[[], Mapping[str, Array]]:
    """Return a call that sends all batches through a pipeline, takes every output, and returns the last."""
    if not real:  # a trial: its backend has no pipeline
        return lambda: [session.run(sources[at % _SOURCES]) for at in range(batches)][-1]
    line = session.pipeline(slots)
    if not locked:
        return lambda: deque(line.map(sources[at % _SOURCES] for at in range(batches)), maxlen=1)[0]
    shapes = {name: array.shape for name, array in sources[0].items()}

    def from_slots(*, fill: bool = False) -> Mapping[str, Array]:
        found: Mapping[str, Array] = {}
        for at in range(batches):
            if at >= slots:
                found = line.result()
            slot = line.slot(shapes)
            if fill:
                for name, array in slot.inputs.items():
                    np.copyto(array, sources[0][name])
            line.submit(slot)
        for _ in range(min(slots, batches)):
            found = line.result()
        return found

    from_slots(fill=True)
    return from_slots


def _check_last(found: Mapping[str, Array], right: Mapping[str, Array]) -> None:
    """Raise `RuntimeError` where a pipeline gives something else than a session: a fast one that computes nothing."""
    if not all(_close(found[name], right[name]) for name in right):
        raise RuntimeError("the pipeline's outputs are not the session's, so its time says nothing")


def _parts(loop: Loop | None, feeds: Mapping[str, Array]) -> dict[str, float]:
    """Return the engine alone and the copy alone in milliseconds, from page-locked memory."""
    if loop is None:
        return {}
    loop.fill(feeds)
    return {"engine_ms": loop.engine_ms(50), "copy_ms": loop.device_ms(loop.copy_in, 50)}


def _shares(found: Mapping[str, float], parts: Mapping[str, float], rows: int) -> dict[str, float]:
    per_batch = found["pipeline"]
    told = {
        "pipeline_ms": per_batch, "plain_ms": found["plain"], "rows_per_s": rows / per_batch * 1e3,
        "by_plain": found["plain"] / per_batch, **parts,
    }  # fmt: skip
    return {**told, "share": max(parts.values()) / per_batch} if parts else told


def _bytes_of(feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return pictures as bytes: what a normalised picture was before."""
    return {name: np.clip(array * 32 + 128, 0, 255).astype(np.uint8) for name, array in feeds.items()}


HANDLERS = {"threads": threads, "memory": memory, "pipeline": pipeline}
