"""A lane: a stream, its buffers and contexts, and the cases it ran last. Calls on one lane run one after another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from enginery.backends.tensorrt.buffers import Buffers
from enginery.backends.tensorrt.cases import Arrays, Case, Place, key_of
from enginery.backends.tensorrt.contexts import Contexts, Opened
from enginery.backends.tensorrt.copying import Copier
from enginery.backends.tensorrt.graphs import Replay
from enginery.backends.tensorrt.tensors import check_output, convert
from enginery.errors import EngineryError

__all__ = ["Lane", "Ready", "graph_failure"]

_SMALL = 1 << 20
_REMEMBERED = 32
"""Shapes whose contexts and graphs are kept; the one unused for longest goes."""
_PER_THREAD = 2
"""The handle by which CUDA names each thread's own default stream: one handle, a stream for each thread."""


class Ready:
    """A case on the host's path, with what its calls use at hand."""

    def __init__(self, lane: Lane, feeds: Arrays) -> None:
        opened = lane.opened
        self.case = Case(opened, lane.contexts, lane.buffers, feeds)
        failed = graph_failure(opened) if opened.cuda_graph and not self.case.data_dependent else None
        self.replay = Replay(opened.cuda, lane.stream, self._step, failed)
        self.case.dropped = self.replay.drop
        self._lane = lane
        self.inputs = tuple((place.tensor.name, place) for place in self.case.inputs if not place.tensor.on_host)
        self.outputs = tuple((place.tensor.name, place) for place in self.case.outputs)

    def _step(self) -> None:
        self.case.step(self._lane.stream)

    def close(self) -> None:
        """Let go of the graph and the context."""
        self.case.close()


class Lane:
    """One call at a time, in page-locked memory and on a stream of its own.

    Args:
        opened: the engine.
        copier: what copies large arrays.
    """

    def __init__(self, opened: Opened, copier: Copier) -> None:
        self.opened = opened
        self.copier = copier
        self.stream = opened.cuda.new_stream()
        self.buffers = Buffers(opened.cuda)
        self.contexts = Contexts(opened, self.stream)
        self.cases: OrderedDict[tuple[Any, ...], Ready] = OrderedDict()
        self._last: tuple[tuple[Any, ...], Ready] | None = None
        self._idle = opened.cuda.new_event()
        self.busy_on: int | None = None
        self._unmarked: Any = None
        self.on_close: list[Callable[[], None]] = []

    def infer(self, feeds: Arrays, into: Arrays | None = None) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; outputs are new arrays, or those of `into`."""
        ready = self._ready(feeds)
        cuda, stream = self.opened.cuda, self.stream
        if self.busy_on is not None:
            self.follow(stream, int(stream))
            self.busy_on = None
        copy = self.copier.copy
        for name, place in ready.inputs:
            if place.tensor.converted:
                convert(place.tensor, place.view, feeds[name])
            else:
                copy(place.view, feeds[name])
        ready.case.bind()
        ready.replay.go()
        cuda.synchronize(stream)
        if into is None and not ready.case.data_dependent:
            return {name: self._taken(place) for name, place in ready.outputs}
        return self._outputs_into(ready, into or {})

    def _ready(self, feeds: Arrays) -> Ready:
        key = key_of(self.opened.inputs, feeds)
        last = self._last
        if last is not None and last[0] == key:
            return last[1]
        found = self.cases.get(key)
        if found is None:
            self._make_room()
            found = self.cases[key] = Ready(self, feeds)
        else:
            self.cases.move_to_end(key)
        self._last = key, found
        return found

    def _make_room(self) -> None:
        if len(self.cases) >= _REMEMBERED:
            self.settle()
            self._last = None
            self.cases.popitem(last=False)[1].close()

    def settle(self) -> None:
        """Wait for all that was asked on this lane, on a caller's stream too."""
        self._mark()
        if self.busy_on is not None:
            self.opened.cuda.wait_for_event(self._idle)
            self.busy_on = None
        self.opened.cuda.synchronize(self.stream)

    def follow(self, stream: Any, handle: int) -> None:
        """Let a stream wait for what a caller's stream was asked for on this lane: they share memory."""
        if not self.follows(handle):
            self._mark()
            self.opened.cuda.wait(stream, self._idle)

    def follows(self, handle: int) -> bool:
        """Whether a caller's stream has nothing of this lane to wait for."""
        return self.busy_on is None or (self.busy_on == handle and handle != _PER_THREAD)

    def lead(self, stream: Any, handle: int, *, marked: bool = True) -> None:
        """Remember what a caller's stream was asked for, for whoever comes next to wait for.

        Args:
            stream: that stream.
            handle: its handle.
            marked: let the event stand for it now, in case the stream is gone by then; costs some microseconds.
        """
        self.busy_on = handle
        self._unmarked = stream
        if marked:
            self._mark()

    def _mark(self) -> None:
        if self._unmarked is not None:
            self.opened.cuda.record(self._idle, self._unmarked)
            self._unmarked = None

    def _taken(self, place: Place) -> np.ndarray[Any, Any]:
        if place.nbytes < _SMALL and not place.tensor.converted:
            return place.view.copy()
        taken: np.ndarray[Any, Any] = np.empty(place.view.shape, place.tensor.given)
        self.copier.copy(taken, place.view)
        return taken

    def _outputs_into(self, ready: Ready, into: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        places = dict(ready.outputs)
        found = {}
        for tensor in self.opened.outputs:
            name = tensor.name
            place = places[name] if name in places else self._fetched(ready.case, name)
            if name not in into:
                found[name] = self._taken(place)
                continue
            given = found[name] = into[name]
            if given.shape != place.view.shape or given.dtype != tensor.given:
                check_output(name, given.shape, given.dtype.name, place.view.shape, tensor.given.name)
            self.copier.copy(given, place.view)
        return found

    def _fetched(self, case: Case, name: str) -> Place:
        """Copy a data-dependent output to the host, now that its size is known."""
        tensor = next(tensor for tensor in self.opened.outputs if tensor.name == name)
        shape = case.found_shape(name)
        nbytes = tensor.nbytes(shape)
        buffer = self.buffers.get(name, nbytes)
        if nbytes:
            self.opened.cuda.copy_out(buffer.host, case.allocators[name].address, nbytes, self.stream)
            self.opened.cuda.synchronize(self.stream)
        return Place(tensor, buffer, buffer.view(shape, tensor.dtype), nbytes)

    def close(self) -> None:
        """Free everything, after what still runs."""
        self.settle()
        self._last = None
        for close in self.on_close:
            close()
        for ready in self.cases.values():
            ready.close()
        self.cases.clear()
        self.contexts.close()
        self.buffers.close()
        self.opened.cuda.destroy_event(self._idle)
        self.opened.cuda.destroy_stream(self.stream)


def graph_failure(opened: Opened) -> Callable[[EngineryError], None]:
    """Return what tells the user, once, that this engine runs without a CUDA graph."""

    def tell(error: EngineryError) -> None:
        opened.say_once(
            f"no CUDA graph could be captured, so that each call asks for every kernel by itself: {error.message}; "
            "it costs some microseconds a layer (cuda_graph=false says that this is known)"
        )

    return tell
