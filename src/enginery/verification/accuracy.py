"""How often the highest score stands at the right class, for the engine and for its reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginery.dtypes import dtype_name, is_float
from enginery.inputs.base import Array

__all__ = ["Accuracy", "scores_output"]


@dataclass
class Accuracy:
    """Top-1 accuracy, added up over cases.

    Args:
        rows: with a label and scores of the reference for it.
        right: of those, where the engine's highest score is the label's.
        reference_right: of those, where the reference's is.
        unscored: rows with a label, but without an output that holds scores.
    """

    rows: int = 0
    right: int = 0
    reference_right: int = 0
    unscored: int = 0

    def add(self, labels: Array, actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Take in one call; an engine whose scores are missing, or of another shape, is wrong in every row."""
        name = scores_output(expected, len(labels))
        if name is None:
            self.unscored += len(labels)
            return
        self.rows += len(labels)
        self.reference_right += _right(expected[name], labels)
        scores = actual.get(name)
        if isinstance(scores, np.ndarray) and scores.shape == expected[name].shape:
            self.right += _right(scores, labels)

    @property
    def engine(self) -> float | None:
        """Share of rows where the engine is right; None where nothing was counted."""
        return self.right / self.rows if self.rows else None

    @property
    def reference(self) -> float | None:
        """Share of rows where the reference is right; None where nothing was counted."""
        return self.reference_right / self.rows if self.rows else None


def scores_output(outputs: Mapping[str, Any], rows: int) -> str | None:
    """Return the first output that holds scores: floats of shape (rows, classes), two classes at the least.

    Example:
        >>> scores_output({"mask": np.ones((4, 2), bool), "scores": np.ones((4, 10))}, rows=4)
        'scores'
    """
    for name, array in outputs.items():
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.shape[0] != rows:  # noqa: PLR2004 - a table
            continue
        if array.shape[1] > 1 and is_float(dtype_name(array.dtype)):
            return name
    return None


def _right(scores: Array, labels: Array) -> int:
    return int(np.count_nonzero(scores.astype(np.float64).argmax(axis=1) == labels))
