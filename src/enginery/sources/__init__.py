"""Trained model → graph. The one table of sources; everything that names them derives from it."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import SourceError, SourceNotFoundError, UsageError
from enginery.optional import require
from enginery.spec import SourceOptions, SourceSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from enginery.sources.base import Source

__all__ = ["SOURCES", "SourceRow", "find_kind", "nearest_files", "open_source", "opened"]


@dataclass(frozen=True)
class SourceRow:
    """Where a source lives and what it takes.

    Its module has ``recognises(thing) -> bool``, which is cheap and imports no framework, and
    ``open(thing, spec: SourceSpec) -> Source``; ``OPTIONS`` names the fields of the spec that it takes. What a
    factory returned comes to the module like any model in memory, with ``spec.factory`` set.

    Args:
        module: dotted name of the module.
        extra: the extra of Enginery that installs its framework; empty where none is needed.
        summary: what it takes, in one line.
        named: how it is named on the command line.
        libraries: what the extra brings that a factory may import.
    """

    module: str
    extra: str
    summary: str
    named: str
    libraries: tuple[str, ...] = ()


SOURCES: dict[str, SourceRow] = {
    "onnx": SourceRow(
        "enginery.sources.onnx_file", "", "an ONNX file (model.onnx) or an ONNX model in memory", "model.onnx"
    ),
    "torch": SourceRow(
        "enginery.sources.torch_module",
        "torch",
        "a PyTorch module in memory, or the function that returns one (file.py:factory or package.module:factory), "
        "an exported program (model.pt2) or TorchScript (model.pt, model.ts)",
        "file.py:factory or package.module:factory (a function that returns a PyTorch or Keras model), model.pt2, "
        "TorchScript (model.pt, model.ts)",
        ("torch",),
    ),
    "keras": SourceRow(
        "enginery.sources.keras_model",
        "tensorflow",
        "a Keras model (model.keras, model.h5) or one in memory, or the function that returns one",
        "model.keras, model.h5",
        ("tensorflow", "keras", "tf_keras"),
    ),
    "saved_model": SourceRow(
        "enginery.sources.saved_model",
        "tensorflow",
        "the folder of a TensorFlow SavedModel",
        "the folder of a TensorFlow SavedModel",
    ),
    "network": SourceRow(
        "enginery.sources.network",
        "",
        "a network built by hand with a backend's own API: file.py:name, of @network",
        "file.py:name of a network built by hand",
    ),
}


def open_source(
    thing: Any,
    *,
    example_inputs: Any = None,
    spec: SourceSpec | None = None,
    **said: Unpack[SourceOptions],
) -> Source:
    """Open a trained model of any known kind.

    Args:
        thing: a path, ``file.py:factory``, ``package.module:factory``, a model in memory, or a source that is open.
        example_inputs: real inputs of one call: an array, a tuple of them, or a dict by name.
        spec: all that is known of it in one; stands over the arguments.
        said: what else is known of it: see `SourceSpec`.

    Returns:
        The source; the caller closes it, or uses it in a ``with`` statement.

    Raises:
        UsageError: something was said that this kind of source has no use for.
        SourceNotFoundError: there is no such file, module or factory; the nearest is suggested.
        SourceError: it is nothing that Enginery can take yet.
        MissingExtraError: its framework is not installed.
    """
    from enginery.sources.base import Source

    if isinstance(thing, Source):
        return thing
    spec = spec or SourceSpec.of(example_inputs, **said)
    thing, spec = _made(thing, spec)
    kind = find_kind(thing)
    if kind is None:
        raise _refusal(thing, spec.factory)
    _check_options(kind, thing, spec)
    source: Source = _module(kind).open(thing, spec)
    return _with_names(source, spec)


def find_kind(thing: Any) -> str | None:
    """Return the name of the source that takes `thing`, which is not opened; None where none does."""
    return next((kind for kind in SOURCES if _module(kind).recognises(thing)), None)


def _module(kind: str) -> Any:
    return importlib.import_module(SOURCES[kind].module)


def _with_names(source: Source, spec: SourceSpec) -> Source:
    """Give the outputs the names asked for; a hand-built network names its own."""
    from enginery.sources.base import HandBuilt
    from enginery.sources.renamed import RenamedOutputs

    if not spec.output_names:
        return source
    if isinstance(source, HandBuilt):
        source.close()
        raise UsageError(
            f"{source.label} is built by hand, and names its own outputs",
            mend="leave the output names out, or change them where the network is built",
        )
    return RenamedOutputs(source, spec.output_names)


def _made(thing: Any, spec: SourceSpec) -> tuple[Any, SourceSpec]:
    """Call a factory, once; return what it made, and its example inputs where nobody gave others."""
    from enginery.sources.factory import call_factory, is_factory

    if not isinstance(thing, (str, Path)) or not is_factory(str(thing)):
        return thing, spec
    try:
        made = call_factory(str(thing))
    except SourceError as error:
        _check_libraries(error.__cause__, str(thing))
        raise
    spec = replace(spec, factory=Path(str(thing)).name)
    if isinstance(made, tuple) and len(made) == 2:  # noqa: PLR2004 - model, example inputs
        made, inputs = made
        spec = spec if spec.example_inputs is not None else replace(spec, example_inputs=inputs)
    if isinstance(made, (str, Path)):
        raise _refusal(made, spec.factory)
    return made, spec


def _check_libraries(error: BaseException | None, factory: str) -> None:
    """Tell the pip line where a factory ended because a framework is not installed."""
    if isinstance(error, ModuleNotFoundError):
        for row in SOURCES.values():
            if error.name in row.libraries:
                require(error.name, extra=row.extra, why=f"to call {factory}")


@contextlib.contextmanager
def opened(thing: Any, spec: SourceSpec) -> Iterator[Source]:
    """Open a trained model, and close it at the end; one that is open already is the caller's to close."""
    source = open_source(thing, spec=spec)
    try:
        yield source
    finally:
        if source is not thing:
            source.close()


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


def _check_options(kind: str, thing: Any, spec: SourceSpec) -> None:
    """Refuse what a kind of source would silently leave unread."""
    for name in ("signature", "weights", "make_dynamic"):
        if getattr(spec, name) and name not in _module(kind).OPTIONS:
            who = " or ".join(row.summary for other, row in SOURCES.items() if name in _module(other).OPTIONS)
            shown = thing if isinstance(thing, (str, Path)) else spec.factory or _type_name(thing)
            raise UsageError(
                f"{name.replace('_', '-')} {_shown(getattr(spec, name))!r} means nothing for {shown}",
                mend=f"leave it out: it is for {who}",
            )


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _refusal(thing: Any, factory: str = "") -> SourceError:
    accepted = "; ".join(row.summary for row in SOURCES.values())
    if factory:
        return SourceError(
            f"{factory} returned a {_type_name(thing)}, which is no trained model that Enginery knows",
            mend=f"let it return a model, or a tuple of the model and its example inputs; known are: {accepted}",
        )
    if not isinstance(thing, (str, Path)):
        return SourceError(f"a {_type_name(thing)} is no trained model that Enginery knows", mend=f"give {accepted}")
    path = Path(thing)
    if not path.exists():
        return SourceNotFoundError(f"there is no {path}", mend=nearest_files(path))
    if (path / "engine.json").is_file():
        return SourceError(f"{path} is an engine, not a trained model", mend="give what it was built from")
    return SourceError(f"{path} is no trained model that Enginery knows", mend=f"give {accepted}")


def _type_name(thing: Any) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
