"""The worker's side: take jobs one after another until the parent closes the pipe. `enginery.worker` is the other."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeAlias

from enginery import __version__, processes
from enginery.errors import EngineryError, UnknownNameError
from enginery.plain import to_plain
from enginery.progress import Advance, listening

__all__ = ["ANNOUNCED", "PROTOCOL", "Job", "serve", "write_json"]

ANNOUNCED = '{"advance": '
"""How a line begins that says how far a job has come; any other line names the file with the job's result."""

PROTOCOL = 2
"""Version of what parent and worker say to each other."""

Job: TypeAlias = Callable[[dict[str, Any], Mapping[str, Any]], Any]
"""Takes the state, which lives as long as the worker, and plain arguments; returns a record or plain data."""


def serve(jobs: Mapping[str, Job], arguments: Sequence[str] | None = None) -> None:
    """Take jobs until the parent closes the pipe, or dies.

    Args:
        jobs: the jobs by name.
        arguments: the worker's folder, the file descriptor for answers, the parent's process id; by default what the
            parent wrote on the command line.
    """
    folder, answers, parent = arguments if arguments is not None else sys.argv[1:]
    handle = int(answers)
    os.set_inheritable(handle, False)  # noqa: FBT003 - its only form
    processes.die_with_parent(int(parent))
    tasks = _take_stdin()
    hello = {"enginery": __version__, "protocol": PROTOCOL, "python": platform.python_version()}
    os.write(handle, f"{json.dumps(hello)}\n".encode())
    _log_to_stderr()
    state: dict[str, Any] = {}

    def tell(advance: Advance) -> None:
        line = json.dumps({"advance": to_plain(advance)})
        os.write(handle, f"{line}\n".encode())  # shorter than PIPE_BUF, so threads' lines do not mix

    for line in tasks:
        task = Path(folder) / line.decode().strip()
        answer = task.with_suffix(".result.json")
        with listening(tell):
            result = _do(jobs, state, json.loads(task.read_text(encoding="utf-8")))
        write_json(answer, result)
        os.write(handle, f"{answer.name}\n".encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write records, paths and plain data as JSON; the file has its name only when it is whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(to_plain(value), allow_nan=False, default=_path_text), encoding="utf-8")
    part.replace(path)


def _log_to_stderr() -> None:
    """Let our own log, from INFO on, go to the worker's: there it says what led to a crash."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("enginery")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)


def _take_stdin() -> BinaryIO:
    """Move standard input to a private handle, so that no library can read the parent's words."""
    tasks = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return tasks


def _do(jobs: Mapping[str, Job], state: dict[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    name = task["job"]
    try:
        result = to_plain(_find(jobs, name)(state, task["arguments"]))
        json.dumps(result, allow_nan=False, default=_path_text)
    except EngineryError as error:
        return _failure(_known_name(error), error.message, error.mend)
    except MemoryError:
        traceback.print_exc()
        return _failure("WorkerMemoryError", f"there was not enough memory for {name!r}", "ask for smaller shapes")
    except Exception as error:  # noqa: BLE001 - the parent is told, whatever it was
        traceback.print_exc()
        message = f"{name!r} failed with {type(error).__name__}: {error}"
        return _failure("WorkerError", message, "no error of this kind is expected: please report it")
    return {"result": result}


def _find(jobs: Mapping[str, Job], name: str) -> Job:
    if name not in jobs:
        raise UnknownNameError.from_choices("job", name, jobs)
    return jobs[name]


def _known_name(error: EngineryError) -> str:
    """Name the nearest class that the other side knows: a backend of another distribution may raise its own."""
    kinds = (kind for kind in type(error).__mro__ if kind.__module__ == EngineryError.__module__)
    return next(kinds).__name__


def _failure(name: str, message: str, mend: str) -> dict[str, Any]:
    return {"error": {"name": name, "message": message, "mend": mend}}


def _path_text(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no plain data")
