"""A job (build, verify, time) in a process of its own, in this interpreter or another environment's.

A job and its result are plain files in the worker's folder, ``0001-build.json`` and ``0001-build.result.json``; arrays
and graphs are paths in them. So a worker can be another interpreter, with other versions of every library. Parent and
worker tell each other the names of these files, one a line, over two private pipes; whatever libraries print goes to
``log.txt`` and cannot break in. A crash, a hang or a memory blow-up ends the worker and raises here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginery import __version__, errors, processes
from enginery.environments import find_python, install_line, worker_variables
from enginery.errors import EnvironmentSetupError, WorkerCrashError, WorkerMemoryError, WorkerTimeoutError
from enginery.machine import free_memory_bytes
from enginery.plain import from_plain
from enginery.progress import Advance, Listener
from enginery.staging import remove_leftovers
from enginery.worker_loop import ANNOUNCED, PROTOCOL, write_json

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["LOG", "Worker"]

LOG = "log.txt"
"""Name of the file in a worker's folder that takes everything its libraries print."""

_ENTRY = ("-m", "enginery.jobs")
_HELLO_LIMIT_S = 120.0
_FAREWELL_S = 5.0
_TICK_S = 0.1
_MEMORY_SHARE = 0.9
_LOG_BYTES = 1 << 16
_OURS = re.compile(
    r"Extension modules: |Current thread 0x"
    r'|  File ".*(worker_loop\.py"|runpy>?|enginery/jobs\.py", line \d+ in (main|<mod))'
)


class Worker:
    """A process that takes one job after another; starts in a ``with`` statement, and never outlives it.

    Start it from the main thread: Linux kills a worker when the thread that started it ends.

    Args:
        name: what errors call it.
        folder: its own folder for jobs, results and the log, and its working directory; made where it is missing.
        python: another environment's interpreter, which must hold the same Enginery; None for this one.
        memory_limit_bytes: memory at which it is killed; None for nine tenths of what is free when it starts.
        entry: the interpreter's arguments that start the loop of jobs.

    Raises:
        EnvironmentSetupError: there is no such interpreter, or no Enginery of this version in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Worker("probe", folder=Path(folder)) as worker:
        ...     worker.call("probe", {}, limit_s=60)["backends"]["null"]["available"]
        True
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        python: str | None = None,
        memory_limit_bytes: int | None = None,
        entry: Sequence[str] = _ENTRY,
    ) -> None:
        self.name = name
        self.folder = Path(folder).absolute()
        self._python = python
        self._entry = tuple(entry)
        self._memory_limit_bytes = memory_limit_bytes
        self._jobs = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._unread = b""
        self._advance: Advance | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None else None

    @property
    def memory_bytes(self) -> int | None:
        """The memory it holds now, mapped files left out; None where it is not running or the system does not tell."""
        return processes.anonymous_bytes(self._process.pid) if self._process is not None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def start(self) -> None:
        """Start the process and wait for its hello; the ``with`` statement calls it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._memory_limit_bytes is None:
            self._memory_limit_bytes = int(free_memory_bytes() * _MEMORY_SHARE) or None
        python = find_python(self._python)
        self._answers, out = os.pipe()
        arguments = (str(self.folder), str(out), str(os.getpid()))
        try:
            with (self.folder / LOG).open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    [python, *self._entry, *arguments],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(out,), cwd=self.folder,
                    env=worker_variables(own=self._python is None), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            os.close(self._answers)
            raise EnvironmentSetupError(
                f"cannot start {python}: {error.strerror}", mend="give the path of a Python interpreter"
            ) from error
        finally:
            os.close(out)
        self._greet(python)

    def call(
        self,
        job: str,
        arguments: Mapping[str, Any],
        *,
        limit_s: float,
        on_wait: Callable[[], None] | None = None,
        on_progress: Listener | None = None,
    ) -> Any:
        """Do one job and return its result as plain data.

        Args:
            job: its name in `enginery.jobs.JOBS`.
            arguments: plain data, records and absolute paths; a path called ``output`` is what the job writes, and
                what is half-written there is removed where the worker dies.
            limit_s: seconds after which the worker is killed.
            on_wait: called about ten times a second while it works.
            on_progress: told how far it has come, where the job says so.

        Raises:
            EngineryError: what the job raised, as it would have been raised here.
            WorkerError: the job raised something else.
            WorkerCrashError: the worker died, or is dead already; the message has the last lines of its log.
            WorkerTimeoutError: it was killed at `limit_s`.
            WorkerMemoryError: it was killed at its memory limit.
        """
        if self._process is None:
            raise WorkerCrashError(f"worker {self.name!r} is not running", mend="start another")
        self._jobs += 1
        self._advance = None
        task = self.folder / f"{self._jobs:04d}-{job}.json"
        write_json(task, {"job": job, "arguments": arguments})
        output = arguments.get("output")
        try:
            self._send(task.name)
            answer = self._receive(job, limit_s, on_wait, on_progress)
        except BaseException:
            self.kill()
            if output is not None:
                remove_leftovers(Path(output))
            raise
        return self._result(json.loads((self.folder / answer).read_text(encoding="utf-8")))

    def close(self) -> None:
        """Ask it to end, wait a little, then kill its whole process group; a second call does nothing."""
        if self._process is None:
            return
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        deadline = time.monotonic() + _FAREWELL_S
        while time.monotonic() < deadline and processes.exit_code(self._process.pid) is None:
            time.sleep(0.005)
        self.kill()

    def kill(self) -> None:
        """Kill its whole process group at once; does nothing where it is not running."""
        if self._process is None:
            return
        process, self._process = self._process, None
        processes.kill_group(process.pid)
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        os.close(self._answers)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of what the worker's libraries printed; a crash's trace ends where our frames begin."""
        try:
            with (self.folder / LOG).open("rb") as log:
                log.seek(max(log.seek(0, os.SEEK_END) - _LOG_BYTES, 0))
                text = log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in text.splitlines() if line.strip() and not _OURS.match(line)][-lines:])

    def _greet(self, python: str) -> None:
        mend = f"run: {install_line(python)}"
        try:
            hello = json.loads(self._receive("start", _HELLO_LIMIT_S, None))
        except BaseException as error:
            self.kill()
            if self._python is None or not isinstance(error, WorkerCrashError):
                raise
            reason = self.log_tail(1) or "it ended without a word"
            raise EnvironmentSetupError(f"{python} holds no usable Enginery: {reason}", mend=mend) from error
        if (hello["enginery"], hello["protocol"]) != (__version__, PROTOCOL):
            self.kill()
            raise EnvironmentSetupError(
                f"{python} (Python {hello['python']}) holds Enginery {hello['enginery']}, this is {__version__}",
                mend=mend,
            )

    def _result(self, answer: Mapping[str, Any]) -> Any:
        if "error" not in answer:
            return answer["result"]
        failure = answer["error"]
        shown = self._shown_log() if failure["name"] == "WorkerError" else ""
        raise errors.by_name(failure["name"], failure["message"] + shown, failure["mend"])

    def _send(self, line: str) -> None:
        assert self._process is not None  # noqa: S101 - call() has looked
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        # A worker that is dead already is found dead when its answer is awaited.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _receive(
        self,
        job: str,
        limit_s: float,
        on_wait: Callable[[], None] | None,
        on_progress: Listener | None = None,
    ) -> str:
        """Wait for the answer; look after memory and time about ten times a second."""
        deadline = time.monotonic() + limit_s
        while True:
            line = self._read_line(job, max(min(_TICK_S, deadline - time.monotonic()), 0.0))
            if line is not None and not line.startswith(ANNOUNCED):
                return line
            if line is not None:
                self._advance = from_plain(Advance, json.loads(line)["advance"])
                if on_progress is not None:
                    on_progress(self._advance)
            self._check_memory(job)
            if time.monotonic() >= deadline:
                raise WorkerTimeoutError(
                    f"worker {self.name!r} did not finish {job!r} within {limit_s:g} s"
                    f"{self._shown_advance()}{self._shown_log()}",
                    mend="raise the time limit, or look at the last lines of its log",
                )
            if on_wait is not None:
                on_wait()

    def _read_line(self, job: str, wait_s: float) -> str | None:
        """Return the next line, or None where none came in time; raise where none can come any more."""
        assert self._process is not None  # noqa: S101 - call() has looked
        # Asked before reading, so that a line written just before the end is still read.
        ended = processes.exit_code(self._process.pid) is not None
        if b"\n" not in self._unread and _readable(self._answers, 0.0 if ended else wait_s):
            chunk = os.read(self._answers, 1 << 16)
            self._unread += chunk
            ended = ended or not chunk
        line, newline, rest = self._unread.partition(b"\n")
        if newline:
            self._unread = rest
            return line.decode()
        if ended:
            raise self._crash(job)
        return None

    def _check_memory(self, job: str) -> None:
        used, limit = self.memory_bytes, self._memory_limit_bytes
        if used is not None and limit is not None and used > limit:
            raise WorkerMemoryError(
                f"worker {self.name!r} held {used / 2**20:.0f} MiB while it did {job!r}, "
                f"its limit is {limit / 2**20:.0f} MiB",
                mend="free some memory, or ask for smaller shapes",
            )

    def _crash(self, job: str) -> WorkerCrashError:
        assert self._process is not None  # noqa: S101 - _read_line() has looked
        deadline = time.monotonic() + _FAREWELL_S
        while (code := processes.exit_code(self._process.pid)) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        mend = "the last lines of its log say what the library was doing"
        if code == -signal.SIGKILL:
            mend = "something killed it: most often the system, which had run out of memory (see dmesg)"
        return WorkerCrashError(
            f"worker {self.name!r} {_how_it_ended(code)} while it did {job!r}{self._shown_advance()}"
            f"{self._shown_log()}",
            mend=mend,
        )

    def _shown_advance(self) -> str:
        """Say how far the job had come, where it told."""
        if self._advance is None:
            return ""
        return f", {self._advance.fraction:.0%} done ({self._advance.phase})"

    def _shown_log(self) -> str:
        tail = self.log_tail()
        return f"; its log ends with:\n{tail}" if tail else ""


def _readable(handle: int, wait_s: float) -> bool:
    poll = select.poll()  # select() refuses handles above 1023
    poll.register(handle, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(wait_s * 1000))


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its pipe and went on"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
