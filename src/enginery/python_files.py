"""Python that a user names, as ``file.py:name`` or ``package.module:name``: imported, and only that."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

__all__ = ["import_file", "importable", "nearest_function"]


def import_file(path: Path) -> ModuleType:
    """Import a Python file by its path, whatever it is called; each call runs it anew.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is no Python file.
        Exception: whatever the file's own code raises.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    path = path.resolve()
    # Two files may share a stem, and a stem may be a package's name: the path is the identity.
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbours, as ``python file.py`` would."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file's own code may have taken it out
            sys.path.remove(entry)


def nearest_function(module: ModuleType, name: str, place: str) -> str:
    """Say which function of a module was probably meant, or what the module has, as a mend.

    Args:
        module: the imported module.
        name: what it was asked for.
        place: the module as the user named it.
    """
    named = [key for key, value in vars(module).items() if not (key.startswith("_") or isinstance(value, ModuleType))]
    near = difflib.get_close_matches(name, named, n=1, cutoff=0.5)  # a model that is made at import counts as well
    if near:
        return f"did you mean '{place}:{near[0]}'?"
    public = [key for key in named if callable(vars(module)[key])]
    own = sorted(key for key in public if getattr(vars(module)[key], "__module__", None) == module.__name__)
    return f"it has: {', '.join(own) or 'nothing that could be called'}"
