"""Random inputs of declared ranges."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.dtypes import DTYPES, numpy_dtype
from enginery.errors import DataError, UnknownNameError, UsageError
from enginery.inputs.base import Range
from enginery.inputs.generated import WORDS, describe, index_limits, random_case
from enginery.records import TensorInfo
from enginery.spec import Shape

PICTURE = TensorInfo("input", "float32", ("batch", 3, 4, 4), Shape.parse("1..2..4x3x4x4"))


def test_the_same_seed_gives_the_same_data():
    """Seed and name decide; other inputs and their order do not."""
    other = TensorInfo("other", "float32", ("batch", 3))
    first = random_case([PICTURE], "opt", seed=1).feeds["input"]
    again = random_case([other, PICTURE], "opt", seed=1).feeds
    assert np.array_equal(first, again["input"])
    assert not np.array_equal(first, random_case([PICTURE], "opt", seed=2).feeds["input"])
    assert not np.array_equal(again["other"].ravel()[:6], first.ravel()[:6])


def test_a_smaller_case_holds_the_first_rows_of_a_larger_one():
    """Row 0 is the same at min, opt and max, so that a batch can be held against its rows."""
    cases = [random_case([PICTURE], which, seed=0) for which in ("min", "opt", "max")]
    assert [case.name for case in cases] == ["min", "opt", "max"]
    assert [case.feeds["input"].shape for case in cases] == [(1, 3, 4, 4), (2, 3, 4, 4), (4, 3, 4, 4)]
    assert np.array_equal(cases[0].feeds["input"], cases[2].feeds["input"][:1])


def test_data_of_a_seed_is_fixed():
    """What seed 0 gives does not change from one version to the next."""
    feeds = random_case(
        [TensorInfo("x", "float32", (3,)), TensorInfo("ids", "int64", (4,))],
        "opt",
        seed=0,
        ranges={"ids": Range(0, 99)},
    ).feeds
    assert feeds["x"].tolist() == pytest.approx(
        [-0.7512057423591614, -0.8608627915382385, 0.9383270740509033], rel=1e-6
    )
    assert feeds["ids"].tolist() == [99, 59, 26, 95]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_has_a_default(dtype):
    """Random arrays have the right dtype and shape, and nothing that is not finite."""
    infos = [TensorInfo("x", dtype, (5, 7)), TensorInfo("scalar", dtype, ())]
    feeds = random_case(infos, "opt", seed=0).feeds
    for info in infos:
        array = feeds[info.name]
        assert isinstance(array, np.ndarray)
        assert array.dtype == numpy_dtype(dtype)
        assert array.shape == info.shape
    if dtype == "string":
        assert set(feeds["x"].ravel()) <= set(WORDS)
    else:
        assert np.isfinite(feeds["x"].astype(np.complex128)).all()


def test_defaults_are_normal_floats_and_small_integers():
    """Floats are standard normal; integers and booleans take both of their values."""
    infos = [TensorInfo(dtype, dtype, (10_000,)) for dtype in ("float32", "float64", "float16", "int64", "bool")]
    feeds = random_case(infos, "opt", seed=0).feeds
    for name in ("float32", "float64", "float16"):
        assert abs(feeds[name].astype(float).mean()) < 0.05
        assert feeds[name].astype(float).std() == pytest.approx(1, abs=0.05)
    assert set(feeds["int64"].tolist()) == {0, 1}
    assert feeds["bool"].mean() == pytest.approx(0.5, abs=0.05)


def test_ranges_win_and_hold_both_ends():
    """A range stands over the default, and integers reach both ends."""
    infos = [TensorInfo("x", "float32", (10_000,)), TensorInfo("ids", "int32", (1000,)), TensorInfo("b", "bool", (9,))]
    ranges = {"x": Range(-0.1, 0.3), "ids": Range(-2, 3), "b": Range(1, 1)}
    feeds = random_case(infos, "opt", seed=0, ranges=ranges).feeds
    assert feeds["x"].min() >= np.float32(-0.1)
    assert feeds["x"].max() <= np.float32(0.3)
    assert feeds["x"].mean() == pytest.approx(0.1, abs=0.01)
    assert set(feeds["ids"].tolist()) == {-2, -1, 0, 1, 2, 3}
    assert feeds["b"].all()


@pytest.mark.parametrize(
    ("dtype", "values", "error", "text"),
    [
        ("uint8", Range(0, 256), UsageError, r"range 0..256 of input 'x' holds no uint8, or more than 0..255"),
        ("int64", Range(0.2, 0.8), UsageError, r"range 0.2..0.8 of input 'x' holds no int64"),
        ("float16", Range(0, 1e6), UsageError, r"range 0..1000000.0 of input 'x' holds more than float16 can"),
        ("string", Range(0, 1), UsageError, r"input 'x' takes strings, which have no range 0..1"),
        ("sequence(float32)", Range(0, 1), DataError, r"input 'x' is a sequence\(float32\): random inputs are made"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(dtype, values, error, text):
    """A range must fit the element type."""
    with pytest.raises(error, match=text):
        random_case([TensorInfo("x", dtype, (2,))], "opt", seed=0, ranges={"x": values})


def test_a_range_of_no_input_is_refused():
    """A misspelt name is answered with the nearest."""
    with pytest.raises(UnknownNameError, match="unknown input 'inputs'; did you mean 'input'"):
        random_case([PICTURE], "opt", seed=0, ranges={"inputs": Range(0, 1)})
    with pytest.raises(UnknownNameError, match="unknown input 'inputs'"):
        describe([PICTURE], {"inputs": Range(0, 1)}, 0)


def test_describe_says_which():
    """One line says what every input holds."""
    infos = [PICTURE, TensorInfo("ids", "int64", (1,)), TensorInfo("b", "bool", ()), TensorInfo("s", "string", (1,))]
    line = describe(infos, {"ids": Range(0, 30521)}, 4)
    assert line == "random, seed 4: input normal(0,1); ids 0..30521; b 0..1; s words"
    assert describe([], {}, 0) == "random, seed 0: no inputs"


def test_index_limits_finds_tables():
    """Indices are followed through casts and reshapes to the smallest table; other integers are left alone."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        tables (int32[b, s] ids, int64[b, s] both, int64[b, 2] rows, int64[b] count, float[b] x, int64[1] negative)
            => (float[b, s, 4] y, float[b, s, 4] z, float[b, s, 4] z2, float[b, 2] w, int64[b] c, float[5, 1] n)
        <float[7, 4] table, float[5, 9] wide>
        {
            wide_ids = Cast <to: int = 7> (ids)
            same = Identity (wide_ids)
            y = Gather (table, same)
            short = Constant <value: tensor = float[3, 4] {0,0,0,0,0,0,0,0,0,0,0,0}> ()
            z = Gather (table, both)
            z2 = Gather (short, both)
            w = GatherElements <axis: int = 1> (wide, rows)
            c = Add (count, count)
            n = Gather <axis: int = -1> (wide, negative)
        }"""
    )
    assert index_limits(model) == {
        "ids": Range(0, 6),
        "both": Range(0, 2),
        "rows": Range(0, 8),
        "negative": Range(0, 8),
    }


def test_index_limits_need_a_known_size():
    """A table whose size is only known when it runs gives no limit."""
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 20]>
        open (int64[2] ids, float[n, 4] table) => (float[2, 4] y) { y = Gather (table, ids) }"""
    )
    assert index_limits(model) == {}
