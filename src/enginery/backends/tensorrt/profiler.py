"""What a call spends where: asking for the work, copies in, the engine, copies out, and each layer of the engine."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from enginery.backends.tensorrt.cases import Arrays
from enginery.backends.tensorrt.contexts import Opened
from enginery.backends.tensorrt.copying import Copier
from enginery.backends.tensorrt.lanes import Lane
from enginery.backends.tensorrt.versions import Api
from enginery.records import LayerTimeRecord, ProfileRecord

__all__ = ["profile_calls"]

_WARM_UPS = 5


def profile_calls(opened: Opened, feeds: Arrays, runs: int) -> ProfileRecord:
    """Time `runs` calls part by part, then as many layer by layer, on a context of their own, without a graph."""
    lane = Lane(opened, Copier())
    try:
        lane.infer(feeds)
        for _ in range(_WARM_UPS):
            _time_parts(lane, opened)
        parts = [_time_parts(lane, opened) for _ in range(runs)]
        enqueue, copy_in, device, copy_out = (statistics.median(column) for column in zip(*parts, strict=True))
        layers = _time_layers(lane, opened, runs)
        shapes = {place.tensor.name: place.view.shape for place in _case(lane).inputs}
        return ProfileRecord(runs, shapes, enqueue, copy_in, device, copy_out, layers)
    finally:
        lane.close()


def _case(lane: Lane) -> Any:
    return next(iter(lane.cases.values())).case


def _time_parts(lane: Lane, opened: Opened) -> tuple[float, float, float, float]:
    """Return the milliseconds of asking for the engine, copying in, the engine on the device, and copying out."""
    cuda, stream, case = opened.cuda, lane.stream, _case(lane)
    events = [cuda.new_event(timing=True) for _ in range(4)]
    try:
        cuda.record(events[0], stream)
        case.copy_in(stream)
        cuda.record(events[1], stream)
        begin = time.perf_counter()
        case.enqueue(int(stream))
        enqueue_ms = (time.perf_counter() - begin) * 1e3
        cuda.record(events[2], stream)
        case.copy_out(stream)
        cuda.record(events[3], stream)
        cuda.synchronize(stream)
        spans = [cuda.elapsed_ms(events[at], events[at + 1]) for at in range(3)]
        return enqueue_ms, spans[0], spans[1], spans[2]
    finally:
        for event in events:
            cuda.destroy_event(event)


def _time_layers(lane: Lane, opened: Opened, runs: int) -> tuple[LayerTimeRecord, ...]:
    """Return each layer's median, in the order of the engine; layers of one name are summed up in a run."""
    times: list[dict[str, float]] = []

    def note(layer_name: str, ms: float) -> None:
        times[-1][layer_name] = times[-1].get(layer_name, 0.0) + ms

    case = _case(lane)
    case.watch(_class_for(opened.api)(note))
    for _ in range(runs):
        times.append({})
        case.enqueue(int(lane.stream))
        opened.cuda.synchronize(lane.stream)
    names = list(dict.fromkeys(name for run in times for name in run))
    return tuple(_summed(name, [run[name] for run in times if name in run]) for name in names)


def _summed(name: str, times: list[float]) -> LayerTimeRecord:
    return LayerTimeRecord(name, math.fsum(times), statistics.fmean(times), statistics.median(times))


@functools.cache
def _class_for(api: Api) -> type[Any]:
    trt = api.module

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined] # the library is passed around
        def __init__(self, note: Callable[[str, float], None]) -> None:
            trt.IProfiler.__init__(self)
            self._note = note

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._note(layer_name, ms)

    return Profiler
