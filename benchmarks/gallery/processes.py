"""Each entry in a process of its own, so that a crash, a hang or its memory is that entry's alone."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gallery.result import Result, judge

if TYPE_CHECKING:
    from benchmarks.gallery.attempt import Attempt
    from benchmarks.gallery.entry import Entry

__all__ = ["attempt", "read_result", "run_entry", "run_together", "work", "work_together"]

ROOT = Path(__file__).parents[2]


def run_entry(entry: Entry, backend: str, *, limit_s: float, catalogue: str) -> Result:
    """Try one entry in a new process, and weigh what came of it.

    Args:
        entry: what to try.
        backend: name of the backend.
        limit_s: seconds after which it is ended, with the processes that it started.
        catalogue: dotted name of the module whose ``ENTRIES`` hold the entry, for the new process to find it.
    """
    nothing = Result(entry.name, entry.family, entry.source, backend)
    if missing := _missing(entry):
        return _skipped(nothing, missing)
    with tempfile.TemporaryDirectory(prefix="gallery-") as name:
        folder = Path(name)
        command = [
            sys.executable, "-m", "benchmarks.gallery", "--work", entry.name, str(folder), "--backend", backend,
            "--catalogue", catalogue,
        ]  # fmt: skip
        begin = time.monotonic()
        status, said = _call(command, folder / "log", limit_s)
        path = folder / "result.json"
        if path.is_file():
            found = read_result(json.loads(path.read_text(encoding="utf-8")))
        else:
            found = _with(nothing, reason=_ended(status, said, limit_s, time.monotonic() - begin))
    return judge(found, known=entry.known)


def run_together(entries: Sequence[Entry], backend: str, *, limit_s: float, catalogue: str) -> Iterator[Result]:
    """Try entries one after another in one process, which imports its frameworks once.

    A crash or a hang is that entry's alone: the next process goes on with the one after it.

    Args:
        entries: what to try.
        backend: name of the backend.
        limit_s: seconds for each; a process that takes more than that for each of its entries is ended.
        catalogue: as for `run_entry`.
    """
    left = list(entries)
    while left:
        with tempfile.TemporaryDirectory(prefix="gallery-") as name:
            folder = Path(name)
            (folder / "names.json").write_text(json.dumps([entry.name for entry in left]), encoding="utf-8")
            command = [
                sys.executable, "-m", "benchmarks.gallery", "--work-together", str(folder), "--backend", backend,
                "--catalogue", catalogue,
            ]  # fmt: skip
            begin = time.monotonic()
            status, said = _call(command, folder / "log", limit_s * len(left))
            ended = _ended(status, said, limit_s * len(left), time.monotonic() - begin)
            found = [_result_of(folder / f"{at}.json") for at in range(len(left))]
        known = found.index(None) if None in found else len(left)
        yield from (
            judge(result, known=entry.known) for entry, result in zip(left, found[:known], strict=False) if result
        )
        if known < len(left):
            lost = left[known]
            nothing = Result(lost.name, lost.family, lost.source, backend, reason=ended)
            yield judge(nothing, known=lost.known)
        left = left[known + 1 :]


def _result_of(path: Path) -> Result | None:
    return read_result(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def work_together(entries: Sequence[Entry], folder: Path, backend: str) -> None:
    """Try the entries that ``names.json`` lists, in this process; each result is written before the next begins."""
    by_name = {entry.name: entry for entry in entries}
    for at, name in enumerate(json.loads((folder / "names.json").read_text(encoding="utf-8"))):
        entry = by_name[name]
        with tempfile.TemporaryDirectory(prefix="gallery-", dir=folder) as own:
            missing = _missing(entry)
            nothing = Result(entry.name, entry.family, entry.source, backend)
            result = _skipped(nothing, missing) if missing else attempt(entry, Path(own), backend).run()
        part = folder / f"{at}.part"
        part.write_text(json.dumps(asdict(result)), encoding="utf-8")
        part.replace(folder / f"{at}.json")


def _missing(entry: Entry) -> list[str]:
    return [name for name in entry.needs if importlib.util.find_spec(name) is None]


def _skipped(result: Result, missing: Sequence[str]) -> Result:
    return _with(result, status="skipped", reason=f"not installed: {', '.join(missing)}")


def work(entry: Entry, folder: Path, backend: str) -> None:
    """Try one entry in this process, and write what came of it as ``result.json``."""
    result = attempt(entry, folder, backend).run()
    (folder / "result.json").write_text(json.dumps(asdict(result)), encoding="utf-8")


def attempt(entry: Entry, folder: Path, backend: str) -> Attempt:
    """Return what tries an entry: built, run and compared, or built ahead of time where it cannot run here."""
    from benchmarks.gallery.ahead import BACKENDS, Ahead  # noqa: PLC0415 - the parent needs none of what it imports
    from benchmarks.gallery.attempt import Attempt  # noqa: PLC0415

    return (Ahead if backend in BACKENDS else Attempt)(entry, folder, backend)


def read_result(plain: dict[str, Any]) -> Result:
    """Read a result as JSON has it."""
    lists = {name: tuple(value) for name, value in plain.items() if isinstance(value, list)}
    return Result(**{**plain, **lists})


def _with(result: Result, **found: Any) -> Result:
    return Result(**{**asdict(result), **found})


def _call(command: list[str], log: Path, limit_s: float) -> tuple[int | None, str]:
    """Run a command in a process group; return its exit status (None where it was ended) and its last lines."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of it has ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return status, " ".join(" ".join(line for line in lines if line.strip()).split()[-40:])


def _ended(status: int | None, said: str, limit_s: float, seconds: float) -> str:
    if status is None:
        return f"ended after the limit of {limit_s:.0f} s"
    if status < 0:
        return f"the process crashed with {signal.Signals(-status).name} after {seconds:.0f} s: {said}"
    return f"the process left with {status} and no result: {said}"
