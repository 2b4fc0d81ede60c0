"""A session checks cheaply, keeps the caller's kind of array, and gives a library's failure a mend."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from enginery.backends.arrays import as_torch
from enginery.backends.session import Session
from enginery.dtypes import numpy_dtype
from enginery.errors import InputDtypeError, InputNameError, InputRankError, RunError
from enginery.records import TensorInfo
from enginery.spec import Shape


class Echo:
    """Returns each input under its name, and counts what it is asked."""

    placement = "here"

    def __init__(self):
        self.closed = 0
        self.feeds = None

    def infer(self, feeds):
        """Keep and return the feeds."""
        self.feeds = feeds
        return dict(feeds)

    def close(self):
        """Count."""
        self.closed += 1


def session(*infos, **kwargs):
    """Return a session on an echo of these tensors."""
    return Session(Echo(), infos, infos, **kwargs)


X = TensorInfo("x", "float32", ("batch", 4), Shape.parse("1..2..8x4"))
ONES = np.ones((2, 4), np.float32)


def test_hands_good_arrays_through_untouched():
    """A contiguous array of the right dtype and shape is not copied."""
    opened = session(X)
    assert opened.run({"x": ONES})["x"] is ONES


def test_calls_by_place_and_by_name():
    """A single output comes back by itself, several as a dict."""
    assert session(X)(ONES) is ONES
    assert session(X)(x=ONES) is ONES
    other = TensorInfo("z", "float32", ("batch", 4))
    assert list(session(X, other)(ONES, z=ONES)) == ["x", "z"]


def test_refuses_arrays_too_many_or_twice():
    """The error counts, or names the input."""
    with pytest.raises(InputNameError, match=r"2 arrays for 1 inputs; the inputs are 'x'"):
        session(X)(ONES, ONES)
    with pytest.raises(InputNameError, match=r"input 'x' is given twice; give it once, by place or by name"):
        session(X)(ONES, x=ONES)


def test_remembers_shapes_that_passed(monkeypatch):
    """Shapes are looked at once for each combination."""
    seen = []
    check = Session._check_shapes
    monkeypatch.setattr(Session, "_check_shapes", lambda self, feeds: (seen.append(1), check(self, feeds)))
    opened = session(X)
    for _ in range(3):
        opened.run({"x": ONES})
    opened.run({"x": ONES[:1]})
    assert len(seen) == 2


def test_an_array_without_a_known_rank_takes_any_shape():
    """Where the graph says nothing of the shape, nothing is checked."""
    opened = session(TensorInfo("x", "float32", None))
    for shape in ((), (3,), (1, 2, 3)):
        assert opened.run({"x": np.zeros(shape, np.float32)})["x"].shape == shape


def test_reads_memory_maps_and_subclasses(tmp_path):
    """Arrays that are not plain are read as plain ones."""
    np.save(tmp_path / "x.npy", ONES)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = session(X).run({"x": mapped})["x"]
    assert type(found) is np.ndarray
    assert np.shares_memory(found, mapped)


def test_refuses_another_byte_order():
    """Numbers of the wrong byte order would be read as others."""
    with pytest.raises(InputDtypeError, match=r"input 'x' has dtype >f4, the engine takes float32"):
        session(X).run({"x": ONES.astype(">f4")})


def test_a_failure_of_the_library_is_a_run_error():
    """The library's text is kept and the backend's diagnosis is the mend."""

    def fail(_):
        raise ValueError("kernel exploded")

    opened = session(X, diagnose=lambda error: f"avoid {error}")
    opened._infer = fail
    with pytest.raises(RunError) as caught:
        opened.run({"x": ONES})
    assert str(caught.value) == "the engine failed: kernel exploded; avoid kernel exploded"
    assert isinstance(caught.value.__cause__, ValueError)
    opened._diagnose = lambda _: None
    with pytest.raises(RunError, match="the text above is the library's own"):
        opened.run({"x": ONES})


def test_an_error_of_ours_passes_through():
    """What a runner already explained is not wrapped again."""

    def fail(_):
        raise InputRankError("too flat", mend="stack it")

    opened = session(X)
    opened._infer = fail
    with pytest.raises(InputRankError, match="too flat; stack it"):
        opened.run({"x": ONES})


def test_closes_its_runner_once():
    """Closing twice, or leaving a closed session's block, closes the runner once."""
    opened = session(X)
    with opened:
        opened.close()
    opened.close()
    assert opened._runner.closed == 1


def test_torch_tensors_share_memory_both_ways():
    """A tensor goes in and comes out as the same memory; one that collects gradients is detached."""
    torch = pytest.importorskip("torch")
    opened = session(X)
    x = torch.ones(2, 4, requires_grad=True)
    found = opened.run({"x": x})["x"]
    assert isinstance(found, torch.Tensor)
    assert found.data_ptr() == x.data_ptr()
    assert not found.requires_grad


def test_strided_torch_tensors_are_copied():
    """A transposed tensor gives what its contiguous copy gives."""
    torch = pytest.importorskip("torch")
    x = torch.arange(8, dtype=torch.float32).reshape(4, 2).T
    np.testing.assert_array_equal(session(X).run({"x": x})["x"].numpy(), x.numpy())


@pytest.mark.parametrize(
    ("ours", "theirs"), [("bfloat16", "bfloat16"), ("float8e4m3fn", "float8_e4m3fn"), ("float8e5m2", "float8_e5m2")]
)
def test_torch_types_that_numpy_lacks_share_memory(ours, theirs):
    """bfloat16 and the float8 types go through numpy as arrays of `ml_dtypes`, without a copy."""
    torch = pytest.importorskip("torch")
    opened = session(TensorInfo("x", ours, (2, 4)))
    x = torch.tensor([[1, 2, 3, 4], [0, -1, -2, -3]], dtype=torch.float32).to(getattr(torch, theirs))
    found = opened.run({"x": x})["x"]
    assert opened._runner.feeds["x"].dtype == np.dtype(getattr(ml_dtypes, theirs))
    assert found.dtype == x.dtype
    assert found.data_ptr() == x.data_ptr()
    assert found.float().tolist() == x.float().tolist()


def test_a_tensor_of_another_dtype_is_refused():
    """Torch tensors are not cast either."""
    torch = pytest.importorskip("torch")
    with pytest.raises(InputDtypeError, match=r"input 'x' has dtype float64, the engine takes float32"):
        session(X).run({"x": torch.ones(2, 4, dtype=torch.float64)})


def test_texts_and_lists_stay_numpy_and_lists_beside_torch():
    """What torch cannot hold comes back as it is."""
    torch = pytest.importorskip("torch")
    opened = session(X, TensorInfo("t", "string", (1,)), TensorInfo("s", "sequence(float32)", None))
    found = opened.run({"x": torch.ones(2, 4), "t": np.array(["a"]), "s": [ONES]})
    assert isinstance(found["x"], torch.Tensor)
    assert found["t"].tolist() == ["a"]
    assert found["s"][0] is ONES


def test_an_array_of_another_device_says_so():
    """What cannot be read from here names the mend."""

    class Far:
        def __dlpack__(self, **_):
            raise BufferError("on another device")

        def __dlpack_device__(self):
            return 2, 0

    with pytest.raises(InputDtypeError, match=r"cannot be read as a numpy array: .*; move it to the CPU first"):
        session(X).run({"x": Far()})


def test_what_torch_cannot_hold_stays_as_it_is():
    """An output of four bits has no type in torch, and comes back as the numpy array it is."""
    pytest.importorskip("torch")
    array = np.zeros((2, 3), numpy_dtype("int4"))
    assert as_torch(array) is array
