"""What is here: hardware, system and library versions. Cheap, never raises, imports nothing heavy."""

from __future__ import annotations

import functools
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from enginery import __version__, optional
from enginery.records import MachineRecord

__all__ = ["LIBRARIES", "compute_capability", "cpu_count", "describe_machine", "free_memory_bytes", "peak_memory_bytes"]

LIBRARIES = (
    "numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "tensorflow",
    "keras", "tf2onnx", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "cuda-python", "cuda-bindings",
    "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip
"""Distributions whose versions belong to a result."""

_ISA = (
    "sse4_2", "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "amx_int8", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_SMI_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")


@functools.cache
def describe_machine() -> MachineRecord:
    """Describe this machine and this interpreter; asked once for each process.

    Example:
        >>> describe_machine().cores >= 1
        True
    """
    cpu, isa = _cpu()
    gpus, driver = _gpus()
    return MachineRecord(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        cores=cpu_count(),
        memory_bytes=_meminfo("MemTotal"),
        isa=isa,
        gpus=gpus,
        driver=driver,
        cuda=_cuda(),
        python=platform.python_version(),
        enginery=__version__,
        libraries={name: found for name in LIBRARIES if (found := optional.version(name))},
    )


def compute_capability(machine: MachineRecord, device: int = 0) -> str:
    """Return the compute capability of a GPU, such as ``8.9``; empty where there is no such GPU.

    Example:
        >>> from dataclasses import replace
        >>> machine = replace(describe_machine(), gpus=("NVIDIA L4, 23034 MiB, compute capability 8.9",))
        >>> compute_capability(machine), compute_capability(machine, 1)
        ('8.9', '')
    """
    line = machine.gpus[device] if device < len(machine.gpus) else ""
    found = re.search(r"compute capability (\d+\.\d+)", line)
    return found[1] if found else ""


def cpu_count() -> int:
    """Return how many processors this process may use: its affinity, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Return the memory that could be given to a process now; 0 where the system does not tell."""
    return _meminfo("MemAvailable")


def peak_memory_bytes() -> int:
    """Return this process's largest resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu() -> tuple[str, tuple[str, ...]]:
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in _ISA if flag in flags)


def _meminfo(key: str) -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _gpus() -> tuple[tuple[str, ...], str | None]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return (), None
    try:
        found = subprocess.run(  # noqa: S603 - the driver's own tool
            [tool, f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return (), None
    split = [[part.strip() for part in line.split(",")] for line in found.stdout.splitlines()]
    rows = [parts for parts in split if len(parts) == len(_SMI_FIELDS)]
    gpus = tuple(f"{name}, {memory}, compute capability {capability}" for name, memory, _, capability in rows)
    return gpus, rows[0][2] if rows else None


def _cuda() -> str | None:
    for root in filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda")):
        # A pattern, not a parser: a file in another form is no version, and no error.
        if match := re.search(r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([^"]+)"', _read(f"{root}/version.json")):
            return match[1]
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
