"""Whether a build can fit the GPU's free memory, asked before it begins: a builder finds out after minutes."""

from __future__ import annotations

from enginery import optional
from enginery.backends.tensorrt.cuda import load_cuda
from enginery.errors import DeviceMemoryError
from enginery.machine import describe_machine

__all__ = ["check_room", "free_bytes", "use_device", "weak_narrowing"]

_MIB = 1 << 20
_CONTEXT_BYTES = 300 * _MIB
"""What CUDA and TensorRT's own kernels take before the first weight."""

_COPIES = 2
"""The builder holds weights as they came and as a kernel wants them."""


def use_device(device: int = 0) -> None:
    """Make a GPU this thread's, before a builder is made: it works on the one that is the thread's by then.

    Raises:
        BackendUnavailableError: there is no such GPU.
        MissingExtraError: it is not the first one, and cuda-python is not here to choose it.
    """
    if device or (describe_machine().gpus and optional.installed("cuda")):
        load_cuda().set_device(device)


def free_bytes(device: int = 0) -> int | None:
    """Return the free memory of a GPU; None where cuda-python is not here to ask.

    Raises:
        BackendUnavailableError: there is no driver, or no such GPU.
    """
    if not optional.installed("cuda"):
        return None
    cuda = load_cuda()
    cuda.set_device(device)
    return cuda.memory_info()[0]


def check_room(weights_bytes: int, workspace_mib: int, free: int | None, *, streamed: bool = False) -> str:
    """Refuse a build that cannot fit, and say where one may be short of memory.

    Args:
        weights_bytes: of the engine to build.
        workspace_mib: the limit asked for; 0 for the library's own, which is what is free.
        free: free memory of the GPU in bytes; None where it is not known.
        streamed: whether weights stay on the host (weight streaming).

    Returns:
        A note for the user; empty where there is room enough.

    Raises:
        DeviceMemoryError: the weights alone are larger than what is free.

    Example:
        >>> check_room(100 << 20, 0, 8 << 30)
        ''
        >>> check_room(3 << 30, 1024, 4 << 30)
        'the build may need 7.3 GiB of GPU memory and 4.0 GiB are free: kernels that do not fit are passed over'
    """
    if free is None:
        return ""
    if weights_bytes > free and not streamed:
        raise DeviceMemoryError(
            f"the weights take {_gib(weights_bytes)} and {_gib(free)} of GPU memory are free: the build cannot fit",
            mend="free GPU memory (nvidia-smi says who holds it), or build in fp16 or with weight_streaming",
        )
    if workspace_mib * _MIB > free:
        return f"workspace_mib={workspace_mib} is more than the {_gib(free)} of GPU memory that are free"
    wanted = _COPIES * weights_bytes + workspace_mib * _MIB + _CONTEXT_BYTES
    if wanted > free:
        return (
            f"the build may need {_gib(wanted)} of GPU memory and {_gib(free)} are free: kernels that do not fit are "
            "passed over"
        )
    return ""


def weak_narrowing(precision: str) -> int:
    """Return how much smaller weights become where the builder narrows them itself, and not the graph.

    Example:
        >>> weak_narrowing("fp16"), weak_narrowing("tf32")
        (2, 1)
    """
    return {"fp16": 2, "bf16": 2, "int8": 4, "fp8": 4}.get(precision, 1)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
