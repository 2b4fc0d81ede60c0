"""Progress on stderr: plain lines where it is piped, a bar on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from enginery.cli.progress import PlainProgress, TerminalProgress, progress_for
from enginery.progress import Advance


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_the_stream_decides():
    """A terminal gets a bar, anything else lines."""
    assert isinstance(progress_for(io.StringIO()), PlainProgress)
    assert isinstance(progress_for(Terminal()), TerminalProgress)


def test_plain_lines_tell_the_time_passed_and_expected():
    """Each step has one line when it begins."""
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.plan(("build", 10.0), ("bench openvino", 20.0))
    with progress.step("build"):
        pass
    with progress.step("bench openvino"):
        progress.say("look here")
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"\d+", "N", line) for line in lines] == [
        "[  N s / ~N s] build", "[  N s / ~N s] bench openvino", "note: look here",
    ]  # fmt: skip
    assert lines[0] == "[  0 s / ~30 s] build"


def test_turns_are_not_told_again_and_again():
    """A step whose name was just told is silent; a new one is not."""
    stream = io.StringIO()
    progress = PlainProgress(stream)
    for name in ("a", "b", "a", "b", "c"):
        with progress.step(name):
            pass
    assert [line.split("] ")[1] for line in stream.getvalue().splitlines()] == ["a", "b", "c"]


def test_a_long_step_is_told_again_every_ten_seconds(monkeypatch):
    """Its line says how far it is and what it does; announcements between are silent."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.started = now[0]
    progress.plan(("build", 10.0))
    with progress.step("build"):
        for second in range(1, 26):
            now[0] = float(second)
            progress.advanced(Advance(second / 50, f"timing conv{second}", expected_s=50.0))
    assert stream.getvalue().splitlines() == [
        "[  0 s / ~10 s] build",
        "[ 10 s / ~50 s] build: 20 % (timing conv10)",
        "[ 20 s / ~50 s] build: 40 % (timing conv20)",
    ]


def test_a_terminal_shows_how_far_a_long_step_is(monkeypatch):
    """The bar's line names percent and phase."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.start()
    progress.plan(("build", 10.0))
    with progress.step("build"):
        progress.advanced(Advance(0.43, "timing conv7", expected_s=100.0))
        progress._live.refresh()
    progress.close()
    assert "build: 43 % (timing conv7)" in stream.getvalue()


@pytest.mark.filterwarnings("error")
def test_a_terminal_shows_a_bar_and_takes_it_away(monkeypatch):
    """Loud lines stand above the bar; after `close` lines are written as they are."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = TerminalProgress(stream)
    progress.start()
    progress.plan(("build", 10.0))
    with progress.step("build"):
        progress.say("[bold]not markup[/bold]")
        progress._live.refresh()
    progress.close()
    progress.close()
    progress.say("afterwards")
    shown = stream.getvalue()
    assert "note: [bold]not markup[/bold]" in shown
    assert "build" in shown
    assert shown.endswith("note: afterwards\n")
