"""Other environments: their interpreters, the variables their processes get, and how Enginery gets into them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shlex
import shutil
import sys
import urllib.parse

from enginery import __version__
from enginery.errors import EnvironmentSetupError

__all__ = ["find_python", "install_line", "worker_variables"]


def find_python(python: str | None) -> str:
    """Return the absolute path of an interpreter, given by path or by name; None is this one.

    Raises:
        EnvironmentSetupError: there is none.
    """
    if python is None:
        return sys.executable
    # Links are kept: the link in a virtual environment is what makes it one.
    found = shutil.which(os.path.expanduser(python))  # noqa: PTH111 - Path would drop a leading ./
    if found is None:
        raise EnvironmentSetupError(
            f"there is no interpreter {python}", mend="give the path of a Python, such as venv/bin/python"
        )
    return os.path.abspath(found)  # noqa: PTH100 - Path.resolve would follow the link


def worker_variables(*, own: bool) -> dict[str, str]:
    """Return the variables of a worker: as in plain use, so that threads and caches behave as they would there."""
    variables = dict(os.environ)
    path = variables.pop("PYTHONPATH", "")
    if own and path:  # its working directory is another
        variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in path.split(os.pathsep))  # noqa: PTH100
    elif not own:
        variables.pop("PYTHONHOME", None)
    return {**variables, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "PYTHONSAFEPATH": "1"}


def install_line(python: str) -> str:
    """Return the command that puts this Enginery into another environment, from where this one was installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        origin = importlib.metadata.distribution("enginery").read_text("direct_url.json")
        url = json.loads(origin)["url"] if origin else ""
        if url.startswith("file://"):
            path = urllib.parse.unquote(url.removeprefix("file://"))
            return shlex.join([python, "-m", "pip", "install", path])
    return shlex.join([python, "-m", "pip", "install", f"enginery=={__version__}"])
