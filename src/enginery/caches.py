"""What is kept for the user between runs: where, and how two processes change one file without losing either's part."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cache_folder", "cache_path", "changed_alone"]


def cache_path() -> Path:
    """Return where things are kept for the user: ``ENGINERY_CACHE``, else below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    if own := os.environ.get("ENGINERY_CACHE"):
        return Path(own).absolute()
    root = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "enginery"


def cache_folder(*parts: str) -> Path:
    """Return a folder below `cache_path`, made where it is missing.

    Raises:
        OSError: it cannot be made.
    """
    folder = cache_path().joinpath(*parts)
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
