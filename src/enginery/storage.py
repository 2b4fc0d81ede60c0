"""On disk: everything is written under a temporary name and renamed, so that nothing half-written looks finished.

An engine is a folder: the raw artefact as its vendor's tools expect it, beside ``engine.json``, the manifest. The
manifest is read, and every file checked against it, before a byte of the artefact is handed to a backend.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from enginery.errors import (
    DiskFullError,
    EngineFolderError,
    HashMismatchError,
    ManifestError,
    OutputError,
    OutputExistsError,
)
from enginery.records import SCHEMA, FileRecord, ManifestRecord, from_json, to_json

__all__ = [
    "MANIFEST",
    "adopt_folder",
    "check_files",
    "hash_file",
    "is_engine_folder",
    "make_staging",
    "new_file",
    "new_folder",
    "read_manifest",
    "record_files",
    "refuse_to_replace",
    "stagings",
    "write_manifest",
    "write_text",
    "writing",
]

MANIFEST = "engine.json"
_CHUNK_BYTES = 1 << 20
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the name `path` when the block ends without an error.

    An engine folder that already stands at `path` is replaced; anything else there is left alone.

    Raises:
        OutputExistsError: `path` is a file, or a folder that is no engine and not empty.
        OutputError: the parent cannot be written to.
        DiskFullError: no space is left.
    """
    path = Path(path).resolve()
    refuse_to_replace(path)
    staging = make_staging(path)
    try:
        with writing(path):
            yield staging
            staging.chmod(0o777 & ~_umask())
            for file in staging.rglob("*"):
                _fsync(file)
            _fsync(staging)
            _swap(staging, path)
            _fsync(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which takes its name when the block ends without an error.

    Raises:
        OutputError: the folder cannot be written to, or `path` is a folder.
        DiskFullError: no space is left.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder", mend="name a file")
    folder = make_staging(path)
    part = folder / path.name
    try:
        with writing(path):
            yield part
            _fsync(part)
            part.replace(path)
            _fsync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_staging(path: Path) -> Path:
    """Make a folder beside `path`, on the same file system, for what will take its name; the caller removes it.

    Raises:
        OutputError: the parent of `path` cannot be written to.
        DiskFullError: no space is left.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))


def stagings(path: Path) -> set[Path]:
    """Return the temporary names under which `path` is being written now, or was when its writer was killed."""
    path = Path(path).resolve()
    return set(path.parent.glob(f".{glob.escape(path.name)}.*.part"))


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into `OutputError` and `DiskFullError`.

    A refusal that names a file elsewhere, such as a source that may not be read, passes through as it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = f"free some space, or name an output on another disk ({_free(path)} free here)"
            raise DiskFullError(f"no space is left to write {path}", mend=mend) from error
        if error.errno in _REFUSALS and _is_beside(error, path):
            mend = "name an output folder that you may write to"
            raise OutputError(f"cannot write {path}: {error.strerror}", mend=mend) from error
        raise


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Return the size and hash of every file below `folder` but the manifest, by its relative name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    return {file.relative_to(folder).as_posix(): FileRecord(hash_file(file), file.stat().st_size) for file in files}


def is_engine_folder(path: Path) -> bool:
    """Say whether `path` is a folder with a manifest in it."""
    return (Path(path) / MANIFEST).is_file()


def write_manifest(folder: Path, manifest: ManifestRecord) -> None:
    """Write ``engine.json`` into `folder`, whole or not at all."""
    write_text(folder / MANIFEST, to_json(manifest) + "\n")


def read_manifest(folder: Path) -> ManifestRecord:
    """Read the manifest of an engine folder, without looking at any other file.

    Raises:
        EngineFolderError: there is no such folder.
        ManifestError: it has no manifest, or one that this version cannot read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EngineFolderError(f"there is no engine folder {folder}", mend="build one, or check the path")
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        mend = "name a folder that `enginery build` or `enginery optimize` wrote"
        raise ManifestError(f"{folder} holds no {MANIFEST}, so it is no engine folder", mend=mend) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {folder / MANIFEST}: {error}", mend="build the engine again") from error
    manifest = from_json(ManifestRecord, text)
    if manifest.schema != SCHEMA:
        mend = "read it with the Enginery that wrote it, or build it again"
        raise ManifestError(f"{folder / MANIFEST} has format {manifest.schema}, this is {SCHEMA}", mend=mend)
    return manifest


def check_files(folder: Path, files: Mapping[str, FileRecord]) -> None:
    """Compare the files of a folder with their manifest's sizes and hashes.

    Raises:
        HashMismatchError: a file is missing, or is not the one that was recorded.
    """
    mend = "the folder was changed or cut short: copy it again, or build it again"
    for name, expected in files.items():
        file = folder / name
        if not _inside(folder, file) or not file.is_file():
            raise HashMismatchError(f"{file} is missing, and the manifest lists it", mend=mend)
        size = file.stat().st_size
        if size != expected.bytes:
            message = f"{file} has {size} bytes, the manifest says {expected.bytes}"
            raise HashMismatchError(message, mend=mend)
        found = hash_file(file)
        if found != expected.sha256:
            message = f"{file} hashes to {found[:12]}, the manifest says {expected.sha256[:12]}"
            raise HashMismatchError(message, mend=mend)


def _inside(folder: Path, file: Path) -> bool:
    return file.resolve().is_relative_to(folder.resolve())


def adopt_folder(staged: Path, path: Path) -> None:
    """Give a finished engine folder, on the same file system, the name `path`; an engine there is replaced.

    Raises:
        OutputExistsError: something that is no engine stands at `path`.
        OutputError: the name cannot be taken.
    """
    path = Path(path).resolve()
    refuse_to_replace(path)
    with writing(path):
        _swap(Path(staged), path)
        _fsync(path.parent)


def refuse_to_replace(path: Path) -> None:
    """Raise `OutputExistsError` where `path` is a file, or a folder with something else than an engine in it."""
    if path.is_dir() and not is_engine_folder(path) and any(path.iterdir()):
        mend = "name another output folder, or empty this one"
        raise OutputExistsError(f"{path} is a folder with other things in it", mend=mend)
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file", mend="name a folder for the engine")


def _swap(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
        return
    # An empty folder may be renamed over, and its name is nobody else's.
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    path.rename(old)
    try:
        staging.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _is_beside(error: OSError, path: Path) -> bool:
    """Say whether an error is about `path`, its folders, or what lies beside it; one that names no file may be."""
    if not isinstance(error.filename, str):
        return True
    named = Path(error.filename).absolute()
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.0f} MiB"
