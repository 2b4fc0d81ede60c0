"""Do the GPU packages of this environment fit the driver, and each other?"""

from __future__ import annotations

import re
from collections.abc import Mapping

from enginery.records import DoctorRow, MachineRecord

__all__ = ["examine"]

_CUDA_WHEEL = re.compile(r"(?:nvidia|tensorrt|cupy|onnxruntime|torch).*[-_](?:cuda|cu)(?P<major>\d\d)x?(?:[-_].*)?")
_FIRST_DRIVER = {"11": 450, "12": 525, "13": 580}
"""The first driver branch that runs each major version of CUDA (NVIDIA's CUDA compatibility guide, "minor version")."""

_BUILDS_WITHOUT_GPU = ("tensorrt-rtx", "tensorrt_rtx")

_SAME_MODULE = (("onnxruntime", "onnxruntime-gpu"), ("onnxruntime", "onnxruntime-openvino"))
"""Distributions that install the same files: whichever came last wins, and uninstalling one breaks the other."""


def examine(packages: Mapping[str, str], machine: MachineRecord, *, device_here: bool) -> list[DoctorRow]:
    """Compare installed distributions with the driver and with each other.

    Args:
        packages: version of each installed distribution, by its name in lower case.
        machine: what is here.
        device_here: whether the kernel module of an NVIDIA driver is loaded.

    Example:
        >>> from enginery.machine import describe_machine
        >>> from dataclasses import replace
        >>> none = replace(describe_machine(), driver=None, gpus=())
        >>> [row.status for row in examine({}, none, device_here=False)]
        ['missing']
    """
    wheels = _cuda_wheels(packages)
    rows = [_driver_row(machine, device_here=device_here)]
    if machine.cuda is not None:
        rows.append(DoctorRow("gpu", "CUDA toolkit", machine.cuda, "here"))
    rows += _wheel_rows(wheels, machine.driver)
    rows += [_clash_row(packages, pair) for pair in _SAME_MODULE if all(name in packages for name in pair)]
    return rows


def _cuda_wheels(packages: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the installed distributions that were built for one major version of CUDA, by that version."""
    wheels: dict[str, list[str]] = {}
    for name in sorted(packages):
        match = _CUDA_WHEEL.fullmatch(name)
        if match is not None:
            wheels.setdefault(match["major"], []).append(name)
    return wheels


def _driver_row(machine: MachineRecord, *, device_here: bool) -> DoctorRow:
    if machine.driver is not None:
        return DoctorRow("gpu", "NVIDIA driver", machine.driver, "here", "; ".join(machine.gpus))
    if device_here:
        why = "the driver is loaded, but nvidia-smi does not answer"
        return DoctorRow(
            "gpu", "NVIDIA driver", None, "broken", why, "nvidia-smi (it says what is wrong; often a reboot)"
        )
    return DoctorRow("gpu", "NVIDIA driver", None, "missing", "no NVIDIA GPU is here; only CPU backends can run")


def _wheel_rows(wheels: Mapping[str, list[str]], driver: str | None) -> list[DoctorRow]:
    installed = [name for names in wheels.values() for name in names]
    if driver is None:
        if ahead := [name for name in installed if name.startswith(_BUILDS_WITHOUT_GPU)]:
            row = DoctorRow("gpu", "CUDA wheels", None, "here", f"{_listed(ahead)}: builds for other machines' GPUs")
            return [row, *_wheel_rows({"": [name for name in installed if name not in ahead]}, None)]
        if not installed:
            return []
        why = f"{_listed(installed)} installed, and no driver to run on"
        return [DoctorRow("gpu", "CUDA wheels", None, "missing", why, f"pip uninstall -y {' '.join(installed)}")]
    if not installed:
        why = "a driver is here, and no CUDA library that could use it"
        return [DoctorRow("gpu", "CUDA wheels", None, "missing", why, 'pip install "enginery[tensorrt]"')]
    rows = [_major_row(major, names, driver) for major, names in sorted(wheels.items())]
    if len(wheels) > 1:
        rows.append(_mixed_row(wheels, driver))
    return rows


def _major_row(major: str, names: list[str], driver: str) -> DoctorRow:
    needed = _FIRST_DRIVER.get(major)
    if needed is not None and _branch(driver) < needed:
        why = f"{_listed(names)}: CUDA {major} needs driver {needed} or later, {driver} is here"
        return DoctorRow("gpu", f"CUDA {major} wheels", None, "broken", why, f"pip uninstall -y {' '.join(names)}")
    return DoctorRow("gpu", f"CUDA {major} wheels", None, "here", _listed(names))


def _mixed_row(wheels: Mapping[str, list[str]], driver: str) -> DoctorRow:
    """Two CUDA runtimes in one process clash; keep the newest that the driver runs."""
    runnable = [major for major in wheels if _branch(driver) >= _FIRST_DRIVER.get(major, 0)]
    keep = max(runnable or wheels)
    extra = [name for major, names in wheels.items() if major != keep for name in names]
    why = f"wheels for CUDA {' and '.join(sorted(wheels))} are mixed; two CUDA runtimes in one process clash"
    return DoctorRow("gpu", "CUDA mix", None, "broken", why, f"pip uninstall -y {' '.join(extra)}")


def _clash_row(packages: Mapping[str, str], pair: tuple[str, str]) -> DoctorRow:
    why = f"{pair[0]} {packages[pair[0]]} and {pair[1]} {packages[pair[1]]} install the same files"
    mend = f"pip uninstall -y {pair[0]} {pair[1]} && pip install {pair[1]}"
    return DoctorRow("gpu", " + ".join(pair), None, "broken", why, mend)


def _branch(driver: str) -> int:
    digits = re.match(r"\d+", driver)
    return int(digits[0]) if digits else 0


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
