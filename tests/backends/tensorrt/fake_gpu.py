"""A GPU of numpy memory: CUDA's runtime and TensorRT's engine with their real method names, so that data really flow.

Work on a stream is done when it is asked for; while a stream is captured it is written down, and done at each launch.
"""

# ruff: noqa: N802, N815, ARG002, PLR0917 - names of CUDA's and TensorRT's own
from __future__ import annotations

import ctypes
import enum
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from enginery.backends.session import Session
from enginery.backends.tensorrt.contexts import Opened
from enginery.backends.tensorrt.cuda import Cuda
from enginery.backends.tensorrt.runner import TensorRTRunner
from enginery.backends.tensorrt.tensors import read_tensors
from enginery.backends.tensorrt.versions import LIBRARIES, Api
from enginery.records import TensorInfo
from enginery.spec import Shape

MARK = 0xAB


class CudaError(enum.IntEnum):
    """CUDA's error codes, as cuda-python has them."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


OK = CudaError.cudaSuccess


class FakeRuntime:
    """The functions of cuda.bindings.runtime that are used."""

    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread-local")

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.host: dict[int, Any] = {}
        self.calls: list[str] = []
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.handles = 100
        self.fail: dict[str, CudaError] = {}
        self.refuse_capture = False
        self.lock = threading.Lock()

    def _handle(self) -> int:
        self.handles += 1
        return self.handles

    def _said(self, name: str) -> CudaError:
        self.calls.append(name)
        return self.fail.get(name, OK)

    def _allocate(self, held: dict[int, Any], size: int) -> int:
        block = (ctypes.c_ubyte * size)()
        ctypes.memset(block, MARK, size)
        held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cudaGetErrorString(self, code):
        return OK, f"text of {code.name}".encode()

    def cudaGetLastError(self):
        return (OK,)

    def cudaMalloc(self, size):
        code = self._said("cudaMalloc")
        return (code, None) if code else (OK, self._allocate(self.memory, size))

    def cudaFree(self, address):
        self._said("cudaFree")
        del self.memory[address]
        return (OK,)

    def cudaHostAlloc(self, size, flags):
        code = self._said("cudaHostAlloc")
        return (code, None) if code else (OK, self._allocate(self.host, size))

    def cudaFreeHost(self, address):
        self._said("cudaFreeHost")
        del self.host[address]
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags):
        return OK, self._handle()

    def cudaStream_t(self, handle):
        return handle

    def cudaStreamDestroy(self, stream):
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        return (self._said("cudaStreamSynchronize"),)

    def cudaStreamWaitEvent(self, stream, event, flags):
        return (self._said(f"wait {stream} {event}"),)

    def cudaEventCreateWithFlags(self, flags):
        return OK, self._handle()

    def cudaEventDestroy(self, event):
        return (OK,)

    def cudaEventRecord(self, event, stream):
        return (self._said(f"record {event} {stream}"),)

    def cudaEventSynchronize(self, event):
        return (OK,)

    def cudaEventElapsedTime(self, begin, end):
        return OK, 0.5

    def ask(self, stream: int, work: Callable[[], None]) -> None:
        """Do work on a stream now, or write it down."""
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        code = self._said("cudaMemcpyAsync")
        if not code:
            self.ask(int(stream), lambda: ctypes.memmove(target, source, size) and None)
        return (code,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == "thread-local"
        self.capturing[stream] = []
        return (self._said("cudaStreamBeginCapture"),)

    def cudaStreamEndCapture(self, stream):
        steps = self.capturing.pop(stream)
        if self.refuse_capture:
            return CudaError.cudaErrorStreamCaptureInvalidated, None
        graph = self._handle()
        self.graphs[graph] = steps
        return OK, graph

    def cudaGraphInstantiateWithFlags(self, graph, flags):
        made = self._handle()
        self.graphs[made] = self.graphs[graph]
        return OK, made

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graph):
        self._said("cudaGraphExecDestroy")
        del self.graphs[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        code = self._said("cudaGraphLaunch")
        for step in self.graphs[graph]:
            step()
        return (code,)

    def cudaSetDevice(self, index):
        return (self._said(f"cudaSetDevice {index}"),)

    def cudaSetDeviceFlags(self, flags):
        return (self._said("cudaSetDeviceFlags"),)

    def cudaGetDeviceCount(self):
        return OK, 1

    def cudaMemGetInfo(self):
        return OK, 1 << 30, 2 << 30

    def cudaDriverGetVersion(self):
        return OK, 13000

    def cudaRuntimeGetVersion(self):
        return OK, 12090

    def cudaGetDeviceProperties(self, index):
        return OK, types.SimpleNamespace(
            name=b"Fake H200", major=9, minor=0, totalGlobalMem=1 << 30, multiProcessorCount=132
        )


class DataType(enum.Enum):
    """TensorRT's element types."""

    FLOAT = "float32"
    HALF = "float16"
    INT32 = "int32"
    INT8 = "int8"
    BOOL = "bool"
    UINT8 = "uint8"
    FP4 = "fp4"


class Mode(enum.Enum):
    """TensorRT's TensorIOMode."""

    INPUT = 1
    OUTPUT = 2


class Location(enum.Enum):
    """TensorRT's TensorLocation."""

    DEVICE = 0
    HOST = 1


class IOutputAllocator:
    """TensorRT's base of output allocators."""


class IProfiler:
    """TensorRT's base of profilers."""


class FakeEngine:
    """An engine that computes a numpy function.

    Args:
        gpu: whose memory it works on.
        inputs: name to (type, shape with -1).
        outputs: name to (type, shape with -1, function of the inputs' shapes that gives its shape).
        compute: from the inputs' arrays to the outputs' arrays.
        profiles: for each profile, name to (min, opt, max).
        host: names of inputs on the host.
        sharing: whether several contexts may have one profile.
    """

    device_memory_size = 64

    def __init__(self, gpu, inputs, outputs, compute, profiles=({},), host=(), *, sharing=True):
        self.gpu, self.inputs, self.outputs, self.compute = gpu, inputs, outputs, compute
        self.profiles, self.host, self.sharing = profiles, host, sharing
        self.contexts: list[FakeContext] = []
        self.num_io_tensors = len(inputs) + len(outputs)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, at):
        return [*self.inputs, *self.outputs][at]

    def get_tensor_mode(self, name):
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return (self.inputs | self.outputs)[name][0]

    def get_tensor_shape(self, name):
        return (self.inputs | self.outputs)[name][1]

    def get_tensor_location(self, name):
        return Location.HOST if name in self.host else Location.DEVICE

    def get_tensor_profile_shape(self, name, at):
        return self.profiles[at][name]

    def create_execution_context_without_device_memory(self):
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeContext:
    """A context with TensorRT's habits: it refuses shapes outside its profile, and calls before it has one."""

    def __init__(self, engine):
        self.engine = engine
        self.at = None
        self.shapes = {name: shape for name, (_, shape) in engine.inputs.items() if -1 not in shape}
        self.addresses = {}
        self.allocators = {}
        self.device_memory = 0
        self.enqueued = 0
        self.profiler = None
        self.refuse = False

    def set_optimization_profile_async(self, at, stream):
        taken = [other.at for other in self.engine.contexts if other is not self]
        if at in taken and not self.engine.sharing:
            return False
        self.at = at
        return True

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.profiles[self.at][name]
        self.shapes[name] = tuple(shape)
        return all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address != 0

    def set_output_allocator(self, name, allocator):
        self.allocators[name] = allocator
        return True

    def infer_shapes(self):
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        shapes = dict(self.shapes)
        for host in self.engine.host:
            shapes[host + " values"] = tuple(self._array(host).tolist())
        return self.engine.outputs[name][2](shapes)

    def _array(self, name):
        kind = np.dtype(self.engine.inputs[name][0].value)
        shape = self.shapes[name]
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_ubyte * size).from_address(self.addresses[name]), kind).reshape(shape)

    def execute_async_v3(self, stream):
        if self.refuse or self.at is None or self.device_memory not in self.engine.gpu.memory:
            return False
        self.enqueued += 1
        addresses, shapes = dict(self.addresses), dict(self.shapes)

        def work():
            held = self.addresses, self.shapes
            self.addresses, self.shapes = addresses, shapes
            found = self.engine.compute(**{name: self._array(name) for name in self.engine.inputs})
            for name, array in found.items():
                self._write(name, np.ascontiguousarray(array, self.engine.outputs[name][0].value), addresses)
            self.addresses, self.shapes = held

        self.engine.gpu.ask(stream, work)
        if self.profiler is not None:
            self.profiler.report_layer_time("conv1", 0.25)
            self.profiler.report_layer_time("fc", 0.5)
        return True

    def _write(self, name, array, addresses):
        if name in self.allocators:
            address = self.allocators[name].reallocate_output(name, 0, array.nbytes, 256)
            self.allocators[name].notify_shape(name, array.shape)
        else:
            address = addresses[name]
        if address and array.nbytes:
            ctypes.memmove(address, array.ctypes.data, array.nbytes)


def fake_module():
    """Return the names of TensorRT 8.6 that running takes."""
    made = types.ModuleType("tensorrt")
    made.__dict__.update(
        __version__="8.6.0",
        TensorIOMode=Mode,
        TensorLocation=Location,
        DataType=DataType,
        IOutputAllocator=IOutputAllocator,
        IProfiler=IProfiler,
        ProfilingVerbosity=types.SimpleNamespace(DETAILED="detailed"),
        ICudaEngine=types.SimpleNamespace(create_execution_context_without_device_memory=1, device_memory_size=1),
        IExecutionContext=types.SimpleNamespace(device_memory=1),
    )
    return made


def fake_api():
    """Return `fake_module` as an `Api`."""
    return Api(LIBRARIES["tensorrt"], fake_module(), "8.6.0")


class FakeLog:
    """What a `BuildLog` is asked for; what is `said` is up to the test."""

    def __init__(self):
        self.said = []

    def errors(self):
        return tuple(self.said)


def opened(engine, gpu, infos_in, infos_out, **options):
    """Return an `Opened` of a fake engine."""
    api = fake_api()
    inputs, outputs = read_tensors(api, engine, infos_in, infos_out)
    gpu.log = FakeLog()
    return Opened(api, engine, inputs, outputs, gpu.log, cuda=Cuda(gpu), **options)


def session_of(engine, gpu, infos_in, infos_out, *, contexts=1, copy_threads=0, **options):
    """Return a session of a fake engine."""
    runner = TensorRTRunner(
        opened(engine, gpu, infos_in, infos_out, **options), infos_in, "fake", contexts=contexts,
        copy_threads=copy_threads,
    )  # fmt: skip
    return Session(runner, infos_in, infos_out)


X = TensorInfo("x", "float32", ("batch", 3), Shape.parse("1..4..8x3"))
Y = TensorInfo("y", "float32", ("batch", 3))
PROFILE = {"x": ((1, 3), (4, 3), (8, 3))}


def doubling(gpu, **changes):
    """Return an engine of y = 2 x, of batches 1 to 8."""
    given = {
        "inputs": {"x": (DataType.FLOAT, (-1, 3))},
        "outputs": {"y": (DataType.FLOAT, (-1, 3), lambda shapes: shapes["x"])},
        "compute": lambda x: {"y": 2 * x},
        "profiles": (PROFILE,),
    }
    return FakeEngine(gpu, **(given | changes))
