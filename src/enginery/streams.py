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

__all__ = ["captured_stderr", "quiet", "stdout_to_stderr", "still_loggers"]

_LOG = logging.getLogger("enginery.streams")
_LOCK = threading.Lock()  # the descriptor belongs to the whole process


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the lines that were written to file descriptor 2 within it.

    Native libraries write there past `sys.stderr`. Other threads' lines land in the list too, so keep the block short.
    """
    lines: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
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
