"""Cases on disk: one npz for each, and an index that says what its arrays are.

The npz holds only what numpy stores without a pickle. An element type of `ml_dtypes` becomes its bytes, strings
become the bytes of a JSON list; the index has the true dtype and shape, and the input's name, which may hold
characters that a file name may not.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from enginery import storage
from enginery.dtypes import dtype_name, numpy_dtype
from enginery.errors import DataError, UnknownNameError
from enginery.inputs.base import Array, Case

__all__ = ["INDEX", "read", "write"]

INDEX = "index.json"
_FORMAT = 1
_MEND = "save the cases again"


def write(cases: Iterable[Case], folder: Path) -> None:
    """Write cases into `folder`, which is new or empty; see `enginery.inputs.base.save_cases`."""
    with storage.new_folder(folder) as staging:
        listed = []
        for at, case in enumerate(cases):
            arrays: dict[str, Any] = {}
            feeds = {name: _pack(value, arrays, f"{case.name}: {name}") for name, value in case.feeds.items()}
            labels = None if case.labels is None else _pack(case.labels, arrays, f"{case.name}: labels")
            file = f"{at}.npz"
            with (staging / file).open("wb") as stream:
                np.savez(stream, **arrays)
            listed.append({"name": case.name, "file": file, "feeds": feeds, "labels": labels})
        text = json.dumps({"format": _FORMAT, "cases": listed}, indent=1)
        (staging / INDEX).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[Case, ...]:
    """Read the cases of `folder`; see `enginery.inputs.base.load_cases`."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != _FORMAT:
            raise DataError(f"the cases in {folder} have format {index['format']}, this is {_FORMAT}", mend=_MEND)
        return tuple(_read_case(folder, entry) for entry in index["cases"])
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no saved cases: {error.filename} is missing", mend=_MEND) from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, UnknownNameError) as error:
        raise DataError(f"the cases in {folder} cannot be read: {error}", mend=_MEND) from error


def _read_case(folder: Path, entry: Mapping[str, Any]) -> Case:
    # numpy leaves a damaged file open that it has opened itself.
    with (folder / Path(entry["file"]).name).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        feeds = {name: _unpack(packed, arrays) for name, packed in entry["feeds"].items()}
        labels = None if entry["labels"] is None else _unpack(entry["labels"], arrays)
    return Case(entry["name"], feeds, labels)


def _pack(value: Any, arrays: dict[str, Array], where: str) -> dict[str, Any] | None:
    """Put the value's arrays into `arrays`, and return what the index says of it."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return {"sequence": [_pack(item, arrays, where) for item in value]}
    if not isinstance(value, np.ndarray | np.generic):
        raise DataError(
            f"{where} is a {type(value).__name__}, which cannot be saved",
            mend="make it a numpy array, or a list of them",
        )
    array = np.asarray(value)
    key = f"a{len(arrays)}"
    try:
        dtype = dtype_name(array.dtype)
    except UnknownNameError as error:
        raise DataError(
            f"{where} has dtype {array.dtype}, which is no element type of ONNX", mend=error.mend
        ) from error
    arrays[key] = _plain(array, dtype, where)
    return {"array": key, "dtype": dtype, "shape": list(array.shape)}


def _plain(array: Array, dtype: str, where: str) -> Array:
    if dtype == "string":
        words = array.reshape(-1).tolist()
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"{where} holds objects that are no text", mend="make every element a str")
        return np.frombuffer(json.dumps(words).encode("ascii"), np.uint8)
    if _is_native(dtype):
        return array
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _unpack(packed: Mapping[str, Any] | None, arrays: Mapping[str, Array]) -> Any:
    if packed is None:
        return None
    if "sequence" in packed:
        return [_unpack(item, arrays) for item in packed["sequence"]]
    plain, shape = arrays[packed["array"]], tuple(packed["shape"])
    dtype = numpy_dtype(packed["dtype"])
    if packed["dtype"] == "string":
        words = np.empty(math.prod(shape), dtype)
        words[:] = json.loads(plain.tobytes())
        return words.reshape(shape)
    if plain.dtype != dtype:
        if plain.dtype != np.uint8 or _is_native(packed["dtype"]):
            raise DataError(f"an array has dtype {plain.dtype}, the index says {dtype}", mend=_MEND)
        plain = plain.view(dtype)
    return plain.reshape(shape)


def _is_native(dtype: str) -> bool:
    """Say whether numpy itself stores the element type; those of `ml_dtypes` would come back as void."""
    return numpy_dtype(dtype).isbuiltin == 1 and dtype != "string"
