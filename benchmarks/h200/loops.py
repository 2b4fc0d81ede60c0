"""What a careful person would write by hand with TensorRT and cuda-python, to be compared with; none of it is Enginery.

Page-locked arrays of the host, arrays of the device allocated once, and one CUDA graph for the whole step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Loop", "cuda", "page_locked", "polygraphy_call"]

_ELEMENTS = {"FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "INT32": np.int32, "BOOL": np.bool_,
             "UINT8": np.uint8}  # fmt: skip


def cuda() -> Any:
    """Return CUDA's runtime library as cuda-python has it."""
    from cuda.bindings import runtime  # noqa: PLC0415 - only where there is a GPU

    return runtime


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of CUDA and return what it gives, without its status.

    Raises:
        RuntimeError: the status is not success.
    """
    status, *found = function(*arguments)
    if int(status):
        raise RuntimeError(f"{function.__name__}: {status.name}")
    return found[0] if len(found) == 1 else tuple(found)


def page_locked(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return an array in page-locked memory, which is never given back: a benchmark ends soon enough."""
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    pointer = int(call(cuda().cudaHostAlloc, size, cuda().cudaHostAllocDefault))
    memory = (ctypes.c_uint8 * size).from_address(pointer)
    return np.frombuffer(memory, np.uint8)[: int(np.prod(shape)) * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


class Loop:
    """An engine with one shape, its buffers, and the graphs of its step.

    Args:
        plan: path of a plan.
        shapes: of the inputs.
    """

    def __init__(self, plan: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        import tensorrt as trt  # noqa: PLC0415 - only where there is a GPU

        self._trt = trt
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        self._context = self._engine.create_execution_context()
        self.stream = call(cuda().cudaStreamCreateWithFlags, cuda().cudaStreamNonBlocking)
        self.profile = narrowest_profile(self._engine, shapes)
        if self.profile:
            self._context.set_optimization_profile_async(self.profile, int(self.stream))
            self.synchronize()
        self.inputs: dict[str, np.ndarray[Any, Any]] = {}
        self.outputs: dict[str, np.ndarray[Any, Any]] = {}
        self.device: dict[str, int] = {}
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)
        for at in range(self._engine.num_io_tensors):
            self._allocate(self._engine.get_tensor_name(at))
        for _ in range(2):  # the first calls allocate, which no capture may
            if not self._context.execute_async_v3(int(self.stream)):
                raise RuntimeError(f"TensorRT did not run {plan}")
        self.synchronize()
        self._step = self._capture(copies=True)
        self._alone = self._capture(copies=False)

    def _allocate(self, name: str) -> None:
        shape = tuple(self._context.get_tensor_shape(name))
        array = page_locked(shape, _ELEMENTS[self._engine.get_tensor_dtype(name).name])
        array[...] = 0
        mine = self.inputs if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT else self.outputs
        mine[name] = array
        self.device[name] = int(call(cuda().cudaMalloc, max(1, array.nbytes)))
        self._context.set_tensor_address(name, self.device[name])

    def _capture(self, *, copies: bool) -> Any:
        call(cuda().cudaStreamBeginCapture, self.stream, cuda().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        if copies:
            self.copy_in()
        self._context.execute_async_v3(int(self.stream))
        if copies:
            self.copy_out()
        graph = call(cuda().cudaStreamEndCapture, self.stream)
        return call(cuda().cudaGraphInstantiate, graph, 0)

    def copy_in(self) -> None:
        """Copy every input to the device, on the stream."""
        kind = cuda().cudaMemcpyKind.cudaMemcpyHostToDevice
        for name, array in self.inputs.items():
            call(cuda().cudaMemcpyAsync, self.device[name], array.ctypes.data, array.nbytes, kind, self.stream)

    def copy_out(self) -> None:
        """Copy every output from the device, on the stream."""
        kind = cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, array in self.outputs.items():
            call(cuda().cudaMemcpyAsync, array.ctypes.data, self.device[name], array.nbytes, kind, self.stream)

    def synchronize(self) -> None:
        """Wait for all that is on the stream."""
        call(cuda().cudaStreamSynchronize, self.stream)

    def fill(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Bring inputs to the device, 64-bit numbers as 32-bit ones."""
        for name, array in feeds.items():
            np.copyto(self.inputs[name], array, casting="unsafe")
        self.copy_in()
        self.synchronize()

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Numpy in, numpy out: the outputs are the caller's to keep."""
        for name, array in feeds.items():
            np.copyto(self.inputs[name], array)
        cuda().cudaGraphLaunch(self._step, self.stream)
        cuda().cudaStreamSynchronize(self.stream)
        return {name: array.copy() for name, array in self.outputs.items()}

    def replay(self) -> None:
        """Run the engine alone, its arrays on the device, and wait."""
        cuda().cudaGraphLaunch(self._alone, self.stream)
        cuda().cudaStreamSynchronize(self.stream)

    def enqueue(self) -> None:
        """Enqueue the engine without a graph, and do not wait."""
        self._context.execute_async_v3(int(self.stream))

    def engine_ms(self, calls: int) -> float:
        """Return the time of the engine on the device, as a graph, in milliseconds: the mean of some in a row."""
        return self.device_ms(lambda: cuda().cudaGraphLaunch(self._alone, self.stream), calls)

    def device_ms(self, work: Callable[[], Any], calls: int) -> float:
        """Return the mean time on the device of something that is put on the stream."""
        start, end = (call(cuda().cudaEventCreate) for _ in range(2))
        work()
        call(cuda().cudaEventRecord, start, self.stream)
        for _ in range(calls):
            work()
        call(cuda().cudaEventRecord, end, self.stream)
        call(cuda().cudaEventSynchronize, end)
        return float(call(cuda().cudaEventElapsedTime, start, end)) / calls


def narrowest_profile(engine: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the number of the profile that holds the shapes and little else."""
    widths: dict[int, int] = {}
    for at in range(engine.num_optimization_profiles):
        ends = [(shape, *map(tuple, engine.get_tensor_profile_shape(name, at))) for name, shape in shapes.items()]
        if all(low[axis] <= size <= high[axis] for shape, low, _, high in ends for axis, size in enumerate(shape)):
            widths[at] = sum(high[axis] - low[axis] for shape, low, _, high in ends for axis in range(len(shape)))
    return min(widths, key=lambda at: widths[at]) if widths else 0


def polygraphy_call(plan: Path, profile: int) -> Callable[[Mapping[str, np.ndarray[Any, Any]]], Any]:
    """Return a call of Polygraphy's runner on a plan, as its documentation shows it; it stays open."""
    from polygraphy.backend.common import BytesFromPath  # noqa: PLC0415 - only where it is there
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner  # noqa: PLC0415

    runner = TrtRunner(EngineFromBytes(BytesFromPath(str(plan))), optimization_profile=profile or None)
    runner.activate()
    return lambda feeds: runner.infer(dict(feeds))
