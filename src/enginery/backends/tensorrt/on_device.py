"""Arrays of the device in and out, with no copy, on the caller's stream.

A graph holds addresses, so there is one for each combination of shapes and addresses that came twice: a caller's
allocator hands out the same few again and again. Others are set on the context and enqueued, which costs the host some
microseconds a kernel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from enginery.backends.device_arrays import DeviceCall
from enginery.backends.tensorrt.cases import Case
from enginery.backends.tensorrt.cuda import Cuda
from enginery.backends.tensorrt.graphs import capture
from enginery.backends.tensorrt.lanes import Lane, graph_failure
from enginery.backends.tensorrt.tensors import Tensor, check_output
from enginery.errors import InputDtypeError

__all__ = ["DeviceArray", "Known", "OnDevice", "Shapes"]

_SEEN_BEFORE_CAPTURE = 2
_GRAPHS = 64
_SHAPES = 32
_ALIGNMENT = 256
"""Bytes that an address is a multiple of, as TensorRT's header demands; a kernel that trusts it ends the process."""
_SPECIAL_STREAMS = frozenset({0, 1, 2})
"""Legacy default (0, 1) and per-thread default (2): TensorRT waits for the device after each call on the former."""


class DeviceArray:
    """An output in the memory of the GPU, for callers whose kind of array cannot be made: it has the interface.

    Args:
        cuda: where its memory comes from; freed with the array.
        stream: handle of the stream that fills it, which readers wait for; None where it is filled already.
    """

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype[Any], stream: int | None) -> None:
        self._cuda = cuda
        self.shape, self.dtype, self._stream = shape, dtype, stream
        self._address = cuda.malloc(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self._address, False), "version": 3,
            "stream": self._stream,
        }  # fmt: skip

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            self._cuda.free(self._address)


class Shapes:
    """One combination of shapes: a context that has them, and the graphs of the addresses seen."""

    def __init__(self, lane: Lane, shapes: tuple[tuple[int, ...], ...]) -> None:
        opened = lane.opened
        feeds = {
            tensor.name: np.broadcast_to(np.empty((), tensor.dtype), shape)
            for tensor, shape in zip(opened.inputs, shapes, strict=True)
        }
        self._lane = lane
        self.case = Case(opened, lane.contexts, None, feeds)
        self.case.dropped = self.drop
        self.outputs = [
            (place.tensor.name, place.tensor, place.view.shape, place.tensor.dtype.name) for place in self.case.outputs
        ]
        self.graphs: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._seen: dict[tuple[int, ...], int] = {}
        self.fitting: set[tuple[Any, ...]] = set()
        self._capturing = opened.cuda_graph and not self.case.data_dependent
        self._offered: tuple[int, Mapping[str, Any]] | None = None

    def offer(self, arrays: Mapping[str, Any], handle: int) -> None:
        """Leave arrays for the outputs of the next call on a stream, which came for nothing before it.

        They are what the next call but one would get: unless some call runs on them, there is never a graph for them.
        """
        self._offered = (handle, arrays)

    def take_offered(self, like: Any, handle: int) -> Mapping[str, Any]:
        """Return the arrays that were left, where they are of a kind and for a stream; none else."""
        offered, self._offered = self._offered, None
        if offered is None or offered[0] != handle:
            return {}
        return {name: array for name, array in offered[1].items() if type(array) is type(like)}

    def go(self, addresses: tuple[int, ...], stream: Any, handle: int) -> None:
        """Run on these addresses, in the order of the caller's stream."""
        if self.case.taken_away and self.graphs:  # where one context serves all shapes
            self._lane.settle()
            self.drop()
        graph = self.graphs.get(addresses)
        if graph is None:
            self._check_alignment(addresses)
            if self._capturing and self._is_known(addresses):
                graph = self._capture(addresses)
        if graph is not None:
            self._lane.opened.cuda.launch(graph, stream)
        else:
            self.case.bind(addresses)
            self._enqueue(stream, handle)

    def _check_alignment(self, addresses: tuple[int, ...]) -> None:
        names = [place.tensor.name for place in (*self.case.inputs, *self.case.outputs)]
        for name, address in zip(names, addresses, strict=True):
            if address % _ALIGNMENT:
                raise InputDtypeError(
                    f"the memory of {name!r} begins at {address:#x}, and TensorRT takes multiples of {_ALIGNMENT} "
                    "bytes: it is a part of a larger array",
                    mend="give a copy, such as tensor.clone(), which has memory of its own",
                )

    def _is_known(self, addresses: tuple[int, ...]) -> bool:
        seen = self._seen.get(addresses, 0)
        if len(self._seen) > 4 * _GRAPHS:
            self._seen.clear()
        self._seen[addresses] = seen + 1
        return seen >= _SEEN_BEFORE_CAPTURE

    def _capture(self, addresses: tuple[int, ...]) -> Any | None:
        lane = self._lane
        lane.settle()
        if len(self.graphs) >= _GRAPHS:
            lane.opened.cuda.destroy_graph(self.graphs.popitem(last=False)[1])
        self.case.bind(addresses)
        own = int(lane.stream)
        # On the lane's own stream: the caller's may be the default one, which cannot be captured.
        graph = capture(lane.opened.cuda, lane.stream, lambda: self.case.enqueue(own), graph_failure(lane.opened))
        if graph is None:
            self._capturing = False
        else:
            self.graphs[addresses] = graph
        return graph

    def _enqueue(self, stream: Any, handle: int) -> None:
        if handle not in _SPECIAL_STREAMS:
            self.case.enqueue(handle)
            return
        lane = self._lane
        lane.lead(stream, handle)
        lane.follow(lane.stream, int(lane.stream))
        self.case.enqueue(int(lane.stream))
        lane.lead(lane.stream, int(lane.stream))
        lane.follow(stream, handle)

    def drop(self) -> None:
        """Forget the graphs."""
        while self.graphs:
            self._lane.opened.cuda.destroy_graph(self.graphs.popitem()[1])
        self._seen.clear()

    def close(self) -> None:
        """Let go of graphs and context."""
        self.case.close()


class Known(NamedTuple):
    """What a call ran that may come again.

    Args:
        shapes: with their graphs.
        stream: that it ran on.
        handle: of that stream.
        waits: whether the caller's kind of array has no stream, so that the work is done when a call returns.
    """

    shapes: Shapes
    stream: Any
    handle: int
    waits: bool


class OnDevice:
    """The device's path of one lane.

    Args:
        lane: whose contexts and stream it uses.
        places: of the engine's inputs among the session's.

    Its `known` is what the last call ran; None where that was no graph.
    """

    def __init__(self, lane: Lane, places: tuple[int, ...]) -> None:
        self._lane = lane
        self._cuda = lane.opened.cuda
        self._places = places
        self._all = len(places) > 0 and places == tuple(range(len(places)))
        self._cases: OrderedDict[tuple[tuple[int, ...], ...], Shapes] = OrderedDict()
        self._streams: dict[int, Any] = {}
        self._nothing = self._cuda.malloc(1)
        self._own = int(lane.stream)
        self.known: Known | None = None
        lane.on_close.append(self._close)

    def infer(self, call: DeviceCall) -> dict[str, Any]:
        """Run once; where the caller's kind of array has no stream, the work is done when this returns."""
        lane, kind = self._lane, call.kind
        asked = kind.stream(call.like)
        stream = lane.stream if asked is None else self._streams.get(asked) or self._stream(asked)
        handle = self._own if asked is None else asked
        inputs, key = call.addresses, call.shapes
        if not self._all or len(key) != len(self._places):
            inputs, key = tuple(inputs[at] for at in self._places), tuple(key[at] for at in self._places)
        shapes = self._cases.get(key) or self._new_shapes(key)
        made, addresses = self._outputs(shapes, call, handle)
        lane.follow(stream, handle)
        places = (*inputs, *addresses)
        if 0 in places:  # an empty array has no address, and TensorRT takes none for a missing tensor
            places = tuple([address or self._nothing for address in places])
        shapes.go(places, stream, handle)
        self.known = Known(shapes, stream, handle, asked is None) if shapes.graphs else None
        lane.lead(stream, handle, marked=not kind.keeps_streams)
        if asked is None:
            lane.settle()
        if shapes.case.data_dependent:
            lane.settle()
            made.update({name: self._fetch(shapes.case, name, call) for name in shapes.case.allocators})
            return {tensor.name: made[tensor.name] for tensor in lane.opened.outputs}
        return made

    def _new_shapes(self, shapes: tuple[tuple[int, ...], ...]) -> Shapes:
        if len(self._cases) >= _SHAPES:
            self._lane.settle()
            self._cases.popitem(last=False)[1].close()
        key = tuple(tuple(shape) for shape in shapes)
        found = self._cases[key] = Shapes(self._lane, key)
        return found

    def _outputs(self, shapes: Shapes, call: DeviceCall, handle: int) -> tuple[dict[str, Any], list[int]]:
        """Return the arrays for the outputs, and where they lie."""
        kind, given = call.kind, call.outputs
        offered = shapes.take_offered(call.like, handle)
        made, addresses = {}, []
        for name, tensor, shape, dtype in shapes.outputs:
            if name in given:
                array = given[name]
                address, found, element = kind.read(array)
                if (name, found, element) not in shapes.fitting:
                    self._given(tensor, shape, call)
                    shapes.fitting.add((name, found, element))
            else:
                array = offered[name] if name in offered else kind.empty(shape, dtype, call.like)
                if array is None:
                    array = DeviceArray(self._cuda, shape, tensor.dtype, kind.stream(call.like))
                address = kind.read(array)[0]
            made[name] = array
            addresses.append(address)
        return made, addresses

    def _given(self, tensor: Tensor, shape: tuple[int, ...], call: DeviceCall) -> Any:
        array = call.outputs[tensor.name]
        _, found, dtype = call.kind.read(array)
        check_output(tensor.name, tuple(found), call.kind.dtype_name(dtype), shape, tensor.dtype.name)
        return array

    def _empty(self, tensor: Tensor, shape: tuple[int, ...], call: DeviceCall) -> Any:
        array = call.kind.empty(shape, tensor.dtype.name, call.like)
        if array is not None:
            return array
        return DeviceArray(self._cuda, shape, tensor.dtype, call.kind.stream(call.like))

    def _fetch(self, case: Case, name: str, call: DeviceCall) -> Any:
        """Copy a data-dependent output into an array of the caller's kind, now that its size is known."""
        tensor = next(tensor for tensor in self._lane.opened.outputs if tensor.name == name)
        shape = case.found_shape(name)
        array = self._given(tensor, shape, call) if name in call.outputs else self._empty(tensor, shape, call)
        if nbytes := tensor.nbytes(shape):
            target = call.kind.read(array)[0]
            self._cuda.copy_on_device(target, case.allocators[name].address, nbytes, self._lane.stream)
            self._lane.settle()
        return array

    def _stream(self, handle: int) -> Any:
        found = self._streams[handle] = self._cuda.stream_at(handle)
        return found

    def _close(self) -> None:
        self.known = None
        while self._cases:
            self._cases.popitem()[1].close()
        self._cuda.free(self._nothing)
