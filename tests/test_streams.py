"""What other people's code says is kept, turned aside or stilled, and everything is put back."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from enginery.streams import captured_stderr, quiet, stdout_to_stderr, still_loggers


def test_native_lines_are_captured():
    """Lines written past sys.stderr, to the descriptor itself, land in the list."""
    with captured_stderr() as lines:
        os.write(2, b"from native code\n")
        print("from Python", file=sys.__stderr__, flush=True)
    assert lines == ["from native code", "from Python"]


def test_quiet_keeps_prints_and_gives_the_warnings(capsys):
    """Nothing is shown while the block works, warnings are handed out, and levels are put back after an error."""
    logger = logging.getLogger("noisy")
    logger.setLevel(logging.INFO)
    with pytest.raises(ValueError, match="no"), quiet("noisy") as caught:
        sys.stdout.write("loud")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert logger.level == logging.CRITICAL
        raise ValueError("no")
    assert [str(warning.message) for warning in caught] == ["old"]
    assert logger.level == logging.INFO
    assert capsys.readouterr() == ("", "")


def test_loggers_are_stilled_below_a_level():
    """Errors may still be told."""
    with still_loggers("noisy"):
        assert not logging.getLogger("noisy").isEnabledFor(logging.WARNING)
        assert logging.getLogger("noisy").isEnabledFor(logging.ERROR)


def test_prints_go_to_stderr(capsys):
    """Stdout may be a record that someone parses."""
    with stdout_to_stderr():
        sys.stdout.write("hello\n")
    assert capsys.readouterr() == ("", "hello\n")
