"""What is kept for the user between runs: where, and how two processes change one file without losing either's part."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cache_folder", "changed_alone"]


def cache_folder(*parts: str) -> Path:
    """Return a folder below the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``); made where missing.

    Raises:
        OSError: it cannot be made.
    """
    root = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    folder = base.joinpath("enginery", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def changed_alone(path: Path) -> Iterator[None]:
    """Let no other process into such a block for the same `path` until this one is done.

    The lock is on a file beside it, for `path` itself is replaced as a whole.
    """
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
