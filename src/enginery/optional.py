"""The only way to import something heavy: `require`, whose error says the pip line."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from enginery.errors import MissingExtraError

__all__ = ["installed", "require", "version", "versions"]


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import an optional library, or say how to get it.

    Args:
        module: the dotted module name, such as ``"openvino"``.
        extra: the extra of Enginery that installs it; an empty string for a core dependency.
        why: what needs it, in the form "to ...".

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the library is not installed; the mend is the pip line.

    Example:
        >>> require("json", extra="", why="to read a manifest").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        line = f'pip install "enginery[{extra}]"' if extra else f"pip install {top}"
        raise MissingExtraError(f"{top} is not installed, and is needed {why}", mend=f"run: {line}") from error


def installed(module: str) -> bool:
    """Say whether a top-level module could be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # something keeps it from being imported: a finder, or None in sys.modules
        return False


def version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of those distributions that are installed, by name."""
    return {name: found for name in distributions if (found := version(name))}
