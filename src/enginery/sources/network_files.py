"""A hand-built network as plain files, so that another process can build it: where its function is, and its weights."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import marshal
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from enginery.errors import EngineryError, SourceError, SourceNotFoundError, UsageError
from enginery.python_files import import_file, importable, nearest_function
from enginery.sources.base import Array
from enginery.sources.blame import explain, likely_line
from enginery.sources.named_weights import NamedWeights, open_weights, read_arrays, save_arrays
from enginery.streams import stdout_to_stderr

__all__ = ["BuildFunction", "NetworkDefinition", "hash_of", "load_definition", "name_of", "save_definition"]

BuildFunction = Callable[[Any, Mapping[str, Array]], Any]
"""Takes a backend's API and the weights by name, and builds the network; see `enginery.backends.base`."""

_DESCRIPTION = "network.json"
_ELSEWHERE = "move it to the top level of a .py file, or build it here: in_process=True (--in-process)"
_LISTED = 4
_SHOWN_CHARACTERS = 600


class NetworkDefinition:
    """A user's function and its weights, ready to be called with an API.

    Args:
        function: the user's.
        backend: name of the backend whose API it uses.
        weights: opened.
        around: makes a context that the function is called in.
    """

    def __init__(
        self,
        function: BuildFunction,
        backend: str,
        weights: NamedWeights,
        around: Callable[[], contextlib.AbstractContextManager[None]] = stdout_to_stderr,
    ) -> None:
        self._function = function
        self._backend = backend
        self._weights = weights
        self._around = around

    @property
    def name(self) -> str:
        """The function's name."""
        return name_of(self._function)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which weights `define` never read: a layer that was forgotten is what they most often mean."""
        unread = self._weights.unread()
        if not unread:
            return ()
        more = f" and {len(unread) - _LISTED} more" if len(unread) > _LISTED else ""
        listed = ", ".join(unread[:_LISTED]) + more
        of = f"of the {len(self._weights)} weights in {self._weights.where}"
        return (f"the network never read {len(unread)} {of}: {listed}; is a layer missing?",)

    def define(self, api: Any) -> Any:
        """Call the function, and tell what it raised by the user's own line."""
        try:
            with self._around():
                return self._function(api, self._weights)
        except EngineryError as error:
            line = likely_line(error, framework=self._backend)
            if not line:
                raise
            raise type(error)(f"{error.message}, at {line}", mend=error.mend) from error.__cause__
        except (Exception, SystemExit) as error:
            line = likely_line(error, framework=self._backend)
            message = f"the network {self.name} raised {_shorten(error)}" + (f", at {line}" if line else "")
            raise SourceError(message, mend="mend it there, and try again") from error


def name_of(function: BuildFunction) -> str:
    """Return a function's name; a callable object has its type's."""
    return str(getattr(function, "__name__", type(function).__name__))


def hash_of(function: BuildFunction, backend: str, weights: NamedWeights) -> str:
    """Return the SHA-256 of a network: its function's code, its backend's name and its weights."""
    found = hashlib.sha256(_code_of(function))
    found.update(f"{backend}\0{weights.sha256}".encode())
    return found.hexdigest()


def save_definition(function: BuildFunction, backend: str, weights: NamedWeights, folder: Path) -> Path:
    """Write ``network.json`` into a new folder: where the function is, and the weights' file, or the weights beside it.

    Raises:
        UsageError: the function cannot be imported by another process.
    """
    folder.mkdir(parents=True)
    described = {
        **_place(function),
        "backend": backend,
        "folder": str(Path.cwd()),
        "weights": str(weights.path) if weights.path is not None else "",
        "arrays": save_arrays(weights, folder / "weights") if weights.path is None else [],
    }
    path = folder / _DESCRIPTION
    path.write_text(json.dumps(described, indent=1), encoding="utf-8")
    return path


def load_definition(path: Path) -> NetworkDefinition:
    """Import the function that `save_definition` described, and open its weights.

    Raises:
        SourceError: importing the user's file raised, or it has changed meanwhile and has no such function.
    """
    described = json.loads(path.read_text(encoding="utf-8"))
    if described["weights"]:
        weights = open_weights(described["weights"])
    else:
        weights = read_arrays(described["arrays"], path.parent / "weights")
    place, name = described["place"], described["name"]
    around = functools.partial(_at_home, described["folder"], Path(described["root"]))
    try:
        with around():
            module = import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise SourceError(f"importing {place} raised {explain(error)}", mend="mend it there") from error
    found = _look_up(module, name)
    if found is None:
        raise SourceNotFoundError(f"{place} has no {name!r}", mend=nearest_function(module, name, place))
    return NetworkDefinition(found, described["backend"], weights, around)


@contextlib.contextmanager
def _at_home(folder: str, root: Path) -> Iterator[None]:
    """Run the user's code in the folder where the user is, beside its neighbours: it may read and import from there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with importable(root), stdout_to_stderr():
            yield
    finally:
        os.chdir(before)


def _place(function: BuildFunction) -> dict[str, str]:
    """Say how another process imports a function: by its file, or by its module where that is in a package."""
    name, file = getattr(function, "__qualname__", type(function).__qualname__), _file_of(function)
    if "<lambda>" in name or "<locals>" in name or file is None:
        kind = "a lambda" if "<lambda>" in name else "defined inside a function" if "<locals>" in name else "in no file"
        raise UsageError(f"the network {name} is {kind}, where a worker process cannot import it", mend=_ELSEWHERE)
    module = sys.modules.get(function.__module__)
    if module is None or _look_up(module, name) is not function:
        message = f"{file.name} has something else by the name {name!r}, so a worker process cannot import the network"
        raise UsageError(message, mend=_ELSEWHERE)
    spec = getattr(module, "__spec__", None)
    if not getattr(module, "__package__", "") or spec is None:
        return {"place": str(file), "name": name, "root": str(file.parent)}
    depth = spec.name.count(".") + (file.name == "__init__.py")
    return {"place": spec.name, "name": name, "root": str(file.parents[depth])}


def _look_up(module: ModuleType, name: str) -> BuildFunction | None:
    """Find a function by its qualified name; a network at its place stands for its function."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    found = getattr(found, "function", found)
    return found if callable(found) else None


def _shorten(error: BaseException) -> str:
    """Say what an error says in one line; of a long one, the end matters most: libraries give their reason last."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(".")
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[: _SHOWN_CHARACTERS // 4]} ... {text[-_SHOWN_CHARACTERS * 3 // 4 :]}"


def _file_of(function: BuildFunction) -> Path | None:
    try:
        found = inspect.getsourcefile(function)
    except TypeError:  # a callable object, or one of another language
        return None
    path = Path(found).absolute() if found else None
    return path if path is not None and path.is_file() and path.suffix == ".py" else None


def _code_of(function: BuildFunction) -> bytes:
    """Return what a hash of a function is taken of: its whole file, for it may call others, and its name in there."""
    file = _file_of(function)
    code = getattr(function, "__code__", None)
    body = file.read_bytes() if file is not None else marshal.dumps(code) if code is not None else b""
    return body + str(getattr(function, "__qualname__", "")).encode()
