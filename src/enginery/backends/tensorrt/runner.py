"""An opened TensorRT engine that runs: lanes for calls that come at one time, and what callers may ask besides."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from enginery.backends.device_arrays import DeviceCall
from enginery.backends.tensorrt.contexts import Opened
from enginery.backends.tensorrt.copying import Copier
from enginery.backends.tensorrt.lanes import Lane
from enginery.backends.tensorrt.on_device import OnDevice
from enginery.backends.tensorrt.pipelining import Checks, Pipeline
from enginery.backends.tensorrt.profiler import profile_calls
from enginery.backends.tensorrt.queries import Measuring, Trace, measure_queries
from enginery.backends.tensorrt.replays import Replay, Ways
from enginery.errors import InputDtypeError, RunError
from enginery.records import ProfileRecord, TensorInfo

__all__ = ["TensorRTRunner"]

Arrays = dict[str, np.ndarray[Any, Any]]


class TensorRTRunner:
    """Runs an engine; calls of several threads run at one time on as many lanes as there are, and wait otherwise.

    Args:
        opened: the engine.
        inputs: as the session has them.
        placement: what to say of where it runs.
        contexts: how many calls may run at one time.
        copy_threads: how many threads copy a large array; 0 chooses by its size.
        device: CUDA's number of the GPU.
        before_close: called when nothing runs any more, while everything is still there.
    """

    def __init__(
        self,
        opened: Opened,
        inputs: tuple[TensorInfo, ...],
        placement: str,
        *,
        contexts: int = 1,
        copy_threads: int = 0,
        device: int = 0,
        before_close: Callable[[], None] | None = None,
    ) -> None:
        self.placement = placement
        self._opened: Opened | None = opened
        self._copier = Copier(copy_threads)
        self._before_close = before_close
        self._device = device if opened.cuda.device_count() > 1 else None
        self._lanes = [Lane(opened, self._copier) for _ in range(contexts)]
        names = [info.name for info in inputs]
        places = tuple(names.index(tensor.name) for tensor in opened.inputs)
        self._on_device = {lane: OnDevice(lane, places) for lane in self._lanes}
        self.replay: Replay | None = None
        # The lane used last is taken first: its graphs are warm.
        self._free = deque(self._lanes)
        use = self._use_device if self._device is not None else None
        self._ways = Ways(tuple(names), places, self._free, self._give_back, use)
        self._waiting = 0
        self._closing = False
        self._changed = threading.Condition()
        self._pipelines: list[Pipeline] = []
        found = {tensor.name: tensor.dtype.name for tensor in opened.inputs}
        self.device_dtypes = {info.name: found.get(info.name, info.dtype) for info in inputs}

    def infer(self, feeds: Arrays) -> Arrays:
        """Run once; the arrays returned are the caller's."""
        return self.infer_into(feeds, None)

    def infer_into(self, feeds: Arrays, outputs: Arrays | None) -> Arrays:
        """Run once; outputs go into the caller's arrays, where it gave some."""
        lane = self._take()
        try:
            return lane.infer(feeds, outputs)
        finally:
            self._give_back(lane)

    def infer_on_device(self, call: DeviceCall) -> dict[str, Any]:
        """Run once on arrays of the device, in the order of the caller's stream, which is not waited for.

        Raises:
            InputDtypeError: they lie on another GPU than the engine.
        """
        if self._device is not None and call.kind.device(call.like) not in (None, self._device):
            raise InputDtypeError(
                f"the arrays lie on GPU {call.kind.device(call.like)}, the engine on GPU {self._device}",
                mend=f"move them, or open the engine with --option device={call.kind.device(call.like)}",
            )
        lane = self._take()
        try:
            found = self._on_device[lane].infer(call)
            self._remember(lane, call)
            return found
        finally:
            self._give_back(lane)

    def _remember(self, lane: Lane, call: DeviceCall) -> None:
        """Let the next call that is like this one take the short way."""
        known = self._on_device[lane].known
        if known is None or (self.replay is not None and self.replay.repeats(known, call)):
            return
        self.replay = Replay(known, lane, call, self._ways)

    def _take(self) -> Lane:
        if self._device is not None:
            self._use_device()
        return self._free_lane() or self._wait()

    def _use_device(self) -> None:
        """Make the engine's GPU this thread's: each thread has one of its own, and a caller may have changed it."""
        if self._device is not None:
            self._here().cuda.set_device(self._device)

    def _free_lane(self) -> Lane | None:
        try:
            return self._free.pop()
        except IndexError:
            return None

    def _wait(self, *, closing: bool = False) -> Lane:
        """Wait until a lane is given back: who waits says so before it looks, and who gives looks after it gave.

        Raises:
            RunError: the session is being closed, which gives no lane back.
        """
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    if self._closing and not closing:
                        raise _closed()
                    if (lane := self._free_lane()) is not None:
                        return lane
                    self._changed.wait()
            finally:
                self._waiting -= 1

    def _give_back(self, lane: Lane) -> None:
        self._free.append(lane)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _here(self) -> Opened:
        if self._opened is None:
            raise _closed()
        return self._opened

    def pipeline(
        self,
        slots: int,
        check_feeds: Callable[[Mapping[str, Any]], Arrays],
        check_shapes: Callable[[Mapping[str, tuple[int, ...]]], None],
    ) -> Pipeline:
        """Make a pipeline with streams, buffers and contexts of its own; closed with the runner at the latest."""
        self._use_device()
        made = Pipeline(self._here(), slots, self._copier, self._use_device, Checks(check_feeds, check_shapes))
        self._pipelines = [*(pipeline for pipeline in self._pipelines if not pipeline.closed), made]
        return made

    def profile(self, feeds: Arrays, runs: int) -> ProfileRecord:
        """Time the parts of a call and the layers of the engine."""
        self._use_device()
        return profile_calls(self._here(), feeds, runs)

    def measure(self, feeds: Arrays, how: Measuring) -> Trace:
        """Measure queries one after another, as trtexec does."""
        self._use_device()
        return measure_queries(self._here(), feeds, how)

    def close(self) -> None:
        """Wait for calls under way, and free everything."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for _ in self._lanes:
            self._wait(closing=True)
        self.replay = None
        self._use_device()
        if self._before_close is not None:
            self._before_close()
        for pipeline in self._pipelines:
            pipeline.close()
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._on_device.clear()
        self._free.clear()
        self._copier.close()
        if self._opened is not None:
            self._opened.engine = None
            self._opened = None


def _closed() -> RunError:
    return RunError("the session is closed", mend="open the engine again")
