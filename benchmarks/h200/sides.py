"""A side: another interpreter that does what it is asked, one thing after another, and whose crash is its own."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ROOT", "Side", "SideError", "end_descendants"]

ROOT = Path(__file__).parents[2]


class SideError(Exception):
    """What a side was asked for failed.

    Args:
        message: what happened.
        name: class of the error there; empty where the process itself failed.
        mend: what the error said to do; None where it is none of Enginery's.
        log: the last lines that the process wrote.
    """

    def __init__(self, message: str, name: str = "", mend: str | None = None, log: str = "") -> None:
        super().__init__(f"{name}: {message}" if name else message)
        self.message = message
        self.name = name
        self.mend = mend
        self.log = log


class Side:
    """Starts in a ``with`` statement and never outlives it.

    Args:
        python: the interpreter.
        module: what it runs; it answers by `benchmarks.h200.answering.answer`.
        log: takes whatever it prints.
        variables: of its environment, over this one's.
        left: says how many seconds any answer may take at most, now.
    """

    def __init__(
        self,
        python: str,
        module: str,
        log: Path,
        variables: Mapping[str, str] | None = None,
        left: Callable[[], float] | None = None,
    ) -> None:
        self.log = log
        self._left = left or (lambda: math.inf)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [python, "-m", module], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                start_new_session=True, env={**os.environ, **(variables or {})},
            )  # fmt: skip
        self._unread = b""

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    @property
    def waits(self) -> bool:
        """Whether nothing is there to be read."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        return not select.select([self._process.stdout], [], [], 0.0)[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, what: str, *, limit_s: float, **arguments: Any) -> Any:
        """Have something done, and return what was found.

        Raises:
            SideError: it raised there, the process died, or it took too long and was ended.
        """
        self.send(what, **arguments)
        return self.receive(what, limit_s=limit_s)

    def send(self, what: str, **arguments: Any) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        line = json.dumps({"what": what, "arguments": arguments}, default=str)
        if self._process.stdin.closed:
            raise SideError(f"the process was ended before {what!r} was asked", log=self._tail())
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise SideError(f"the process has ended: {self._tail()}") from error

    def receive(self, what: str, *, limit_s: float) -> Any:
        """Wait for the answer to what was sent."""
        answer = json.loads(self._read_line(what, limit_s))
        if "error" in answer:
            error = answer["error"]
            raise SideError(error["message"], error["name"], error["mend"], self._tail())
        return answer["found"]

    def close(self, wait_s: float = 5.0) -> None:
        """Let it end by itself, then end it with all that it started."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        self.kill()

    def kill(self) -> None:
        """End it at once, with all that it started, in whatever process group that is."""
        if self._process.poll() is None:
            end_descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):  # all of it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - both are pipes
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read_line(self, what: str, limit_s: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        limit_s = min(limit_s, max(0.0, self._left()))
        end = time.monotonic() + limit_s
        handle = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.kill()
                raise SideError(f"{what!r} was ended after {limit_s:.0f} s", log=self._tail())
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                code = self._process.wait()
                raise SideError(f"the process died of {code} while it did {what!r}: {self._tail()}", log=self._tail())
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join(line for line in lines[-30:] if line.strip())[-3000:]


def end_descendants(pid: int) -> None:
    """Kill every process below one."""
    for below in _descendants(pid):
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(below, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, by ``/proc`` (proc(5)); none where the system does not tell."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in parents.get(parent, [])]
        found += new
    return found
