"""Recorded data: files, folders and loaders, cut into batches."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from enginery.errors import DataError, InputDtypeError, InputNameError, UsageError
from enginery.inputs.recorded import load_data, load_feeds
from enginery.records import TensorInfo
from enginery.spec import Shape

X = TensorInfo("x", "float32", ("batch", 2), Shape.parse("1..4..8x2"))
IDS = TensorInfo("ids", "int64", ("batch", "seq"), Shape.parse("1..2..4x1..16"))
MASK = TensorInfo("mask", "int64", ("batch", "seq"), Shape.parse("1..2..4x1..16"))
ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)


@pytest.fixture
def said():
    """Collect the lines that are told."""
    return []


def test_rows_are_cut_into_batches_of_the_opt_size(tmp_path, said):
    """The last batch is shorter where the profile allows it; labels go along with their rows."""
    np.savez(tmp_path / "d.npz", x=ROWS, labels=np.arange(10, dtype=np.uint8))
    cases = load_data(tmp_path / "d.npz", [X], say=said.append)
    assert [case.name for case in cases] == ["data 0", "data 1", "data 2"]
    assert [case.feeds["x"].shape for case in cases] == [(4, 2), (4, 2), (2, 2)]
    assert np.array_equal(np.concatenate([case.feeds["x"] for case in cases]), ROWS)
    assert np.concatenate([case.labels for case in cases]).tolist() == list(range(10))
    assert cases[0].labels.dtype == np.int64
    assert said == []


def test_batch_stands_over_the_profile(tmp_path):
    """The caller may choose the batch, within what the engine takes."""
    np.savez(tmp_path / "d.npz", x=ROWS)
    assert [len(case.feeds["x"]) for case in load_data(tmp_path / "d.npz", [X], batch=8)] == [8, 2]
    with pytest.raises(DataError, match=r"takes no batch of 9: 'x' 1\.\.4\.\.8"):
        load_data(tmp_path / "d.npz", [X], batch=9)


def test_a_remainder_that_the_engine_cannot_take_is_said(tmp_path, said):
    """A fixed batch leaves a remainder out, loudly; with no full batch there is an error."""
    fixed = TensorInfo("x", "float32", (4, 2))
    np.savez(tmp_path / "d.npz", x=ROWS, labels=np.arange(10))
    cases = load_data(tmp_path / "d.npz", [fixed], say=said.append)
    assert [case.labels.tolist() for case in cases] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert said == [f"{tmp_path}/d.npz: the last 2 of 10 rows are left out: the engine takes no batch so short"]
    np.savez(tmp_path / "few.npz", x=ROWS[:3])
    with pytest.raises(DataError, match="holds no batch that the engine takes; give more rows"):
        load_data(tmp_path / "few.npz", [fixed], say=said.append)


def test_open_axes_and_scalars(tmp_path):
    """Without a profile 32 rows are a batch; inputs without a row axis are the same in every batch."""
    infos = [TensorInfo("x", "float32", ("n", 2)), TensorInfo("t", "float32", ()), TensorInfo("w", "float32", (3,))]
    np.savez(tmp_path / "d.npz", x=np.zeros((40, 2), np.float32), t=np.float32(0.5), w=np.ones(3, np.float32))
    cases = load_data(tmp_path / "d.npz", infos)
    assert [len(case.feeds["x"]) for case in cases] == [32, 8]
    assert all(case.feeds["t"] == 0.5 and case.feeds["w"].shape == (3,) for case in cases)


def test_arrays_that_fit_as_they_are_are_one_call(tmp_path):
    """Fixed shapes that match are one case; so are inputs whose first axes have different names and fit."""
    infos = [TensorInfo("a", "float32", (4, 2)), TensorInfo("b", "float32", (3,))]
    np.savez(tmp_path / "d.npz", a=np.zeros((4, 2), np.float32), b=np.zeros(3, np.float32))
    assert len(load_data(tmp_path / "d.npz", infos)) == 1
    open_infos = [TensorInfo("a", "float32", ("n", 2)), TensorInfo("b", "float32", ("m",))]
    (case,) = load_data(tmp_path / "d.npz", open_infos)
    assert (len(case.feeds["a"]), len(case.feeds["b"])) == (4, 3)


def test_a_single_array_serves_a_model_of_one_input(tmp_path, said):
    """Any name does where there is one input and one array; what is taken is said."""
    np.savez(tmp_path / "named.npz", pixels=ROWS, labels=np.zeros(10, int))
    np.savez(tmp_path / "unnamed.npz", ROWS)
    np.save(tmp_path / "d.npy", ROWS)
    for name in ("named.npz", "unnamed.npz", "d.npy"):
        assert len(load_data(tmp_path / name, [X], say=said.append)) == 3
    assert said == [f"{tmp_path}/named.npz: array 'pixels' is taken for input 'x'"]


def test_wrong_names_list_what_is_there(tmp_path, said):
    """A missing array is answered with names, types and shapes of both sides; a needless one is left out."""
    np.savez(tmp_path / "d.npz", ids=np.zeros((4, 8), int), pixels=ROWS)
    with pytest.raises(DataError) as caught:
        load_data(tmp_path / "d.npz", [IDS, MASK])
    assert str(caught.value) == (
        f"{tmp_path}/d.npz lacks input 'mask': it holds 'ids' int64 4x8, 'pixels' float32 10x2; "
        "name the arrays as the inputs: 'ids' int64 1..2..4x1..16..16, 'mask' int64 1..2..4x1..16..16"
    )
    assert len(load_data(tmp_path / "d.npz", [IDS], say=said.append)) == 2
    assert said == [f"{tmp_path}/d.npz: 'pixels' is no input and left out"]


@pytest.mark.parametrize(
    ("array", "info", "line"),
    [
        (ROWS.astype(np.float64), X, "input 'x' is cast from float64 to float32"),
        (ROWS.astype(ml_dtypes.bfloat16).view("V2"), TensorInfo("x", "bfloat16", ("n", 2)), None),
        (ROWS.astype(np.int32), TensorInfo("x", "int64", ("n", 2)), "input 'x' is cast from int32 to int64"),
        (ROWS.astype(np.int64), TensorInfo("x", "uint8", ("n", 2)), "input 'x' is cast from int64 to uint8"),
        (ROWS.astype("U4"), TensorInfo("x", "string", ("n", 2)), None),
    ],
)
def test_harmless_casts_are_made_and_said(array, info, line, tmp_path, said):
    """Floats become other floats and whole numbers other whole numbers, where nothing is lost."""
    np.save(tmp_path / "d.npy", array)
    cases = load_data(tmp_path / "d.npy", [info], say=said.append)
    assert said == ([] if line is None else [f"{tmp_path}/d.npy: {line}"])
    joined = np.concatenate([case.feeds["x"] for case in cases])
    assert joined.astype(float).tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (ROWS.astype(np.int64), "float32"),
        (ROWS.astype(np.uint8), "float32"),
        (ROWS, "int64"),
        (ROWS.astype(np.int64) + 250, "uint8"),
        (ROWS.astype(np.float64) * 1e300, "float32"),
        (ROWS.astype("S4"), "string"),
    ],
)
def test_casts_that_could_be_wrong_are_refused(array, dtype, tmp_path):
    """Whole numbers never become floats by themselves, and nothing is cut off; the mend is the cast."""
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=rf"x\.npy: 'x' .* 10x2 does not fit the input, which takes {dtype}; convert"):
        load_data(tmp_path / "x.npy", [TensorInfo("x", dtype, ("n", 2))])


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    """Rank, axes but the first, and rows are checked, with the allowed range."""
    np.savez(tmp_path / "rank.npz", x=np.zeros((2, 2, 2, 2), np.float32))
    with pytest.raises(DataError, match="has 4 dimensions, the input 2: 'x' float32"):
        load_data(tmp_path / "rank.npz", [X])
    np.savez(tmp_path / "axis.npz", ids=np.zeros((4, 99), int), mask=np.zeros((4, 99), int))
    with pytest.raises(DataError, match=r"'ids' int64 4x99, axis 1 \(seq\): size 99, the engine takes 1 to 16"):
        load_data(tmp_path / "axis.npz", [IDS, MASK])
    np.savez(tmp_path / "rows.npz", ids=np.zeros((9, 9), int), mask=np.zeros((8, 9), int))
    with pytest.raises(DataError, match="different numbers of rows: 'ids' 9, 'mask' 8"):
        load_data(tmp_path / "rows.npz", [IDS, MASK])


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.zeros(9, int), "there are 9 labels for 10 rows"),
        (np.zeros((10, 3), int), r"the labels are int64 of shape \(10, 3\); give the number of the right class"),
        (np.zeros(10), "the labels are float64"),
    ],
)
def test_labels_are_one_class_for_each_row(labels, text, tmp_path):
    """Labels that are no classes, or too few, are refused."""
    np.savez(tmp_path / "d.npz", x=ROWS, labels=labels)
    with pytest.raises(DataError, match=text):
        load_data(tmp_path / "d.npz", [X])


def test_a_folder_of_inputs(tmp_path):
    """Files called as the inputs are the inputs."""
    np.save(tmp_path / "ids.npy", np.ones((3, 5), int))
    np.save(tmp_path / "mask.npy", np.zeros((3, 5), int))
    np.save(tmp_path / "labels.npy", np.arange(3))
    cases = load_data(tmp_path, [IDS, MASK])
    assert [(len(case.feeds["ids"]), case.labels.tolist()) for case in cases] == [(2, [0, 1]), (1, [2])]


def test_a_folder_of_samples(tmp_path):
    """For a model of one input, files are rows in the order of their names, with or without the row axis."""
    for at, row in enumerate(ROWS[:5]):
        np.save(tmp_path / f"{at}.npy", row if at % 2 else row[None])
    np.save(tmp_path / "labels.npy", np.arange(5))
    cases = load_data(str(tmp_path), [X])
    assert np.array_equal(np.concatenate([case.feeds["x"] for case in cases]), ROWS[:5])
    assert [case.labels.tolist() for case in cases] == [[0, 1, 2, 3], [4]]
    np.save(tmp_path / "labels.npy", np.arange(7))
    with pytest.raises(DataError, match="there are 7 labels for 5 rows"):
        load_data(tmp_path, [X])


def test_samples_of_different_shapes_are_not_joined(tmp_path):
    """A new shape begins a new batch."""
    for at, length in enumerate((5, 5, 7)):
        np.save(tmp_path / f"{at}.npy", np.zeros(length, int))
    assert [case.feeds["ids"].shape for case in load_data(tmp_path, [IDS])] == [(2, 5), (1, 7)]


LOADERS = """
import numpy as np
ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)
def dicts(): return [{"x": ROWS[:6]}, {"x": ROWS[6:]}]
def arrays():
    yield ROWS
def pairs(): return [(row, at) for at, row in enumerate(ROWS)]
def lists(): return [[ROWS, list(range(10))]]
def labelled(): return [{"x": ROWS, "labels": np.arange(10)}]
class Samples:
    def __getitem__(self, at): return ROWS[at]
    def __len__(self): return 10
def failing():
    yield ROWS
    raise KeyError("no more")
def nothing(): return None
def recording(): return {"x": ROWS, "labels": range(10)}
def words(): return ["a"]
THREE = 3
"""


@pytest.mark.parametrize(
    ("name", "labelled"),
    [
        ("dicts", False),
        ("arrays", False),
        ("pairs", True),
        ("lists", True),
        ("labelled", True),
        ("recording", True),
        ("Samples", False),
    ],
)
def test_loaders_may_give_what_is_natural(name, labelled, tmp_path):
    """Dicts, arrays, pairs with labels, single rows: all give the same batches."""
    (tmp_path / "data.py").write_text(LOADERS)
    cases = load_data(f"{tmp_path}/data.py:{name}", [X])
    assert [len(case.feeds["x"]) for case in cases] == [4, 4, 2]
    assert np.array_equal(np.concatenate([case.feeds["x"] for case in cases]), ROWS)
    assert [case.labels is not None for case in cases] == [labelled] * 3
    if labelled:
        assert np.concatenate([case.labels for case in cases]).tolist() == list(range(10))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("failing", r"data.py:failing failed: KeyError: 'no more'; run it by itself"),
        ("nothing", r"data.py:nothing returns a NoneType; return a dict of arrays"),
        ("words", r"'x' <U1 scalar has 0 dimensions|does not fit the input, which takes float32"),
        ("xyz", r"data.py has no function 'xyz'; it has: Samples, arrays, dicts"),
        ("THREE", r"data.py has no function 'THREE'"),
    ],
)
def test_loaders_that_fail_are_named(name, text, tmp_path):
    """What went wrong in a loader is an error about that loader."""
    (tmp_path / "data.py").write_text(LOADERS)
    with pytest.raises(DataError, match=text):
        load_data(f"{tmp_path}/data.py:{name}", [X])


def test_a_loader_may_be_in_a_module_of_the_working_folder(tmp_path, monkeypatch):
    """``module:loader`` is imported from where the user stands, and the import path is left as it was."""
    import sys

    (tmp_path / "enginery_test_loader.py").write_text(LOADERS)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert len(load_data("enginery_test_loader:arrays", [X])) == 3
    assert sys.path == before
    with pytest.raises(DataError, match="the loader no_such_module:f cannot be imported: ModuleNotFoundError"):
        load_data("no_such_module:f", [X])
    with pytest.raises(DataError, match=r"there is no file gone\.py"):
        load_data("gone.py:f", [X])


def test_unreadable_data_is_named(tmp_path):
    """Missing, damaged, foreign and pickled files are each refused in words."""
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "void").mkdir()
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "really.npz.npy", ROWS)
    (tmp_path / "really.npz.npy").rename(tmp_path / "really.npz")
    expected = {
        "gone.npz": "there is no file .*gone.npz; check the path",
        "gone": "there is no file .*gone; name an .npz or .npy file",
        "cut.npz": "cut.npz cannot be read",
        "empty.npy": "empty.npy cannot be read",
        "notes.txt": "notes.txt is no kind of data known here; name an .npz",
        "void": "void holds no .npy files",
        "pickle.npz": r"pickle.npz holds Python objects \(a pickle\), which are never loaded; save plain arrays",
        "text.npz": "text.npz is no file of numpy's; write it with numpy.save or numpy.savez",
        "really.npz": "really.npz is a single array; rename it really.npy",
    }
    for name, text in expected.items():
        with pytest.raises(DataError, match=text):
            load_data(tmp_path / name, [X])


def test_values_that_are_not_finite_are_told(tmp_path, said):
    """Once for a file: a NaN agrees with every other NaN."""
    np.savez(tmp_path / "nan.npz", x=np.where(ROWS > 3, np.nan, ROWS).astype(np.float32))
    load_data(tmp_path / "nan.npz", [X], say=said.append)
    assert [line for line in said if "finite" in line] == [
        f"{tmp_path / 'nan.npz'}: the values of 'x' are not all finite, and what follows from NaN proves nothing"
    ]


def test_feeds_of_one_call(tmp_path, said):
    """Files are matched by the name before the equals sign, by their arrays' names, or by their own."""
    np.save(tmp_path / "ids.npy", np.ones((2, 5), np.int32))
    np.save(tmp_path / "m.npy", np.zeros((2, 5), int))
    np.savez(tmp_path / "both.npz", ids=np.ones((2, 5), int), mask=np.zeros((2, 5), int), labels=np.zeros(2))
    expected = {"ids": np.ones((2, 5), int).tolist(), "mask": np.zeros((2, 5), int).tolist()}
    for given in (
        [tmp_path / "ids.npy", f"mask={tmp_path}/m.npy"],
        {"ids": tmp_path / "ids.npy", "mask": str(tmp_path / "m.npy")},
        [str(tmp_path / "both.npz")],
    ):
        feeds = load_feeds(given, [IDS, MASK], say=said.append)
        assert {name: array.tolist() for name, array in feeds.items()} == expected
        assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}
    assert said == [f"{tmp_path}/ids.npy: input 'ids' is cast from int32 to int64"] * 2


def test_feeds_leave_shapes_to_the_session(tmp_path):
    """Wrong shapes and missing inputs pass: the session names them, each with its own exit code."""
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4), np.float32))
    assert load_feeds([tmp_path / "x.npy"], [X, IDS])["x"].shape == (2, 3, 4)


def test_feeds_that_fit_no_input_are_refused(tmp_path):
    """A wrong name, type or a second file for one input are each their own error."""
    np.save(tmp_path / "x.npy", ROWS)
    np.save(tmp_path / "other.npy", ROWS)
    np.save(tmp_path / "whole.npy", ROWS.astype(int))
    np.savez(tmp_path / "y.npz", y=ROWS)
    path = tmp_path / "x.npy"
    with pytest.raises(InputNameError, match="is given for input 'y', which the engine does not have; write NAME=PATH"):
        load_feeds([f"y={path}"], [X])
    with pytest.raises(InputNameError, match="for input 'y'"):
        load_feeds({"y": path}, [X])
    with pytest.raises(InputNameError, match="is given for input 'other'"):
        load_feeds([tmp_path / "other.npy"], [X, IDS])
    with pytest.raises(InputNameError, match="lacks input 'x', 'ids': it holds 'y' float32 10x2"):
        load_feeds([tmp_path / "y.npz"], [X, IDS])
    with pytest.raises(InputDtypeError, match="does not fit the input, which takes float32"):
        load_feeds([f"x={tmp_path}/whole.npy"], [X])
    with pytest.raises(UsageError, match="input 'x' is given twice"):
        load_feeds([path, path], [X])
    with pytest.raises(DataError, match=r"x\.txt is no kind of input known here"):
        load_feeds(["x.txt"], [X])
