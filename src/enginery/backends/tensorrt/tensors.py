"""The tensors of an opened engine: what TensorRT takes for each, and what a caller gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginery.backends.tensorrt.versions import Api
from enginery.dtypes import numpy_dtype
from enginery.errors import BuildError, InputDtypeError, InputShapeError
from enginery.records import TensorInfo

__all__ = ["ELEMENTS", "Tensor", "convert", "read_tensors"]

ELEMENTS = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "FP8": "float8e4m3fn", "INT8": "int8", "UINT8": "uint8",
    "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
_CONVERTED = frozenset({("int64", "int32"), ("float64", "float32")})


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Args:
        dtype: what TensorRT takes or gives.
        given: what the caller gives or takes: the graph's element type, which TensorRT 8 narrows from 64 to 32 bits.
        shape: with -1 where the size varies.
        on_host: whether TensorRT reads its values while shapes are worked out, so that they lie on the host.
    """

    name: str
    dtype: np.dtype[Any]
    given: np.dtype[Any]
    shape: tuple[int, ...]
    on_host: bool = False

    @property
    def converted(self) -> bool:
        """Whether the caller's element type is another than TensorRT's."""
        return self.dtype != self.given

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of an array of that shape, as TensorRT takes it."""
        return math.prod(shape) * self.dtype.itemsize


def read_tensors(
    api: Api, engine: Any, inputs: Iterable[TensorInfo], outputs: Iterable[TensorInfo]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Read an engine's inputs and outputs, in the order of the manifest's.

    An input that TensorRT dropped, because nothing reads it, is left out.

    Raises:
        BuildError: the engine has others than the manifest says, or an element type that no array has.
    """
    trt = api.module
    names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
    taken = tuple(_read(engine, trt, info) for info in inputs if modes.get(info.name) is True)
    made = tuple(_read(engine, trt, info) for info in outputs if modes.get(info.name) is False)
    known = {tensor.name for tensor in (*taken, *made)}
    lost = [info.name for info in outputs if info.name not in known]
    if strange := [name for name in names if name not in known] + lost:
        raise BuildError(
            f"the plan's tensors are {', '.join(names)}; the manifest does not agree about {', '.join(strange)}",
            mend="build the engine again",
        )
    return taken, made


def _read(engine: Any, trt: Any, info: TensorInfo) -> Tensor:
    kind = engine.get_tensor_dtype(info.name).name
    if kind not in ELEMENTS:
        raise BuildError(
            f"tensor {info.name!r} of the plan holds {kind}, which no array holds", mend="cast it in the model"
        )
    dtype, given = numpy_dtype(ELEMENTS[kind]), numpy_dtype(info.dtype)
    if dtype != given and (given.name, dtype.name) not in _CONVERTED:
        raise BuildError(
            f"tensor {info.name!r} is {given} in the manifest and {dtype} in the plan", mend="build the engine again"
        )
    on_host = engine.get_tensor_location(info.name) == trt.TensorLocation.HOST
    return Tensor(info.name, dtype, given, tuple(engine.get_tensor_shape(info.name)), on_host)


def convert(tensor: Tensor, target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
    """Copy a caller's 64-bit values into TensorRT's 32-bit ones.

    Raises:
        InputDtypeError: a whole number does not fit; nothing is cut off in silence.
    """
    np.copyto(target, source, casting="unsafe")
    if tensor.dtype.kind == "i" and not np.array_equal(target, source):
        worst = source.flat[np.argmax(np.abs(source.astype(np.float64)))]
        raise InputDtypeError(
            f"input {tensor.name!r} holds {worst}, and the engine takes {tensor.dtype}: this TensorRT has no "
            f"{tensor.given}",
            mend=f"give values from {np.iinfo(tensor.dtype).min} to {np.iinfo(tensor.dtype).max}",
        )


def check_output(
    name: str, shape: tuple[int, ...], dtype: str, expected_shape: tuple[int, ...], expected_dtype: str
) -> None:
    """Refuse a caller's array that an output does not fit into.

    Raises:
        InputShapeError: another shape.
        InputDtypeError: another element type.
    """
    if shape != expected_shape:
        raise InputShapeError(
            f"output {name!r} has the shape {expected_shape}, the array given for it {shape}",
            mend=f"give an array of the shape {expected_shape}",
        )
    if dtype != expected_dtype:
        raise InputDtypeError(
            f"output {name!r} holds {expected_dtype}, the array given for it {dtype}",
            mend=f"give an array of {expected_dtype}",
        )
