"""Sessions of ONNX Runtime's that run: with numpy's arrays, or with tensors that numpy cannot hold by itself."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np

from enginery.backends.elements import from_bytes, is_extended, nbytes, to_bytes
from enginery.records import TensorInfo

__all__ = ["OrtValueRunner", "PlainRunner"]


class PlainRunner:
    """Runs a session whose tensors numpy can hold; sequences are lists, an absent optional is None."""

    def __init__(self, session: Any, names: list[str], placement: str) -> None:
        self._run = session.run
        self._names = names
        self.placement = placement

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; ONNX Runtime allocates the outputs anew in each call."""
        return dict(zip(self._names, self._run(self._names, feeds), strict=True))

    def close(self) -> None:
        """Let go of the session."""
        del self._run


class OrtValueRunner:
    """Runs a session with tensors that numpy cannot hold by itself, such as bfloat16."""

    def __init__(
        self,
        session: Any,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        placement: str,
        ort: ModuleType,
    ) -> None:
        self._session = session
        self._ort = ort
        self._special = {info.name: info.dtype for info in inputs if is_extended(info.dtype)}
        self._outputs = {info.name: info.dtype for info in outputs}
        self._bound = any(map(is_extended, self._outputs.values()))
        self.placement = placement

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; such tensors are copied on the way in and on the way out."""
        values: dict[str, Any] = dict(feeds)
        values.update({name: _to_ort_value(self._ort, feeds[name], dtype) for name, dtype in self._special.items()})
        if not self._bound:
            return dict(zip(self._outputs, self._session.run(list(self._outputs), values), strict=True))
        return self._infer_bound(values)

    def _infer_bound(self, values: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        binding = self._session.io_binding()
        for name, value in values.items():
            bind = binding.bind_ortvalue_input if name in self._special else binding.bind_cpu_input
            bind(name, value)
        for name in self._outputs:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        found = zip(self._outputs.items(), binding.get_outputs(), strict=True)
        return {
            name: _from_ort_value(value, dtype) if is_extended(dtype) else value.numpy()
            for (name, dtype), value in found
        }

    def close(self) -> None:
        """Let go of the session."""
        del self._session


def _to_ort_value(ort: ModuleType, array: np.ndarray[Any, Any], dtype: str) -> Any:
    import onnx

    kind = onnx.TensorProto.DataType.Value(dtype.upper())
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), kind)
    raw = to_bytes(array, dtype)
    ctypes.memmove(value.data_ptr(), raw.ctypes.data, raw.nbytes)
    return value


def _from_ort_value(value: Any, dtype: str) -> np.ndarray[Any, Any]:
    shape = tuple(value.shape())
    raw = bytearray(ctypes.string_at(value.data_ptr(), nbytes(shape, dtype)))
    return from_bytes(np.frombuffer(raw, np.uint8), shape, dtype)
