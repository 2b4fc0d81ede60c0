"""Typed graph → engine → session. The one table of backends; everything that names them derives from it.

A backend is a module with the functions of `enginery.backends.base.Backend`. Another distribution adds one through
the entry-point group ``enginery.backends``: the entry's name is the backend's, its value the module.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from enginery.errors import BackendUnavailableError, UnknownNameError

if TYPE_CHECKING:
    from enginery.backends.base import Backend

__all__ = [
    "BACKENDS",
    "ENTRY_POINT_GROUP",
    "BackendRow",
    "available",
    "get",
    "get_available",
    "names",
    "table",
]

ENTRY_POINT_GROUP = "enginery.backends"


@dataclass(frozen=True)
class BackendRow:
    """Where a backend lives and what it is for.

    Args:
        module: dotted name of the module.
        extra: the extra of Enginery that installs its library; empty where none is needed.
        summary: one line for ``--help`` and ``doctor``.
        candidate: whether `optimize` tries it when no backend is named.
    """

    module: str
    extra: str
    summary: str
    candidate: bool = True


BACKENDS: dict[str, BackendRow] = {
    "onnxruntime": BackendRow("enginery.backends.onnxruntime", "", "ONNX Runtime, on the CPU"),
    "openvino": BackendRow("enginery.backends.openvino", "openvino", "OpenVINO, on the CPU"),
    "tensorrt": BackendRow("enginery.backends.tensorrt", "tensorrt", "TensorRT 8.5 to 11, on NVIDIA GPUs"),
    "tensorrt_rtx": BackendRow(
        "enginery.backends.tensorrt.rtx", "tensorrt-rtx", "TensorRT-RTX, on GeForce and RTX GPUs; builds without one"
    ),
    "reference": BackendRow(
        "enginery.backends.reference", "", "ONNX's reference evaluator: slow and right", candidate=False
    ),
    "null": BackendRow(
        "enginery.backends.null", "", "builds and runs nothing; zeros of the right shape", candidate=False
    ),
}


@functools.cache
def table() -> dict[str, BackendRow]:
    """Return the built-in rows, then those of installed entry points; a built-in name cannot be taken."""
    rows = dict(BACKENDS)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        source = entry.dist.name if entry.dist else entry.value
        rows.setdefault(entry.name, BackendRow(entry.value, "", f"added by {source}"))
    return rows


def names() -> tuple[str, ...]:
    """Return the names of all known backends, here or not."""
    return tuple(table())


def get(name: str) -> Backend:
    """Return the backend of that name, whether or not its library is here.

    Raises:
        UnknownNameError: there is none; the nearest name is suggested.
    """
    if name not in table():
        raise UnknownNameError.from_choices("backend", name, names())
    return cast("Backend", importlib.import_module(table()[name].module))


def get_available(name: str, *, to_run: bool = False) -> Backend:
    """Return the backend of that name, whose library is here.

    Args:
        name: of the backend.
        to_run: whether engines shall be opened; else it is enough that they can be built.

    Raises:
        UnknownNameError: there is none of that name.
        BackendUnavailableError: its library or device is not here; the mend says how to get it.
    """
    backend = get(name)
    found = backend.probe()
    if not found.available:
        how = "cannot be used here" if found.version else "is not here"
        raise BackendUnavailableError(f"backend {name!r} {how}: {found.reason}", mend=found.mend)
    if to_run and not found.runs:
        raise BackendUnavailableError(f"backend {name!r} only builds here: {found.reason}", mend=found.mend)
    return backend


def available() -> tuple[str, ...]:
    """Return the names of the backends that build and run here and that `optimize` tries by itself."""
    return tuple(name for name, row in table().items() if row.candidate and get(name).probe().usable)
