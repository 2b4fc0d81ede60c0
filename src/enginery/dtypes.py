"""Element types by ONNX's name in lower case, and numpy's dtype for each."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from enginery.errors import UnknownNameError

__all__ = ["DTYPES", "FLOATS", "dtype_name", "dtype_text", "is_float", "numpy_dtype"]

_NUMPY = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_ML_DTYPES = {
    "bfloat16": "bfloat16",
    "float8e4m3fn": "float8_e4m3fn",
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2": "float8_e5m2",
    "float8e5m2fnuz": "float8_e5m2fnuz",
    "float8e8m0": "float8_e8m0fnu",
    "float4e2m1": "float4_e2m1fn",
    "int4": "int4",
    "uint4": "uint4",
    "int2": "int2",
    "uint2": "uint2",
    "float6e2m3": "float6_e2m3fn",
    "float6e3m2": "float6_e3m2fn",
}

DTYPES = (*_NUMPY, *_ML_DTYPES, "string")
FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"} | {name for name in _ML_DTYPES if "float" in name})


def is_float(name: str) -> bool:
    """Say whether an element type is a real floating-point type."""
    return name in FLOATS


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return numpy's dtype for ONNX's element type; strings are objects.

    Raises:
        UnknownNameError: there is no such element type.

    Example:
        >>> numpy_dtype("float32")
        dtype('float32')
    """
    if name in _NUMPY:
        return np.dtype(name)
    if name == "string":
        return np.dtype(object)
    if name in _ML_DTYPES:
        import ml_dtypes  # comes with onnx

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_DTYPES[name]))
        return found
    raise UnknownNameError.from_choices("element type", name, DTYPES)


@functools.cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return ONNX's name for numpy's dtype, the other way round than `numpy_dtype`; text of any width is ``string``.

    Raises:
        UnknownNameError: ONNX has no such element type.

    Example:
        >>> dtype_name(np.dtype("float32"))
        'float32'
    """
    if dtype.kind in "OUS":
        return "string"
    for name in DTYPES:
        if numpy_dtype(name) == dtype:
            return name
    raise UnknownNameError.from_choices("element type", str(dtype), DTYPES)


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return ONNX's name for numpy's dtype, or numpy's own where ONNX has none.

    Example:
        >>> dtype_text(np.dtype("int64")), dtype_text(np.dtype("datetime64[s]"))
        ('int64', 'datetime64[s]')
    """
    try:
        return dtype_name(dtype)
    except UnknownNameError:
        return str(dtype)
