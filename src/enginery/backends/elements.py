"""Element types that numpy lacks by itself (bfloat16, float8, int4, ...), as the bytes that native libraries hold.

An array of such a type is one of the `ml_dtypes` package, with a byte or more for each element; ONNX Runtime and
OpenVINO pack those under eight bits, the first element in the lowest bits.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from enginery.dtypes import DTYPES, numpy_dtype

__all__ = ["from_bytes", "is_extended", "nbytes", "to_bytes"]

_PACKED_BITS = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}
_SIGNED = frozenset({"int4", "int2"})
_USER_DEFINED = 2  # what numpy's dtype.isbuiltin says of a type another library registered


@functools.cache
def is_extended(dtype: str) -> bool:
    """Say whether numpy needs `ml_dtypes` for an element type (ONNX's name).

    Example:
        >>> is_extended("float32"), is_extended("bfloat16"), is_extended("sequence(float32)")
        (False, True, False)
    """
    return dtype in DTYPES and numpy_dtype(dtype).isbuiltin == _USER_DEFINED


def nbytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the size of a packed tensor.

    Example:
        >>> nbytes((3,), "int4"), nbytes((3,), "bfloat16")
        (2, 6)
    """
    bits = _PACKED_BITS.get(dtype, numpy_dtype(dtype).itemsize * 8)
    return math.ceil(math.prod(shape) * bits / 8)


def to_bytes(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return the packed elements of a C-contiguous array as bytes; a view of it where nothing has to be packed."""
    raw = array.reshape(-1).view(np.uint8)
    return _pack(raw, _PACKED_BITS[dtype]) if dtype in _PACKED_BITS else raw


def from_bytes(raw: np.ndarray[Any, Any], shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Return the array of packed bytes; a view of them where nothing had to be packed.

    Example:
        >>> array = np.array([1, -2, 3]).astype(numpy_dtype("int4"))
        >>> from_bytes(to_bytes(array, "int4"), array.shape, "int4").tolist()
        [1, -2, 3]
    """
    kind = numpy_dtype(dtype)
    bits = _PACKED_BITS.get(dtype)
    if bits is None:
        return raw.view(kind).reshape(shape)
    fields = _unpack(raw, bits, math.prod(shape))
    if dtype in _SIGNED:
        high = np.int8(1 << (bits - 1))
        signed: np.ndarray[Any, Any] = (fields.astype(np.int8) ^ high) - high
        return signed.astype(kind).reshape(shape)
    return fields.view(kind).reshape(shape)


def _pack(raw: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    each = 8 // bits
    fields = np.zeros(math.ceil(raw.size / each) * each, np.uint8)
    fields[: raw.size] = raw & np.uint8((1 << bits) - 1)
    shifted = fields.reshape(-1, each) << (np.arange(each, dtype=np.uint8) * np.uint8(bits))
    return np.ascontiguousarray(np.bitwise_or.reduce(shifted, axis=1))


def _unpack(raw: np.ndarray[Any, Any], bits: int, count: int) -> np.ndarray[Any, Any]:
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    fields = (raw[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(fields.reshape(-1)[:count])
