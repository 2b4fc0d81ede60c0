"""Which line of the user's own code an error of another library is probably about."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from enginery.errors import EngineryError

__all__ = [
    "Frame",
    "explain",
    "is_ours",
    "likely_line",
    "line_of_file",
    "line_of_frames",
    "line_of_stack",
    "passed_through",
]

Frame = tuple[str, int, str]
"""File, line and function of one frame."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_SHOWN_LINES = 3
_SHOWN_CHARACTERS = 400
_OURS = str(Path(__file__).parents[1])
_STANDARD = sysconfig.get_paths()["stdlib"]


def likely_line(error: BaseException, *, framework: str = "torch") -> str:
    """Return ``file.py:12, in forward: if x.sum() > 0:``, or an empty text where no line of a user's is found.

    The user's own files are preferred; then a package that was installed beside the framework, as a model library is.

    Args:
        error: as it was caught; its causes and the frames quoted in their messages are searched too.
        framework: name of the package whose own lines are never meant.
    """
    return _shown([frame for cause in _chain(error) for frame in _frames(cause)], framework)


def line_of_stack(text: str, *, framework: str = "torch") -> str:
    """Return the user's line of a quoted stack, outermost frame first, as `likely_line` does."""
    found = [(file, int(line), function) for file, line, function in _FRAME.findall(text)]
    return _shown(found[::-1], framework)


def line_of_frames(frames: Sequence[Frame], *, framework: str = "torch") -> str:
    """Return the user's line among the frames of a call, innermost first, as `likely_line` does."""
    return _shown(list(frames), framework)


def line_of_file(file: str, line: int) -> str:
    """Return ``file.py:12: text`` for a line of the user's, or an empty text for one of a framework or of ours."""
    if file.startswith((_OURS, "<", _STANDARD)) or "site-packages" in file:
        return ""
    text = linecache.getline(file, line).strip()
    return f"{Path(file).name}:{line}" + (f": {text}" if text else "")


def passed_through(error: BaseException, function: str) -> bool:
    """Say whether an error, or a cause of it, came out of a function of that name."""
    return any(frame[2] == function for cause in _chain(error) for frame in _frames(cause))


def is_ours(file: str) -> bool:
    """Say whether a frame's file is of this package."""
    return file.startswith(_OURS)


def _shown(frames: list[Frame], framework: str) -> str:
    frames = [f for f in frames if not f[0].startswith((_OURS, "<")) and f"/{framework}/" not in f[0]]
    installed = [f for f in frames if "site-packages" in f[0]]
    own = [f for f in frames if f not in installed and not f[0].startswith(_STANDARD)]
    for file, line, function in (own or installed)[:1]:
        text = linecache.getline(file, line).strip()
        return f"{Path(file).name}:{line}, in {function}" + (f": {text}" if text else "")
    return ""


def explain(error: BaseException, *, framework: str = "torch") -> str:
    """Say why a library failed: the first lines of its deepest cause or of our own words, and the user's line."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, EngineryError):
        cause = cause.__cause__
    text = cause.message if isinstance(cause, EngineryError) else f"{type(cause).__name__}: {cause}"
    lines = [line.strip() for line in text.splitlines() if line.strip()][:_SHOWN_LINES]
    line = likely_line(error, framework=framework)
    shown = " ".join(lines)[:_SHOWN_CHARACTERS]
    return f"{shown} (at {line})" if line and line not in shown else shown


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _frames(error: BaseException) -> Iterator[Frame]:
    """Yield the frames of one error, innermost first: those of its traceback, then those its message quotes."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        yield frame.filename, frame.lineno or 0, frame.name
    for file, line, function in reversed(_FRAME.findall(str(error))):
        yield file, int(line), function
