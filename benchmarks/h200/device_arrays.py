"""Arrays on the device, as a caller may have them: PyTorch's where it is here, or the least that says where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.h200.loops import call, cuda

__all__ = ["DeviceArray", "OnDevice", "on_device"]

Array = np.ndarray[Any, Any]


class DeviceArray:
    """An array on the device that speaks the CUDA array interface and nothing else."""

    def __init__(self, array: Array) -> None:
        self._like = np.empty_like(array)
        self._pointer = int(call(cuda().cudaMalloc, max(1, array.nbytes)))
        kind = cuda().cudaMemcpyKind.cudaMemcpyHostToDevice
        call(cuda().cudaMemcpy, self._pointer, array.ctypes.data, array.nbytes, kind)
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (self._pointer, False), "version": 3,
            "strides": None, "stream": None,
        }  # fmt: skip

    def fetch(self) -> Array:
        """Return what stands in it."""
        kind = cuda().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(cuda().cudaMemcpy, self._like.ctypes.data, self._pointer, self._like.nbytes, kind)
        return self._like.copy()


@dataclass(frozen=True)
class OnDevice:
    """A call's arrays.

    Args:
        inputs: on the device.
        outputs: for the session to write into; None where it makes them, of the inputs' kind.
        kind: what they are.
        wait: waits for the device.
        fetch: brings outputs to the host.
    """

    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    kind: str
    wait: Callable[[], Any]
    fetch: Callable[[Mapping[str, Any]], dict[str, Array]]


def on_device(kind: str, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> OnDevice:
    """Put inputs on the device; `outputs` are like those to expect.

    Where there is no device, as in a trial, the arrays stay as they are.

    Args:
        kind: ``torch``, ``cupy``, or ``interface`` for arrays that speak the CUDA array interface and nothing else.
        feeds: the inputs on the host.
        outputs: arrays of the host like the outputs to expect.
    """
    if not _devices():
        return OnDevice(dict(feeds), None, "numpy, for there is no device", lambda: None, dict)
    return {"torch": _of_torch, "cupy": _of_cupy, "interface": _of_interface}[kind](feeds, outputs)


def _of_torch(feeds: Mapping[str, Array], _: Mapping[str, Array]) -> OnDevice:
    import torch  # noqa: PLC0415 - only where it is asked for

    given = {name: torch.from_numpy(array).cuda() for name, array in feeds.items()}
    wait = torch.cuda.current_stream().synchronize
    kind = f"PyTorch {torch.__version__}"
    return OnDevice(given, None, kind, wait, lambda found: {name: each.cpu().numpy() for name, each in found.items()})


def _of_cupy(feeds: Mapping[str, Array], _: Mapping[str, Array]) -> OnDevice:
    import cupy  # noqa: PLC0415 - only where it is asked for

    given = {name: cupy.asarray(array) for name, array in feeds.items()}
    wait = cupy.cuda.get_current_stream().synchronize
    kind = f"CuPy {cupy.__version__}"
    return OnDevice(given, None, kind, wait, lambda found: {name: cupy.asnumpy(each) for name, each in found.items()})


def _of_interface(feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> OnDevice:
    room = {name: DeviceArray(np.zeros_like(array)) for name, array in outputs.items()}
    # These name no stream, so the work is done when a call returns: there is nothing to wait for.
    return OnDevice(
        {name: DeviceArray(array) for name, array in feeds.items()}, room, "CUDA array interface",
        lambda: None, lambda _: {name: array.fetch() for name, array in room.items()},
    )  # fmt: skip


def _devices() -> int:
    try:
        status, count = cuda().cudaGetDeviceCount()
    except (ImportError, RuntimeError):  # no cuda-python, or no driver for it
        return 0
    return 0 if int(status) else int(count)
