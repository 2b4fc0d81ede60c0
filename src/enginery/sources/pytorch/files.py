"""Files of PyTorch: exported programs, TorchScript, and pickles, of which only weights are ever loaded."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from enginery.errors import CorruptModelError, CustomOperatorError, EngineryError, SourceError, UnsafeModelError
from enginery.sources.pytorch.archive import check_program, entries, pickled_globals
from enginery.streams import quiet

__all__ = ["SUFFIXES", "hash_state", "load_file", "load_pickle", "missing_operator"]

SUFFIXES = (".pt", ".pth", ".pt2", ".ts", ".torchscript")
"""Ends of the names of files that may hold a model of PyTorch."""

_NO_CODE = (
    "save its state_dict() and give the factory of the module with --weights, or export it: torch.export.save "
    "(.pt2) or torch.jit.save"
)
_OPERATOR = re.compile(r"\b([A-Za-z_]\w*::\w+)")
_NO_FORM = re.compile(r"operator '([\w:]+)' to ONNX|No ONNX function found for <OpOverload\(op='([\w.:]+)'")
_TARGET = re.compile(r"torch\.ops\.([A-Za-z_]\w*)\.(\w+)")


def load_file(torch: ModuleType, path: Path) -> Any:
    """Load a TorchScript module or an exported program, on the CPU; nothing that a file brings is run.

    Args:
        torch: the library.
        path: the file.

    Raises:
        UnsafeModelError: loading it would run code.
        CustomOperatorError: it needs operators that are not registered here.
        CorruptModelError: it is cut short, or no file of PyTorch.
        SourceError: it holds weights alone.
    """
    found = entries(path)
    if any(name.startswith("code/") for name in found):
        return _load_torchscript(torch, path)
    if "serialized_exported_program.json" in found or any(name.startswith("models/") for name in found):
        return _load_program(torch, path)
    if found and "data.pkl" not in found:
        raise CorruptModelError(
            f"{path} is an archive, but not one of PyTorch", mend="check the path, or save it again"
        )
    if not found and path.suffix in (".pt2", ".ts", ".torchscript"):
        raise CorruptModelError(
            f"{path} is no archive, as {path.suffix} files are", mend="check the path, or save it again"
        )
    held = load_pickle(torch, path)
    raise SourceError(
        f"{path} holds {_described(torch, held)}, and no module that computes with them",
        mend=f"give the function that returns the module, with these weights: file.py:factory --weights {path}",
    )


def load_pickle(torch: ModuleType, path: Path) -> Any:
    """Load tensors and containers of them; a pickle that wants anything else is refused before it gets it.

    Raises:
        UnsafeModelError: it wants more; the message names what.
        CorruptModelError: it is cut short, or no pickle.
    """
    try:
        with quiet("torch"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CorruptModelError(f"{path} cannot be read: {error}", mend="check the file") from error
    except Exception as error:  # noqa: BLE001 - unpickling raises anything
        wanted = list(dict.fromkeys(pickled_globals(_pickle_of(path))))
        if wanted:
            raise UnsafeModelError(
                f"{path} is a pickle that imports {', '.join(wanted[:3])} when it is loaded: code could run",
                mend=_NO_CODE,
            ) from None
        raise CorruptModelError(
            f"{path} is no file of PyTorch, or cut short: {type(error).__name__} while reading it",
            mend="check that it is the file that was meant, and save it again",
        ) from None


def hash_state(module: Any) -> str:
    """Hash all parameters and buffers: names, dtypes, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()


def missing_operator(error: BaseException) -> str:
    """Return the custom operator that an exporter found no form of in ONNX, or an empty text."""
    match = _NO_FORM.search(str(error))
    name = next((found for found in match.groups() if found), "") if match else ""
    return "" if name.startswith(("aten::", "prim::", "onnx::")) else name


def _pickle_of(path: Path) -> bytes:
    import zipfile

    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        name = entries(path).get("data.pkl")
        return archive.read(name) if name else b""  # another library's archive


def _load_torchscript(torch: ModuleType, path: Path) -> Any:
    try:
        with quiet("torch"):
            return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # from C++, all of it a RuntimeError
        text = str(error)
        if "Unknown builtin op" in text or "Unknown type name '__torch__.torch.classes" in text:
            raise _custom(path, _OPERATOR.findall(text.partition("Unknown")[2])) from error
        raise CorruptModelError(
            f"{path} is TorchScript that cannot be loaded: {_first_line(text)}",
            mend="save it again with torch.jit.save",
        ) from error


def _load_program(torch: ModuleType, path: Path) -> Any:
    check_program(path, lambda data: _is_plain(torch, data))
    try:
        with quiet("torch", "torch.export", "torch._export"):
            return torch.export.load(path)
    except EngineryError:
        raise
    except Exception as error:  # it has none of its own
        missing = _missing_operators(torch, path)
        if missing:
            raise _custom(path, missing) from error
        raise CorruptModelError(
            f"{path} is an exported program that PyTorch {torch.__version__} cannot load: {_first_line(str(error))}",
            mend="save it again with torch.export.save, in this version of PyTorch",
        ) from error


def _missing_operators(torch: ModuleType, path: Path) -> list[str]:
    """Return the operators that a program names and PyTorch does not have."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        models = [name for name in archive.namelist() if name.endswith(".json") and "config" not in name]
        named = {pair for name in models for pair in _TARGET.findall(archive.read(name).decode())}
    return sorted(
        f"{space}::{name}"
        for space, name in named
        if space != "higher_order" and not hasattr(getattr(torch.ops, space), name)
    )


def _is_plain(torch: ModuleType, data: bytes) -> bool:
    import io

    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever it is, it is not plain
        return False
    return True


def _custom(path: Path, names: list[str]) -> CustomOperatorError:
    known = list(dict.fromkeys(names))
    shown = ", ".join(known[:5]) or "operators"
    library = known[0].partition("::")[0] if known else "the library"
    return CustomOperatorError(
        f"{path} needs custom operators that are not here: {shown}",
        mend=f"give a factory that imports what registers them ({library}) and loads the file, or leave them out of "
        "the model",
    )


def _described(torch: ModuleType, held: Any) -> str:
    if isinstance(held, dict):
        tensors = sum(1 for value in held.values() if isinstance(value, torch.Tensor))
        if tensors:
            return f"{tensors} tensors by name (a state dict)"
        return f"a dict of {', '.join(repr(str(key)) for key in list(held)[:5])}"
    return f"a {type(held).__name__}"


def _first_line(text: str) -> str:
    return next((line.strip()[:300] for line in text.splitlines() if line.strip()), "no reason given")
