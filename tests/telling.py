"""A progress that keeps what it is told, for tests of what users read."""

from __future__ import annotations

from enginery.progress import Progress


class Said(Progress):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line."""
        self.lines.append(line)
