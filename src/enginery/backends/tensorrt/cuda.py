"""CUDA's runtime by cuda-python alone (12, 13, and the older layout): each call checked, each error named.

Memory is an address, a whole number; streams, events and graphs are cuda-python's objects, whose ``int()`` is the
handle that TensorRT takes. The calls of an inference cost one attribute and one comparison over cuda-python's own.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from enginery import optional
from enginery.backends.tensorrt.diagnosis import UNSEEN_GPU
from enginery.errors import BackendUnavailableError, EngineryError, RunError

__all__ = ["Cuda", "DeviceInfo", "load_cuda"]

_PORTABLE = 1  # cudaHostAllocPortable: page-locked for every device's context
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the legacy default stream
_NO_TIMING = 2  # cudaEventDisableTiming
_SPIN = 1  # cudaDeviceScheduleSpin
_MISSING = frozenset({
    "cudaErrorInsufficientDriver", "cudaErrorStubLibrary", "cudaErrorInitializationError",
    "cudaErrorSystemDriverMismatch", "cudaErrorSystemNotReady", "cudaErrorCompatNotSupportedOnDevice",
})  # fmt: skip


@dataclass(frozen=True)
class DeviceInfo:
    """One GPU.

    Args:
        index: CUDA's number for it.
        compute_capability: such as ``9.0``.
        multiprocessors: how many it has.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    multiprocessors: int


class Cuda:
    """The calls that building and running engines take, each of which raises what CUDA answers.

    Args:
        runtime: cuda-python's module of CUDA's runtime.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._launch = runtime.cudaGraphLaunch
        self._synchronize = runtime.cudaStreamSynchronize
        self._memcpy = runtime.cudaMemcpyAsync
        kinds = runtime.cudaMemcpyKind
        self._in, self._out = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._record = runtime.cudaEventRecord
        self._wait = runtime.cudaStreamWaitEvent

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function by its name, and return what it returns besides the error."""
        code, *values = getattr(self._runtime, name)(*arguments)
        if code:
            raise self._error(name, code)
        return values[0] if values else None

    def _error(self, call: str, code: Any) -> EngineryError:
        name, text = str(code.name), self._text(code)
        message = f"CUDA: {call} answered {name} ({int(code)}): {text}"
        if name in _MISSING:
            return BackendUnavailableError(message, mend="install a driver for this GPU, and see enginery doctor")
        if name == "cudaErrorNoDevice":
            return BackendUnavailableError(message, mend=UNSEEN_GPU)
        if name == "cudaErrorInvalidDevice":
            return BackendUnavailableError(message, mend="see nvidia-smi for the numbers of the GPUs that there are")
        if name == "cudaErrorMemoryAllocation":
            return RunError(message, mend="free memory, give smaller shapes, or open with fewer contexts")
        return RunError(message, mend="open the engine again; a failed kernel leaves the whole process without its GPU")

    def _text(self, code: Any) -> str:
        found = self._runtime.cudaGetErrorString(code)[1]
        return found.decode() if isinstance(found, bytes) else str(found)

    def malloc(self, size: int) -> int:
        """Allocate memory of the device; `size` 0 gives an address too."""
        return int(self._call("cudaMalloc", max(size, 1)))

    def free(self, address: int) -> None:
        """Free what `malloc` gave."""
        self._call("cudaFree", address)

    def malloc_host(self, size: int) -> int:
        """Allocate page-locked memory of the host, which the device copies from and to by itself."""
        return int(self._call("cudaHostAlloc", max(size, 1), _PORTABLE))

    def free_host(self, address: int) -> None:
        """Free what `malloc_host` gave."""
        self._call("cudaFreeHost", address)

    def new_stream(self) -> Any:
        """Make a stream that waits for no other."""
        return self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def stream_at(self, handle: int) -> Any:
        """Return the object for another library's stream; nobody may destroy it here."""
        return self._runtime.cudaStream_t(handle)

    def destroy_stream(self, stream: Any) -> None:
        """Destroy what `new_stream` gave."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: Any) -> None:
        """Wait until a stream has done what was asked of it."""
        code = self._synchronize(stream)[0]
        if code:
            raise self._error("cudaStreamSynchronize", code)

    def new_event(self, *, timing: bool = False) -> Any:
        """Make an event, with or without a clock."""
        return self._call("cudaEventCreateWithFlags", 0 if timing else _NO_TIMING)

    def destroy_event(self, event: Any) -> None:
        """Destroy what `new_event` gave."""
        self._call("cudaEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:
        """Let an event stand for what was asked of a stream so far."""
        code = self._record(event, stream)[0]
        if code:
            raise self._error("cudaEventRecord", code)

    def wait(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event; the host does not."""
        code = self._wait(stream, event, 0)[0]
        if code:
            raise self._error("cudaStreamWaitEvent", code)

    def wait_for_event(self, event: Any) -> None:
        """Let the host wait for an event."""
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Return the milliseconds between two events with clocks."""
        return float(self._call("cudaEventElapsedTime", begin, end))

    def copy_in(self, device: int, host: int, size: int, stream: Any) -> None:
        """Copy bytes from the host to the device, in a stream's order."""
        code = self._memcpy(device, host, size, self._in, stream)[0]
        if code:
            raise self._error("cudaMemcpyAsync", code)

    def copy_out(self, host: int, device: int, size: int, stream: Any) -> None:
        """Copy bytes from the device to the host, in a stream's order."""
        code = self._memcpy(host, device, size, self._out, stream)[0]
        if code:
            raise self._error("cudaMemcpyAsync", code)

    def copy_on_device(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copy bytes from one place of the device to another, in a stream's order."""
        self._call(
            "cudaMemcpyAsync", target, source, size, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream
        )

    def begin_capture(self, stream: Any) -> None:
        """Write down what is asked of a stream by this thread, instead of doing it; other threads go on freely."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        """Return what was written down, ready to be launched.

        Raises:
            RunError: something that was asked cannot stand in a graph.
        """
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def abandon_capture(self, stream: Any) -> None:
        """Leave the capture of a stream that failed, and forget the error it left behind."""
        code, graph = self._runtime.cudaStreamEndCapture(stream)
        if not code and graph is not None and int(graph):
            self._call("cudaGraphDestroy", graph)
        self.forget_error()

    def forget_error(self) -> None:
        """Clear the error that a failed call left for the next one to find."""
        self._runtime.cudaGetLastError()

    def launch(self, graph: Any, stream: Any) -> None:
        """Launch a graph that `end_capture` returned."""
        code = self._launch(graph, stream)[0]
        if code:
            raise self._error("cudaGraphLaunch", code)

    def destroy_graph(self, graph: Any) -> None:
        """Destroy what `end_capture` returned."""
        self._call("cudaGraphExecDestroy", graph)

    def set_device(self, index: int) -> None:
        """Make a device this thread's."""
        self._call("cudaSetDevice", index)

    def device_count(self) -> int:
        """Return how many devices there are.

        Raises:
            BackendUnavailableError: there is no driver, or no device.
        """
        return int(self._call("cudaGetDeviceCount"))

    def spin_while_waiting(self) -> None:
        """Let every wait of this process burn its core: a few microseconds earlier back."""
        self._call("cudaSetDeviceFlags", _SPIN)

    def memory_info(self) -> tuple[int, int]:
        """Return the free and the whole memory of the thread's device, in bytes."""
        code, free, total = self._runtime.cudaMemGetInfo()
        if code:
            raise self._error("cudaMemGetInfo", code)
        return int(free), int(total)

    def device(self, index: int = 0) -> DeviceInfo:
        """Describe a device.

        Raises:
            BackendUnavailableError: there is no driver, or no device.
        """
        found = self._call("cudaGetDeviceProperties", index)
        name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
        return DeviceInfo(
            index, name.rstrip("\0"), f"{found.major}.{found.minor}", int(found.totalGlobalMem),
            int(found.multiProcessorCount),
        )  # fmt: skip

    def driver_version(self) -> tuple[int, int]:
        """Return the newest CUDA that the driver runs, such as ``(13, 0)``; ``(0, 0)`` where there is no driver."""
        return _version(self._call("cudaDriverGetVersion"))

    def runtime_version(self) -> tuple[int, int]:
        """Return the version of the CUDA runtime that cuda-python brings."""
        return _version(self._call("cudaRuntimeGetVersion"))


@functools.cache
def load_cuda() -> Cuda:
    """Import cuda-python, in whichever layout is installed.

    Raises:
        MissingExtraError: it is not installed.
    """
    optional.require("cuda", extra="tensorrt", why="to run engines on a GPU")
    try:
        return Cuda(importlib.import_module("cuda.bindings.runtime"))
    except ModuleNotFoundError:  # before 12.6 the module stood elsewhere
        return Cuda(optional.require("cuda.cudart", extra="tensorrt", why="to run engines on a GPU"))


def _version(number: Any) -> tuple[int, int]:
    return int(number) // 1000, int(number) % 1000 // 10
