"""The shortest way through a call on arrays of the device that is like the last one.

A call costs the host what its Python costs: this is one function where the way for any call is a dozen. It knows one
combination of shapes, types and stream, finds the graph by the addresses, and hands whatever else there is back to
the long way, which checks everything and tells what is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from enginery.backends.device_arrays import DeviceCall
    from enginery.backends.tensorrt.lanes import Lane
    from enginery.backends.tensorrt.on_device import Known

__all__ = ["Replay", "Ways"]

_SPARE = 2
"""Sets of arrays for outputs that lie ready; each costs the outputs' memory."""
_Room: TypeAlias = "tuple[dict[str, Any], list[int]]"
"""Arrays for the outputs by name, and where they lie."""


class Ways(NamedTuple):
    """What every replay of a runner uses.

    Args:
        names: of the session's inputs.
        places: of the engine's inputs among them.
        free: the lanes that nobody uses; the runner's own.
        give_back: takes a lane.
        use_device: makes the engine's GPU this thread's; None where there is but one.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    free: deque[Lane]
    give_back: Callable[[Lane], None]
    use_device: Callable[[], None] | None


class Replay:
    """Runs a call again.

    Args:
        known: what that call ran.
        lane: of these.
        call: the one that was made.
        ways: what it uses of the runner.
    """

    def __init__(self, known: Known, lane: Lane, call: DeviceCall, ways: Ways) -> None:
        self.known, self._lane = known, lane
        names, places, self._free, self._give_back, self._use_device = ways
        self._shapes, self._stream, self._handle, self._waits = known
        self._asked = None if self._waits else self._handle
        self._kind, self._type = call.kind, type(call.like)
        self._first = names[0]
        self._inputs = tuple(zip(names, call.shapes, call.dtypes, strict=True))
        self._places = None if places == tuple(range(len(names))) else places
        self._outputs = tuple((name, shape, dtype) for name, _, shape, dtype in self._shapes.outputs)
        self._rooms: deque[_Room] = deque(maxlen=_SPARE)
        self._marked = not call.kind.keeps_streams
        self._launch, self._synchronize = lane.opened.cuda.launch, lane.opened.cuda.synchronize

    def repeats(self, known: Known, call: DeviceCall) -> bool:
        """Say whether it runs such a call: of these shapes, on this stream, with this library's arrays."""
        return self.known == known and type(call.like) is self._type

    def __call__(self, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Run with these arrays; None, and nothing done, where it is another call than the one that is known."""
        try:
            addresses = self._read(feeds)
            if addresses is None:
                return None
            room = self._room(feeds[self._first]) if outputs is None else self._given(outputs)
        except (KeyError, AttributeError):  # an input is missing, or lies on the host: the long way tells
            return None
        if room is None:
            return None
        if not self._run((*addresses, *room[1])):
            if outputs is None:
                self._shapes.offer(room[0], self._handle)
            return None
        if outputs is None and (spare := self._made(feeds[self._first])) is not None:
            self._rooms.append(spare)
        return room[0]

    def _read(self, feeds: Mapping[str, Any]) -> list[int] | None:
        """Return where the inputs lie, in the engine's order; None where one is of another kind than before."""
        kind, mine, addresses, array = self._kind, self._type, [], None
        if len(feeds) != len(self._inputs):
            return None
        for name, shape, dtype in self._inputs:
            array = feeds[name]
            if type(array) is not mine:
                return None
            address, found, element = kind.read(array)
            if found != shape or element != dtype:
                return None
            addresses.append(address)
        if kind.stream(array) != self._asked:
            return None
        return addresses if self._places is None else [addresses[at] for at in self._places]

    def _room(self, like: Any) -> _Room | None:
        """Return arrays for the outputs that were made beside the last call, while the GPU was at work."""
        try:
            return self._rooms.pop()
        except IndexError:
            return self._made(like)

    def _made(self, like: Any) -> _Room | None:
        """Return new arrays for the outputs; None where the caller's library makes none."""
        kind, made, addresses = self._kind, {}, []
        for name, shape, dtype in self._outputs:
            array = made[name] = kind.empty(shape, dtype, like)
            if array is None:
                return None
            addresses.append(kind.read(array)[0])
        return made, addresses

    def _given(self, outputs: Mapping[str, Any]) -> _Room | None:
        """Return the caller's arrays; None where one is not known to fit."""
        addresses = []
        if len(outputs) != len(self._outputs):
            return None
        for name, _, _ in self._outputs:
            array = outputs[name]
            if type(array) is not self._type:
                return None
            address, shape, dtype = self._kind.read(array)
            if (name, shape, dtype) not in self._shapes.fitting:
                return None
            addresses.append(address)
        return dict(outputs), addresses

    def _run(self, addresses: tuple[int, ...]) -> bool:
        lane, handle = self._lane, self._handle
        try:
            taken = self._free.pop()
        except IndexError:
            return False
        try:
            graph = self._shapes.graphs.get(addresses)
            if graph is None or taken is not lane or self._shapes.case.taken_away or not lane.follows(handle):
                return False
            if self._use_device is not None:
                self._use_device()
            self._launch(graph, self._stream)
            if self._waits:
                self._synchronize(self._stream)
            else:
                lane.lead(self._stream, handle, marked=self._marked)
            return True
        finally:
            self._give_back(taken)
