"""One combination of input shapes, ready to run: a context with these shapes set, and where every tensor lies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginery.backends.tensorrt.buffers import Buffer, Buffers
from enginery.backends.tensorrt.contexts import Contexts, Opened
from enginery.backends.tensorrt.outputs import new_allocator
from enginery.backends.tensorrt.tensors import Tensor, convert
from enginery.errors import RunError

__all__ = ["Case", "Place", "key_of"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
_NOWHERE = Buffer(0, 0, 0)


@dataclass(frozen=True)
class Place:
    """Where one tensor of a case lies.

    Args:
        view: its page-locked memory as an array; without a buffer, an array of that shape that holds nothing.
        nbytes: what is copied.
    """

    tensor: Tensor
    buffer: Buffer
    view: np.ndarray[Any, Any]
    nbytes: int


class Case:
    """A context with one combination of input shapes, on memory of `buffers`.

    Args:
        opened: the engine.
        contexts: where the context comes from, and goes back to.
        buffers: where the tensors lie; None where the caller has memory of the device for all of them.
        feeds: arrays whose shapes these are; the values of inputs on the host count as well.

    `dropped` is told when the shapes were taken away from the context, so that no graph of them may be replayed.
    """

    def __init__(self, opened: Opened, contexts: Contexts, buffers: Buffers | None, feeds: Arrays) -> None:
        self._opened = opened
        self._contexts = contexts
        self._cuda = opened.cuda
        self.dropped: Callable[[], None] = _nothing
        self.allocators: dict[str, Any] = {}
        self._addresses: tuple[int, ...] | None = None
        self.inputs = tuple(
            _place_on_host(buffers, tensor, feeds[tensor.name])
            if tensor.on_host
            else _place(buffers, tensor, feeds[tensor.name].shape)
            for tensor in opened.inputs
        )
        self._on_device = tuple(place for place in self.inputs if not place.tensor.on_host)
        self._held = contexts.take({place.tensor.name: place.view.shape for place in self._on_device})
        self._context = self._held.context
        try:
            self._set_shapes()
            self._place_outputs(buffers)
        except BaseException:
            self.close()
            raise

    def _place_outputs(self, buffers: Buffers | None) -> None:
        opened = self._opened
        self.outputs: tuple[Place, ...] = ()
        shapes = {tensor.name: tuple(self._context.get_tensor_shape(tensor.name)) for tensor in opened.outputs}
        fixed = [tensor for tensor in opened.outputs if -1 not in shapes[tensor.name]]
        self.outputs = tuple(_place(buffers, tensor, shapes[tensor.name]) for tensor in fixed)
        for tensor in opened.outputs:
            if -1 in shapes[tensor.name]:
                self.allocators[tensor.name] = new_allocator(opened.api, opened.cuda)

    @property
    def data_dependent(self) -> bool:
        """Whether the data tell the size of an output: such a case cannot be captured."""
        return bool(self.allocators)

    def own_addresses(self) -> tuple[int, ...]:
        """Return where inputs and outputs lie on the device in the case's own buffers, in the engine's order."""
        return tuple(place.buffer.device for place in (*self._on_device, *self.outputs))

    def _set_shapes(self) -> None:
        context, engine = self._context, self._opened.engine
        self._held.owner = None  # nobody's until all is set: whoever had it before must set its own again
        for place in self.inputs:
            name = place.tensor.name
            if place.tensor.on_host and not context.set_tensor_address(name, place.buffer.host):
                raise self._opened.failure(f"take the values of input {name!r}")
            if -1 in tuple(engine.get_tensor_shape(name)) and not context.set_input_shape(name, place.view.shape):
                raise self._opened.failure(f"take the shape {place.view.shape} for input {name!r}")
        if missing := list(context.infer_shapes()):
            raise self._opened.failure(f"work out its shapes: it lacks {', '.join(missing)}")
        self._held.owner = self

    @property
    def taken_away(self) -> bool:
        """Whether another case has set its shapes on the context since: what was captured must not be replayed."""
        return self._held.owner is not self

    def _set_addresses(self) -> None:
        context = self._context
        places = (*self._on_device, *self.outputs)
        for place, address in zip(places, self._addresses or (), strict=True):
            if not context.set_tensor_address(place.tensor.name, address):
                raise self._opened.failure(f"take memory for {place.tensor.name!r}")
        for name, allocator in self.allocators.items():
            if not context.set_output_allocator(name, allocator):
                raise self._opened.failure(f"take an output allocator for {name!r}")

    def bind(self, addresses: tuple[int, ...] | None = None) -> None:
        """Make sure that the context has these shapes, and inputs and outputs at these addresses (else its own)."""
        if addresses is None:
            addresses = self.own_addresses()
        taken_away = self.taken_away
        if taken_away:
            self.dropped()
            self._set_shapes()
        if taken_away or addresses != self._addresses:
            self._addresses = addresses
            self._set_addresses()

    def copy_in(self, stream: Any) -> None:
        """Ask for the copies of the inputs to the device."""
        for place in filter(_has_bytes, self._on_device):
            self._cuda.copy_in(place.buffer.device, place.buffer.host, place.nbytes, stream)

    def enqueue(self, handle: int) -> None:
        """Ask for the engine, on the stream of that handle."""
        context = self._context
        for allocator in self.allocators.values():
            allocator.reset()
        if context.execute_async_v3(handle):
            return
        for allocator in self.allocators.values():
            if allocator.error is not None:
                raise allocator.error
        raise self._opened.failure("run the engine")

    def copy_out(self, stream: Any) -> None:
        """Ask for the copies of the outputs to the host."""
        for place in filter(_has_bytes, self.outputs):
            self._cuda.copy_out(place.buffer.host, place.buffer.device, place.nbytes, stream)

    def step(self, stream: Any) -> None:
        """Ask for everything: the copies in, the engine, the copies out."""
        self.copy_in(stream)
        self.enqueue(int(stream))
        self.copy_out(stream)

    def found_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a data-dependent output, after the stream has been waited for.

        Raises:
            RunError: TensorRT has not said it.
        """
        allocator = self.allocators[name]
        if allocator.error is not None:
            raise allocator.error
        if allocator.shape is None:
            raise RunError(f"TensorRT has not said the shape of output {name!r}", mend="report it with the model")
        return tuple(allocator.shape)

    def watch(self, profiler: Any) -> None:
        """Let TensorRT tell the time of each layer to an ``IProfiler``, from now on."""
        self._context.profiler = profiler

    def close(self) -> None:
        """Give back the context."""
        self.dropped()
        for allocator in self.allocators.values():
            allocator.close()
        self._contexts.give_back(self._held)


def key_of(inputs: tuple[Tensor, ...], feeds: Arrays) -> tuple[Any, ...]:
    """Return what distinguishes a case: the shapes, and the values of inputs that say shapes."""
    return tuple([feeds[tensor.name].tobytes() if tensor.on_host else feeds[tensor.name].shape for tensor in inputs])


def _place(buffers: Buffers | None, tensor: Tensor, shape: tuple[int, ...]) -> Place:
    nbytes = tensor.nbytes(shape)
    if buffers is None:
        return Place(tensor, _NOWHERE, np.broadcast_to(np.empty((), tensor.dtype), shape), nbytes)
    buffer = buffers.get(tensor.name, nbytes)
    return Place(tensor, buffer, buffer.view(shape, tensor.dtype), nbytes)


def _place_on_host(buffers: Buffers | None, tensor: Tensor, values: np.ndarray[Any, Any]) -> Place:
    """Keep the values that TensorRT reads on the host in memory of the case's own: others have other values.

    Raises:
        InputDtypeError: a value that this TensorRT has no room for.
    """
    if buffers is None:
        raise RunError(
            f"input {tensor.name!r} says the sizes of other tensors, so it is read on the host",
            mend="give all inputs as arrays of the host",
        )
    memory = np.empty(max(values.size, 1), tensor.dtype)  # never no memory at all, which has no address
    view = memory[: values.size].reshape(values.shape)
    convert(tensor, view, values)
    return Place(tensor, Buffer(memory.ctypes.data, 0, memory.nbytes), view, view.nbytes)


def _has_bytes(place: Place) -> bool:
    return place.nbytes > 0


def _nothing() -> None:
    """Drop nothing: nothing was captured."""
