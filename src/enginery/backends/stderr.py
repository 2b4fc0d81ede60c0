"""What a native library writes to the process's stderr, kept instead of shown."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

__all__ = ["captured_stderr"]

_LOCK = threading.Lock()  # the descriptor belongs to the whole process


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the lines that were written to file descriptor 2 within it.

    Native libraries write there past `sys.stderr`. Other threads' lines land in the list too, so keep the block short.
    """
    lines: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines.extend(file.read().decode(errors="replace").splitlines())
