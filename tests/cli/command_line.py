"""Runs of the real program in a process of its own, for the tests that give it what it should not be given."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 120


@dataclass(frozen=True)
class Told:
    """How one run ended, and what it said."""

    code: int
    out: str
    said: str


def enginery(*words: object, cwd: Path, **variables: str) -> Told:
    """Run the program to its end."""
    command = [sys.executable, "-m", "enginery", *map(str, words)]
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    return Told(done.returncode, done.stdout, done.stderr)


def names(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every name below a folder, with its size and time of change."""
    found = {}
    for file in folder.rglob("*"):
        state = file.lstat()
        found[str(file.relative_to(folder))] = (state.st_size, state.st_mtime_ns) if file.is_file() else (0, 0)
    return found


def refuse(here: Path, code: int, *words: object, says: tuple[str, ...], **variables: str) -> str:
    """Run the program in a folder, and assert its code, its words, a mend, and that nothing changed."""
    before = names(here)
    told = enginery(*words, cwd=here, **variables)
    assert told.code == code, told.said
    lines = told.said.splitlines()
    assert any(line.startswith("error: ") for line in lines), told.said
    assert any(line.startswith("mend: ") for line in lines), told.said
    assert "Traceback" not in told.said
    assert "defect" not in told.said
    assert told.out == ""
    for text in says:
        assert text in told.said, told.said
    assert names(here) == before
    return told.said


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount something at a folder while the block runs; where that is not allowed, say so and skip."""
    folder.mkdir(exist_ok=True)
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a file system, and the real thing is what is tested")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def workers(here: Path) -> list[int]:
    """Return the processes whose working directory is in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and (entry / "cwd").resolve().is_relative_to(here)
                and int(entry.name) != os.getpid()
            ):
                found.append(int(entry.name))
    return found


def wait_for_no_workers(here: Path) -> None:
    """Wait a little for the system to end the processes whose parent is dead."""
    deadline = time.monotonic() + 20
    while workers(here) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers(here) == []
