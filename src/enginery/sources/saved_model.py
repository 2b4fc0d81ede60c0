"""A SavedModel: the folder that TensorFlow, and `model.export` of Keras, write for serving."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from enginery.errors import CorruptModelError
from enginery.sources.tensorflow.process import require_tensorflow
from enginery.sources.tensorflow.source import Place, TensorflowSource
from enginery.spec import SourceSpec
from enginery.storage import hash_file

__all__ = ["open", "recognises"]

OPTIONS = frozenset({"signature"})
_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def recognises(thing: Any) -> bool:
    """Say whether it is a folder that holds ``saved_model.pb`` or what belongs to it, or that file itself."""
    if not isinstance(thing, (str, Path)):
        return False
    folder = Path(thing)
    if folder.name in _GRAPHS:
        return folder.is_file()
    return any((folder / name).is_file() for name in (*_GRAPHS, "variables/variables.index"))


def open(thing: Any, spec: SourceSpec) -> TensorflowSource:  # noqa: A001
    """Open a SavedModel; nothing is loaded before it is needed.

    Args:
        thing: the folder's path.
        spec: its signature names the function to take; else the only one, or ``serving_default``.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        CorruptModelError: the folder has variables, and no graph.
    """
    folder = Path(thing).absolute()
    folder = folder.parent if folder.name in _GRAPHS else folder
    if not any((folder / name).is_file() for name in _GRAPHS):
        raise CorruptModelError(
            f"{thing} has variables, and no {_GRAPHS[0]}", mend="copy the whole folder again, or save the model again"
        )
    require_tensorflow("to take a SavedModel")
    return TensorflowSource(
        "saved_model",
        f"SavedModel {folder.name}",
        (lambda _: Place(folder, "saved_model"),),
        lambda: _hash_folder(folder),
        spec,
    )


def _hash_folder(folder: Path) -> str:
    """Hash the name and bytes of every file."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()
