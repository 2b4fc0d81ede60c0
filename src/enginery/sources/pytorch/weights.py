"""Weights of a file, loaded into the module that a factory returned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from enginery.errors import CorruptModelError, MissingExtraError, SourceError, SourceNotFoundError
from enginery.optional import require
from enginery.sources import nearest_files
from enginery.sources.pytorch.files import load_pickle

__all__ = ["load_weights", "read_state"]

_HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "weights", "params")
_WRAPPERS = {"module.": "DataParallel", "_orig_mod.": "torch.compile", "model.": "an outer module"}
_SHOWN = 3


def load_weights(torch: ModuleType, module: Any, path: Path, label: str) -> list[str]:
    """Load every weight of a module from a file; neither may have one that the other has not.

    Args:
        torch: the library.
        module: changed in place.
        path: what ``torch.save`` wrote of a state dict, ``.safetensors`` or ``.npz``.
        label: what messages call the module.

    Returns:
        What a user should know: the wrappings that were taken off.

    Raises:
        SourceNotFoundError: there is no such file.
        UnsafeModelError: loading it would run code.
        SourceError: it holds no state dict, or one that does not fit.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file of weights {path}", mend=nearest_files(path))
    notes: list[str] = []
    weights = _unwrapped(torch, _read(torch, path), path, notes)
    weights = _without_prefix(weights, module.state_dict(), path, notes)
    _check_fit(torch, weights, module.state_dict(), path, label)
    module.load_state_dict(weights, strict=True)
    return notes


def read_state(path: Path) -> dict[str, Any]:
    """Read the state dict that ``torch.save`` wrote to a file: tensors by name.

    Raises:
        MissingExtraError: PyTorch is not installed.
        UnsafeModelError: loading it would run code.
        SourceError: it holds no state dict.
    """
    torch = require("torch", extra="torch", why=f"to read {path}")
    return _unwrapped(torch, _read(torch, path), path, [])


def _read(torch: ModuleType, path: Path) -> Any:
    if path.suffix not in (".safetensors", ".npz"):
        return load_pickle(torch, path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays}
        return require("safetensors.torch", extra="", why=f"to read {path}").load_file(str(path))
    except MissingExtraError:
        raise
    except Exception as error:  # safetensors has its own kind of error, numpy several
        raise CorruptModelError(f"{path} cannot be read as {path.suffix}: {error}", mend="save it again") from error


def _unwrapped(torch: ModuleType, held: Any, path: Path, notes: list[str]) -> dict[str, Any]:
    """Take the state dict out of a checkpoint that holds other things as well."""
    for _ in range(len(_HOLDERS)):
        if not isinstance(held, Mapping) or any(isinstance(value, torch.Tensor) for value in held.values()):
            break
        inner = next((key for key in _HOLDERS if isinstance(held.get(key), Mapping)), None)
        if inner is None:
            break
        notes.append(f"the weights are {inner!r} of {path.name}")
        held = held[inner]
    if not isinstance(held, Mapping) or not any(isinstance(value, torch.Tensor) for value in held.values()):
        keys = ", ".join(map(repr, list(held)[:_SHOWN])) if isinstance(held, Mapping) else ""
        kind = f"a dict of {keys}" if keys else f"a {type(held).__name__}"
        raise SourceError(f"{path} holds no state dict, but {kind}", mend="save module.state_dict() with torch.save")
    return dict(held)


def _without_prefix(weights: dict[str, Any], wanted: Mapping[str, Any], path: Path, notes: list[str]) -> dict[str, Any]:
    """Take off the name of a wrapper around the module that was trained."""
    for prefix, wrapper in _WRAPPERS.items():
        if set(weights) != set(wanted) and all(name.startswith(prefix) for name in weights):
            shorter = {name[len(prefix) :]: value for name, value in weights.items()}
            if set(shorter) & set(wanted) and not set(weights) & set(wanted):
                notes.append(f"the weights of {path.name} are those of {wrapper}: {prefix!r} was taken off their names")
                return shorter
    return weights


def _check_fit(
    torch: ModuleType, weights: Mapping[str, Any], wanted: Mapping[str, Any], path: Path, label: str
) -> None:
    missing = [name for name in wanted if name not in weights]
    unexpected = [name for name in weights if name not in wanted]
    other = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if isinstance(value, torch.Tensor) and isinstance(found := weights.get(name), torch.Tensor)
        if found.shape != value.shape
    ]
    told = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (other, "of another shape"))
        if names
    ]
    if told:
        raise SourceError(
            f"the weights of {path} do not fit {label}: {'; '.join(told)}",
            mend="give the factory of the module that they were saved from",
        )
