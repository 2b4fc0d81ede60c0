"""Trained model → graph. The one table of sources; everything that names them derives from it."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import SourceError, SourceNotFoundError
from enginery.spec import Example

if TYPE_CHECKING:
    from enginery.sources.base import Source

__all__ = ["SOURCES", "SourceRow", "nearest_files", "open_source"]


@dataclass(frozen=True)
class SourceRow:
    """Where a source lives and what it takes.

    Its module has ``recognises(thing) -> bool``, which is cheap and imports no framework, and
    ``open(thing, *, examples, example_inputs) -> Source``.

    Args:
        module: dotted name of the module.
        extra: the extra of Enginery that installs its framework; empty where none is needed.
        summary: what it takes, in one line.
    """

    module: str
    extra: str
    summary: str


SOURCES: dict[str, SourceRow] = {
    "onnx": SourceRow("enginery.sources.onnx_file", "", "an ONNX file (model.onnx) or an ONNX model in memory"),
    "torch": SourceRow(
        "enginery.sources.torch_module",
        "torch",
        "a PyTorch module in memory, or the function that returns one: file.py:factory or package.module:factory",
    ),
}

_NOT_YET = {
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".h5": "a Keras file",
    ".keras": "a Keras file",
}


def open_source(thing: Any, *, examples: Sequence[Example] = (), example_inputs: Any = None) -> Source:
    """Open a trained model of any known kind.

    Args:
        thing: a path, ``file.py:factory``, ``package.module:factory``, a model in memory, or a source that is open.
        examples: name, dtype and shape of each input, where the source itself does not know them.
        example_inputs: real inputs of one call: an array, a tuple of them, or a dict by name.

    Raises:
        SourceNotFoundError: there is no such file, module or factory; the nearest is suggested.
        SourceError: it is nothing that Enginery can take yet.
        MissingExtraError: its framework is not installed.
    """
    from enginery.sources.base import Source

    if isinstance(thing, Source):
        return thing
    for row in SOURCES.values():
        module = importlib.import_module(row.module)
        if module.recognises(thing):
            source: Source = module.open(thing, examples=tuple(examples), example_inputs=example_inputs)
            return source
    raise _refusal(thing)


def nearest_files(path: Path, *, limit: int = 3) -> str:
    """Say which files of the folder have names near `path`'s, as a mend."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} either; check the path"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, n=limit, cutoff=0.5)
    near = near or [name for name in names if path.suffix and name.endswith(path.suffix)][:limit]
    where = "this folder" if folder == Path() else str(folder)
    if not near:
        return f"{where} holds nothing of a similar name; check the path"
    return f"did you mean {' or '.join(repr(str(folder / name)) for name in near)}?"


def _refusal(thing: Any) -> SourceError:
    accepted = "; ".join(row.summary for row in SOURCES.values())
    if not isinstance(thing, (str, Path)):
        return SourceError(f"a {_type_name(thing)} is no trained model that Enginery knows", mend=f"give {accepted}")
    path = Path(thing)
    kind = "a TensorFlow SavedModel" if (path / "saved_model.pb").is_file() else _NOT_YET.get(path.suffix.lower())
    if kind and path.exists():
        mend = "export it to ONNX, or give file.py:factory, a function that returns the PyTorch module"
        return SourceError(f"{path} is {kind}, which is not yet supported", mend=mend)
    if not path.exists():
        return SourceNotFoundError(f"there is no {path}", mend=nearest_files(path))
    if (path / "engine.json").is_file():
        return SourceError(f"{path} is an engine, not a trained model", mend="give what it was built from")
    return SourceError(f"{path} is no trained model that Enginery knows", mend=f"give {accepted}")


def _type_name(thing: Any) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
