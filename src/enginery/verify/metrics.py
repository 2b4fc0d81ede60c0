"""How far two sets of outputs are apart, in the figures of `OutputRecord`.

With r the reference and d = a - r, over all elements of one output, in float64:

- max and mean absolute error: max |d| and sum |d| / n
- relative L2: sqrt(sum d^2) / sqrt(sum r^2), the relative forward error in the 2-norm (Higham, Accuracy and Stability
  of Numerical Algorithms, 2nd ed., section 6.1)
- cosine: sum a r / (sqrt(sum a^2) sqrt(sum r^2)), held to -1..1 against rounding
- SNR: 10 log10(sum r^2 / sum d^2) dB (Oppenheim and Schafer, Discrete-Time Signal Processing, section 4.8)

Sums run over chunks, so that a large output is never copied to float64 as a whole, and over elements divided by a
power of two near the largest, so that squares neither overflow nor vanish.

NaN, or an infinity of one sign, at the same place of both is equal and left out of the sums. At different places it
makes every error infinite. A reference of nothing but zeros has no scale: the relative L2 is then the norm of d itself,
which is what it would be against a reference of norm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from enginery.dtypes import dtype_name, is_float
from enginery.errors import UnknownNameError
from enginery.records import OutputRecord

__all__ = ["Difference", "measure", "measure_all"]

Array: TypeAlias = np.ndarray[Any, Any]

_CHUNK = 1 << 18
"""Elements converted to float64 at a time: 2 MiB each, which stays in the cache."""

_SCORE_RANKS = (2, 3)
"""Ranks whose last axis may hold classes: (rows, classes) and (rows, positions, classes)."""


@dataclass(frozen=True)
class Difference:
    """How one output differs from the reference's.

    Args:
        record: the figures; its `error` is infinite where the two cannot be compared.
        reason: why they cannot be compared; empty where they can.
    """

    record: OutputRecord
    reason: str = ""


def measure_all(actual: Mapping[str, Any], expected: Mapping[str, Any], *, case: str = "") -> tuple[Difference, ...]:
    """Compare all outputs of one call by name, in the order of the reference.

    An output that `actual` lacks cannot be compared; one that only `actual` has is passed over.

    Args:
        actual: the engine's outputs.
        expected: the reference's.
        case: which input it was, for the records.
    """
    found: list[Difference] = []
    for name, reference in expected.items():
        if name in actual:
            found.extend(measure(actual[name], reference, name=name, case=case))
        else:
            found.append(_incomparable(reference, name, case, "the engine has no such output"))
    return tuple(found)


def measure(actual: Any, expected: Any, *, name: str = "", case: str = "") -> Iterator[Difference]:
    """Compare one output with the reference's: an array, or a list of arrays (one figure for each, ``name[0]``...).

    Floats of any width are compared with each other, and so are integers, in value; complex numbers count as pairs of
    floats. All other types have only the share of elements that differ. Neither array is changed.

    Example:
        >>> (found,) = measure(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
        >>> found.record.max_abs, found.record.relative_l2
        (0.5, 0.1)
    """
    if isinstance(expected, list | tuple):
        yield from _measure_sequence(actual, expected, name, case)
    elif isinstance(expected, np.ndarray | np.generic) and isinstance(actual, np.ndarray | np.generic):
        yield _measure_arrays(np.asarray(actual), np.asarray(expected), name, case)
    elif actual is None and expected is None:
        yield Difference(OutputRecord(name, case, "none", (), mismatch=0.0))
    else:
        reason = f"it is a {type(actual).__name__}, the reference's a {type(expected).__name__}"
        yield _incomparable(expected, name, case, reason)


def _measure_sequence(actual: Any, expected: Any, name: str, case: str) -> Iterator[Difference]:
    if not isinstance(actual, list | tuple) or len(actual) != len(expected):
        length = f"a sequence of {len(actual)}" if isinstance(actual, list | tuple) else f"a {type(actual).__name__}"
        yield _incomparable(expected, name, case, f"it is {length}, the reference's a sequence of {len(expected)}")
        return
    if not expected:
        yield Difference(OutputRecord(name, case, "sequence", (0,), mismatch=0.0))
    for at, (own, reference) in enumerate(zip(actual, expected, strict=True)):
        yield from measure(own, reference, name=f"{name}[{at}]", case=case)


def _measure_arrays(actual: Array, expected: Array, name: str, case: str) -> Difference:
    kind, other = _kind(actual), _kind(expected)
    if kind != other:
        reason = f"its dtype is {actual.dtype}, the reference's {expected.dtype}"
        return _incomparable(expected, name, case, reason)
    if actual.shape != expected.shape:
        return _incomparable(expected, name, case, f"its shape is {actual.shape}, the reference's {expected.shape}")
    record = OutputRecord(name, case, _name(actual.dtype), actual.shape)
    if kind not in ("float", "complex"):
        return Difference(replace(record, mismatch=_mismatch(actual, expected)))
    record = _with_norms(record, _flat(actual), _flat(expected))
    if kind == "float":
        record = replace(record, top1_agreement=_top1_agreement(actual, expected))
    return Difference(record)


def _incomparable(expected: Any, name: str, case: str, reason: str) -> Difference:
    shape = tuple(np.shape(expected)) if isinstance(expected, np.ndarray | np.generic) else ()
    dtype = _name(expected.dtype) if isinstance(expected, np.ndarray | np.generic) else type(expected).__name__
    return Difference(OutputRecord(name, case, dtype, shape, relative_l2=math.inf), reason)


def _kind(array: Array) -> str:
    """Return the family of element types that can be compared in value."""
    name = _name(array.dtype)
    if is_float(name):
        return "float"
    if name.startswith("complex"):
        return "complex"
    return "integer" if "int" in name else name


def _name(dtype: np.dtype[Any]) -> str:
    try:
        return dtype_name(dtype)
    except UnknownNameError:
        return str(dtype)


def _flat(array: Array) -> Array:
    """Return the elements in one row, complex numbers as pairs; a view where the array is contiguous."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _chunks(actual: Array, expected: Array) -> Iterator[tuple[Array, Array]]:
    """Yield both in float64, a chunk at a time."""
    for start in range(0, actual.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        yield actual[part].astype(np.float64), expected[part].astype(np.float64)


@dataclass
class _Extent:
    """What a first pass over the elements finds: largest magnitudes, and what is not finite."""

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
        nan, reference_nan = np.isnan(own), np.isnan(reference)
        inf, reference_inf = np.isinf(own), np.isinf(reference)
        self.nan += int(nan.sum())
        self.inf += int(inf.sum())
        self.reference_nan += int(reference_nan.sum())
        self.reference_inf += int(reference_inf.sum())
        finite = ~(nan | inf | reference_nan | reference_inf)
        same = (nan & reference_nan) | (inf & (own == reference))
        self.misplaced |= not bool((finite | same).all())
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


def _with_norms(record: OutputRecord, actual: Array, expected: Array) -> OutputRecord:
    extent = _Extent()
    for own, reference in _chunks(actual, expected):
        extent.add(own, reference)
    counted = replace(
        record, nan=extent.nan, inf=extent.inf,
        reference_nan=extent.reference_nan, reference_inf=extent.reference_inf,
    )  # fmt: skip
    if extent.misplaced or math.isinf(extent.difference):
        return replace(
            counted, max_abs=math.inf, mean_abs=math.inf, relative_l2=math.inf, cosine=math.nan, snr_db=-math.inf
        )
    norm, reference_norm, difference_norm, dot = _norms(actual, expected, extent)
    return replace(
        counted,
        max_abs=extent.difference,
        mean_abs=extent.sum_abs / max(extent.elements, 1),
        relative_l2=difference_norm.over(reference_norm) if reference_norm.scaled else difference_norm.value,
        cosine=_cosine(norm, reference_norm, dot),
        snr_db=_decibels(reference_norm, difference_norm),
    )


@dataclass(frozen=True)
class _Norm:
    """A norm as ``scaled * 2**exponent``; `scaled` is 0, or at least about 1/2."""

    scaled: float
    exponent: int

    @property
    def value(self) -> float:
        return _times_power_of_two(self.scaled, self.exponent)

    def over(self, other: _Norm) -> float:
        return _times_power_of_two(self.scaled / other.scaled, self.exponent - other.exponent)


def _norms(actual: Array, expected: Array, extent: _Extent) -> tuple[_Norm, _Norm, _Norm, float]:
    """Return the norms of both and of their difference, and the dot product of both divided by their scales."""
    own_at, reference_at, difference_at = map(_exponent, (extent.actual, extent.expected, extent.difference))
    squares = reference_squares = difference_squares = dot = 0.0
    for own, reference in _chunks(actual, expected):
        finite = np.isfinite(own) & np.isfinite(reference)
        if not finite.all():
            own, reference = own[finite], reference[finite]  # noqa: PLW2901 - the same places are not finite in both
        difference = np.ldexp(own - reference, -difference_at)
        own_scaled, reference_scaled = np.ldexp(own, -own_at), np.ldexp(reference, -reference_at)
        difference_squares += float(difference @ difference)
        squares += float(own_scaled @ own_scaled)
        reference_squares += float(reference_scaled @ reference_scaled)
        dot += float(own_scaled @ reference_scaled)
    return (
        _Norm(math.sqrt(squares), own_at),
        _Norm(math.sqrt(reference_squares), reference_at),
        _Norm(math.sqrt(difference_squares), difference_at),
        dot,
    )


def _exponent(largest: float) -> int:
    return math.frexp(largest)[1]


def _times_power_of_two(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def _cosine(norm: _Norm, reference_norm: _Norm, dot: float) -> float:
    if not norm.scaled or not reference_norm.scaled:
        return 1.0 if norm.scaled == reference_norm.scaled else 0.0
    return min(max(dot / norm.scaled / reference_norm.scaled, -1.0), 1.0)


def _decibels(reference_norm: _Norm, difference_norm: _Norm) -> float:
    if not difference_norm.scaled:
        return math.inf
    if not reference_norm.scaled:
        return -math.inf
    ratio = 20 * math.log10(reference_norm.scaled / difference_norm.scaled)
    return ratio + 20 * math.log10(2) * (reference_norm.exponent - difference_norm.exponent)


def _mismatch(actual: Array, expected: Array) -> float:
    actual, expected = actual.reshape(-1), expected.reshape(-1)
    differ = 0
    for start in range(0, actual.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        differ += int(np.count_nonzero(actual[part] != expected[part]))
    return differ / max(actual.size, 1)


def _top1_agreement(actual: Array, expected: Array) -> float | None:
    """Return the share of rows where the engine's largest element is one of the reference's largest.

    Rows run along the last axis, of at least two elements; of arrays whose last axis may hold classes (`_SCORE_RANKS`).
    """
    if actual.ndim not in _SCORE_RANKS or actual.shape[-1] < 2 or not actual.size:  # noqa: PLR2004 - a choice of two
        return None
    classes = actual.shape[-1]
    own, reference = actual.reshape(-1, classes), expected.reshape(-1, classes)
    step = max(_CHUNK // classes, 1)
    agree = 0
    for start in range(0, len(own), step):
        scores = reference[start : start + step].astype(np.float64)
        chosen = own[start : start + step].astype(np.float64).argmax(axis=1)
        rows = np.arange(len(scores))
        best = scores.argmax(axis=1)
        agree += int(np.count_nonzero((chosen == best) | (scores[rows, chosen] == scores[rows, best])))
    return agree / len(own)
