"""Arrays in the memory of a GPU, as their libraries have them: torch, CuPy, and any with ``__cuda_array_interface__``.

No library is imported: an array's own is there already. What is read is an address, a shape and an element type; what
is made are empty arrays of the caller's kind for the outputs.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NamedTuple, Protocol

import numpy as np

from enginery.errors import InputDtypeError

__all__ = ["DeviceCall", "Kind", "kind_of"]


class Kind(Protocol):
    """How one library's arrays are read and made."""

    keeps_streams: bool
    """Whether a stream that was current once lives as long as the process, as torch's do."""

    def read(self, array: Any) -> tuple[int, tuple[int, ...], Any]:
        """Return address, shape and the library's element type.

        Raises:
            InputDtypeError: its elements do not lie one after another.
            AttributeError: it does not lie on a GPU, or is another library's.
        """
        ...

    def dtype_name(self, dtype: Any) -> str:
        """Return numpy's (or ml_dtypes') name of the library's element type."""
        ...

    def stream(self, array: Any) -> int | None:
        """Return the handle of the stream that the caller works on; None where none orders what is asked."""
        ...

    def device(self, array: Any) -> int | None:
        """Return CUDA's number of the GPU that holds an array; None where nothing tells."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any | None:
        """Return an empty array on the device of `like`; None where the library has no such function."""
        ...


class DeviceCall(NamedTuple):
    """One call with arrays of a GPU, checked.

    Args:
        kind: how they are read and made.
        like: one of them.
        addresses: of the inputs, in the session's order.
        shapes: likewise.
        dtypes: likewise, the library's own.
        outputs: the caller's arrays by the outputs' names; those left out are made.
    """

    kind: Kind
    like: Any
    addresses: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    outputs: dict[str, Any]


class _Torch:
    keeps_streams = True

    def __init__(self) -> None:
        self._torch: Any = sys.modules["torch"]
        # The public function makes an object of three on the way, which costs some microseconds of each call.
        self._raw_stream = getattr(self._torch._C, "_cuda_getCurrentRawStream", None)  # noqa: SLF001
        self._empty = self._torch.empty

    def read(self, array: Any) -> tuple[int, tuple[int, ...], Any]:
        if not array.is_cuda:  # its address is one of the host, which would end the GPU's work for this process
            raise AttributeError("a tensor of the host has no address on the device")
        if not array.is_contiguous():
            raise _scattered("tensor.contiguous()")
        return array.data_ptr(), array.shape, array.dtype

    def dtype_name(self, dtype: Any) -> str:
        return str(dtype).removeprefix("torch.")

    def stream(self, array: Any) -> int | None:
        if self._raw_stream is not None:
            return int(self._raw_stream(array.get_device()))
        return int(self._torch.cuda.current_stream(array.device).cuda_stream)

    def device(self, array: Any) -> int | None:
        return int(array.get_device())

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        return self._empty(shape, dtype=self._dtype(dtype), device=like.device)

    @functools.cache  # noqa: B019 - lives as long as torch
    def _dtype(self, name: str) -> Any:
        return getattr(self._torch, name)


class _Cupy:
    keeps_streams = False

    def __init__(self) -> None:
        self._cupy: Any = sys.modules["cupy"]

    def read(self, array: Any) -> tuple[int, tuple[int, ...], Any]:
        if not array.flags.c_contiguous:
            raise _scattered("cupy.ascontiguousarray(array)")
        return array.data.ptr, array.shape, array.dtype

    def dtype_name(self, dtype: Any) -> str:
        return str(dtype)

    def stream(self, array: Any) -> int | None:
        del array
        return int(self._cupy.cuda.get_current_stream().ptr)

    def device(self, array: Any) -> int | None:
        return int(array.device.id)

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        del like
        return self._cupy.empty(shape, dtype)


class _Interface:
    """Any object with ``__cuda_array_interface__``, version 3: its stream is None, 1, 2 or a handle."""

    keeps_streams = False

    def read(self, array: Any) -> tuple[int, tuple[int, ...], Any]:
        found = array.__cuda_array_interface__
        shape = tuple(found["shape"])
        dtype = _dtype(found["typestr"])
        strides = found.get("strides")
        if strides is not None and strides != _row_major(shape, dtype.itemsize):
            raise _scattered("the library's function for it")
        return int(found["data"][0]), shape, dtype

    def dtype_name(self, dtype: Any) -> str:
        return str(dtype)

    def stream(self, array: Any) -> int | None:
        found = array.__cuda_array_interface__.get("stream")
        return None if found is None else int(found)

    def device(self, array: Any) -> None:
        """Not said by the interface."""
        del array

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> None:
        """Leave it to the runner: nothing says how such a library makes arrays."""
        del shape, dtype, like


def kind_of(array: Any) -> Kind | None:
    """Return how an array of a GPU is read; None for what lies on the host, or is no array."""
    found: Kind | None = _kind_of_type(type(array))  # type: ignore[arg-type] # a type is hashable
    if isinstance(found, _Torch):
        return found if array.is_cuda else None
    if found is None and type(array) is not np.ndarray and hasattr(array, "__cuda_array_interface__"):
        return _interface()  # some set it on the object, not on its class
    return found


@functools.cache
def _kind_of_type(kind: type) -> Kind | None:
    torch = sys.modules.get("torch")
    if torch is not None and issubclass(kind, torch.Tensor):
        return _torch()
    if kind.__module__.partition(".")[0] == "cupy":
        return _Cupy()
    return _interface() if hasattr(kind, "__cuda_array_interface__") else None


@functools.cache
def _torch() -> _Torch:
    return _Torch()


@functools.cache
def _interface() -> _Interface:
    return _Interface()


@functools.cache
def _dtype(text: str) -> np.dtype[Any]:
    return np.dtype(text)


def _row_major(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return np.empty((0, *shape), np.dtype((np.void, itemsize))).strides[1:]


def _scattered(mend: str) -> InputDtypeError:
    return InputDtypeError("an array of the device does not lie in one piece, row by row", mend=f"give {mend}")
