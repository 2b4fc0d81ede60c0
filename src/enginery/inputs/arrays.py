"""Arrays from files, matched with the inputs of an engine by name and by element type. Pickles are never loaded."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from enginery.dtypes import DTYPES, dtype_text, is_float, numpy_dtype
from enginery.errors import DataError, InputError
from enginery.inputs.base import Array
from enginery.records import TensorInfo
from enginery.spec import show_sizes

__all__ = ["LABELS", "Say", "fit_dtype", "log", "match_names", "read_npy", "read_npz", "shown_array", "shown_input",
           "write_npz"]  # fmt: skip

Say: TypeAlias = Callable[[str], None]
"""Takes one line that the user should see."""

LABELS = "labels"
"""Name of the array that holds the right class of each row."""

_NUMPYS = (b"\x93", b"P", b"\x80")
"""What an .npy file, an .npz file and a pickle begin with."""

_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def log(line: str) -> None:
    """Tell a line to the ``enginery`` logger, as `enginery.progress.Progress` does."""
    logging.getLogger("enginery").warning(line)


def read_npy(path: Path) -> Array:
    """Read one array.

    Raises:
        DataError: there is no such file, it is damaged, or it holds Python objects.
    """
    try:
        # numpy leaves a damaged file open that it has opened itself.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not isinstance(loaded, np.ndarray):
        raise DataError(f"{path} is an npz archive", mend=f"rename it {path.with_suffix('.npz').name}")
    return loaded


def read_npz(path: Path) -> dict[str, Array]:
    """Read all arrays of an npz file by name.

    Raises:
        DataError: there is no such file, it is damaged, or it holds Python objects.
    """
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            arrays = None if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if arrays is None:
        raise DataError(f"{path} is a single array", mend=f"rename it {path.with_suffix('.npy').name}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{path} holds {name!r}, which is no array", mend="write it with numpy.savez")
    return arrays


def write_npz(arrays: Mapping[str, Array], path: Path) -> None:
    """Write arrays by name, so that `read_npz` finds them; no pickles.

    numpy's own savez takes names as keywords, and so cannot take an array called ``file``.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.save(stream, array, allow_pickle=False)


def match_names(
    arrays: Mapping[str, Array],
    inputs: Sequence[TensorInfo],
    *,
    where: str,
    error: type[InputError] = DataError,
    say: Say = log,
) -> dict[str, Array]:
    """Return the array of each input; a single array serves a model of one input under any name.

    Args:
        arrays: by name; `LABELS` is passed over unless an input is called so.
        inputs: of the engine.
        where: the file, for messages.
        error: what to raise.
        say: told which arrays are taken or left out.

    Raises:
        InputError: of the type `error`: an input has no array.
    """
    names = [info.name for info in inputs]
    given = [name for name in arrays if name != LABELS or name in names]
    if len(names) == len(given) == 1 and names != given:
        said = "" if given == ["arr_0"] else f"{where}: array {given[0]!r} is taken for input {names[0]!r}"
        if said:
            say(said)
        return {names[0]: arrays[given[0]]}
    if missing := [name for name in names if name not in arrays]:
        found = ", ".join(shown_array(name, array) for name, array in arrays.items()) or "nothing"
        raise error(
            f"{where} lacks input {', '.join(map(repr, missing))}: it holds {found}",
            mend=f"name the arrays as the inputs: {', '.join(map(shown_input, inputs))}",
        )
    if extra := [name for name in given if name not in names]:
        say(f"{where}: {', '.join(map(repr, extra))} is no input and left out")
    return {name: arrays[name] for name in names}


def fit_dtype(
    array: Array, info: TensorInfo, *, where: str, error: type[InputError] = DataError, say: Say = log
) -> Array:
    """Return an array in the input's element type and in C order, where that loses nothing that matters.

    Floats are cast to floats and whole numbers that fit to whole numbers, both said so; text of fixed width becomes
    strings; bytes that numpy wrote for a type of `ml_dtypes` get their type back. Whole numbers never become
    floats: whether 0..255 should stay or become 0..1 is for whoever has the data to say.

    Args:
        array: not changed.
        info: the input it is meant for; one that is no tensor is handed through.
        where: the file, for messages.
        error: what to raise.
        say: told of every cast.

    Raises:
        InputError: of the type `error`: the array has another element type.
    """
    if info.dtype not in DTYPES:
        return array
    wanted = numpy_dtype(info.dtype)
    if array.dtype == wanted:
        return np.asarray(array, order="C")
    if array.dtype.kind == "V" and wanted.isbuiltin != 1 and array.dtype.itemsize == wanted.itemsize:
        return np.asarray(array, order="C").view(wanted)
    if array.dtype.kind == "U" and info.dtype == "string":
        return array.astype(object)
    found = dtype_text(array.dtype)
    if not _harmless(array, found, info.dtype):
        numpy_name = "str" if info.dtype == "string" else repr(info.dtype)
        raise error(
            f"{where}: {shown_array(info.name, array)} does not fit the input, which takes {info.dtype}",
            mend=f"convert it where the data is made: array.astype({numpy_name})",
        )
    say(f"{where}: input {info.name!r} is cast from {found} to {info.dtype}")
    return np.asarray(array, order="C").astype(wanted)


def shown_array(name: str, array: Array) -> str:
    """Say an array's name, element type and shape.

    Example:
        >>> shown_array("x", np.zeros((2, 3), np.int8))
        "'x' int8 2x3"
    """
    return f"{name!r} {array.dtype} {show_sizes(array.shape)}"


def shown_input(info: TensorInfo) -> str:
    """Say an input's name, element type and shape, or the profile where it has one."""
    if info.profile is not None:
        return f"{info.name!r} {info.dtype} {info.profile}"
    return f"{info.name!r} {info.dtype} {'of any shape' if info.shape is None else show_sizes(info.shape)}"


def _harmless(array: Array, found: str, wanted: str) -> bool:
    if is_float(found) and is_float(wanted):
        with np.errstate(over="ignore"):
            cast = array.astype(numpy_dtype(wanted)).astype(np.float64)
        return bool((np.isfinite(cast) | ~np.isfinite(array)).all())
    if array.dtype.kind in "biu" and numpy_dtype(wanted).kind in "iu":
        limits = np.iinfo(numpy_dtype(wanted))
        return not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    return False


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"there is no file {path}", mend="check the path")
    if "allow_pickle" in str(error) and path.read_bytes()[:1] not in _NUMPYS:  # numpy takes anything else for a pickle
        return DataError(f"{path} is no file of numpy's", mend="write it with numpy.save or numpy.savez")
    if "allow_pickle" in str(error):
        return DataError(
            f"{path} holds Python objects (a pickle), which are never loaded",
            mend="save plain arrays: array.astype(float) and the like, then numpy.save or numpy.savez",
        )
    return DataError(f"{path} cannot be read: {error or type(error).__name__}", mend="write it again with numpy.savez")
