"""Outputs whose size only the data tell: TensorRT asks for memory while it runs, and says the shape afterwards."""

from __future__ import annotations

import functools
from typing import Any

from enginery.backends.tensorrt.cuda import Cuda
from enginery.backends.tensorrt.versions import Api
from enginery.errors import EngineryError

__all__ = ["new_allocator"]


def new_allocator(api: Api, cuda: Cuda) -> Any:
    """Return an ``IOutputAllocator`` for one output of one context, which keeps its memory and lets it grow.

    It has besides: ``address``; ``shape``, None until the output's shape was said; ``reset()`` before each run, and
    ``error``, what went wrong while TensorRT asked, for its calls let no exception through; ``close()``.
    """
    return _class_for(api)(cuda)


@functools.cache
def _class_for(api: Api) -> type[Any]:
    trt = api.module

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined] # the library is passed around
        def __init__(self, cuda: Cuda) -> None:
            trt.IOutputAllocator.__init__(self)
            self._cuda = cuda
            self._size = 1
            # Never null: TensorRT takes a null pointer for a refusal, even where the output is empty.
            self.address = cuda.malloc(self._size)
            self.reset()

        def reset(self) -> None:
            self.shape: tuple[int, ...] | None = None
            self.error: EngineryError | None = None

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            if size > self._size:
                try:
                    self._grow(size)
                except EngineryError as error:
                    self.error = error
                    return 0
            return int(self.address)

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, _stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def _grow(self, size: int) -> None:
            """Replace the memory by twice what is asked, so that slowly growing outputs do not pay each time."""
            larger = self._cuda.malloc(2 * size)
            self._cuda.free(self.address)
            self.address, self._size = larger, 2 * size

        def close(self) -> None:
            self._cuda.free(self.address)

    return Allocator
