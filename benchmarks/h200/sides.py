"""A side: another interpreter that does what it is asked, one thing after another, and whose crash is its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ROOT", "Side", "SideError"]

ROOT = Path(__file__).parents[2]


class SideError(Exception):
    """What a side was asked for failed.

    Args:
        message: what happened.
        name: class of the error there; empty where the process itself failed.
        mend: what the error said to do; None where it is none of Enginery's.
    """

    def __init__(self, message: str, name: str = "", mend: str | None = None) -> None:
        super().__init__(f"{name}: {message}" if name else message)
        self.message = message
        self.name = name
        self.mend = mend


class Side:
    """Starts in a ``with`` statement and never outlives it.

    Args:
        python: the interpreter.
        module: what it runs; it answers by `benchmarks.h200.answering.answer`.
        log: takes whatever it prints.
        variables: of its environment, over this one's.
    """

    def __init__(self, python: str, module: str, log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.log = log
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
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise SideError(f"the process has ended: {self._tail()}") from error

    def receive(self, what: str, *, limit_s: float) -> Any:
        """Wait for the answer to what was sent."""
        answer = json.loads(self._read_line(what, limit_s))
        if "error" in answer:
            raise SideError(answer["error"]["message"], answer["error"]["name"], answer["error"]["mend"])
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
        """End it at once, with all that it started."""
        with contextlib.suppress(ProcessLookupError):  # all of it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101 - both are pipes
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read_line(self, what: str, limit_s: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        end = time.monotonic() + limit_s
        handle = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([handle], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self.kill()
                raise SideError(f"{what!r} was ended after {limit_s:.0f} s; the log ends with: {self._tail()}")
            chunk = os.read(handle, 1 << 16)
            if not chunk:
                raise SideError(f"the process died of {self._process.wait()} while it did {what!r}: {self._tail()}")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join(line for line in lines[-12:] if line.strip())[-1500:]
