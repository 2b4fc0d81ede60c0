"""Python loaders of data: ``file.py:loader`` and ``package.module:loader``, run because the user named them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from enginery.errors import DataError
from enginery.inputs.arrays import LABELS
from enginery.inputs.base import Array
from enginery.python_files import import_file, importable, nearest_function
from enginery.records import TensorInfo

__all__ = ["read_items", "run_loader"]

_MEND = "return a dict of arrays by input name, or an iterable of such dicts, of arrays, or of (either, labels) pairs"
_PAIR = 2


def run_loader(text: str, inputs: Sequence[TensorInfo], *, labels: bool = True) -> Iterator[dict[str, Array]]:
    """Call a loader without arguments and yield the arrays of each item, labels among them as ``labels``.

    It returns one dict of arrays by input name, for all rows, or an iterable of items. An item is a dict of arrays by
    input name, an array for a model of one input, or a pair of either and labels. Arrays may be anything numpy can
    read, such as lists or CPU tensors. The loader's folder (for a module: the working folder) is on the import path
    while it runs.

    Args:
        text: ``file.py:loader`` or ``package.module:loader``.
        inputs: of the engine.
        labels: whether the second of a pair is read; else it may be anything.

    Raises:
        DataError: there is no such loader, it raises, or it gives something else.
    """
    where, _, name = text.rpartition(":")
    folder = Path(where).resolve().parent if where.endswith(".py") else Path.cwd()
    with importable(folder):
        loader = _find(where, name, text)
        with _failing_as(f"the loader {text} failed"):
            given = loader()
        yield from read_items(given, inputs, text, f"the loader {text} failed", labels=labels)


def read_items(
    given: Any, inputs: Sequence[TensorInfo], text: str, failed: str = "", *, labels: bool = True
) -> Iterator[dict[str, Array]]:
    """Yield the arrays of each item that a loader returned, or of any such iterable: a torch DataLoader, say.

    Args:
        given: as `run_loader` says.
        inputs: of the engine.
        text: what it is, for messages.
        failed: what to say when it raises.
        labels: whether the second of a pair is read; else it may be anything.

    Raises:
        DataError: it raises, or gives something else.
    """
    failed = failed or f"{text} failed"
    with _failing_as(failed):
        items = iter(_iterable(given, text))
    while True:
        with _failing_as(failed):
            try:
                item = next(items)
            except StopIteration:
                return
            arrays = _arrays(item, inputs, text, labels=labels)
        yield arrays


def _find(where: str, name: str, text: str) -> Callable[[], Any]:
    with _failing_as(f"the loader {text} cannot be imported"):
        module = import_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    loader: Any = getattr(module, name, None)
    if not callable(loader):
        raise DataError(f"{where} has no function {name!r}", mend=nearest_function(module, name, where))
    return cast("Callable[[], Any]", loader)


def _iterable(items: Any, text: str) -> Iterable[Any]:
    if isinstance(items, Mapping):  # one recording of all rows, as an npz file holds it
        return [items]
    if isinstance(items, str) or not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise DataError(f"{text} returns a {type(items).__name__}", mend=_MEND)
    return cast("Iterable[Any]", items)


@contextlib.contextmanager
def _failing_as(what: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        message = f"{what}: {type(error).__name__}: {error}"
        raise DataError(message, mend="run it by itself first, and check the file and the name") from error


def _arrays(item: Any, inputs: Sequence[TensorInfo], text: str, *, labels: bool) -> dict[str, Array]:
    if isinstance(item, tuple | list) and len(item) == _PAIR:
        arrays = _arrays(item[0], inputs, text, labels=labels)
        return {**arrays, LABELS: np.asarray(item[1])} if labels else arrays
    if isinstance(item, Mapping):
        return {str(name): np.asarray(array) for name, array in item.items()}
    if isinstance(item, tuple | list) or len(inputs) != 1:
        raise DataError(f"{text} gives a {type(item).__name__} for {len(inputs)} inputs", mend=_MEND)
    return {inputs[0].name: np.asarray(item)}
