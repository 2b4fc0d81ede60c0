"""Where the prints, warnings and log lines of other people's code go: kept, turned to stderr, or stilled."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

__all__ = ["captured_stderr", "captured_stdout", "quiet", "stdout_to_stderr", "still_loggers"]

_LOG = logging.getLogger("enginery.streams")
_LOCKS = {1: threading.Lock(), 2: threading.Lock()}  # a descriptor belongs to the whole process


def captured_stderr() -> contextlib.AbstractContextManager[list[str]]:
    """Yield a list that holds, after the block, the lines that were written to file descriptor 2 within it.

    Native libraries write there past `sys.stderr`. Other threads' lines land in the list too, so keep the block short.
    """
    return _captured(2, sys.stderr)


def captured_stdout() -> contextlib.AbstractContextManager[list[str]]:
    """Do for file descriptor 1 what `captured_stderr` does for 2: stdout may be a record that someone parses."""
    return _captured(1, sys.stdout)


@contextlib.contextmanager
def _captured(descriptor: int, stream: TextIO) -> Iterator[list[str]]:
    lines: list[str] = []
    with _LOCKS[descriptor], tempfile.TemporaryFile() as file:
        stream.flush()
        kept = os.dup(descriptor)
        os.dup2(file.fileno(), descriptor)
        try:
            yield lines
        finally:
            stream.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            file.seek(0)
            lines.extend(file.read().decode(errors="replace").splitlines())


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[list[warnings.WarningMessage]]:
    """Keep Python's stdout, stderr and warnings and the named loggers still; yield the list of warnings as it grows.

    What was said goes to our own log, at level debug.
    """
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(record=True) as caught,
        still_loggers(*loggers, below=logging.CRITICAL),
    ):
        warnings.simplefilter("always")
        yield caught
    for line in (*said.getvalue().splitlines(), *(str(warning.message) for warning in caught)):
        _LOG.debug(line)


@contextlib.contextmanager
def still_loggers(*names: str, below: int = logging.ERROR) -> Iterator[None]:
    """Keep what the named loggers say below a level from the user; put their own levels back at the end."""
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(below)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Let Python's prints pass, but on stderr: stdout may be a record that someone parses."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
