"""On disk: everything is written under a temporary name and renamed, so that nothing half-written looks finished.

An engine is a folder: the raw artefact as its vendor's tools expect it, beside ``engine.json``, the manifest. The
manifest is read, and every file checked against it, before a byte of the artefact is handed to a backend.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from enginery.errors import (
    EngineFolderError,
    HashMismatchError,
    ManifestError,
    OutputError,
    OutputExistsError,
)
from enginery.plain import from_json, from_plain, to_json
from enginery.records import SCHEMA, FileRecord, LayerRecord, ManifestRecord
from enginery.staging import staging, swap, writing

__all__ = [
    "LAYERS",
    "MANIFEST",
    "PLAN",
    "adopt_folder",
    "check_files",
    "hash_file",
    "is_engine_folder",
    "keep_records",
    "new_file",
    "new_folder",
    "read_layers",
    "read_manifest",
    "record_files",
    "refuse_inside_engine",
    "refuse_to_replace",
    "write_manifest",
    "write_text",
]

MANIFEST = "engine.json"

LAYERS = "layers.json"
"""The layers of an engine, a list of `enginery.records.LayerRecord`, where its backend tells them."""

PLAN = "precision.json"
"""The precision of each node, as a file that can be edited and given to another build."""

_CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def new_folder(path: Path, kind: str = MANIFEST) -> Iterator[Path]:
    """Yield an empty folder that takes the name `path` when the block ends without an error.

    A folder of the same kind, such as an engine, that stands at `path` is replaced; anything else there is left alone.

    Args:
        path: of the folder.
        kind: name of the file by which a folder of this kind is known.

    Raises:
        OutputExistsError: `path` is a file, or a folder that is of another kind and not empty.
        OutputError: the parent cannot be written to.
        DiskFullError: no space is left.
    """
    path = Path(path).resolve()
    refuse_to_replace(path, kind)
    with staging(path) as folder:
        yield folder
        folder.chmod(0o777 & ~_umask())
        for file in folder.rglob("*"):
            _fsync(file)
        _fsync(folder)
        swap(folder, path)
        _fsync(path.parent)


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
    if path.name != MANIFEST:
        refuse_inside_engine(path)
    with staging(path) as folder:
        part = folder / path.name
        yield part
        _fsync(part)
        part.replace(path)
        _fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


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


def keep_records(folder: Path, manifest: ManifestRecord, say: Callable[[str], None]) -> None:
    """Write a manifest that has new records; where it cannot be written, say so: what was found is worth more."""
    try:
        write_manifest(folder, manifest)
    except OutputError as error:
        say(f"the record is not kept in the engine: {error.message}")


def read_manifest(folder: Path) -> ManifestRecord:
    """Read the manifest of an engine folder, without looking at any other file.

    Raises:
        EngineFolderError: there is no such folder.
        ManifestError: it has no manifest, or one that this version cannot read.
    """
    folder = Path(folder)
    if folder.is_file():
        raise EngineFolderError(f"{folder} is a file, no engine folder", mend="build one from it: `enginery build`")
    if not folder.is_dir():
        raise EngineFolderError(f"there is no engine folder {folder}", mend="build one, or check the path")
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        mend = "name a folder that `enginery build` or `enginery optimize` wrote"
        raise ManifestError(f"{folder} holds no {MANIFEST}, so it is no engine folder", mend=mend) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"cannot read {folder / MANIFEST}: {error}", mend="build the engine again") from error
    _check_schema(folder / MANIFEST, text)
    try:
        return from_json(ManifestRecord, text)
    except ManifestError as error:
        raise ManifestError(f"{folder / MANIFEST} is damaged: {error.message}", mend=error.mend) from error


def read_layers(folder: Path) -> tuple[LayerRecord, ...]:
    """Read what an engine is made of, in its own order; of one in parts, those parts that tell, in theirs.

    Raises:
        EngineFolderError: its backend kept no such list.
        ManifestError: the list is damaged.
    """
    if (Path(folder) / LAYERS).is_file():
        return _read_list(Path(folder) / LAYERS)
    lists = sorted(Path(folder).glob(f"part_*/{LAYERS}"), key=lambda file: int(file.parent.name.split("_")[1]))
    if not lists:
        mend = (
            "TensorRT's engines have one; of others, `enginery inspect` shows how many operators run in each precision"
        )
        raise EngineFolderError(f"{folder} does not list its layers: it holds no {LAYERS}", mend=mend)
    return tuple(
        replace(layer, name=f"part {file.parent.name.split('_')[1]}: {layer.name}")
        for file in lists
        for layer in _read_list(file)
    )


def _read_list(file: Path) -> tuple[LayerRecord, ...]:
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(f"{file} is damaged: {error}", mend="build the engine again") from error
    if not isinstance(listed, list):
        raise ManifestError(f"{file} is damaged: it holds no list", mend="build the engine again")
    return tuple(from_plain(LayerRecord, one) for one in listed)


def _check_schema(file: Path, text: str) -> None:
    """Refuse another format before anything of it is read: its fields may be others."""
    with contextlib.suppress(ValueError, AttributeError):  # no JSON, or no object: the reader says so
        schema = json.loads(text).get("schema", SCHEMA)
        if schema != SCHEMA:
            message = f"{file} has format {schema}, and this Enginery reads format {SCHEMA}"
            raise ManifestError(message, mend="read it with the Enginery that wrote it, or build it again")


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
        for file in (*Path(staged).rglob("*"), Path(staged)):
            _fsync(file)
        swap(Path(staged), path)
        _fsync(path.parent)


def refuse_to_replace(path: Path, kind: str = MANIFEST) -> None:
    """Refuse an output that would take something else's place.

    Args:
        path: of the output.
        kind: name of the file by which a folder of the same kind is known.

    Raises:
        OutputExistsError: `path` is a file, or a folder with something else than an engine in it.
        OutputError: `path` is inside an engine folder, or cannot be looked at.
    """
    refuse_inside_engine(path)
    with writing(path):
        if path.is_dir() and not (path / kind).is_file() and any(path.iterdir()):
            mend = "name another output folder, or empty this one"
            raise OutputExistsError(f"{path} is a folder with other things in it", mend=mend)
        if path.exists() and not path.is_dir():
            raise OutputExistsError(f"{path} is a file", mend="name a folder")


def refuse_inside_engine(path: Path) -> None:
    """Raise `OutputError` where `path` is inside an engine folder, which holds what its manifest lists and no more."""
    for folder in Path(path).absolute().parents:
        if is_engine_folder(folder):
            message = f"{path} would be inside the engine {folder}, and go with it when that is built again"
            raise OutputError(message, mend="name an output outside of it")


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
