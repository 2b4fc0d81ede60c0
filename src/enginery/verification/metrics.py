"""How far two sets of outputs are apart, in the figures of `OutputRecord`.

With r the reference and d = a - r, over all elements of one output, in float64:

- max and mean absolute error: max |d| and sum |d| / n
- relative L2: sqrt(sum d^2) / sqrt(sum r^2), the relative forward error in the 2-norm (Higham, Accuracy and Stability
  of Numerical Algorithms, 2nd ed., section 1.2)
- cosine: sum a r / (sqrt(sum a^2) sqrt(sum r^2)), held to -1..1 against rounding
- SNR: 10 log10(sum r^2 / sum d^2) dB (Oppenheim and Schafer, Discrete-Time Signal Processing, 2nd ed., section 4.8.3)

NaN, or an infinity of one sign, at the same place of both is equal and left out of the sums. At different places it
makes every error infinite. A reference of nothing but zeros has no scale: the relative L2 is then the norm of d itself,
which is what it would be against a reference of norm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from enginery.dtypes import dtype_text, is_float
from enginery.records import OutputRecord
from enginery.verification.norms import CHUNK, Array, find_extent, find_norms

__all__ = ["Difference", "measure", "measure_all"]

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
    record = OutputRecord(name, case, dtype_text(actual.dtype), actual.shape)
    if kind not in ("float", "complex"):
        return Difference(replace(record, mismatch=_mismatch(actual, expected)))
    record = _with_norms(record, _flat(actual), _flat(expected))
    if kind == "float":
        record = replace(record, top1_agreement=_top1_agreement(actual, expected))
    return Difference(record)


def _incomparable(expected: Any, name: str, case: str, reason: str) -> Difference:
    shape = tuple(np.shape(expected)) if isinstance(expected, np.ndarray | np.generic) else ()
    dtype = dtype_text(expected.dtype) if isinstance(expected, np.ndarray | np.generic) else type(expected).__name__
    return Difference(OutputRecord(name, case, dtype, shape, relative_l2=math.inf), reason)


def _kind(array: Array) -> str:
    """Return the family of element types that can be compared in value."""
    name = dtype_text(array.dtype)
    if is_float(name):
        return "float"
    if name.startswith("complex"):
        return "complex"
    return "integer" if "int" in name else name


def _flat(array: Array) -> Array:
    """Return the elements in one row, complex numbers as pairs; a view where the array is contiguous."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _with_norms(record: OutputRecord, actual: Array, expected: Array) -> OutputRecord:
    extent = find_extent(actual, expected)
    record = replace(
        record,
        nan=extent.nan,
        inf=extent.inf,
        reference_nan=extent.reference_nan,
        reference_inf=extent.reference_inf,
    )
    if extent.misplaced or math.isinf(extent.difference):
        worst = math.inf
        return replace(record, max_abs=worst, mean_abs=worst, relative_l2=worst, cosine=math.nan, snr_db=-worst)
    norms = find_norms(actual, expected, extent)
    return replace(
        record,
        max_abs=extent.difference,
        mean_abs=extent.sum_abs / max(extent.elements, 1),
        relative_l2=norms.difference.over(norms.expected) if norms.expected.scaled else norms.difference.value,
        cosine=norms.cosine,
        snr_db=norms.expected.decibels_over(norms.difference),
    )


def _mismatch(actual: Array, expected: Array) -> float:
    actual, expected = actual.reshape(-1), expected.reshape(-1)
    differ = 0
    for start in range(0, actual.size, CHUNK):
        part = slice(start, start + CHUNK)
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
    step = max(CHUNK // classes, 1)
    agree = 0
    for start in range(0, len(own), step):
        scores = reference[start : start + step].astype(np.float64)
        chosen = own[start : start + step].astype(np.float64).argmax(axis=1)
        rows = np.arange(len(scores))
        best = scores.argmax(axis=1)
        agree += int(np.count_nonzero((chosen == best) | (scores[rows, chosen] == scores[rows, best])))
    return agree / len(own)
