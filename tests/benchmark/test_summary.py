"""Percentiles, the interval of the median, and the stopping rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.benchmark.summary import is_stable, median_interval, percentile, rule_text, summarise
from enginery.spec import BenchSpec

SPEC = BenchSpec(min_samples=20, min_turns=3, stable_within=0.01)


@pytest.mark.parametrize(
    ("count", "rank"), [(6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (25, 8), (50, 18), (71, 27), (100, 40)]
)
def test_the_interval_has_the_published_ranks(count, rank):
    """The ranks are those of the tables of distribution-free intervals for the median at 95 %."""
    assert median_interval(np.arange(1.0, count + 1)) == (rank, count + 1 - rank)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_few_samples_give_their_range(count):
    """Below six samples no interval has 95 %; all of them are returned."""
    assert median_interval(np.arange(1.0, count + 1)) == (1, count)


@pytest.mark.parametrize("draw", ["exponential", "standard_normal", "standard_cauchy"])
@pytest.mark.parametrize("count", [7, 20, 101, 1500])
def test_the_interval_covers_the_median(draw, count):
    """Of many samples, at least 95 % of the intervals hold the true median, whatever the distribution."""
    random = np.random.default_rng(count)
    median = math.log(2) if draw == "exponential" else 0.0
    trials = 2000 if count < 1000 else 1000
    covered = 0
    for _ in range(trials):
        low, high = median_interval(getattr(random, draw)(size=count))
        covered += low <= median <= high
    # Three standard deviations of a binomial count at 95 %.
    assert covered / trials > 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)


def test_exact_and_approximate_ranks_meet():
    """Where the normal approximation takes over, the ranks do not jump by more than it rounds."""
    low, _ = median_interval(np.arange(999.0))
    following, _ = median_interval(np.arange(1000.0))
    assert abs(following - low) <= 1


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60))
def test_the_interval_holds_the_median(samples):
    """The interval lies within the samples, around their median."""
    low, high = median_interval(samples)
    assert min(samples) <= low <= percentile(samples, 50) * (1 + 1e-12)
    assert percentile(samples, 50) * (1 - 1e-12) <= high <= max(samples)


def test_percentiles_interpolate():
    """Definition 7: linear between the two nearest ranks."""
    assert percentile([4.0, 1.0, 3.0, 2.0], 90) == pytest.approx(3.7)
    assert percentile([5.0], 99) == 5.0


def steady(turns=3, each=20, centre=1.0, spread=0.002, seed=0):
    """Return turns of samples that lie close to each other."""
    random = np.random.default_rng(seed)
    return [list(centre + spread * random.standard_normal(each)) for _ in range(turns)]


def test_steady_turns_are_stable():
    """Enough samples in enough turns that agree: stable."""
    assert is_stable(steady(), SPEC)


@pytest.mark.parametrize(
    ("turns", "why"),
    [
        ([], "no turn"),
        (steady(turns=2, each=100), "too few turns"),
        (steady(each=6), "too few samples"),
        (steady(spread=0.2), "interval too wide"),
        (steady(turns=4) + steady(turns=4, centre=1.03), "medians drift, and the interval alone would not tell"),
    ],
)
def test_everything_else_is_not(turns, why):
    """Each part of the rule counts by itself."""
    assert not is_stable(turns, SPEC), why


def test_a_drift_within_its_share_is_allowed():
    """Turns whose medians differ by less than twice the interval's share are stable."""
    assert is_stable(steady(turns=2) + steady(turns=2, centre=1.005), SPEC)


def test_the_rule_in_words_has_its_figures():
    """The rule that is saved with each record names its figures."""
    assert rule_text(BenchSpec(stable_within=0.02, min_samples=30, min_turns=4, limit_s=2.5)) == (
        "95 % confidence interval of the median within 2 % of it on either side, at least 30 samples in 4 turns, "
        "medians of the earlier and the later turns within 4 % of each other; or 2.5 s"
    )


def test_summary_of_known_samples():
    """Every figure of the record, from samples that can be counted by hand."""
    turns = [[1.0, 2.0, 3.0], [], [4.0, 5.0]]
    record = summarise(
        turns, shapes={"x": (8, 3)}, batch=8, first_call_ms=9.0, load_ms=70.0, placement="CPU", spec=SPEC
    )
    assert (record.samples, record.min_ms, record.p50_ms, record.mean_ms) == (5, 1.0, 3.0, 3.0)
    assert (record.p90_ms, record.p99_ms) == (pytest.approx(4.6), pytest.approx(4.96))
    assert (record.ci_low_ms, record.ci_high_ms) == (1.0, 5.0)
    assert record.throughput == pytest.approx(8000 / 3)
    assert record.turns_ms == (2.0, 4.5)
    assert (record.first_call_ms, record.load_ms, record.stable) == (9.0, 70.0, False)
