"""TensorRT 8.5 to 11, on NVIDIA GPUs."""

from __future__ import annotations

from enginery.backends.tensorrt.backend import TensorRTBackend

__all__ = [
    "build",
    "build_network",
    "capabilities",
    "check_spec",
    "diagnose",
    "examine",
    "open",
    "probe",
    "refit",
    "shares",
    "variants",
]

_BACKEND = TensorRTBackend("tensorrt")

probe = _BACKEND.probe
capabilities = _BACKEND.capabilities
variants = _BACKEND.variants
check_spec = _BACKEND.check_spec
build = _BACKEND.build
build_network = _BACKEND.build_network
open = _BACKEND.open  # noqa: A001 - the contract's name
diagnose = _BACKEND.diagnose
examine = _BACKEND.examine
shares = _BACKEND.shares
refit = _BACKEND.refit
