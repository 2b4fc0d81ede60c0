"""Sums over the elements of two arrays in float64, in chunks, without overflow.

Two passes: the first counts what is not finite and finds the largest magnitudes, the second adds up squares of elements
divided by a power of two near the largest, so that they neither overflow nor vanish. Nothing is copied as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["CHUNK", "Array", "Extent", "Norm", "Norms", "find_extent", "find_norms"]

Array: TypeAlias = np.ndarray[Any, Any]

CHUNK = 1 << 18
"""Elements converted to float64 at a time: 2 MiB, which stays in the cache."""


@dataclass
class Extent:
    """What the first pass finds.

    Args:
        actual, expected, difference: the largest magnitudes, over the elements that are finite in both.
        sum_abs: of the difference.
        elements: how many are finite in both.
        nan, inf, reference_nan, reference_inf: counts in either.
        misplaced: whether an element is finite in one only, or differs in another way that no norm can tell.
    """

    actual: float = 0.0
    expected: float = 0.0
    difference: float = 0.0
    sum_abs: float = 0.0
    elements: int = 0
    nan: int = 0
    inf: int = 0
    reference_nan: int = 0
    reference_inf: int = 0
    misplaced: bool = False

    def add(self, own: Array, reference: Array) -> None:
        """Take in a chunk of both, float64."""
        finite = np.isfinite(own) & np.isfinite(reference)
        if not finite.all():
            self._add_special(own, reference, finite)
            own, reference = own[finite], reference[finite]
        if not own.size:
            return
        with np.errstate(over="ignore"):
            difference = np.abs(own - reference)
            self.sum_abs += float(difference.sum())
        self.elements += own.size
        self.difference = max(self.difference, float(difference.max()))
        self.actual = max(self.actual, float(np.abs(own).max()))
        self.expected = max(self.expected, float(np.abs(reference).max()))

    def _add_special(self, own: Array, reference: Array, finite: Array) -> None:
        nan, reference_nan = np.isnan(own), np.isnan(reference)
        inf, reference_inf = np.isinf(own), np.isinf(reference)
        self.nan += int(nan.sum())
        self.inf += int(inf.sum())
        self.reference_nan += int(reference_nan.sum())
        self.reference_inf += int(reference_inf.sum())
        same = (nan & reference_nan) | (inf & (own == reference))
        self.misplaced |= not bool((finite | same).all())


@dataclass(frozen=True)
class Norm:
    """A 2-norm as ``scaled * 2**exponent``; `scaled` is 0, or at least about 1/2."""

    scaled: float
    exponent: int

    @property
    def value(self) -> float:
        """The norm itself; infinite where a float cannot hold it."""
        return _times_power_of_two(self.scaled, self.exponent)

    def over(self, other: Norm) -> float:
        """Return this norm divided by another that is not zero."""
        return _times_power_of_two(self.scaled / other.scaled, self.exponent - other.exponent)

    def decibels_over(self, other: Norm) -> float:
        """Return 20 log10 of this norm over another; infinite where one of them is zero."""
        if not other.scaled:
            return math.inf
        if not self.scaled:
            return -math.inf
        return 20 * (math.log10(self.scaled / other.scaled) + math.log10(2) * (self.exponent - other.exponent))


@dataclass(frozen=True)
class Norms:
    """What the second pass finds: norms of both and of their difference, and the cosine between the two.

    The cosine of two zero vectors is 1, of a zero vector and another 0.
    """

    actual: Norm
    expected: Norm
    difference: Norm
    cosine: float


def find_extent(actual: Array, expected: Array) -> Extent:
    """Make the first pass over two flat arrays of one length."""
    extent = Extent()
    for own, reference in _chunks(actual, expected):
        extent.add(own, reference)
    return extent


def find_norms(actual: Array, expected: Array, extent: Extent) -> Norms:
    """Make the second pass over two flat arrays of one length, whose largest magnitudes are finite."""
    own_at, reference_at, difference_at = map(_exponent, (extent.actual, extent.expected, extent.difference))
    squares = reference_squares = difference_squares = dot = 0.0
    for all_own, all_reference in _chunks(actual, expected):
        finite = np.isfinite(all_own) & np.isfinite(all_reference)
        own, reference = (all_own, all_reference) if finite.all() else (all_own[finite], all_reference[finite])
        difference = np.ldexp(own - reference, -difference_at)
        own, reference = np.ldexp(own, -own_at), np.ldexp(reference, -reference_at)
        squares += float(own @ own)
        reference_squares += float(reference @ reference)
        difference_squares += float(difference @ difference)
        dot += float(own @ reference)
    norm, reference_norm = math.sqrt(squares), math.sqrt(reference_squares)
    return Norms(
        Norm(norm, own_at),
        Norm(reference_norm, reference_at),
        Norm(math.sqrt(difference_squares), difference_at),
        _cosine(norm, reference_norm, dot),
    )


def _chunks(actual: Array, expected: Array) -> Iterator[tuple[Array, Array]]:
    for start in range(0, actual.size, CHUNK):
        part = slice(start, start + CHUNK)
        yield actual[part].astype(np.float64), expected[part].astype(np.float64)


def _cosine(norm: float, reference_norm: float, dot: float) -> float:
    if not norm or not reference_norm:
        return 1.0 if norm == reference_norm else 0.0
    return min(max(dot / norm / reference_norm, -1.0), 1.0)


def _exponent(largest: float) -> int:
    return math.frexp(largest)[1]


def _times_power_of_two(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
