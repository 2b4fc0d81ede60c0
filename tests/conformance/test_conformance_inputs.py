"""Every backend refuses feeds that do not fit, each with its own error, before the library sees them."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.errors import (
    InputDtypeError,
    InputNameError,
    InputRankError,
    InputShapeError,
    RunError,
)

PAIR = """pair (float[batch, seq] x, int64[batch, seq] ids) => (float[batch, seq] y)
          { c = Cast <to = 1> (ids)  y = Add(x, c) }"""
SHAPES = ("x=1..2..4x1..8..16", "ids=1..2..4x1..8..16")
X, IDS = np.zeros((2, 8), np.float32), np.zeros((2, 8), np.int64)


@pytest.fixture
def session(build):
    """Yield a session with two inputs whose dimensions share their names."""
    with build(PAIR, *SHAPES).open() as opened:
        yield opened


def refusal(session, kind, feeds):
    """Return the text of the error of `kind` that the feeds raise, after a good call has passed."""
    session.run({"x": X, "ids": IDS})
    with pytest.raises(kind) as caught:
        session.run(feeds)
    assert type(caught.value) is kind
    return str(caught.value)


def test_refuses_a_missing_input(session):
    """A missing input is named, with the names that are there."""
    text = refusal(session, InputNameError, {"x": X})
    assert text == "input 'ids' is missing; the inputs are 'x', 'ids'"


def test_refuses_an_unknown_input(session):
    """An input too many is named, and so is the one it stands for."""
    text = refusal(session, InputNameError, {"x": X, "id": IDS})
    assert text == "unknown input 'id'; input 'ids' is missing; the inputs are 'x', 'ids'"
    assert "unknown input 'more'" in refusal(session, InputNameError, {"x": X, "ids": IDS, "more": X})


def test_refuses_a_wrong_dtype(session):
    """Nothing is cast in silence: the error has both dtypes and the line that converts."""
    text = refusal(session, InputDtypeError, {"x": X.astype(np.float64), "ids": IDS})
    assert text == "input 'x' has dtype float64, the engine takes float32; convert it: array.astype('float32')"
    assert "dtype int32" in refusal(session, InputDtypeError, {"x": X, "ids": IDS.astype(np.int32)})


def test_refuses_what_is_no_array(session):
    """A list is not an array."""
    text = refusal(session, InputDtypeError, {"x": X.tolist(), "ids": IDS})
    assert text == "input 'x' is a list, not an array; give a numpy array or a tensor"


def test_refuses_a_wrong_rank(session):
    """The error has both ranks and the shape that is taken."""
    text = refusal(session, InputRankError, {"x": X[0], "ids": IDS})
    assert text.startswith("input 'x' has 1 dimensions (8,), the engine takes 2: batch:1..2..4xseq:1..8..16")


@pytest.mark.parametrize(("axis", "name", "size", "allowed"), [(0, "batch", 5, "1 to 4"), (1, "seq", 17, "1 to 16")])
def test_refuses_a_size_outside_the_profile(session, axis, name, size, allowed):
    """The error has the tensor, the axis, the size and the range."""
    shape = [2, 8]
    shape[axis] = size
    feeds = {"x": np.zeros(shape, np.float32), "ids": np.zeros(shape, np.int64)}
    text = refusal(session, InputShapeError, feeds)
    assert text == (
        f"input 'x', axis {axis} ({name}): size {size} is outside the profile, which allows {allowed}; "
        f"give a size in that range, or build with --shapes x=... that holds {size}"
    )


def test_refuses_sizes_that_disagree(session):
    """Dimensions of one name have one size in a call."""
    text = refusal(session, InputShapeError, {"x": X, "ids": IDS[:1]})
    assert text == (
        "input 'ids', axis 0 (batch): size is 1, but input 'x' axis 0 has 2; every batch must have one size in a call"
    )


def test_refuses_another_fixed_size(build):
    """A size that the graph has fixed is the only one taken."""
    engine = build("fixed (float[2, 3] x) => (float[2, 3] y) { y = Abs(x) }")
    refused = pytest.raises(InputShapeError, match="axis 1: size is 4, the engine takes 3; give the shape 2x3")
    with engine.open() as session, refused:
        session.run({"x": np.zeros((2, 4), np.float32)})


def test_a_refused_call_leaves_the_session_usable(session):
    """After a refusal the next good call works."""
    refusal(session, InputRankError, {"x": X[0], "ids": IDS})
    assert session.run({"x": X, "ids": IDS})["y"].shape == X.shape


def test_closes_twice_and_then_refuses(session):
    """Closing again does nothing; a closed session says so."""
    session.close()
    session.close()
    with pytest.raises(RunError, match="the session is closed; open the engine again"):
        session.run({"x": X, "ids": IDS})
