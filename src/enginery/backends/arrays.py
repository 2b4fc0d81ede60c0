"""The caller's kind of array: into numpy's before a call and back after it, with no copy where memory can be shared."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from enginery.errors import InputDtypeError

__all__ = ["as_numpy", "as_torch", "holds_torch"]


def as_numpy(array: Any, name: str, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a C-contiguous numpy array that shares memory with `array` where that is contiguous already.

    Args:
        array: numpy's, or any that speaks DLPack; a torch tensor that collects gradients is detached.
        name: the input, for errors.
        dtype: what the engine takes; nothing is cast but texts to objects.

    Raises:
        InputDtypeError: no array, on another device, or of another element type.
    """
    if not isinstance(array, np.ndarray):
        array = _from_dlpack(array, name)
    if array.dtype != dtype and not (dtype.kind == "O" and array.dtype.kind in "US"):
        raise InputDtypeError(
            f"input {name!r} has dtype {array.dtype}, the engine takes {dtype}",
            mend=f"convert it: array.astype({str(dtype)!r})",
        )
    contiguous: np.ndarray[Any, Any] = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
    return contiguous


def holds_torch(arrays: Iterable[Any]) -> bool:
    """Say whether any of `arrays` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and any(isinstance(array, torch.Tensor) for array in arrays)


def as_torch(array: Any) -> Any:
    """Return a torch tensor that shares the array's memory; what torch cannot hold (texts, lists, int4) as it is."""
    torch: Any = sys.modules["torch"]
    if not isinstance(array, np.ndarray) or array.dtype.kind == "O":
        return array
    if array.dtype.name in (extended := _extended_types(torch)):
        return torch.from_dlpack(array.view(_carrier(array.dtype.itemsize))).view(extended[array.dtype.name])
    try:
        return torch.from_dlpack(array)
    except BufferError:  # four bits and fewer
        return array


def _from_dlpack(array: Any, name: str) -> np.ndarray[Any, Any]:
    if not hasattr(array, "__dlpack__"):
        message = f"input {name!r} is a {type(array).__name__}, not an array"
        raise InputDtypeError(message, mend="give a numpy array or a tensor")
    try:
        if not holds_torch([array]):
            return np.from_dlpack(array)
        return _from_torch(array.detach())
    except (BufferError, RuntimeError, TypeError) as error:
        message = f"input {name!r} cannot be read as a numpy array: {error}"
        raise InputDtypeError(message, mend="move it to the CPU first") from error


def _from_torch(tensor: Any) -> np.ndarray[Any, Any]:
    torch: Any = sys.modules["torch"]
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _extended_types(torch):
        return np.from_dlpack(tensor)
    import ml_dtypes

    carrier = getattr(torch, str(np.dtype(_carrier(tensor.element_size()))))
    return np.from_dlpack(tensor.view(carrier)).view(np.dtype(getattr(ml_dtypes, kind)))


def _extended_types(torch: Any) -> dict[str, Any]:
    """Return torch's types that DLPack does not carry into numpy, by the name that `ml_dtypes` gives them as well."""
    names = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
    return {name: getattr(torch, name) for name in names if hasattr(torch, name)}


def _carrier(itemsize: int) -> type[np.generic]:
    return np.int16 if itemsize == np.dtype(np.int16).itemsize else np.uint8
