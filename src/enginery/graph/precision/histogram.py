"""Histograms of tensors that are seen batch by batch, and the ranges that follow from them.

The entropy method is the one of NVIDIA's "8-bit Inference with TensorRT" (GTC 2017): of all thresholds, take the one
at which the clipped histogram loses least to its 128 levels by Kullback-Leibler divergence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["PERCENTILE", "Histogram"]

PERCENTILE = 99.99
"""Share of the values that a range by ``percentile`` holds, in percent."""

_HALF = 2048  # bins on either side of zero
_LEVELS = 128
_STEP = 16
_LEAST_REACH = 1e-30  # bins narrower than the smallest numbers are none


class Histogram:
    """What was seen of one tensor: its ends, and counts in bins that are symmetric around zero.

    When a value lies beyond the bins, their width doubles and neighbours are joined, so nothing is seen twice and no
    tensor is kept.

    Args:
        counting: whether to fill the bins; ``minmax`` needs only the ends.

    Example:
        >>> seen = Histogram(counting=True)
        >>> seen.add(np.array([-1.0, 2.0, 8.0], np.float32))
        >>> seen.range("minmax")
        (-1.0, 8.0)
    """

    def __init__(self, *, counting: bool) -> None:
        self.low, self.high = np.inf, -np.inf
        self.finite = True
        self._counting = counting
        self._reach = 0.0
        self._counts = np.zeros(2 * _HALF, np.int64)

    def add(self, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        """See one more tensor."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            self.finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self._counting and (largest := max(-low, high)) > 0:
            self._widen(largest)
            self._counts += np.histogram(array, bins=2 * _HALF, range=(-self._reach, self._reach))[0]

    def range(self, method: str) -> tuple[float, float]:
        """Return the ends of the range by a method, of `enginery.spec.CALIBRATION_METHODS`."""
        if method == "minmax" or not self._counts.any():
            return self.low, self.high
        low, high = self._percentile() if method == "percentile" else self._entropy()
        return max(self.low, low), min(self.high, high)

    def _widen(self, largest: float) -> None:
        if not self._reach:
            self._reach = max(largest, _LEAST_REACH)
        while self._reach < largest:
            pairs = self._counts.reshape(_HALF, 2).sum(axis=1)
            self._counts[:] = 0
            self._counts[_HALF // 2 : _HALF // 2 + _HALF] = pairs
            self._reach *= 2

    def _percentile(self) -> tuple[float, float]:
        """Cut half of what is too much off each end."""
        share = np.cumsum(self._counts) / self._counts.sum()
        tail = (1 - PERCENTILE / 100) / 2
        edges = np.linspace(-self._reach, self._reach, 2 * _HALF + 1)
        first = int(np.searchsorted(share, tail, side="right"))
        last = int(np.searchsorted(share, 1 - tail, side="left"))
        return float(edges[first]), float(edges[min(last, 2 * _HALF - 1) + 1])

    def _entropy(self) -> tuple[float, float]:
        sizes = (self._counts[_HALF:] + self._counts[:_HALF][::-1]).astype(np.float64)
        sizes[0] = 0  # zeros, as after a Relu, are exact at every scale
        ends = range(_LEVELS, _HALF + 1, _STEP)
        best = min(ends, key=lambda end: _divergence(sizes, end))
        threshold = self._reach * best / _HALF
        return -threshold, threshold


def _divergence(sizes: np.ndarray[Any, np.dtype[np.float64]], end: int) -> float:
    """Return what is lost when the first `end` bins share `_LEVELS` levels and the rest is clipped into the last."""
    whole = sizes[:end].copy()
    whole[-1] += sizes[end:].sum()
    if not whole.any():
        return np.inf
    level = np.arange(end) * _LEVELS // end
    kept = sizes[:end]
    sums = np.bincount(level, weights=kept, minlength=_LEVELS)
    filled = np.bincount(level, weights=kept > 0, minlength=_LEVELS)
    spread = np.where(kept > 0, (sums / np.maximum(filled, 1))[level], 0.0)
    if not spread.any():
        return np.inf
    one, other = whole / whole.sum(), spread / spread.sum()
    seen = one > 0
    return float((one[seen] * np.log(one[seen] / np.maximum(other[seen], 1e-12))).sum())
