"""What was found, written after every step, so that a crash of one stage loses nothing of the others."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Store", "keep_log", "look_up"]


class Store:
    """Results by stage and key, in ``results.json`` of each of some folders.

    Args:
        folders: the first one's file is read where it is there already, so that a later call adds to it.
    """

    def __init__(self, *folders: Path) -> None:
        self.paths = [folder / "results.json" for folder in folders]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, Any] = {}
        self._lock = threading.Lock()
        if self.paths[0].is_file():
            self.found = json.loads(self.paths[0].read_text(encoding="utf-8"))

    def put(self, stage: str, **found: Any) -> None:
        """Add to a stage's results, and write all of them."""
        with self._lock:
            self.found.setdefault(stage, {}).update(_plain(found))
            self._write()

    def drop(self, stage: str, *keys: str) -> None:
        """Forget some keys of a stage, where they are there."""
        with self._lock:
            for key in keys:
                self.found.get(stage, {}).pop(key, None)

    def _write(self) -> None:
        """Write the file in every folder; a reader never sees half of one."""
        text = json.dumps(self.found, indent=1) + "\n"
        for path in self.paths:
            part = path.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(path)


def look_up(found: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Return what stands under the keys, one inside the other; None where nothing does.

    Example:
        >>> look_up({"latency": {"ratio": 1.02}}, ("latency", "ratio")), look_up({}, ("latency", "ratio"))
        (1.02, None)
    """
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def _plain(value: Any) -> Any:
    """Return what JSON can hold: five digits of a float are enough, and infinity becomes a word."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (str, int, bool)) else str(value)


def keep_log(folder: Path, output: Path, since: float = 0.0, most: int = 200_000) -> None:
    """Keep the log that a build wrote since some time: of a longer one than `most`, its head and its tail."""
    files = [path for path in folder.glob("*.log") if path.stat().st_mtime >= since] if folder.is_dir() else []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        if len(text) > most:
            text = f"{text[: most * 3 // 4]}\n... {len(text) - most} characters ...\n{text[-most // 4 :]}"
        with output.open("a", encoding="utf-8") as file:
            file.write(text)
