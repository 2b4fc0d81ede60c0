"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

from enginery.progress import Progress, Step

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["PlainProgress", "TerminalProgress", "progress_for"]

_REFRESHES_PER_SECOND = 8
_REPEAT_S = 5.0
"""A step whose name was told before is told again after this long; turns of a benchmark are many."""
_ADVANCE_S = 10.0
"""A step that says how far it has come is told again after this long."""


def progress_for(stream: TextIO) -> PlainProgress | TerminalProgress:
    """Return the progress that fits a stream."""
    return TerminalProgress(stream) if stream.isatty() else PlainProgress(stream)


def shown(step: Step) -> str:
    """Write a step's name and, where it tells, how far it is, such as ``build tensorrt: 43 % (timing conv1)``."""
    fraction = step.fraction(time.monotonic())
    if step.advance is None or fraction is None:
        return step.name
    return f"{step.name}: {100 * fraction:.0f} % ({step.advance.phase})"


class _Shown(Progress):
    """A progress that writes to a stream and is closed at the end."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def say(self, line: str) -> None:
        """Write a loud line."""
        self.write(f"note: {line}")

    def write(self, line: str) -> None:
        """Write a line of its own."""
        self.stream.write(f"{line}\n")
        self.stream.flush()

    def close(self) -> None:
        """Stop showing."""

    def clock(self) -> str:
        """Write the time passed and, where it can be told, the time expected in all."""
        elapsed, left = self.elapsed_s(), self.remaining_s()
        return f"{elapsed:3.0f} s" if left is None else f"{elapsed:3.0f} s / ~{elapsed + left:.0f} s"


class PlainProgress(_Shown):
    """Writes a line when a step begins, such as ``[ 12 s / ~45 s] bench openvino``, and while a long one goes on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._told: set[str] = set()
        self._last: Step | None = None
        self._last_line = float("-inf")

    def changed(self) -> None:
        """Tell the step that runs now, unless it was told just before; a long one is told again with how far it is."""
        step, now = self.current(), time.monotonic()
        if step is None:
            return
        if step is self._last:
            if step.advance is not None and now - self._last_line >= _ADVANCE_S:
                self._last_line = now
                self.write(f"[{self.clock()}] {shown(step)}")
            return
        self._last = step
        if step.name in self._told and now - self._last_line < _REPEAT_S:
            return
        self._told.add(step.name)
        self._last_line = now
        self.write(f"[{self.clock()}] {step.name}")


class TerminalProgress(_Shown):
    """Draws one line that stays at the bottom: the step, a bar by time, the time passed and expected."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._live: Live | None = None

    def start(self) -> None:
        """Begin to draw; the line is taken away by `close`."""
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self._draw, console=Console(file=self.stream, highlight=False), transient=True,
            refresh_per_second=_REFRESHES_PER_SECOND, redirect_stdout=False, redirect_stderr=True,
        )  # fmt: skip
        self._live.start()

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        if self._live is None:
            super().write(line)
        else:
            self._live.console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away; what was written above it stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step = self.current()
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=1.0, completed=self.fraction(), width=30, complete_style="green"),
            Text(self.clock()),
            Text(shown(step) if step is not None else "", style="bold", overflow="ellipsis", no_wrap=True),
        )
        return line
