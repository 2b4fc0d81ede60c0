"""Weights by name, for a network that is built by hand: from a dictionary, a model, or a file that is mapped."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from enginery import storage
from enginery.dtypes import numpy_dtype
from enginery.errors import CorruptModelError, SourceError, SourceNotFoundError, UnknownNameError, UnsafeModelError
from enginery.graph.base import hash_model, load_model
from enginery.sources import nearest_files
from enginery.sources.base import Array

__all__ = ["NamedWeights", "open_weights", "read_arrays", "save_arrays"]

_KNOWN = "a dictionary of arrays, a model with a state_dict(), an ONNX model, or a path"
_LISTED = 3
_HEADER_BYTES = 8
_SAFETENSORS_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8e4m3fn", "F8_E5M2": "float8e5m2",
}  # fmt: skip

Loader = Callable[[], Array]


class NamedWeights(Mapping[str, Array]):
    """Arrays by name, each read from its file when it is asked for, and remembered as read.

    Args:
        loaders: what reads each.
        where: what they come from, in words.
        path: the file they come from; None for those that are in memory.

    Example:
        >>> weights = open_weights({"w": [[1.0, 2.0]], "b": [0.0]})
        >>> weights["w"].shape, weights.unread()
        ((1, 2), ('b',))
        >>> weights["W"]
        Traceback (most recent call last):
        ...
        enginery.errors.UnknownNameError: unknown weight 'W'; did you mean 'w'? (there are 2 in the dictionary)
    """

    def __init__(self, loaders: Mapping[str, Loader], where: str, path: Path | None = None) -> None:
        self._loaders = dict(loaders)
        self._read: set[str] = set()
        self.where = where
        self.path = path

    def __getitem__(self, name: str) -> Array:
        if name not in self._loaders:
            raise self._unknown(name)
        self._read.add(name)
        return _plainly_typed(self._loaders[name]())

    def __contains__(self, name: object) -> bool:
        return name in self._loaders

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of that name, or `default`."""
        return self[name] if name in self else default  # noqa: SIM401 - it would call itself

    def unread(self) -> tuple[str, ...]:
        """Return the names that nobody asked for; 64-bit integers, which are sizes and counters, are left out."""
        wide = (np.dtype(np.int64), np.dtype(np.uint64))
        return tuple(name for name in self if name not in self._read and self._loaders[name]().dtype not in wide)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file, or of the names, types, shapes and bytes of what is in memory."""
        if self.path is not None:
            return hash_model(self.path) if self.path.suffix.lower() == ".onnx" else storage.hash_file(self.path)
        found = hashlib.sha256()
        for name, load in self._loaders.items():
            array = load()
            found.update(f"{name}:{array.dtype.name}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return found.hexdigest()

    def _unknown(self, name: str) -> UnknownNameError:
        near = difflib.get_close_matches(str(name), list(self), n=_LISTED, cutoff=0.4)
        near = near or [known for known in self if str(name).lower() in known.lower()][:_LISTED]
        there = f"there are {len(self)} in {self.where}" if len(self) else f"there are none in {self.where}"
        mend = f"did you mean {' or '.join(map(repr, near))}? ({there})" if near else there
        return UnknownNameError(f"unknown weight {name!r}", mend=mend)


def _plainly_typed(array: Array) -> Array:
    """Return a view whose element type is numpy's own object: native libraries compare types by identity."""
    return array.view(array.dtype.type) if array.dtype.isnative else array


def open_weights(thing: Any) -> NamedWeights:
    """Open weights by name; what is in a file stays there until it is asked for.

    Args:
        thing: a dictionary of arrays or tensors; a model with a ``state_dict()``; an ONNX model, whose initializers
            are meant; or the path of an ``.onnx``, ``.npz``, ``.safetensors`` or ``.pt`` (a state dict) file. None for
            no weights.

    Raises:
        SourceNotFoundError: there is no such file; the nearest is suggested.
        CorruptModelError: the file is not what its name says.
        UnsafeModelError: reading the file would run code that it brings along.
        SourceError: it is nothing that has weights by name.
    """
    if thing is None:
        return NamedWeights({}, "weights=None")
    if isinstance(thing, (str, Path)):
        return _open_file(Path(thing))
    if isinstance(thing, Mapping):
        return _in_memory(thing, "the dictionary")
    if callable(getattr(thing, "state_dict", None)):
        return _in_memory(thing.state_dict(), f"the state of {type(thing).__qualname__}")
    if hasattr(thing, "graph"):
        import onnx_ir as ir

        model = thing if isinstance(thing, ir.Model) else ir.from_proto(thing)
        return NamedWeights(_initializers(model), f"the ONNX model {model.graph.name or 'in memory'}")
    raise SourceError(f"{type(thing).__qualname__!r} has no weights by name", mend=f"give {_KNOWN}")


def save_arrays(weights: NamedWeights, folder: Path) -> list[dict[str, str]]:
    """Write weights that are in memory into a folder, each a ``.npy``; return what `read_arrays` reads them by."""
    folder.mkdir(parents=True)
    listed = []
    for at, name in enumerate(list(weights)):
        array = np.asarray(weights[name])
        raw = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" or array.dtype.isbuiltin > 1 else array
        np.save(folder / f"{at}.npy", raw, allow_pickle=False)
        listed.append({"name": name, "dtype": array.dtype.name})
    return listed


def read_arrays(listed: list[dict[str, str]], folder: Path) -> NamedWeights:
    """Open what `save_arrays` wrote; the arrays are mapped."""
    loaders = {
        one["name"]: functools.partial(_read_npy, folder / f"{at}.npy", one["dtype"]) for at, one in enumerate(listed)
    }
    return NamedWeights(loaders, "the dictionary")


def _read_npy(path: Path, dtype: str) -> Array:
    array: Array = np.load(path, mmap_mode="r" if _maps(path) else None, allow_pickle=False)
    return array if array.dtype.name == dtype else array.view(np.dtype(dtype))


def _maps(path: Path) -> bool:
    """Say whether a file is large enough to be worth a mapping; an empty array cannot be mapped at all."""
    return path.stat().st_size > 1 << 16


def _in_memory(arrays: Mapping[str, Any], where: str) -> NamedWeights:
    return NamedWeights(_array_loaders(arrays), where)


def _array_loaders(arrays: Mapping[str, Any]) -> dict[str, Loader]:
    found = {str(name): _as_array(str(name), value) for name, value in arrays.items()}
    return {name: functools.partial(_same, array) for name, array in found.items()}


def _same(array: Array) -> Array:
    return array


def _as_array(name: str, value: Any) -> Array:
    """Return an array, or a tensor's values: any framework's tensor that can be detached and moved to the CPU."""
    value = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = value.numpy() if hasattr(value, "numpy") and not isinstance(value, np.ndarray) else np.asarray(value)
    except TypeError as error:  # a tensor of a type that numpy lacks
        mend = "convert it first, for example with .float()"
        raise SourceError(f"weight {name!r} is no array: {error}", mend=mend) from error
    if array.dtype.kind in "OUSMm":
        raise SourceError(f"weight {name!r} is a {type(value).__qualname__}, no array of numbers", mend="leave it out")
    return np.asarray(array)


def _open_file(path: Path) -> NamedWeights:
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file of weights {path}", mend=nearest_files(path))
    path = path.absolute()
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        mend = f"give one of {', '.join(_READERS)}, or load it and give the dictionary"
        raise SourceError(f"{path.name} is no file of weights that Enginery reads", mend=mend)
    return NamedWeights(_READERS[suffix](path), path.name, path)


def _open_npz(path: Path) -> dict[str, Loader]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile as error:
        raise CorruptModelError(f"{path} is no .npz: {error}", mend="save it again with numpy.savez") from error
    return {name: functools.partial(_read_npz, path, name) for name in names}


def _read_npz(path: Path, name: str) -> Array:
    """Read one array of an archive, whose bytes are checked now that they are looked at."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: Array = archive[name]
    except ValueError as error:
        message = f"array {name!r} of {path.name} cannot be read: {error}"
        raise UnsafeModelError(message, mend="save arrays of numbers, not of Python objects") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        message = f"array {name!r} of {path.name} is damaged: {error}"
        raise CorruptModelError(message, mend="copy the file again, or save it again with numpy.savez") from error
    return array


def _open_onnx(path: Path) -> dict[str, Loader]:
    return _initializers(load_model(path))


def _initializers(model: Any) -> dict[str, Loader]:
    """Return a reader for each initializer; external data is mapped, not read."""
    values = model.graph.initializers.items()
    return {name: value.const_value.numpy for name, value in values if value.const_value is not None}


def _open_safetensors(path: Path) -> dict[str, Loader]:
    """Read the header: a length, JSON with each tensor's type, shape and place, then the bytes, which are mapped."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_HEADER_BYTES), "little")
            header = json.loads(file.read(min(length, size)))
        begin = _HEADER_BYTES + length
        entries = {name: entry for name, entry in dict(header).items() if name != "__metadata__"}
        return {name: _tensor_loader(path, name, entry, begin, size) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptModelError(f"{path} is no whole .safetensors file: {error}", mend="copy it again") from error


def _open_pickle(path: Path) -> dict[str, Loader]:
    """Read a state dict of PyTorch's, all at once: such a file cannot be mapped."""
    from enginery.sources.pytorch.weights import read_state

    return _array_loaders(read_state(path))


def _tensor_loader(path: Path, name: str, entry: Mapping[str, Any], begin: int, size: int) -> Loader:
    first, last = entry["data_offsets"]
    dtype, shape = numpy_dtype(_SAFETENSORS_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if not 0 <= first <= last <= size - begin or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} is said to be at bytes {first} to {last} of {size - begin}")
    if first == last:
        return functools.partial(np.zeros, shape, dtype)
    return functools.partial(_map, path, dtype, begin + first, shape)


def _map(path: Path, dtype: Any, offset: int, shape: tuple[int, ...]) -> Array:
    raw = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(math.prod(shape) * dtype.itemsize,))
    array: Array = np.asarray(raw).view(dtype).reshape(shape)
    return array


_READERS: dict[str, Callable[[Path], dict[str, Loader]]] = {
    ".onnx": _open_onnx,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".pt": _open_pickle,
    ".pth": _open_pickle,
}
