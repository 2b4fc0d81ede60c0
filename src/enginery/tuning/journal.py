"""What a search has measured, kept as it goes: one line of JSON each, so that a search that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from enginery.errors import DataError
from enginery.plain import to_plain
from enginery.staging import writing

__all__ = ["NAME", "Journal"]

NAME = "search.jsonl"
"""The file that holds the lines."""


class Journal:
    """Measurements by what was measured; a second run of the same search finds those of the first.

    Args:
        folder: where the lines are; None to keep them in memory only.

    Raises:
        DataError: a line is none of ours. One that was cut short by a kill, the last one, is measured again.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Journal(Path(folder)).keep(("simulated", "fp16"), {"error": 0.5})
        ...     Journal(Path(folder)).recall(("simulated", "fp16"))
        {'error': 0.5}
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder is not None else None
        self._known: dict[str, Any] = {}
        if self._path is None or folder is None:
            return
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._read(self._path)

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, what: Any) -> Any | None:
        """Return what was found when this was measured before; None where it was not."""
        return self._known.get(_key(what))

    def keep(self, what: Any, found: Any) -> None:
        """Write down what was found; it is on the disk when this returns."""
        key, plain = _key(what), to_plain(found)
        self._known[key] = plain
        if self._path is None:
            return
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "found": plain}, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        whole, _, cut = text.rpartition("\n")
        if cut:
            path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        self._known |= dict(
            _entry(line, f"line {number} of {path}") for number, line in enumerate(whole.splitlines(), 1)
        )


def _entry(line: str, where: str) -> tuple[str, Any]:
    try:
        entry = json.loads(line)
        return entry["key"], entry["found"]
    except (ValueError, KeyError, TypeError) as error:
        mend = "remove the file, and begin the search anew"
        raise DataError(f"{where} is no measurement: {error!r}", mend=mend) from error


def _key(what: Any) -> str:
    return hashlib.sha256(json.dumps(to_plain(what), sort_keys=True).encode()).hexdigest()
