"""A compiled model of OpenVINO's that runs: which port belongs to which tensor, and arrays that numpy cannot hold."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from enginery.backends.elements import from_bytes, is_extended, to_bytes
from enginery.errors import BuildError
from enginery.records import TensorInfo

__all__ = ["OpenVinoRunner", "find_outputs", "find_ports"]

_TYPES = {
    "bfloat16": "bf16", "float8e4m3fn": "f8e4m3", "float8e5m2": "f8e5m2", "float8e8m0": "f8e8m0",
    "float4e2m1": "f4e2m1", "int4": "i4", "uint4": "u4", "uint2": "u2",
}  # fmt: skip
_NUMPY_TYPES = frozenset({
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
})  # fmt: skip


class OpenVinoRunner:
    """Runs one request of a compiled model; inputs are shared with OpenVINO during the call, outputs are copied.

    Args:
        compiled: an `openvino.CompiledModel`.
        inputs, outputs: as the engine has them.
        ov: the library.
    """

    def __init__(
        self, compiled: Any, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], ov: ModuleType
    ) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        places = find_ports(compiled.inputs, inputs)
        self._inputs = [
            (at, info.name, _entry(info.dtype, ov)) for at, info in zip(places, inputs, strict=True) if at is not None
        ]
        self._outputs = list(zip(find_outputs(compiled.outputs, outputs), outputs, strict=True))
        self._names = [info.name for info in outputs]
        # One tensor may be two outputs; a request's result then holds it once.
        distinct = [at for at, _ in self._outputs] == list(range(len(set(compiled.outputs))))
        self._plain = distinct and all(info.dtype in _NUMPY_TYPES for info in outputs)
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        streams = compiled.get_property("NUM_STREAMS")
        self.placement = f"CPU, {threads} thread{'s' if threads != 1 else ''}" + (
            f", {streams} streams" if streams != 1 else ""
        )

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; calls from several threads wait for one another."""
        # By place in a dict: OpenVINO takes ten microseconds more for a list.
        arrays = {at: feeds[name] if entry is None else entry(feeds[name]) for at, name, entry in self._inputs}
        with self._lock:
            if self._plain:
                found = self._request.infer(arrays, share_inputs=True)
                return dict(zip(self._names, found.values(), strict=True))
            self._request.infer(arrays, share_inputs=True, share_outputs=True)
            return {info.name: self._output(at, info) for at, info in self._outputs}

    def _output(self, at: int, info: TensorInfo) -> np.ndarray[Any, Any]:
        tensor = self._request.get_output_tensor(at)
        if is_extended(info.dtype):
            raw = np.array(tensor.data, order="C").reshape(-1).view(np.uint8)
            return from_bytes(raw, tuple(tensor.shape), info.dtype)
        return np.array(tensor.data)

    def close(self) -> None:
        """Let go of the request and the compiled model."""
        del self._request, self._compiled


def find_ports(ports: list[Any], infos: tuple[TensorInfo, ...]) -> list[int | None]:
    """Return for each tensor of the graph the position of OpenVINO's port: by name, else by place.

    OpenVINO drops an input whose value no operator looks at (the second of CastLike), which is then None here.

    Raises:
        BuildError: a port belongs to no tensor, so that it would run on nothing.
    """
    names = [port.get_names() for port in ports]
    if len(ports) == len(infos):
        places = {name: at for at, named in enumerate(names) for name in named}
        in_order = all(info.name in named for info, named in zip(infos, names, strict=True))
        return [at if in_order else places.get(info.name, at) for at, info in enumerate(infos)]
    found = [next((at for at, named in enumerate(names) if info.name in named), None) for info in infos]
    if {at for at in found if at is not None} != set(range(len(ports))):
        raise BuildError(
            f"OpenVINO sees {len(ports)} tensors, and has lost the names of some, where the graph has {len(infos)}: "
            f"{', '.join(info.name for info in infos)}",
            mend="build with another backend",
        )
    return found


def find_outputs(ports: list[Any], infos: tuple[TensorInfo, ...]) -> list[int]:
    """Return for each output of the graph the position of OpenVINO's port.

    Raises:
        BuildError: OpenVINO has lost one.
    """
    found = find_ports(ports, infos)
    lost = [info.name for at, info in zip(found, infos, strict=True) if at is None]
    if lost:
        raise BuildError(f"OpenVINO has lost the outputs {', '.join(lost)}", mend="build with another backend")
    return [at for at in found if at is not None]


def _entry(dtype: str, ov: ModuleType) -> Callable[[np.ndarray[Any, Any]], Any] | None:
    """Return what turns an array into what a request takes; None where it takes the array itself."""
    return functools.partial(_extended_tensor, ov, dtype) if is_extended(dtype) else None


def _extended_tensor(ov: ModuleType, dtype: str, array: np.ndarray[Any, Any]) -> Any:
    return ov.Tensor(to_bytes(array, dtype), ov.Shape(array.shape), getattr(ov.Type, _TYPES[dtype]))
