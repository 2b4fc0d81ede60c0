"""Do the installed wheels of TensorRT fit each other, this Python, and this GPU?

TensorRT comes as a set of wheels: ``tensorrt``, ``tensorrt-cu12``, ``tensorrt-cu12-libs``, ``tensorrt-cu12-bindings``.
pip lets parts of another version or another CUDA stand beside them, and what is imported then is a matter of luck.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from enginery.machine import compute_capability
from enginery.records import DoctorRow, MachineRecord

__all__ = ["examine", "install_line"]

_WHEEL = re.compile(
    r"(?P<family>tensorrt(?:-rtx)?)(?:-(?:lean|dispatch))?(?:-cu(?P<cuda>\d\d))?(?:-(?:libs|bindings))?"
)
_RTX = "tensorrt-rtx"
_CUDA_BY_DRIVER = ((580, "13"), (525, "12"), (450, "11"))
"""The first driver branch of each major version of CUDA, the newest first (NVIDIA's CUDA compatibility guide)."""


@dataclass(frozen=True)
class _Range:
    """What versions of a library run on, both ends included.

    Args:
        since: the first version that this holds for; later rows stand over earlier ones.
        python: lowest and highest minor version of Python 3 with wheels.
        gpus: lowest and highest compute capability.
    """

    since: tuple[int, int]
    python: tuple[int, int]
    gpus: tuple[tuple[int, int], tuple[int, int]]


_RANGES: Mapping[str, tuple[_Range, ...]] = {
    "tensorrt": (
        _Range((8, 5), (6, 10), ((5, 0), (9, 0))),
        _Range((8, 6), (6, 11), ((5, 0), (9, 0))),
        _Range((10, 0), (8, 12), ((7, 0), (9, 0))),
        _Range((10, 5), (8, 12), ((7, 5), (9, 0))),
        _Range((10, 8), (8, 13), ((7, 5), (12, 1))),
        _Range((11, 0), (8, 13), ((7, 5), (12, 1))),
        _Range((11, 1), (8, 14), ((7, 5), (12, 1))),
    ),
    _RTX: (_Range((1, 0), (8, 14), ((7, 5), (12, 1))),),
}
"""From NVIDIA's support matrices, and from the wheels on the package index."""

_NOT_ON_RTX = ((9, 0), (10, 0), (10, 3))
"""Compute capabilities of data-centre GPUs, which TensorRT-RTX has no kernels for."""


def examine(packages: Mapping[str, str], machine: MachineRecord) -> list[DoctorRow]:
    """Look over the wheels of TensorRT and TensorRT-RTX; a row for each thing that does not fit.

    Args:
        packages: version of each installed distribution, by its name in lower case.
        machine: what is here, with the version of this Python.

    Example:
        >>> from enginery.machine import describe_machine
        >>> mixed = {"tensorrt-cu12-libs": "10.3.0", "tensorrt-cu12-bindings": "10.1.0"}
        >>> examine(mixed, describe_machine())[0].mend
        'pip install --force-reinstall tensorrt-cu12==10.3.0'
    """
    named = {re.sub(r"[-_.]+", "-", name.lower()): version for name, version in packages.items()}
    rows: list[DoctorRow] = []
    for family in _RANGES:
        wheels = {
            name: version for name, version in named.items() if (match := _WHEEL.fullmatch(name)) is not None
            and match["family"] == family
        }  # fmt: skip
        if wheels:
            rows += [row for row in _rows_of(family, wheels, machine) if row is not None]
    return rows + [row for row in (_cuda_python_row(named, machine),) if row is not None]


def install_line(extra: str, machine: MachineRecord) -> str:
    """Return the line that installs TensorRT where its newest version would not run here; else nothing.

    Args:
        extra: the extra that asks for it.
        machine: the driver decides on CUDA, the GPU on the version.

    Example:
        >>> from dataclasses import replace
        >>> from enginery.machine import describe_machine
        >>> gpus = ("NVIDIA H200, 143771 MiB, compute capability 9.0",)
        >>> install_line("tensorrt", replace(describe_machine(), gpus=gpus, driver="570.86.15"))
        'pip install enginery tensorrt-cu12 "cuda-python>=12,<13"'
    """
    runs = _cuda_for(machine)
    if extra != "tensorrt" or not runs:
        return ""
    have = _numbers(compute_capability(machine) or "0")[:2]
    newest = _RANGES[extra][-1]
    limit = "" if have == (0,) or newest.gpus[0] <= have else _version_limit(extra, have)
    newest_cuda = _CUDA_BY_DRIVER[0][1]
    if limit is None or (not limit and runs == newest_cuda):
        return ""
    wheel = f"tensorrt{limit}" if limit else f"tensorrt-cu{runs}"
    quoted = f'"{wheel}"' if limit else wheel
    return f'pip install enginery {quoted} "cuda-python>={runs},<{int(runs) + 1}"'


def _version_limit(family: str, have: tuple[int, ...]) -> str | None:
    """Return the versions that run on a GPU, such as ``>=10.0,<10.5``; None where none does."""
    rows = _RANGES[family]
    fitting = [at for at, row in enumerate(rows) if row.gpus[0] <= have <= row.gpus[1]]
    if not fitting:
        return None
    last = fitting[-1]
    if last == len(rows) - 1:
        return f">={_dotted(rows[fitting[0]].since)}"
    return f">={_dotted(rows[last].since)},<{_dotted(rows[last + 1].since)}"


def _rows_of(family: str, wheels: Mapping[str, str], machine: MachineRecord) -> Iterator[DoctorRow | None]:
    version = max(wheels.values(), key=_numbers)
    held = [row for row in _RANGES[family] if _numbers(version)[:2] >= row.since]
    yield _mixed_versions(family, wheels, version, machine)
    yield _mixed_cuda(family, wheels, version, machine)
    if held:
        yield _python_row(family, version, held[-1], machine)
        yield _gpu_row(family, version, held[-1], machine)


def _mixed_versions(family: str, wheels: Mapping[str, str], version: str, machine: MachineRecord) -> DoctorRow | None:
    if len(set(wheels.values())) == 1:
        return None
    listed = ", ".join(f"{name} {wheels[name]}" for name in sorted(wheels))
    mend = f"pip install --force-reinstall {_set_name(family, wheels, machine)}=={version}"
    return _broken(f"{family} versions", version, f"parts of several versions: {listed}", mend)


def _mixed_cuda(family: str, wheels: Mapping[str, str], version: str, machine: MachineRecord) -> DoctorRow | None:
    majors = _cuda_of(wheels)
    if not majors or majors == {max(majors)}:
        return None
    keep = _set_name(family, wheels, machine)
    gone = " ".join(sorted(name for name in wheels if _is_of_another(name, keep)))
    why = f"wheels for CUDA {' and '.join(sorted(majors))} bring the same modules"
    mend = f"pip uninstall -y {gone} && pip install --force-reinstall {keep}=={version}"
    return _broken(f"{family} CUDA", version, why, mend)


def _python_row(family: str, version: str, held: _Range, machine: MachineRecord) -> DoctorRow | None:
    minor = _numbers(machine.python)[1]
    lowest, highest = held.python
    if lowest <= minor <= highest:
        return None
    why = f"{family} {version} has wheels for Python 3.{lowest} to 3.{highest}, this is {machine.python}"
    wanted = min(max(minor, lowest), highest)
    newer = next((row for row in _RANGES[family] if row.python[0] <= minor <= row.python[1]), None)
    upgrade = f'pip install -U "{family}>={newer.since[0]}.{newer.since[1]}"' if newer is not None else ""
    mend = upgrade or f"python3.{wanted} -m venv trt && trt/bin/pip install enginery {family}=={version}"
    return _broken(f"{family} Python", version, why, mend)


def _gpu_row(family: str, version: str, held: _Range, machine: MachineRecord) -> DoctorRow | None:
    found = compute_capability(machine)
    if not found:
        return None
    have = _numbers(found)[:2]
    lowest, highest = held.gpus
    gpu = machine.gpus[0].partition(",")[0]
    if family == _RTX and have in _NOT_ON_RTX:
        why = f"{family} {version} does not run on {gpu} (compute capability {found}): it is for GeForce and RTX GPUs"
        return _broken(f"{family} GPU", version, why, 'pip install "enginery[tensorrt]"')
    if lowest <= have <= highest:
        return None
    why = (
        f"{family} {version} runs on compute capability {_dotted(lowest)} to {_dotted(highest)}, "
        f"{gpu} has {found}"
    )  # fmt: skip
    return _broken(f"{family} GPU", version, why, _other_version(family, have))


def _other_version(family: str, have: tuple[int, ...]) -> str:
    """Return the line that installs the newest version which runs on a GPU."""
    limit = _version_limit(family, have)
    if limit is None:
        return "enginery build MODEL --backend onnxruntime"
    upgrade = "" if "<" in limit else "-U "
    return f'pip install {upgrade}"{family}{limit}"'


def _cuda_python_row(packages: Mapping[str, str], machine: MachineRecord) -> DoctorRow | None:
    """cuda-python brings a CUDA runtime of its own major version, which the driver must be able to run."""
    name = next((name for name in ("cuda-bindings", "cuda-python") if name in packages), None)
    if name is None or machine.driver is None:
        return None
    major, runs = _numbers(packages[name])[0], int(_cuda_for(machine) or 0)
    if major <= runs:
        return None
    why = f"it is made for CUDA {major}, and driver {machine.driver} runs CUDA {runs}"
    return _broken("cuda-python", packages[name], why, f'pip install "cuda-python>={runs},<{runs + 1}"')


def _set_name(family: str, wheels: Mapping[str, str], machine: MachineRecord) -> str:
    """Return the distribution that brings the whole set, for a CUDA that the driver runs."""
    majors = sorted(_cuda_of(wheels))
    if not majors:
        return family
    runs = _cuda_for(machine)
    runnable = [major for major in majors if not runs or major <= runs]
    return f"{family}-cu{(runnable or majors)[-1]}"


def _cuda_of(wheels: Mapping[str, str]) -> set[str]:
    return {match["cuda"] for name in wheels if (match := _WHEEL.fullmatch(name)) is not None and match["cuda"]}


def _is_of_another(name: str, keep: str) -> bool:
    match = _WHEEL.fullmatch(name)
    return match is not None and bool(match["cuda"]) and not keep.endswith(match["cuda"])


def _cuda_for(machine: MachineRecord) -> str:
    branch = _numbers(machine.driver or "0")[0]
    return next((major for first, major in _CUDA_BY_DRIVER if branch >= first), "")


def _broken(name: str, version: str, why: str, mend: str) -> DoctorRow:
    return DoctorRow("gpu", name, version, "broken", why, mend)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else (0, 0)
