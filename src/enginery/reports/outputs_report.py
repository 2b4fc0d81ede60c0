"""What an engine answered: a line for each output, and the best classes where they look like scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, join, table

__all__ = ["OutputSummary", "RankedClass", "outputs_text", "summarise_outputs"]

_TOP = 5
_MAX_ROWS = 8
_MIN_CLASSES = 2


@dataclass(frozen=True)
class RankedClass:
    """One class of one row, with its score."""

    index: int
    score: float


@dataclass(frozen=True)
class OutputSummary:
    """One output in short.

    Args:
        name: of the output.
        dtype: numpy's name of the element type.
        shape: of the array.
        min, mean, max: over the finite elements; None where the output holds no numbers.
        nan: how many elements are NaN.
        top: the best classes of each row (of the first eight rows), for outputs of shape [rows, classes].
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    min: float | None
    mean: float | None
    max: float | None
    nan: int
    top: tuple[tuple[RankedClass, ...], ...] = ()


def summarise_outputs(outputs: Mapping[str, Any]) -> tuple[OutputSummary, ...]:
    """Describe arrays by name; nothing of them is kept.

    Example:
        >>> found = summarise_outputs({"scores": np.array([[0.1, 0.7, 0.2]])})
        >>> found[0].top[0][0].index
        1
    """
    return tuple(_summarise(name, np.asarray(array)) for name, array in outputs.items())


def outputs_text(outputs: Mapping[str, Any], style: Style = PLAIN) -> str:
    """Render arrays by name: element type, shape, range, and the best classes of each row."""
    found = summarise_outputs(outputs)
    columns = [
        Column("output", wraps=True), Column("dtype"), Column("shape"), Column("min", right=True),
        Column("mean", right=True), Column("max", right=True), Column("NaN", right=True, rank=1),
    ]  # fmt: skip
    rows = [
        [one.name, one.dtype, figures.shape(one.shape), _number(one.min), _number(one.mean), _number(one.max),
         str(one.nan)]
        for one in found
    ]  # fmt: skip
    return join(table(columns, rows, style), *(_ranking(one, style) for one in found if one.top))


def _summarise(name: str, array: np.ndarray[Any, Any]) -> OutputSummary:
    if array.size == 0 or not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        return OutputSummary(name, str(array.dtype), array.shape, None, None, None, 0)
    real = np.abs(array) if np.iscomplexobj(array) else array.astype(np.float64)
    finite = real[np.isfinite(real)]
    low, mean, high = (float(f(finite)) for f in (np.min, np.mean, np.max)) if finite.size else (None, None, None)
    return OutputSummary(name, str(array.dtype), array.shape, low, mean, high, int(np.isnan(real).sum()), _top(array))


def _top(array: np.ndarray[Any, Any]) -> tuple[tuple[RankedClass, ...], ...]:
    """Rank the classes of scores: floats of shape [rows, classes] without NaN."""
    looks_like_scores = array.ndim == 2 and array.shape[1] >= _MIN_CLASSES and array.dtype.kind == "f"  # noqa: PLR2004
    if not looks_like_scores or np.isnan(array).any():
        return ()
    best = np.argsort(-array[:_MAX_ROWS], axis=1, kind="stable")[:, :_TOP]
    return tuple(
        tuple(RankedClass(int(index), float(array[row, index])) for index in indices)
        for row, indices in enumerate(best)
    )


def _ranking(one: OutputSummary, style: Style) -> str:
    best = len(one.top[0])
    columns = [Column(f"{one.name}: row"), *(Column(f"top {rank}", right=True) for rank in range(1, best + 1))]
    rows = [
        [str(at), *(f"{ranked.index} ({_number(ranked.score)})" for ranked in row)] for at, row in enumerate(one.top)
    ]
    text = table(columns, rows, style)
    more = one.shape[0] - len(one.top)
    return f"{text}\n({figures.plural(more, 'more row')})" if more > 0 else text


def _number(value: float | None) -> str:
    return figures.NOTHING if value is None else f"{value:.4g}"
