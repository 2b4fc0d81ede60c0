"""Cases, ranges and the shapes of a profile."""

from __future__ import annotations

import json

import numpy as np
import pytest

from enginery.dtypes import DTYPES, dtype_name, numpy_dtype
from enginery.errors import DataError, InputRankError, InputShapeError, OutputExistsError, UsageError
from enginery.inputs.base import Case, Range, load_cases, parse_ranges, resolve_shapes, save_cases
from enginery.inputs.generated import random_case
from enginery.records import TensorInfo
from enginery.spec import Shape


def test_range_reads_whole_and_real_numbers():
    """A range keeps whole numbers whole, and takes signs, exponents and a single constant."""
    assert Range.parse("0..30521") == Range(0, 30521)
    assert isinstance(Range.parse("0..30521").high, int)
    assert Range.parse("-1.5..2e3") == Range(-1.5, 2000.0)
    assert Range.parse(" 7 ") == Range(7, 7)


@pytest.mark.parametrize("text", ["", "a..b", "1..", "..2", "1..2..3"])
def test_range_refuses_what_is_none(text):
    """A text that is no range is named, with how to write one."""
    with pytest.raises(UsageError, match=r"is not a range; write it as NAME=LOW\.\.HIGH"):
        Range.parse(text)


@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, float("inf")), (float("nan"), 1)])
def test_range_refuses_impossible_ends(low, high):
    """The ends stand in order and are finite."""
    with pytest.raises(UsageError, match=r"is not in the order low <= high"):
        Range(low, high)


def test_parse_ranges_names_its_inputs():
    """Several ranges may stand in one text; a name may hold an equals sign."""
    assert parse_ranges(["a=0..1;b=2..3", "x=y=4"]) == {"a": Range(0, 1), "b": Range(2, 3), "x=y": Range(4, 4)}
    with pytest.raises(UsageError, match=r"'0\.\.1' names no input"):
        parse_ranges(["0..1"])
    with pytest.raises(UsageError, match="the range of 'a' is given twice"):
        parse_ranges(["a=0..1", "a=0..2"])


def test_resolve_shapes_follows_profiles_and_shares_names():
    """A profile sizes its input, and dimensions of the same name in inputs that have none."""
    inputs = [
        TensorInfo("ids", "int64", ("batch", "seq"), Shape.parse("1..8..32x4..16..64")),
        TensorInfo("mask", "int64", ("batch", 1, "seq", "other", "?")),
    ]
    assert resolve_shapes(inputs, "min") == {"ids": (1, 4), "mask": (1, 1, 4, 1, 1)}
    assert resolve_shapes(inputs, "opt", {"other": 5, "seq": 99}) == {"ids": (8, 16), "mask": (8, 1, 16, 5, 1)}
    assert resolve_shapes(inputs, "max")["mask"] == (32, 1, 64, 1, 1)


def test_resolve_shapes_uses_the_names_of_a_profile():
    """Where the graph has no name for a dimension, the profile's counts."""
    inputs = [
        TensorInfo("a", "float32", ("?", 3), Shape.parse("batch:1..4x3")),
        TensorInfo("b", "float32", ("batch",)),
    ]
    assert resolve_shapes(inputs, "max") == {"a": (4, 3), "b": (4,)}


def test_resolve_shapes_refuses_two_sizes_for_one_name():
    """Profiles that disagree about a name are refused, with both inputs and sizes."""
    inputs = [
        TensorInfo("a", "float32", ("batch",), Shape.parse("1..4..8")),
        TensorInfo("b", "float32", ("batch",), Shape.parse("1..2..8")),
    ]
    with pytest.raises(InputShapeError, match="the opt size of batch is 4 for input 'a' and 2 for input 'b'"):
        resolve_shapes(inputs, "opt")
    assert resolve_shapes(inputs, "max") == {"a": (8,), "b": (8,)}


def test_resolve_shapes_needs_a_rank():
    """An input of unknown rank needs a profile."""
    with pytest.raises(InputRankError, match="dimensions of input 'a' is unknown; give its shape: --shapes a="):
        resolve_shapes([TensorInfo("a", "float32", None)], "opt")
    assert resolve_shapes([TensorInfo("a", "float32", None, Shape.parse("2x3"))], "opt") == {"a": (2, 3)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_survives_a_round_trip(dtype, tmp_path):
    """Cases come back bit for bit, scalars and empty arrays too, under names that no file could have."""
    infos = [TensorInfo(name, dtype, shape) for name, shape in (("a/b:0", (2, 3)), ("s", ()), ("e", (0, 4)))]
    case = random_case(infos, "opt", seed=3)
    save_cases([case, Case("data 0", {}, np.arange(3))], tmp_path / "cases")
    loaded, empty = load_cases(tmp_path / "cases")
    assert (loaded.name, loaded.labels, list(loaded.feeds)) == ("opt", None, ["a/b:0", "s", "e"])
    for name, array in case.feeds.items():
        assert loaded.feeds[name].dtype == array.dtype == numpy_dtype(dtype)
        assert loaded.feeds[name].shape == array.shape
        assert loaded.feeds[name].tolist() == array.tolist()
    assert (empty.name, empty.feeds, empty.labels.tolist()) == ("data 0", {}, [0, 1, 2])
    assert dtype_name(numpy_dtype(dtype)) == dtype


def test_sequences_none_and_unicode_survive(tmp_path):
    """Outputs that are no tensors can be saved as well."""
    words = np.array(["naïve", "tail\0", "", "\N{SNOWMAN}"], dtype=object).reshape(2, 2)
    feeds = {"s": [np.ones(2), np.zeros((1, 3), np.int8)], "n": None, "w": words}
    save_cases([Case("opt", feeds)], tmp_path / "cases")
    (loaded,) = load_cases(tmp_path / "cases")
    assert [item.tolist() for item in loaded.feeds["s"]] == [[1.0, 1.0], [[0, 0, 0]]]
    assert loaded.feeds["n"] is None
    assert loaded.feeds["w"].tolist() == words.tolist()


def test_save_refuses_objects_and_leaves_nothing(tmp_path):
    """What is no array is named, and no folder is left behind."""
    with pytest.raises(DataError, match="opt: x is a dict, which cannot be saved"):
        save_cases([Case("opt", {"x": {}})], tmp_path / "cases")
    with pytest.raises(DataError, match="opt: x holds objects that are no text"):
        save_cases([Case("opt", {"x": np.array([object()])})], tmp_path / "cases")
    with pytest.raises(DataError, match="opt: x has dtype datetime64"):
        save_cases([Case("opt", {"x": np.zeros(1, "datetime64[s]")})], tmp_path / "cases")
    assert list(tmp_path.iterdir()) == []


def test_save_leaves_other_folders_alone(tmp_path):
    """A folder with other things in it is not replaced."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError):
        save_cases([], tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_load_names_what_is_damaged(tmp_path):
    """A folder without cases, a cut file and a pickle are each refused in words."""
    with pytest.raises(DataError, match="holds no saved cases"):
        load_cases(tmp_path)
    folder = tmp_path / "cases"
    save_cases([Case("opt", {"x": np.ones(100)})], folder)
    whole = (folder / "0.npz").read_bytes()
    (folder / "0.npz").write_bytes(whole[:200])
    with pytest.raises(DataError, match="cannot be read"):
        load_cases(folder)
    np.savez(folder / "0.npz", a0=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle=False"):
        load_cases(folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "format": 9}))
    with pytest.raises(DataError, match="have format 9, this is 1"):
        load_cases(folder)
