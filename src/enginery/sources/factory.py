"""Calls the function that a user named as ``file.py:factory`` or ``package.module:factory``."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from enginery.errors import SourceError, SourceNotFoundError
from enginery.python_files import import_file, importable, nearest_function
from enginery.sources import nearest_files
from enginery.sources.blame import likely_line
from enginery.streams import stdout_to_stderr

__all__ = ["call_factory", "is_factory"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_factory(text: str) -> bool:
    """Say whether a text names a factory; a ``.py`` file without one counts, to be told what is missing.

    Example:
        >>> [is_factory(text) for text in ("models/net.py:make", "package.net:make", "net.py", "net.onnx")]
        [True, True, True, False]
    """
    place, colon, name = text.rpartition(":")
    if not colon:
        return text.endswith(".py")
    return name.isidentifier() and (place.endswith(".py") or _DOTTED.fullmatch(place) is not None)


def call_factory(text: str) -> Any:
    """Import what `text` names, and only that, call it without arguments, and return what it returned.

    Raises:
        SourceNotFoundError: no such file, module or factory; the nearest is suggested.
        SourceError: importing or calling it raised; the message has the user's own line.
    """
    place, colon, name = text.rpartition(":")
    if not colon:
        raise SourceError(f"{text} names no factory", mend=_offer(Path(text)))
    is_file = place.endswith(".py")
    with importable(Path(place).parent if is_file else Path()), stdout_to_stderr():
        module = _import_file(Path(place)) if is_file else _import_package(place)
        if not hasattr(module, name):
            raise SourceNotFoundError(f"{place} has no {name!r}", mend=nearest_function(module, name, place))
        found = getattr(module, name)
        if not callable(found) or (hasattr(found, "state_dict") and not isinstance(found, type)):
            return found  # a model that is made at import is as good as a function that makes it
        try:
            return found()
        except (Exception, SystemExit) as error:
            raise _raised(error, f"calling {text}()") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file {path}", mend=nearest_files(path))
    try:
        return import_file(path)
    except (Exception, SystemExit) as error:
        raise _raised(error, f"importing {path.name}") from error


def _import_package(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(f"{error.name}.")):
            mend = "run from the folder that holds it, install it, or give file.py:factory"
            raise SourceNotFoundError(f"there is no module {error.name!r}, asked for as {place}", mend=mend) from error
        raise _raised(error, f"importing {place}") from error
    except (Exception, SystemExit) as error:
        raise _raised(error, f"importing {place}") from error


def _raised(error: BaseException, doing: str) -> SourceError:
    line = likely_line(error)
    where = f" at {line}" if line else ""
    return SourceError(f"{doing} raised {type(error).__name__}: {error}{where}", mend="mend it there, and try again")


def _offer(path: Path) -> str:
    """List the functions of a file without importing it."""
    if not path.is_file():
        return nearest_files(path)
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        return f"name the function that returns the model, as {path}:NAME (it cannot be parsed: {error})"
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
    options = " or ".join(f"{path}:{name}" for name in names[:4]) or f"{path}:NAME"
    return f"name the function that returns the model: {options}"
