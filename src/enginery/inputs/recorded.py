"""Recorded inputs: npz files, npy files and folders of them, Python loaders, and pictures.

Nothing here loads a pickle, and Python code runs only where the user names a loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginery.errors import DataError, InputDtypeError, InputNameError, UsageError
from enginery.inputs.arrays import LABELS, Say, fit_dtype, log, match_names, read_npy, read_npz
from enginery.inputs.base import Array, Case
from enginery.inputs.batches import Item, cut_batches
from enginery.inputs.loader import read_items, run_loader
from enginery.inputs.pictures import SUFFIXES, load_picture
from enginery.records import TensorInfo
from enginery.spec import show_sizes

__all__ = ["load_data", "load_feeds", "load_picture", "stream_data"]

_DATA_HELP = (
    "name an .npz or .npy file, a folder of .npy, .npz or picture files, file.py:loader or package.module:loader"
)


def load_data(
    data: str | Path, inputs: Sequence[TensorInfo], *, batch: int | None = None, say: Say = log
) -> tuple[Case, ...]:
    """Read recorded inputs, cut into batches.

    - an ``.npz`` whose arrays are called as the inputs; under any name where there is one input and one array
    - an ``.npy``, for a model of one input
    - a folder of ``.npy`` files called as the inputs; for a model of one input, files of any name are joined in the
      order of their names
    - a folder of ``.npz`` files, each as above; or of pictures, for a model of one input
    - ``file.py:loader`` or ``package.module:loader``, a function without arguments; see `run_loader` for what it
      returns, which must come to an end

    An array called ``labels`` (in a folder ``labels.npy``) holds the right class of each row, whole numbers. Rows run
    along the first axis. All are used, but for a remainder that is smaller than any batch the engine takes: that is
    said. So is every cast; whole numbers are never made floats.

    Args:
        data: as above.
        inputs: of the engine, with profiles.
        batch: rows of a case; None for the opt size of the profile, the fixed size, or 32 where the axis is open.
        say: told what is cast, renamed or left out.

    Returns:
        Cases called ``data 0``, ``data 1`` and so on, whose arrays share memory.

    Raises:
        DataError: the data cannot be read, or does not fit the inputs.
    """
    return tuple(stream_data(data, inputs, batch=batch, say=say))


def stream_data(
    data: str | Path | Iterable[Any],
    inputs: Sequence[TensorInfo],
    *,
    batch: int | None = None,
    labels: bool = True,
    say: Say = log,
) -> Iterator[Case]:
    """Read recorded inputs as `load_data` does, a batch at a time.

    Args:
        data: as there; or what a loader returns, such as a torch DataLoader.
        inputs: of the engine, with profiles.
        batch: rows of a case.
        labels: whether labels are read; else they may be anything, and no case has any.
        say: told what is cast, renamed or left out.

    Raises:
        DataError: the data cannot be read, or does not fit the inputs.
    """
    named = isinstance(data, str | Path)
    if not named and not isinstance(data, Iterable):
        raise DataError(
            f"a {type(data).__name__} is no data", mend=f"{_DATA_HELP}; in Python, an iterable of inputs too"
        )
    where, once = str(data) if named else f"the {type(data).__name__}", _Once(say)
    read = _read(where, inputs, once, labels=labels) if named else read_items(data, inputs, where, labels=labels)
    items = (_item(arrays, inputs, where, once, labels=labels) for arrays in read)
    cut = cut_batches(items, inputs, batch=batch, where=where, say=say)
    yield from (Case(f"data {at}", feeds, right) for at, (feeds, right) in enumerate(cut))


def load_feeds(
    given: Mapping[str, str | Path] | Iterable[str | Path], inputs: Sequence[TensorInfo], *, say: Say = log
) -> dict[str, Array]:
    """Read the inputs of one call.

    Args:
        given: paths by input name, or texts: ``NAME=PATH``, or a path alone: an ``.npz`` whose arrays are called as
            the inputs, an ``.npy`` called as an input, or any ``.npy`` or picture for a model of one input. Several
            pictures of one input become the rows of a batch.
        inputs: of the engine, with profiles. What is left wrong in shape or missing, the session's checks refuse.
        say: told what is cast, renamed or left out.

    Raises:
        DataError: a file cannot be read.
        InputNameError: a file belongs to no input.
        InputDtypeError: an array has another element type, and no harmless cast.
        UsageError: an input is given twice.
    """
    pairs = given.items() if isinstance(given, Mapping) else (_split_name(str(text), inputs) for text in given)
    found: dict[str, list[Array]] = {}
    pictures: set[str] = set()
    for name, path in pairs:
        for key, array in _read_feed(name, Path(path), inputs, say).items():
            is_picture = Path(path).suffix.lower() in SUFFIXES
            if key in found and not (is_picture and key in pictures):
                raise UsageError(f"input {key!r} is given twice", mend="give it once; several pictures make a batch")
            pictures |= {key} if is_picture else set()
            found.setdefault(key, []).append(array)
    return {name: arrays[0] if len(arrays) == 1 else _stack(name, arrays) for name, arrays in found.items()}


class _Once:
    """Tells each line once: a loader of a thousand items has one cast to report."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _read(data: str, inputs: Sequence[TensorInfo], say: Say, *, labels: bool) -> Iterator[Mapping[str, Array]]:
    path = Path(data)
    if path.is_dir():
        yield from _read_folder(path, inputs, say, labels=labels)
    elif path.suffix == ".npz":
        yield read_npz(path)
    elif path.suffix == ".npy":
        yield {"arr_0": read_npy(path)}
    elif ":" in data and not path.exists():
        yield from run_loader(data, inputs, labels=labels)
    elif path.exists():
        raise DataError(f"{data} is no kind of data known here", mend=_DATA_HELP)
    else:
        raise DataError(f"there is no file {data}", mend=_DATA_HELP)


def _read_folder(
    folder: Path, inputs: Sequence[TensorInfo], say: Say, *, labels: bool
) -> Iterator[Mapping[str, Array]]:
    files = {file.stem: file for file in sorted(folder.glob("*.npy"))}
    others = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".npz", *SUFFIXES))
    if not files and others:
        yield from (_read_one(file, inputs, say) for file in others)
        return
    if not files:
        raise DataError(f"{folder} holds no .npy files, .npz files or pictures", mend=_DATA_HELP)
    names = [info.name for info in inputs]
    if len(names) != 1 or names[0] in files:
        yield {stem: read_npy(file) for stem, file in files.items()}
        return
    beside = files.pop(LABELS, None)
    right = None if beside is None or not labels else read_npy(beside).reshape(-1)
    rank = _rank(inputs[0])
    start = 0
    for file in files.values():
        array = read_npy(file)
        rows = 1 if rank is not None and array.ndim < rank else len(array)
        item = {names[0]: array}
        yield item if right is None else {**item, LABELS: right[start : start + rows]}
        start += rows
    if right is not None and start != len(right):
        raise DataError(f"{folder}: there are {len(right)} labels for {start} rows", mend="give one for each row")


def _read_one(file: Path, inputs: Sequence[TensorInfo], say: Say) -> Mapping[str, Array]:
    """Read one npz file or picture of a folder of them."""
    if file.suffix.lower() == ".npz":
        return read_npz(file)
    if len(inputs) != 1:
        raise DataError(f"{file} is a picture, and the model has {len(inputs)} inputs", mend=_DATA_HELP)
    return {inputs[0].name: load_picture(file, inputs[0], say=say)}


def _rank(info: TensorInfo) -> int | None:
    if info.profile is not None:
        return len(info.profile.dims)
    return None if info.shape is None else len(info.shape)


def _item(arrays: Mapping[str, Array], inputs: Sequence[TensorInfo], where: str, say: Say, *, labels: bool) -> Item:
    matched = match_names(arrays, inputs, where=where, say=say)
    feeds = {info.name: fit_dtype(matched[info.name], info, where=where, say=say) for info in inputs}
    for name, array in feeds.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            say(f"{where}: the values of {name!r} are not all finite, and what follows from NaN proves nothing")
    labelled = labels and LABELS in arrays and LABELS not in feeds
    return feeds, _labels(arrays[LABELS], where) if labelled else None


def _labels(labels: Array, where: str) -> Array:
    if labels.dtype.kind not in "iu" or labels.ndim > 1:
        raise DataError(
            f"{where}: the labels are {labels.dtype} of shape {labels.shape}",
            mend="give the number of the right class for each row, as whole numbers in one dimension",
        )
    return labels.astype(np.int64)


def _split_name(text: str, inputs: Sequence[TensorInfo]) -> tuple[str, Path]:
    """Cut ``NAME=PATH``, where the name is an input's; a path alone has the empty name."""
    names = [info.name for info in inputs]
    for name in names:
        if text.startswith(f"{name}="):
            return name, Path(text[len(name) + 1 :])
    name, equals, path = text.partition("=")
    if equals and not Path(text).exists():
        raise _no_input(name, names, path)
    return "", Path(text)


def _read_feed(name: str, path: Path, inputs: Sequence[TensorInfo], say: Say) -> dict[str, Array]:
    infos = {info.name: info for info in inputs}
    if name and name not in infos:
        raise _no_input(name, list(infos), str(path))
    if path.suffix == ".npz":
        wanted = [infos[name]] if name else inputs
        arrays = match_names(read_npz(path), wanted, where=str(path), error=InputNameError, say=say)
    elif path.suffix == ".npy" or path.suffix.lower() in SUFFIXES:
        name = name or (path.stem if path.stem in infos else _only(infos, path))
        if path.suffix != ".npy":
            return {name: load_picture(path, infos[name], say=say)}
        arrays = {name: read_npy(path)}
    else:
        raise DataError(
            f"{path} is no kind of input known here", mend="give .npy, .npz, .png, .jpg, .jpeg or .bmp files"
        )
    return {
        key: fit_dtype(array, infos[key], where=str(path), error=InputDtypeError, say=say)
        for key, array in arrays.items()
    }


def _only(infos: Mapping[str, TensorInfo], path: Path) -> str:
    if len(infos) != 1:
        raise _no_input(path.stem, list(infos), str(path))
    return next(iter(infos))


def _no_input(name: str, names: Sequence[str], path: str) -> InputNameError:
    listed = ", ".join(map(repr, names)) or "none"
    return InputNameError(
        f"{path} is given for input {name!r}, which the engine does not have",
        mend=f"write NAME=PATH; the inputs are {listed}",
    )


def _stack(name: str, rows: Sequence[Array]) -> Array:
    if len({row.shape for row in rows}) > 1:
        shapes = ", ".join(show_sizes(row.shape) for row in rows)
        raise DataError(f"the pictures of input {name!r} have different sizes: {shapes}", mend="make them one size")
    return np.concatenate(rows)
