"""Rows of recorded data, joined and cut into the batches that an engine takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from enginery.errors import DataError
from enginery.inputs.arrays import Say, shown_array, shown_input
from enginery.inputs.base import Array, dim_name
from enginery.records import TensorInfo
from enginery.spec import Dim

__all__ = ["Item", "cut_batches"]

Item: TypeAlias = tuple[dict[str, Array], Array | None]
"""Arrays by input name, and the labels of their rows."""

_OPEN_BATCH = 32
"""Rows of a batch where neither the caller nor the engine names a number."""


def cut_batches(
    items: Iterable[Item], inputs: Sequence[TensorInfo], *, batch: int | None, where: str, say: Say
) -> Iterator[Item]:
    """Join consecutive items whose rows have one shape, and cut them into batches.

    The first axis of an input counts rows where it is dynamic, or fixed at another size than the array has. An array
    with one axis less than its input is a single row. What is left after the last full batch is a shorter batch where
    the engine takes that many rows, else it is dropped and said so.

    Args:
        items: with the inputs' names and element types.
        inputs: of the engine, with profiles.
        batch: rows of a batch; None for the opt size of the profile, the fixed size, or 32 where the axis is open.
        where: the file or loader, for messages.
        say: told what is dropped.

    Yields:
        Batches that fit the profile; their arrays are views where they can be. Few rows more than `_HELD_ROWS` are
        held at a time, unless an item has more.

    Raises:
        DataError: an array does not fit its input, inputs have different numbers of rows, or no batch is left.
    """
    count = 0
    held = batch or next((dim.opt for dim in map(_first_dim, inputs) if dim is not None), _OPEN_BATCH) or 1
    held *= -(-_HELD_ROWS // held)
    for feeds, labels in _joined((_checked(item, inputs, where) for item in items), held):
        for piece in _cut(feeds, labels, _Rows.of(feeds, inputs, batch, where), where, say):
            count += 1
            yield piece
    if not count:
        raise DataError(
            f"{where} holds no batch that the engine takes", mend="give more rows, or build for smaller ones"
        )


_HELD_ROWS = 256
"""Rows that are joined at the least before batches are cut from them."""


@dataclass(frozen=True)
class _Rows:
    """How the first axes of one item's arrays are cut.

    Args:
        names: the inputs whose first axis counts rows; empty where the item is one call as it stands.
        count: rows in the item.
        batch: rows of a batch.
        allowed: what the engine takes, for each of `names`; None where any number.
    """

    names: tuple[str, ...]
    count: int
    batch: int
    allowed: tuple[Dim | None, ...]

    @classmethod
    def of(cls, feeds: Mapping[str, Array], inputs: Sequence[TensorInfo], batch: int | None, where: str) -> _Rows:
        infos = [info for info in inputs if _counts_rows(feeds[info.name], info)]
        counts = {info.name: len(feeds[info.name]) for info in infos}
        allowed = tuple(_first_dim(info) for info in infos)
        names = tuple(counts)
        if len(set(counts.values())) > 1:
            if all(dim is None or size in dim for size, dim in zip(counts.values(), allowed, strict=True)):
                return cls((), 1, 1, ())
            listed = ", ".join(f"{name!r} {size}" for name, size in counts.items())
            raise DataError(f"{where}: the inputs have different numbers of rows: {listed}", mend="give each as many")
        if batch is None:
            batch = next((dim.opt for dim in allowed if dim is not None), _OPEN_BATCH)
        return cls(names, next(iter(counts.values()), 1), batch, allowed)

    def fit(self, rows: int) -> bool:
        """Say whether the engine takes a batch of so many rows."""
        return rows > 0 and all(dim is None or rows in dim for dim in self.allowed)


def _cut(feeds: dict[str, Array], labels: Array | None, rows: _Rows, where: str, say: Say) -> Iterator[Item]:
    if not rows.names:
        yield feeds, labels
        return
    if labels is not None and len(labels) != rows.count:
        raise DataError(f"{where}: there are {len(labels)} labels for {rows.count} rows", mend="give one for each row")
    if not rows.fit(rows.batch):
        taken = ", ".join(f"{name!r} {dim}" for name, dim in zip(rows.names, rows.allowed, strict=True))
        raise DataError(f"{where}: the engine takes no batch of {rows.batch}: {taken}", mend="choose a batch it takes")
    for start in range(0, rows.count, rows.batch):
        part = slice(start, min(start + rows.batch, rows.count))
        if not rows.fit(part.stop - part.start):
            say(
                f"{where}: the last {part.stop - part.start} of {rows.count} rows are left out: "
                f"the engine takes no batch so short"
            )
            return
        cut = {name: array[part] if name in rows.names else array for name, array in feeds.items()}
        yield cut, None if labels is None else labels[part]


def _joined(items: Iterable[tuple[Item, bool]], held: int) -> Iterator[Item]:
    """Join consecutive items that may be joined and whose rows have one shape, `held` rows at a time."""
    pending: list[Item] = []
    for item, joins in items:
        if pending and not (joins and _form(item) == _form(pending[0])):
            yield _concatenate(pending)
            pending = []
        pending.append(item)
        if not joins:
            yield pending.pop()
        elif (count := sum(map(_count_rows, pending))) >= held:
            whole = _concatenate(pending)
            full = count // held * held
            yield _part(whole, slice(0, full))
            pending = [_part(whole, slice(full, count))] if full < count else []
    if pending:
        yield _concatenate(pending)


def _count_rows(item: Item) -> int:
    return max((len(array) for array in item[0].values()), default=0)


def _part(item: Item, rows: slice) -> Item:
    feeds, labels = item
    return {name: array[rows] for name, array in feeds.items()}, None if labels is None else labels[rows]


def _form(item: Item) -> tuple[object, ...]:
    """Return what two items must share to be joined: the shape of a row, and whether there are labels."""
    feeds, labels = item
    return labels is None, *((name, array.shape[1:]) for name, array in feeds.items())


def _concatenate(items: Sequence[Item]) -> Item:
    if len(items) == 1:
        return items[0]
    feeds = {name: np.concatenate([item[name] for item, _ in items]) for name in items[0][0]}
    labels = [labels for _, labels in items if labels is not None]
    return feeds, np.concatenate(labels) if labels else None


def _checked(item: Item, inputs: Sequence[TensorInfo], where: str) -> tuple[Item, bool]:
    """Give a single row its axis, check all axes but the first, and say whether the item may be joined with others."""
    feeds, labels = item
    feeds = {info.name: _fit_axes(feeds[info.name], info, where) for info in inputs}
    joins = bool(inputs) and all(_counts_rows(feeds[info.name], info) for info in inputs)
    return (feeds, None if labels is None else labels.reshape(-1)), joins


def _fit_axes(array: Array, info: TensorInfo, where: str) -> Array:
    dims = _dims(info)
    if dims is None:
        return array
    if array.ndim == len(dims) - 1:
        array = array[None]
    if array.ndim != len(dims):
        raise DataError(
            f"{where}: {shown_array(info.name, array)} has {array.ndim} dimensions, the input {len(dims)}: "
            f"{shown_input(info)}",
            mend="give the input's number of dimensions, or one less for a single row",
        )
    for axis, (size, dim) in enumerate(zip(array.shape, dims, strict=True)):
        if axis and dim is not None and size not in dim:
            allowed = f"{dim.min} to {dim.max}" if dim.dynamic else str(dim.min)
            name = dim_name(info, axis)
            raise DataError(
                f"{where}: {shown_array(info.name, array)}, axis {axis}{f' ({name})' if name else ''}: "
                f"size {size}, the engine takes {allowed}",
                mend="give data of that size, or build for this one with --shapes",
            )
    return array


def _counts_rows(array: Array, info: TensorInfo) -> bool:
    dim = _first_dim(info)
    return array.ndim > 0 and (dim is None or dim.dynamic or len(array) not in dim)


def _first_dim(info: TensorInfo) -> Dim | None:
    dims = _dims(info)
    return dims[0] if dims else None


def _dims(info: TensorInfo) -> tuple[Dim | None, ...] | None:
    """Return the sizes each axis may take, None for any; None for an unknown rank."""
    if info.profile is not None:
        return info.profile.dims
    if info.shape is None:
        return None
    return tuple(Dim.fixed(dim) if isinstance(dim, int) else None for dim in info.shape)
