"""Looks over an installation: what is here, what is missing or broken, and the exact line that mends it.

What there is to look for comes from the distribution's own metadata (its dependencies and extras) and from the table
of backends. A library is imported in a process of its own, so a broken one cannot take the examination down with it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from enginery import backends, caches, gpu_packages, optional, tensorrt_packages
from enginery.machine import cpu_count, describe_machine
from enginery.records import DoctorRecord, DoctorRow, MachineRecord

__all__ = ["Requirement", "examine", "failure_of", "parse_requirement", "requirements"]

_DISTRIBUTION = "enginery"
_IMPORT_LIMIT_S = 60.0
_MODULES = {"pillow": "PIL", "cuda-python": "cuda"}
"""Modules that are not named as their distribution is."""

_INSTEAD = {
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "cuda-python": ("cuda-bindings",),
}
"""Distributions that bring the same module."""

_ONLY_ON_GPU = ("tensorrt",)
"""Backends that do nothing without an NVIDIA GPU."""

_ASK_BACKEND = (
    "import dataclasses, json, sys; from enginery import backends; "
    "print(json.dumps(dataclasses.asdict(backends.get(sys.argv[1]).probe())))"
)


@dataclass(frozen=True)
class Requirement:
    """One dependency of Enginery.

    Args:
        distribution: its name on the package index.
        minimum: the lowest version that will do; empty where any does.
        extra: the extra that asks for it; empty for a core dependency.
    """

    distribution: str
    minimum: str
    extra: str

    @property
    def module(self) -> str:
        """Name of the module that it brings."""
        return _MODULES.get(self.distribution, self.distribution.replace("-", "_"))

    @property
    def pip_line(self) -> str:
        """The command that installs it."""
        asked = f"{self.distribution}>={self.minimum}" if self.minimum else self.distribution
        return f'pip install "{_DISTRIBUTION}[{self.extra}]"' if self.extra else f'pip install "{asked}"'

    @property
    def needs_gpu(self) -> bool:
        """Whether it is of no use without an NVIDIA GPU."""
        return self.distribution.startswith(("tensorrt", "cuda-"))


def examine() -> DoctorRecord:
    """Look for everything Enginery can use; takes seconds, for each library is really imported.

    Returns:
        A row for each thing; nothing is raised for what is missing or broken.
    """
    machine = describe_machine()
    asked = requirements()
    with ThreadPoolExecutor(max(min(cpu_count(), 4), 1)) as pool:
        libraries = list(pool.map(lambda one: _library_row(one, machine), asked))
        probed = list(pool.map(lambda name: _backend_row(name, machine), backends.names()))
    packages = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}
    rows = (
        _python_row(),
        *_own_rows(asked),
        *(row for row in libraries if row.group == "core"),
        *_without_broken(probed, libraries),
        *(row for row in libraries if row.group == "extra"),
        *gpu_packages.examine(packages, machine, device_here=Path("/proc/driver/nvidia/version").exists()),
        *tensorrt_packages.examine(packages, machine),
        *(_folder_row(name, path) for name, path in _folders()),
    )
    return DoctorRecord(machine, rows)


def requirements() -> tuple[Requirement, ...]:
    """Return what the installed distribution asks for: core first, then each extra but ``all``."""
    try:
        texts = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    found = [parsed for text in texts if (parsed := parse_requirement(text)) is not None and parsed.extra != "all"]
    return tuple(sorted(found, key=lambda one: (bool(one.extra), one.extra, one.distribution)))


def parse_requirement(text: str) -> Requirement | None:
    """Read one ``Requires-Dist`` line; None for Enginery's own extras, which other lines spell out.

    Example:
        >>> parse_requirement("pillow>=10; extra == 'pictures'")
        Requirement(distribution='pillow', minimum='10', extra='pictures')
    """
    name = re.match(r"[\w.-]+", text)
    if name is None or name[0] == _DISTRIBUTION:
        return None
    minimum = re.search(r">=\s*([\w.]+)", text.partition(";")[0])
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", text)
    return Requirement(name[0], minimum[1] if minimum else "", extra[1] if extra else "")


def failure_of(code: str, *arguments: str, limit_s: float = _IMPORT_LIMIT_S) -> tuple[str, str]:
    """Run Python code in a process of its own.

    Returns:
        Why it failed, in one line (empty where it did not), and what it printed.
    """
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"took more than {limit_s:.0f} s", ""
    except OSError as error:
        return f"cannot start a process: {error}", ""
    if done.returncode < 0:
        return f"died of signal {-done.returncode}", ""
    if done.returncode > 0:
        return (done.stderr.strip().splitlines() or [f"left with exit code {done.returncode}"])[-1], ""
    return "", done.stdout


def _python_row() -> DoctorRow:
    found = platform.python_version()
    try:
        classifiers = importlib.metadata.metadata(_DISTRIBUTION).get_all("Classifier") or []
    except importlib.metadata.PackageNotFoundError:
        classifiers = []
    prefix = "Programming Language :: Python :: "
    known = [text.removeprefix(prefix) for text in classifiers if re.fullmatch(rf"{prefix}3\.\d+", text)]
    if not known or found.rpartition(".")[0] in known:
        return DoctorRow("python", "python", found, "here", sys.executable)
    why = f"{sys.executable}; Enginery is tested with {known[0]} to {known[-1]}"
    return DoctorRow("python", "python", found, "here", why)


def _own_rows(asked: Sequence[Requirement]) -> list[DoctorRow]:
    """Say that Enginery itself was only put on the path, where it has no metadata to tell what it needs."""
    if asked:
        return []
    why = "runs from a folder that is not installed, so its dependencies are not known"
    return [DoctorRow("core", _DISTRIBUTION, None, "broken", why, "pip install -e .")]


def _library_row(asked: Requirement, machine: MachineRecord) -> DoctorRow:
    group, purpose = ("extra", f"for the extra {asked.extra!r}") if asked.extra else ("core", "")
    names = (asked.distribution, *_INSTEAD.get(asked.distribution, ()))
    version = next((found for name in names if (found := optional.version(name)) is not None), None)
    if version is None:
        if asked.needs_gpu and machine.driver is None:
            return DoctorRow(
                group, asked.distribution, None, "missing", f"{purpose}; needs an NVIDIA GPU, none is here"
            )
        line = tensorrt_packages.install_line(asked.extra, machine) or asked.pip_line
        return DoctorRow(group, asked.distribution, None, "missing", purpose, line)
    if asked.minimum and _numbers(version) < _numbers(asked.minimum):
        why = f"{asked.minimum} or later is needed"
        line = f'pip install -U "{asked.distribution}>={asked.minimum}"'
        return DoctorRow(group, asked.distribution, version, "broken", why, line)
    why, _ = failure_of(f"import {asked.module}")
    if why:
        line = f"pip install --force-reinstall --no-deps {asked.distribution}=={version}"
        return DoctorRow(group, asked.distribution, version, "broken", f"import {asked.module}: {why}", line)
    return DoctorRow(group, asked.distribution, version, "here", purpose)


def _backend_row(name: str, machine: MachineRecord) -> DoctorRow:
    summary = backends.table()[name].summary
    why, printed = failure_of(_ASK_BACKEND, name)
    if why:
        return DoctorRow("backend", name, None, "broken", why, f'pip install --force-reinstall "{_DISTRIBUTION}"')
    found = json.loads(printed.splitlines()[-1])
    if found["available"]:
        why = summary if found["runs"] else f"only builds: {found['reason']}"
        return DoctorRow("backend", name, found["version"], "here", why)
    reason, mend = found["reason"], found["mend"].removeprefix("run: ")
    if name in _ONLY_ON_GPU and mend and machine.driver is None:
        why = reason if "no NVIDIA GPU" in reason else f"{reason}; needs an NVIDIA GPU, none is here"
        return DoctorRow("backend", name, found["version"], "missing", why)
    mend = mend and (tensorrt_packages.install_line(name, machine) or mend)
    return DoctorRow("backend", name, found["version"], "missing", reason, mend)


def _without_broken(probed: Iterable[DoctorRow], libraries: Iterable[DoctorRow]) -> list[DoctorRow]:
    """Call a backend broken whose library is: a cheap probe does not import it."""
    broken = {row.name: row for row in libraries if row.status == "broken"}
    rows = []
    for row in probed:
        library = broken.get(row.name)
        if library is not None and row.status == "here":
            rows.append(DoctorRow("backend", row.name, row.version, "broken", library.why, library.mend))
        else:
            rows.append(row)
    return rows


def _folders() -> tuple[tuple[str, Path], ...]:
    folders = (("current folder", Path.cwd()), ("temporary folder", Path(tempfile.gettempdir())))
    kept = caches.cache_path()
    return (*folders, ("cache folder", kept)) if kept.exists() else folders


def _folder_row(name: str, path: Path) -> DoctorRow:
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        mends = {"temporary": "export TMPDIR=/another/folder", "cache": "export ENGINERY_CACHE=/another/folder"}
        mend = mends.get(name.partition(" ")[0], "chmod u+w . (or name another folder with -o)")
        return DoctorRow("disk", name, None, "broken", f"{path}: {error.strerror}", mend)
    return DoctorRow("disk", name, None, "here", f"{path}, {shutil.disk_usage(path).free / 2**30:.1f} GiB free")


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in release[0].split(".")) if release else ()
