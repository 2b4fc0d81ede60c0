"""The figures by which two outputs are compared."""

from __future__ import annotations

import math
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from enginery.verification import norms
from enginery.verification.metrics import measure, measure_all

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, max_side=6)
FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda value: round(value, 3))
ARRAYS = SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=FLOATS))
PAIRS = SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=FLOATS)] * 2))

UNHURRIED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no failure."""


def record(actual, expected):
    """Return the figures of one pair that can be compared."""
    (found,) = measure(actual, expected, name="y", case="opt")
    assert found.reason == ""
    return found.record


def test_figures_are_the_formulas():
    """Each figure is what its formula in the module says."""
    expected, actual = np.array([[3.0, 4.0], [0.0, 12.0]]), np.array([[3.0, 4.0], [1.0, 11.0]])
    found = record(actual, expected)
    assert (found.name, found.case, found.dtype, found.shape) == ("y", "opt", "float64", (2, 2))
    assert found.max_abs == 1
    assert found.mean_abs == 0.5
    assert found.relative_l2 == pytest.approx(math.sqrt(2) / 13)
    assert found.cosine == pytest.approx((9 + 16 + 132) / 13 / math.sqrt(9 + 16 + 1 + 121))
    assert found.snr_db == pytest.approx(10 * math.log10(169 / 2))
    assert found.top1_agreement == 1
    assert found.error == found.relative_l2


@UNHURRIED
@given(ARRAYS)
def test_equal_arrays_have_no_error(array):
    """An array against itself: no error, cosine 1, infinite SNR."""
    found = record(array.copy(), array)
    assert (found.max_abs, found.mean_abs, found.relative_l2, found.snr_db) == (0, 0, 0, math.inf)
    assert found.cosine == pytest.approx(1)
    assert found.top1_agreement in (None, 1)


@UNHURRIED
@given(PAIRS, st.integers(-900, 900))
def test_relative_figures_do_not_depend_on_scale(pair, exponent):
    """Both arrays scaled by a power of two, however far, keep relative L2, cosine and SNR."""
    actual, expected = pair
    assume(expected.any())
    one, other = record(actual, expected), record(np.ldexp(actual, exponent), np.ldexp(expected, exponent))
    assert other.relative_l2 == pytest.approx(one.relative_l2, rel=1e-9)
    assert other.cosine == pytest.approx(one.cosine, rel=1e-9, abs=1e-9)
    assert other.snr_db == pytest.approx(one.snr_db, rel=1e-9, abs=1e-6)


@UNHURRIED
@given(PAIRS)
def test_symmetric_figures_are_symmetric(pair):
    """Exchanging the two keeps absolute errors and cosine; cosine stays within -1 and 1."""
    one, other = record(*pair), record(*pair[::-1])
    assert (one.max_abs, one.mean_abs) == (other.max_abs, other.mean_abs)
    assert one.cosine == pytest.approx(other.cosine)
    assert -1 <= one.cosine <= 1


@UNHURRIED
@given(PAIRS)
def test_snr_and_relative_l2_say_the_same(pair):
    """SNR in dB is -20 log10 of the relative L2, and the mean error is at most the largest."""
    actual, expected = pair
    assume(expected.any())
    found = record(actual, expected)
    assert found.mean_abs <= found.max_abs * (1 + 1e-12)
    if found.relative_l2:
        assert found.snr_db == pytest.approx(-20 * math.log10(found.relative_l2), abs=1e-6)


@UNHURRIED
@given(PAIRS)
def test_chunks_change_nothing(pair):
    """Sums over chunks agree with numpy's over the whole."""
    actual, expected = pair
    assume(expected.any())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norms, "CHUNK", 5)
        found = record(actual, expected)
    assert found.max_abs == np.abs(actual - expected).max()
    assert found.mean_abs == pytest.approx(np.abs(actual - expected).mean())
    assert found.relative_l2 == pytest.approx(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def test_zeros_have_no_scale():
    """Two zero arrays are equal; against a zero reference the error is the norm of the difference itself."""
    zeros = np.zeros(4)
    both = record(zeros, zeros)
    assert (both.relative_l2, both.cosine, both.snr_db) == (0, 1, math.inf)
    found = record(np.array([3e-3, 4e-3, 0, 0]), zeros)
    assert found.relative_l2 == pytest.approx(5e-3)
    assert (found.cosine, found.snr_db) == (0, -math.inf)
    dead = record(zeros, np.array([3.0, 4.0, 0, 0]))
    assert (dead.relative_l2, dead.cosine, dead.snr_db) == (1, 0, 0)


def test_empty_and_scalar_outputs():
    """An output without elements is equal to itself; a scalar is compared as any other."""
    empty = record(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert (empty.max_abs, empty.mean_abs, empty.relative_l2, empty.cosine) == (0, 0, 0, 1)
    assert empty.top1_agreement is None
    assert record(np.float32(1.5), np.float32(1.0)).relative_l2 == pytest.approx(0.5)


def test_special_values_at_the_same_place_are_equal():
    """NaN and infinities that stand in both are counted, and left out of the sums."""
    expected = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    actual = np.array([1.0, np.nan, np.inf, -np.inf, 2.5])
    found = record(actual, expected)
    assert (found.nan, found.inf, found.reference_nan, found.reference_inf) == (1, 2, 1, 2)
    assert found.max_abs == 0.5
    assert found.mean_abs == 0.25
    assert found.relative_l2 == pytest.approx(0.5 / math.sqrt(5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("swap", [False, True])
def test_special_values_elsewhere_make_the_error_infinite(bad, swap):
    """NaN or an infinity in one of the two only is an infinite error."""
    pair = [np.array([1.0, 2.0]), np.array([1.0, bad])]
    found = record(*(pair[::-1] if swap else pair))
    assert (found.max_abs, found.mean_abs, found.relative_l2, found.error) == (math.inf,) * 4
    assert found.snr_db == -math.inf
    assert math.isnan(found.cosine)


def test_special_values_that_differ_make_the_error_infinite():
    """NaN is not infinity, and infinity is not its negative."""
    assert record(np.array([np.nan]), np.array([np.inf])).error == math.inf
    assert record(np.array([np.inf]), np.array([-np.inf])).error == math.inf
    assert record(np.array([np.nan]), np.array([np.nan])).error == 0


def test_huge_and_tiny_values_do_not_overflow():
    """Squares of the largest and smallest floats are no trouble; a difference that overflows is infinite."""
    assert record(np.array([1.1e308]), np.array([1e308])).relative_l2 == pytest.approx(0.1)
    assert record(np.array([1.1e-300]), np.array([1e-300])).relative_l2 == pytest.approx(0.1)
    assert record(np.array([1e300]), np.array([1e-300])).relative_l2 == math.inf
    assert record(np.array([1.5e308]), np.array([-1.5e308])).error == math.inf


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_narrow_floats_are_measured_in_float64(dtype):
    """Narrow floats are compared by value, also with wider ones."""
    expected = np.array([[1.0, 2.0, 448.0]])
    actual = np.array([[1.0, 2.5, 448.0]]).astype(dtype)
    found = record(actual, expected.astype(np.float32))
    assert found.max_abs == 0.5
    assert found.top1_agreement == 1
    assert found.dtype in ("float16", "bfloat16", "float8e4m3fn")


def test_complex_numbers_count_as_pairs():
    """The 2-norm of a complex array is that of its parts."""
    found = record(np.array([3 + 4j, 0], np.complex64), np.array([3 + 3j, 0], np.complex64))
    assert found.max_abs == 1
    assert found.relative_l2 == pytest.approx(1 / math.sqrt(18))


def test_top1_agreement_counts_rows_and_forgives_ties():
    """Rows run along the last axis; where the reference has several largest, each is right."""
    expected = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 1.0], [9.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    actual = np.array([[1.0, 2.0, 3.1], [5.0, 5.1, 1.0], [0.0, 9.0, 0.0], [1.0, 3.2, 3.1]])
    assert record(actual, expected).top1_agreement == 0.5
    assert record(actual[None], expected[None]).top1_agreement == 0.5


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 2, 3, 4)])
def test_top1_agreement_is_for_rows_of_scores(shape):
    """A vector, a single column or a picture has no classes on its last axis."""
    assert record(np.ones(shape), np.ones(shape)).top1_agreement is None


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5], np.int32)),
        (np.array([1, 0, 1, 1], bool), np.array([1, 0, 1, 0], bool)),
        (np.array(["a", "b", "c", "d"], object), np.array(["a", "b", "c", ""], object)),
        (np.array([1, 2, 3, 4]).astype(ml_dtypes.int4), np.array([1, 2, 3, 5]).astype(ml_dtypes.int4)),
    ],
)
def test_other_types_have_the_share_that_differs(actual, expected):
    """Integers, booleans and strings are equal or not."""
    found = record(actual, expected)
    assert found.mismatch == found.error == 0.25
    assert (found.relative_l2, found.cosine, found.top1_agreement) == (None, None, None)


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        (np.ones((2, 3)), np.ones((3, 2)), r"its shape is \(2, 3\), the reference's \(3, 2\)"),
        (np.ones(2), np.ones(2, np.int64), "its dtype is float64, the reference's int64"),
        (np.ones(2), [np.ones(2)], "it is a ndarray, the reference's a sequence of 1"),
        ([np.ones(2)], np.ones(2), "it is a list, the reference's a ndarray"),
        ([np.ones(2)], [np.ones(2)] * 2, "it is a sequence of 1, the reference's a sequence of 2"),
        (None, np.ones(2), "it is a NoneType, the reference's a ndarray"),
    ],
)
def test_what_cannot_be_compared_is_infinitely_wrong(actual, expected, reason):
    """Another shape, type or structure is an infinite error with a reason."""
    import re

    (found,) = measure(actual, expected, name="y", case="opt")
    assert re.fullmatch(reason, found.reason)
    assert found.record.error == math.inf


def test_sequences_are_compared_element_by_element():
    """Each array of a sequence has figures of its own; nothing and nothing are equal."""
    found = list(measure([np.ones(2), np.zeros(1)], [np.ones(2), np.ones(1)], name="s"))
    assert [(item.record.name, item.record.error) for item in found] == [("s[0]", 0), ("s[1]", 1)]
    assert [item.record.error for item in measure([], [])] == [0]
    assert [item.record.error for item in measure(None, None)] == [0]


def test_a_missing_output_is_infinitely_wrong():
    """Outputs are matched by name; one that is missing has a figure and a reason."""
    found = measure_all({"a": np.ones(1), "z": np.ones(1)}, {"a": np.ones(1), "b": np.ones(3)}, case="max")
    assert [(item.record.name, item.record.case, item.record.error) for item in found] == [
        ("a", "max", 0),
        ("b", "max", math.inf),
    ]
    assert found[1].reason == "the engine has no such output"


def test_memory_stays_below_the_output():
    """Comparing takes a few chunks of memory, not copies of the output."""
    actual, expected = np.ones((4096, 2048), np.float32), np.ones((4096, 2048), np.float32)
    tracemalloc.start()
    try:
        assert record(actual, expected).error == 0
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < actual.nbytes
