"""What commands print: the result on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

from enginery.cli.progress import TerminalProgress, progress_for
from enginery.progress import Progress
from enginery.reports.as_json import as_json as to_json_text
from enginery.reports.layout import Style
from enginery.streams import stdout_to_stderr

__all__ = ["emit", "style", "to_stderr", "working"]

_PIPED_WIDTH = 120
_ASCII = str.maketrans({"±": "+-", "─": "-"})


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Show progress on stderr, and keep stdout for the result, while the block works."""
    with contextlib.closing(progress_for(sys.stderr)) as progress:
        if isinstance(progress, TerminalProgress):
            progress.start()
        with to_stderr():
            yield progress


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Send whatever libraries print on stdout to stderr, be it from Python or from native code."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout was closed by the caller: there is no descriptor to turn
        with stdout_to_stderr():
            yield
        return
    os.dup2(2, 1)
    try:
        with stdout_to_stderr():
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def emit(record: Any, render: Callable[[Style], str], *, as_json: bool) -> None:
    """Print a result: its record as JSON, or its text as wide as the terminal."""
    text = to_json_text(record) if as_json else render(style()) + "\n"
    sys.stdout.write(_encodable(text))
    sys.stdout.flush()


def style() -> Style:
    """Return the style for stdout: its width and colours on a terminal, a hundred plain columns elsewhere."""
    if not sys.stdout.isatty():
        return Style(_PIPED_WIDTH)
    columns = shutil.get_terminal_size((_PIPED_WIDTH, 24)).columns
    return Style(columns, colour="NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb")


def _encodable(text: str) -> str:
    """Replace what stdout's encoding cannot hold; a C locale must not end a long run with an error."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text
