"""Records as plain data and as JSON, and back.

A float that JSON cannot hold (NaN and the infinities) is written as the string ``"NaN"``, ``"Infinity"`` or
``"-Infinity"``, and read back as the float.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from enginery.errors import ManifestError

__all__ = ["from_json", "from_plain", "to_json", "to_plain"]

Record = TypeVar("Record")


def to_plain(value: Any) -> Any:
    """Turn a record into dicts, lists, strings, numbers and None.

    Example:
        >>> from enginery.records import CheckRecord
        >>> to_plain(CheckRecord("repeat", None, "one run"))
        {'name': 'repeat', 'passed': None, 'detail': 'one run'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def to_json(record: Any, *, indent: int | None = 2) -> str:
    """Write a record as JSON text."""
    return json.dumps(to_plain(record), indent=indent, allow_nan=False)


def from_json(kind: type[Record], text: str) -> Record:
    """Read a record of type `kind` from JSON text.

    Raises:
        ManifestError: the text is not JSON, or lacks a field, or holds one of the wrong type.

    Example:
        >>> from enginery.records import FileRecord
        >>> from_json(FileRecord, '{"sha256": "00", "bytes": 3}')
        FileRecord(sha256='00', bytes=3)
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"this is not JSON: {error}", mend="build the engine again") from error
    return from_plain(kind, plain)


def from_plain(kind: type[Record], plain: Any) -> Record:
    """Read a record of type `kind` from plain data; unknown fields are ignored, so that old code reads new files.

    Raises:
        ManifestError: a field is missing or of the wrong type.
    """
    try:
        return typing.cast("Record", _read(kind, plain, kind.__name__))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"not a {kind.__name__}: {error}", mend="build the engine again") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, plain: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return plain
    if origin in (types.UnionType, typing.Union):
        return _read_union(args, plain, where)
    if origin is tuple:
        if not isinstance(plain, list):
            raise TypeError(f"{where} is {plain!r}, not a list")
        return tuple(_read(args[0], item, f"{where}[{at}]") for at, item in enumerate(plain))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _read(args[1], item, f"{where}.{key}") for key, item in plain.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast("type", kind), plain, where)
    return _read_scalar(kind, plain, where)


def _read_union(args: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and type(None) in args:
        return None
    reasons = []
    for arg in args:
        if arg is not type(None):
            try:
                return _read(arg, plain, where)
            except TypeError as error:
                reasons.append(str(error))
    raise TypeError("; ".join(reasons))


def _read_dataclass(kind: type, plain: Any, where: str) -> Any:
    if not isinstance(plain, Mapping):
        raise TypeError(f"{where} is {plain!r}, not an object")
    values = {}
    for item in dataclasses.fields(kind):
        if item.name in plain:
            values[item.name] = _read(_hints(kind)[item.name], plain[item.name], f"{where}.{item.name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise TypeError(f"{where}.{item.name} is missing")
    return kind(**values)


def _read_scalar(kind: Any, plain: Any, where: str) -> Any:
    if kind is float:
        if plain in ("NaN", "Infinity", "-Infinity"):
            return float(plain)
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            return float(plain)
    elif isinstance(plain, kind) and (kind is bool or not isinstance(plain, bool)):
        return plain
    raise TypeError(f"{where} is {plain!r}, not {kind.__name__}")
