"""Other people's exporters print, log and warn; what they say goes to our log, at level debug."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

__all__ = ["quiet", "stdout_to_stderr"]

_LOG = logging.getLogger("enginery.sources")


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[list[warnings.WarningMessage]]:
    """Keep stdout, stderr, warnings and the named loggers still; yield the list of warnings as it grows."""
    said = io.StringIO()
    levels = {name: logging.getLogger(name).level for name in loggers}
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        for name in loggers:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            yield caught
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
    for line in (*said.getvalue().splitlines(), *(str(warning.message) for warning in caught)):
        _LOG.debug(line)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Let a user's own prints pass, but on stderr: stdout may be a record that someone parses."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
