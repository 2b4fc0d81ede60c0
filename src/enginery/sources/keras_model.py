"""A Keras model: a ``.keras`` or ``.h5`` file, or a model in memory, with whatever backend Keras has there."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

from enginery.errors import CorruptModelError, SourceError, SourceNotFoundError
from enginery.sources import nearest_files
from enginery.sources.blame import explain
from enginery.sources.tensorflow.process import require_tensorflow
from enginery.sources.tensorflow.source import Place, TensorflowSource
from enginery.spec import SourceSpec
from enginery.storage import hash_file
from enginery.streams import quiet

__all__ = ["open", "recognises"]

OPTIONS: frozenset[str] = frozenset()
_ZIPPED = ".keras"
_SUFFIXES = (_ZIPPED, ".h5", ".hdf5")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LIBRARIES = ("keras", "tf_keras")
_NOISY = ("absl", "keras", "tensorflow")


def recognises(thing: Any) -> bool:
    """Say whether it is a path that ends in ``.keras`` or ``.h5``, or a Keras model in memory."""
    if isinstance(thing, (str, Path)):
        return Path(thing).suffix.lower() in _SUFFIXES
    kinds = (getattr(sys.modules.get(name), "Model", None) for name in _LIBRARIES)
    return any(kind is not None and isinstance(thing, kind) for kind in kinds)


def open(thing: Any, spec: SourceSpec) -> TensorflowSource:  # noqa: A001
    """Open a Keras model; nothing is loaded before it is needed.

    Args:
        thing: a path, or a model in memory, which is saved for the framework's process when it is first needed.
        spec: its example inputs size what the model leaves open.

    Raises:
        MissingExtraError: TensorFlow is not installed.
        SourceNotFoundError: there is no such file; the nearest names are suggested.
        CorruptModelError: the file is not what its name says, or is cut short.
        SourceError: the model has no input shape yet.
    """
    if isinstance(thing, (str, Path)):
        path = Path(thing).absolute()
        _check_file(path, str(thing))
        require_tensorflow("to take a Keras model")
        return TensorflowSource("keras", path.name, (lambda _: Place(path, "keras"),), lambda: hash_file(path), spec)
    _check_built(thing)
    require_tensorflow("to take a Keras model")
    label = f"keras model {thing.name}" + (f" ({spec.factory})" if spec.factory else "")
    places = (lambda folder: _save(thing, folder, label), lambda folder: _export(thing, folder, label))
    return TensorflowSource("keras", label, places, lambda: _hash_model(thing), spec)


def _check_file(path: Path, shown: str) -> None:
    """Look at a file's first bytes, or at its table of contents, before a framework is started for it."""
    if not path.exists():
        raise SourceNotFoundError(f"there is no file {shown}", mend=nearest_files(Path(shown)))
    if not path.is_file():
        raise SourceError(f"{shown} is a folder", mend="name the Keras file itself")
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5)) == _HDF5
    if not is_hdf5 and not (path.suffix.lower() == _ZIPPED and zipfile.is_zipfile(path)):
        raise CorruptModelError(
            f"{shown} is damaged or cut short: it is no {'zip' if path.suffix.lower() == _ZIPPED else 'HDF5'} file",
            mend="save or copy it again",
        )


def _check_built(model: Any) -> None:
    if not getattr(model, "built", False):
        raise SourceError(
            f"keras model {model.name} has no input shape yet",
            mend="call it once on real inputs, call build(), or begin it with keras.Input(shape=...)",
        )


def _save(model: Any, folder: Path, label: str) -> Place:
    """Save a model in memory for another process to load; its classes have to be Keras's own."""
    path = folder / "model.keras"
    try:
        with quiet(*_NOISY):
            model.save(path)
    except Exception as error:
        raise SourceError(f"{label} cannot be saved: {explain(error)}", mend="give it as a SavedModel") from error
    return Place(path, "keras")


def _export(model: Any, folder: Path, label: str) -> Place:
    """Export a model in memory as a SavedModel, which needs none of its classes."""
    path = folder / model.name
    try:
        with quiet(*_NOISY):
            model.export(str(path))
    except Exception as error:
        raise SourceError(
            f"{label} holds classes of its own, and cannot be exported as a SavedModel: {explain(error)}",
            mend="call it once on real inputs first; with a Keras backend other than TensorFlow, register its classes "
            "or give a factory that runs with KERAS_BACKEND=tensorflow",
        ) from error
    return Place(path, "saved_model")


def _hash_model(model: Any) -> str:
    """Hash a model's class, and the name, dtype, shape and bytes of each of its weights."""
    digest = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}\n".encode())
    try:
        digest.update(model.to_json().encode())
    except (NotImplementedError, TypeError, ValueError):  # classes that do not say their configuration
        digest.update(repr([layer.name for layer in model.layers]).encode())
    for variable, array in zip(model.weights, model.get_weights(), strict=True):
        digest.update(f"{getattr(variable, 'path', variable.name)} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
