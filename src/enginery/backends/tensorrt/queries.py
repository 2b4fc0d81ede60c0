"""Queries one after another, each with its times on host and device: the loop by which trtexec measures.

A query is: inputs copied in, the engine run, outputs copied out, each on a stream of its own, joined by events. One
query is enqueued ahead, so that the copies of one overlap with the compute of another.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from dataclasses import dataclass
from typing import Any

from enginery.backends.tensorrt.buffers import Buffers
from enginery.backends.tensorrt.cases import Arrays, Case
from enginery.backends.tensorrt.contexts import Contexts, Opened
from enginery.backends.tensorrt.graphs import capture
from enginery.backends.tensorrt.lanes import graph_failure
from enginery.backends.tensorrt.tensors import convert
from enginery.records import QueryRecord

__all__ = ["Measuring", "Trace", "measure_queries"]

_MARKS = 6
_DEPTH = 2
"""Queries that may be under way on one stream: one runs, one is enqueued ahead."""


@dataclass(frozen=True)
class Measuring:
    """How queries are measured.

    Args:
        iterations: queries at least.
        duration_s: seconds at least.
        warmup_ms: time of the queries before, which are not counted.
        idle_ms: slept between two queries.
        streams: queries at one time, each with a context of its own.
        threads: whether a thread drives each stream.
        transfers: whether inputs and outputs are copied.
        cuda_graph: whether the engine's run is captured and replayed.
        expose_dma: whether a query waits for the one before.
    """

    iterations: int = 10
    duration_s: float = 3.0
    warmup_ms: float = 200.0
    idle_ms: float = 0.0
    streams: int = 1
    threads: bool = False
    transfers: bool = True
    cuda_graph: bool = False
    expose_dma: bool = False


@dataclass(frozen=True)
class Trace:
    """What was measured: the queries in the order they were enqueued, and the host's time for all of them."""

    queries: tuple[QueryRecord, ...]
    warmups: int
    walltime_ms: float
    cuda_graph: bool


def measure_queries(opened: Opened, feeds: Arrays, how: Measuring) -> Trace:
    """Warm up, then measure queries of one combination of inputs; they are copied into page-locked memory once.

    Raises:
        RunError: TensorRT or CUDA refused.
    """
    with contextlib.ExitStack() as stack:
        lines = [_Line(opened, feeds, how) for _ in range(how.streams)]
        for line in lines:
            stack.callback(line.close)
        warmups = _drive(lines, how, how.warmup_ms / 1e3, 1)
        for line in lines:
            line.begin()
        begin = time.perf_counter()
        _drive(lines, how, how.duration_s, how.iterations)
        walltime_ms = (time.perf_counter() - begin) * 1e3
        queries = sorted((query for line in lines for query in line.queries), key=lambda query: query.enqueue)
        return Trace(tuple(queries), warmups, walltime_ms, all(line.graph is not None for line in lines))


def _drive(lines: list[_Line], how: Measuring, seconds: float, least: int) -> int:
    """Run queries on all lines for some seconds and at least some queries, and wait for them; returns how many."""
    if how.threads and len(lines) > 1:
        with concurrent.futures.ThreadPoolExecutor(len(lines)) as pool:
            return sum(pool.map(lambda line: _drive([line], how, seconds, -(-least // len(lines))), lines))
    end, count = time.perf_counter() + seconds, 0
    while count < least or time.perf_counter() < end:
        for line in lines:
            line.query()
        count += len(lines)
        if how.idle_ms:
            time.sleep(how.idle_ms / 1e3)
    for line in lines:
        line.finish()
    return count


class _Line:
    """Three streams, a context and the buffers of one query after another."""

    def __init__(self, opened: Opened, feeds: Arrays, how: Measuring) -> None:
        cuda = self._cuda = opened.cuda
        self._transfers = how.transfers
        self._streams = [cuda.new_stream() for _ in range(3)]
        self._buffers = Buffers(cuda)
        self._contexts = Contexts(opened, self._streams[1])
        self._case = Case(opened, self._contexts, self._buffers, feeds)
        self._zero = cuda.new_event(timing=True)
        cuda.record(self._zero, self._streams[1])
        depth = 1 if how.expose_dma else _DEPTH
        self._slots = [_Slot([cuda.new_event(timing=True) for _ in range(_MARKS)]) for _ in range(depth)]
        self._next = 0
        self._origin_s = time.perf_counter()
        self.queries: list[QueryRecord] = []
        for place in self._case.inputs:
            if not place.tensor.on_host:
                convert(place.tensor, place.view, feeds[place.tensor.name])
        self._case.bind()
        self._case.copy_in(self._streams[1])
        self._case.enqueue(int(self._streams[1]))
        cuda.synchronize(self._streams[1])
        self.graph = self._captured(opened) if how.cuda_graph and not self._case.data_dependent else None

    def _captured(self, opened: Opened) -> Any | None:
        stream = self._streams[1]
        return capture(self._cuda, stream, lambda: self._case.enqueue(int(stream)), graph_failure(opened))

    def begin(self) -> None:
        """Forget what was measured, and let all times count from here."""
        self.queries.clear()
        self._cuda.record(self._zero, self._streams[1])
        self._cuda.synchronize(self._streams[1])
        self._origin_s = time.perf_counter()

    def query(self) -> None:
        """Enqueue one query, after the one that had its place before is done."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        self._collect(slot)
        copy_in, compute, copy_out = self._streams
        cuda, marks = self._cuda, slot.marks
        begin_s = time.perf_counter()
        if self._transfers:
            cuda.record(marks[0], copy_in)
            self._case.copy_in(copy_in)
            cuda.record(marks[1], copy_in)
            cuda.wait(compute, marks[1])
        cuda.record(marks[2], compute)
        if self.graph is None:
            self._case.enqueue(int(compute))
        else:
            cuda.launch(self.graph, compute)
        cuda.record(marks[3], compute)
        if self._transfers:
            cuda.wait(copy_out, marks[3])
            cuda.record(marks[4], copy_out)
            self._case.copy_out(copy_out)
            cuda.record(marks[5], copy_out)
        slot.enqueued = (begin_s, time.perf_counter())

    def finish(self) -> None:
        """Wait for the queries under way, the older first."""
        for step in range(len(self._slots)):
            self._collect(self._slots[(self._next + step) % len(self._slots)])

    def _collect(self, slot: _Slot) -> None:
        """Wait for the query in a slot, and note its times."""
        if slot.enqueued is None:
            return
        cuda, marks = self._cuda, slot.marks
        cuda.wait_for_event(marks[5] if self._transfers else marks[3])
        times = [cuda.elapsed_ms(self._zero, mark) for mark in (marks if self._transfers else marks[2:4])]
        gpu = (times[2], times[3]) if self._transfers else (times[0], times[1])
        h2d = (times[0], times[1]) if self._transfers else (gpu[0], gpu[0])
        d2h = (times[4], times[5]) if self._transfers else (gpu[1], gpu[1])
        enqueue = tuple((at - self._origin_s) * 1e3 for at in slot.enqueued)
        self.queries.append(QueryRecord((enqueue[0], enqueue[1]), h2d, gpu, d2h))
        slot.enqueued = None

    def close(self) -> None:
        """Free everything, after what still runs."""
        for stream in self._streams:
            self._cuda.synchronize(stream)
        if self.graph is not None:
            self._cuda.destroy_graph(self.graph)
        self._case.close()
        self._contexts.close()
        self._buffers.close()
        for event in (self._zero, *(mark for slot in self._slots for mark in slot.marks)):
            self._cuda.destroy_event(event)
        for stream in self._streams:
            self._cuda.destroy_stream(stream)


@dataclass
class _Slot:
    """One query under way: its six events, and when the host enqueued it, in its own seconds."""

    marks: list[Any]
    enqueued: tuple[float, float] | None = None
