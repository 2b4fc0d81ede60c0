"""Ranges from histograms: what numpy says of all values at once, seen batch by batch."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.graph.precision.histogram import Histogram


@pytest.fixture
def values():
    """Return a bell curve with one value far out."""
    found = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    found[7] = 40.0
    return found


def seen(values, batches=20):
    """Return a histogram that saw the values in batches, the small ones first."""
    found = Histogram(counting=True)
    for part in np.array_split(values[np.argsort(np.abs(values))], batches):
        found.add(part)
    return found


def test_percentile_is_that_of_all_values(values):
    """Within a bin, though the bins' width doubled on the way."""
    low, high = seen(values).range("percentile")
    assert low == pytest.approx(np.percentile(values, 0.005), abs=0.05)
    assert high == pytest.approx(np.percentile(values, 99.995), abs=0.05)


def test_entropy_leaves_out_what_is_far_out(values):
    """And keeps most of the bell."""
    low, high = seen(values).range("entropy")
    assert 2.5 < high < 20
    assert -20 < low < -2.5


def test_minmax_keeps_all(values):
    """To the digit, and with no bins at all."""
    ends = Histogram(counting=False)
    ends.add(values)
    assert ends.range("minmax") == seen(values).range("minmax") == (float(values.min()), 40.0)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_zeros_and_nothing(method):
    """A tensor of zeros has the range that it has; an empty one changes nothing."""
    found = Histogram(counting=True)
    found.add(np.zeros(10, np.float32))
    found.add(np.zeros(0, np.float32))
    assert found.range(method) == (0.0, 0.0)


def test_what_is_not_finite_is_remembered():
    """It is no range's end."""
    found = Histogram(counting=True)
    found.add(np.array([1, 2], np.float32))
    found.add(np.array([1, np.nan], np.float32))
    assert not found.finite
    assert found.range("minmax") == (1.0, 2.0)


def test_numbers_that_are_next_to_nothing():
    """Bins that no two numbers could tell apart are wider, and the range is still what was seen."""
    found = Histogram(counting=True)
    found.add(np.float32([1e-42, -1e-43, 0.0]))
    low, high = found.range("entropy")
    assert -2e-43 < low <= 0 <= high < 2e-42
