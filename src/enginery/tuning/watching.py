"""The values that tensors take, in a few numbers each: what decides whether a narrower type can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginery.inputs.base import Array

__all__ = ["Seen", "chunks", "look", "merge"]

_PIECE = 1 << 20
_UNKNOWN_BYTES = 64 << 20
_BYTES = 4


@dataclass(frozen=True)
class Seen:
    """What was seen of one tensor over all cases.

    Args:
        shape: of the first case.
        elements: of all cases.
        largest: of the finite magnitudes.
        smallest: of the magnitudes that are not 0; infinity where there is none.
        beyond: how many finite values are above the type's largest number.
        vanished: how many values other than 0 become 0 in the type.
        subnormal: how many become subnormal: they keep few digits.
    """

    shape: tuple[int, ...]
    elements: int = 0
    largest: float = 0.0
    smallest: float = math.inf
    beyond: int = 0
    vanished: int = 0
    subnormal: int = 0


def look(array: Array, limits: Sequence[float]) -> Seen:
    """Look at one array, a piece at a time.

    Args:
        array: float32 values; not changed.
        limits: of the type: its largest finite number, its smallest normal one, and its smallest of all.

    Example:
        >>> look(np.array([7e4, 1e-9, 0.5, 0.0], np.float32), (65504.0, 6.1e-5, 6e-8)).beyond
        1
    """
    largest_number, normal, smallest_number = limits
    found = Seen(tuple(array.shape))
    for piece in _pieces(array.reshape(-1)):
        size = np.abs(piece[np.isfinite(piece)])
        above = size[size > 0]
        one = Seen(
            found.shape,
            elements=piece.size,
            largest=float(size.max(initial=0.0)),
            smallest=float(above.min(initial=math.inf)),
            beyond=int(np.count_nonzero(size > largest_number)),
            vanished=int(np.count_nonzero(above <= smallest_number / 2)),
            subnormal=int(np.count_nonzero((above > smallest_number / 2) & (above < normal))),
        )
        found = merge(found, one)
    return found


def merge(one: Seen, other: Seen) -> Seen:
    """Put together what was seen of one tensor in two places."""
    return Seen(
        one.shape,
        one.elements + other.elements,
        max(one.largest, other.largest),
        min(one.smallest, other.smallest),
        one.beyond + other.beyond,
        one.vanished + other.vanished,
        one.subnormal + other.subnormal,
    )


def chunks(
    names: Iterable[str], sizes: Mapping[str, tuple[int, ...] | None], limit_bytes: int
) -> Iterator[tuple[str, ...]]:
    """Cut names of tensors into groups whose tensors together stay below a size; a tensor above it goes alone.

    Example:
        >>> list(chunks("abc", {"a": (100,), "b": (50,), "c": (60,)}, limit_bytes=600))
        [('a', 'b'), ('c',)]
    """
    group: list[str] = []
    held = 0
    for name in names:
        shape = sizes.get(name)
        size = _UNKNOWN_BYTES if shape is None else _BYTES * math.prod(shape)
        if group and held + size > limit_bytes:
            yield tuple(group)
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield tuple(group)


def _pieces(flat: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    for begin in range(0, flat.size, _PIECE):
        yield flat[begin : begin + _PIECE]
