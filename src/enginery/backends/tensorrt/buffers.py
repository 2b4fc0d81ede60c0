"""Memory of the device and page-locked memory of the host, in pairs, allocated once for each size that comes up.

Sizes are rounded up to a bucket, an eighth of the power of two below at the most, so that neighbouring shapes share
memory; what was given once stays where it is until the end, and graphs may keep its addresses.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from enginery.backends.tensorrt.cuda import Cuda

__all__ = ["Buffer", "Buffers", "bucket_bytes"]

_SMALLEST = 512


@dataclass(frozen=True)
class Buffer:
    """A piece of page-locked memory and one of the device, of one size.

    Args:
        host, device: their addresses.
        size: of each, in bytes.
    """

    host: int
    device: int
    size: int
    _memory: Any = field(repr=False, compare=False, default=None)

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return the page-locked memory as an array; it lives as long as the `Buffers` it came from."""
        return np.ndarray(shape, dtype, buffer=self._memory)


class Buffers:
    """The buffers of calls that run one after another, by tensor and bucket.

    Args:
        cuda: where memory comes from.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._held: dict[tuple[str, int], Buffer] = {}

    def get(self, name: str, size: int) -> Buffer:
        """Return the buffer of a tensor that holds `size` bytes; always the same one for one bucket."""
        bucket = bucket_bytes(size)
        found = self._held.get((name, bucket))
        if found is None:
            found = self._held[name, bucket] = self._allocate(bucket)
        return found

    def _allocate(self, size: int) -> Buffer:
        host = self._cuda.malloc_host(size)
        try:
            device = self._cuda.malloc(size)
        except Exception:
            self._cuda.free_host(host)
            raise
        return Buffer(host, device, size, (ctypes.c_ubyte * size).from_address(host))

    @property
    def nbytes(self) -> int:
        """How much of each kind of memory is held."""
        return sum(buffer.size for buffer in self._held.values())

    def close(self) -> None:
        """Free everything; views become invalid."""
        while self._held:
            _, buffer = self._held.popitem()
            self._cuda.free(buffer.device)
            self._cuda.free_host(buffer.host)


def bucket_bytes(size: int) -> int:
    """Round a size up to one of eight buckets between two powers of two.

    Example:
        >>> bucket_bytes(1), bucket_bytes(4097), bucket_bytes(1_000_000)
        (512, 4608, 1048576)
    """
    if size <= _SMALLEST:
        return _SMALLEST
    step = max(_SMALLEST, 1 << ((size - 1).bit_length() - 4))
    return -(-size // step) * step
