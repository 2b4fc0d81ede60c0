"""Several batches under way at once: one is copied in while another computes and a third is copied out."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from enginery.backends.tensorrt.buffers import Buffers
from enginery.backends.tensorrt.cases import Arrays, Case, key_of
from enginery.backends.tensorrt.contexts import Contexts, Opened
from enginery.backends.tensorrt.copying import Copier
from enginery.backends.tensorrt.graphs import Replay
from enginery.backends.tensorrt.lanes import graph_failure
from enginery.backends.tensorrt.tensors import convert
from enginery.errors import RunError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Checks", "Pipeline", "PipelineSlot"]

_REMEMBERED = 8


class Checks(NamedTuple):
    """How a session checks the feeds of a batch, and its shapes alone; both raise as a call does."""

    feeds: Callable[[Mapping[str, Any]], dict[str, np.ndarray[Any, Any]]]
    shapes: Callable[[Mapping[str, tuple[int, ...]]], None]


class _Streams:
    """The streams of a pipeline, and what its slots share."""

    def __init__(self, opened: Opened) -> None:
        cuda = opened.cuda
        self.copy_in, self.compute, self.copy_out = (cuda.new_stream() for _ in range(3))
        self.contexts = Contexts(opened, self.compute)

    def wait(self, opened: Opened) -> None:
        for stream in (self.copy_in, self.compute, self.copy_out):
            opened.cuda.synchronize(stream)

    def close(self, opened: Opened) -> None:
        self.contexts.close()
        for stream in (self.copy_in, self.compute, self.copy_out):
            opened.cuda.destroy_stream(stream)


class PipelineSlot:
    """Page-locked inputs and outputs of one batch under way.

    Fill `inputs`, whose arrays the device reads by itself, then `submit`, then take `result`.
    """

    def __init__(self, opened: Opened, streams: _Streams, copier: Copier) -> None:
        self._opened, self._streams, self._copier = opened, streams, copier
        cuda = opened.cuda
        self._buffers = Buffers(cuda)
        self._copied_in, self._computed, self._done = (cuda.new_event() for _ in range(3))
        self._cases: OrderedDict[tuple[Any, ...], tuple[Case, Replay]] = OrderedDict()
        self._case: Case | None = None
        self._replay: Replay | None = None
        self.inputs: dict[str, np.ndarray[Any, Any]] = {}
        self.running = False

    def prepare(self, feeds: Arrays) -> None:
        """Take the shapes of `feeds`; `inputs` are then arrays of them, with whatever was in them before."""
        key = key_of(self._opened.inputs, feeds)
        self._case, self._replay, self.inputs = None, None, {}
        if key not in self._cases:
            if len(self._cases) >= _REMEMBERED:
                self._opened.cuda.synchronize(self._streams.compute)
                self._cases.popitem(last=False)[1][0].close()
            self._cases[key] = self._make(feeds)
        self._cases.move_to_end(key)
        self._case, self._replay = self._cases[key]
        self.inputs = {place.tensor.name: place.view for place in self._case.inputs}

    def _make(self, feeds: Arrays) -> tuple[Case, Replay]:
        opened, compute = self._opened, self._streams.compute
        case = Case(opened, self._streams.contexts, self._buffers, feeds)
        if case.data_dependent:
            case.close()
            raise UsageError(
                f"the sizes of {', '.join(case.allocators)} are known only when the engine has run, so batches cannot "
                "follow one another without waiting",
                mend="use session.run",
            )
        failed = graph_failure(opened) if opened.cuda_graph else None
        replay = Replay(opened.cuda, compute, lambda: case.enqueue(int(compute)), failed)
        case.dropped = replay.drop
        return case, replay

    def fill(self, feeds: Arrays) -> None:
        """Copy arrays into `inputs`, with several threads where they are large."""
        self.prepare(feeds)
        for tensor in self._opened.inputs:
            if tensor.on_host:
                continue
            if tensor.converted:
                convert(tensor, self.inputs[tensor.name], feeds[tensor.name])
            else:
                self._copier.copy(self.inputs[tensor.name], feeds[tensor.name])

    def submit(self) -> None:
        """Ask for the copies and the engine; returns at once.

        Raises:
            UsageError: the slot has no inputs yet, or is under way already.
        """
        case, replay = self._case, self._replay
        if case is None or replay is None or self.running:
            why = "is under way already" if self.running else "has no inputs yet"
            raise UsageError(f"the slot {why}", mend="take a slot, fill its inputs, submit it once, take its result")
        cuda, streams = self._opened.cuda, self._streams
        case.bind()
        case.copy_in(streams.copy_in)
        cuda.record(self._copied_in, streams.copy_in)
        cuda.wait(streams.compute, self._copied_in)
        replay.go()
        cuda.record(self._computed, streams.compute)
        cuda.wait(streams.copy_out, self._computed)
        case.copy_out(streams.copy_out)
        cuda.record(self._done, streams.copy_out)
        self.running = True

    def finish(self) -> dict[str, np.ndarray[Any, Any]]:
        """Wait for the batch, and return its outputs as new arrays."""
        if self._case is None or not self.running:
            raise UsageError("the slot was not submitted", mend="submit it before its result is taken")
        self.wait()
        found = {}
        for place in self._case.outputs:
            taken = found[place.tensor.name] = np.empty(place.view.shape, place.tensor.given)
            self._copier.copy(taken, place.view)
        return found

    def wait(self) -> None:
        """Wait for the batch; its outputs stay in the slot's own memory."""
        self._opened.cuda.wait_for_event(self._done)
        self.running = False

    def close(self) -> None:
        """Free what the slot holds; nothing of it may run any more."""
        for case, _ in self._cases.values():
            case.close()
        self._cases.clear()
        self._case, self._replay, self.inputs = None, None, {}
        self._buffers.close()
        for event in (self._copied_in, self._computed, self._done):
            self._opened.cuda.destroy_event(event)


class Pipeline:
    """Batches in order, several under way; for one thread, and to be closed.

    Args:
        opened: the engine.
        slots: how many batches may be under way.
        copier: what copies large arrays.
        use_device: makes the engine's GPU the calling thread's.
        checks: of what a batch brings.
    """

    def __init__(
        self, opened: Opened, slots: int, copier: Copier, use_device: Callable[[], None], checks: Checks
    ) -> None:
        if slots < 1:
            raise UsageError(f"a pipeline of {slots} slots", mend="give at least 1; 3 keep both copies and engine busy")
        self._opened = opened
        self._use_device, self._checks = use_device, checks
        self._streams = _Streams(opened)
        self._slots = [PipelineSlot(opened, self._streams, copier) for _ in range(slots)]
        self._free = deque(self._slots)
        self._under_way: deque[PipelineSlot] = deque()
        self.closed = False

    def slot(self, shapes: Mapping[str, tuple[int, ...]]) -> PipelineSlot:
        """Return a slot whose `inputs` have these shapes, to be filled, and then given to `submit`.

        It is the caller's until it is submitted: another call returns another slot.

        Raises:
            InputNameError: an input is missing or unknown.
            InputShapeError: sizes that the engine does not take; `InputRankError`: too many or too few.
            RunError: every slot is filled or under way: submit, or take a `result` first.
        """
        self._check_open()
        self._checks.shapes(shapes)
        free = self._take_free()
        free.prepare({name: np.empty(shape, self._given(name)) for name, shape in shapes.items()})
        self._free.popleft()
        return free

    def _given(self, name: str) -> np.dtype[Any]:
        return next((tensor.dtype for tensor in self._opened.inputs if tensor.name == name), np.dtype(np.uint8))

    def _take_free(self) -> PipelineSlot:
        if not self._free:
            raise RunError(
                f"all {len(self._slots)} slots are under way or being filled",
                mend="take a result first, or open more slots",
            )
        self._use_device()
        return self._free[0]

    def submit(self, slot: PipelineSlot) -> None:
        """Send a filled slot on its way."""
        self._check_open()
        self._use_device()
        slot.submit()
        if slot in self._free:
            self._free.remove(slot)
        self._under_way.append(slot)

    def result(self) -> dict[str, np.ndarray[Any, Any]]:
        """Wait for the oldest batch under way and return its outputs, which the caller owns.

        Raises:
            RunError: none is under way.
        """
        if not self._under_way:
            raise RunError("no batch is under way", mend="submit one first")
        slot = self._under_way.popleft()
        try:
            return slot.finish()
        finally:
            self._free.append(slot)

    def map(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        """Yield the outputs of each batch, in order; the next ones are on their way meanwhile.

        Whoever stops before the end, by a ``break`` or an error, has no claim on what is on its way then.

        Raises:
            UsageError: batches that were submitted before are under way.
        """
        self._check_open()
        if self._under_way:
            raise UsageError(
                f"batches that were submitted before are under way ({len(self._under_way)}), and their outputs would "
                "come first",
                mend="take their results before, or use one map() at a time",
            )
        try:
            for batch in batches:
                feeds = self._checks.feeds(batch)
                if not self._free:
                    yield self.result()
                slot = self._take_free()
                slot.fill(feeds)
                self.submit(slot)
            while self._under_way:
                yield self.result()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        while self._under_way:
            slot = self._under_way.popleft()
            try:
                slot.wait()
            finally:
                self._free.append(slot)

    def _check_open(self) -> None:
        if self.closed:
            raise RunError("the pipeline is closed", mend="make another: session.pipeline()")

    def close(self) -> None:
        """Wait for what is under way, and free everything; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        self._use_device()
        self._under_way.clear()
        self._streams.wait(self._opened)
        for slot in self._slots:
            slot.close()
        self._streams.close(self._opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
