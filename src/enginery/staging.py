"""Work in progress has a temporary name beside its own: ``.NAME.<random>.part``, which never looks finished.

The process that works there holds a lock on that folder (flock(2)), and the system gives it back however the process
ends. So the next run to the same output knows what a killed one has left from what another one is writing now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from enginery.errors import DiskFullError, OutputError

__all__ = ["is_full", "remove_leftovers", "staging", "stagings", "swap", "writing"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EFBIG)
_PROBE_BYTES = 1 << 16
_SWAPS = 100


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path`, on its file system, gone when the block ends, however it ends.

    Parent folders that were made for it and stayed empty go with it. What killed processes have left is removed first.

    Args:
        path: absolute; what will stand there in the end.

    Raises:
        OutputError: the parent of `path` cannot be written to.
        DiskFullError: no space is left.
    """
    made: list[Path] = []
    folder, lock = path, None
    try:
        try:
            made += [parent for parent in path.parents if not parent.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            folder, lock = _make_locked(path)
        except OSError as error:
            raise _refused(error, path) from error
        with writing(path):
            yield folder
    finally:
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        for parent in made:
            with contextlib.suppress(OSError):  # it is not empty, and so is needed
                parent.rmdir()


def stagings(path: Path) -> set[Path]:
    """Return the temporary names under which `path` is being written now, or was when its writer was killed."""
    path = Path(path).resolve()
    return set(path.parent.glob(f".{glob.escape(path.name)}.*.part"))


def remove_leftovers(path: Path) -> None:
    """Remove the temporary folders of `path` whose process is dead; where the system cannot tell, they stay."""
    for left in stagings(path):
        with contextlib.suppress(OSError):  # in use, gone meanwhile, somebody else's, or locks are unknown there
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)


def swap(staged: Path, path: Path) -> None:
    """Give a finished folder the name `path`; the folder that stands there is removed.

    Several processes may do so at once: the last one's stays.
    """
    for _ in range(_SWAPS):
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        try:
            with contextlib.suppress(FileNotFoundError):  # nothing stands there
                path.rename(old)
            staged.rename(path)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                shutil.rmtree(old, ignore_errors=True)  # another process was quicker
                continue
            if any(old.iterdir()):
                old.rename(path)
            else:
                old.rmdir()
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
    raise OutputError(f"cannot write {path}: other processes keep writing it", mend="let one process write it")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into `OutputError` and `DiskFullError`.

    A refusal that names a file elsewhere, such as a source that may not be read, passes through as it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or (error.errno in _REFUSALS and _is_beside(error, path)):
            raise _refused(error, path) from error
        raise


def is_full(folder: Path) -> bool:
    """Say whether the disk of a folder is so full that not even a small file can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error.errno in _FULL
    return False


def _make_locked(path: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        with contextlib.suppress(FileNotFoundError):  # another process took it for a dead one's
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            except OSError:  # no locks on this file system: what is left here must be removed by hand
                return folder, handle
            if folder.exists():
                return folder, handle
            os.close(handle)


def _refused(error: OSError, path: Path) -> OutputError:
    if error.errno in _FULL:
        mend = f"free some space, or name an output on another disk ({_free(path)} free here)"
        return DiskFullError(f"no space is left to write {path}", mend=mend)
    if error.errno == errno.EFBIG:
        return OutputError(f"cannot write {path}: files may not become so large", mend="see `ulimit -f`, and raise it")
    file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
    reason = f"{file} is a file, no folder" if file is not None else error.strerror
    return OutputError(f"cannot write {path}: {reason}", mend="name an output folder that you may write to")


def _is_beside(error: OSError, path: Path) -> bool:
    """Say whether an error is about `path`, its folders, or what lies beside it; one that names no file may be."""
    if not isinstance(error.filename, str):
        return True
    named = Path(error.filename).absolute()
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB"
