"""Every backend, every kind of model: what goes in comes out right, under the right name, dtype and shape."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from enginery.backends import engine

DOUBLE = "double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }"


def rows(count, start=0):
    """Return that many rows of four numbers, counted from `start`."""
    return np.arange(start, start + count * 4, dtype=np.float32).reshape(count, 4)


def test_builds_loads_opens_and_runs(build, check, small_model):
    """The whole way works on a small network, and agrees with numpy."""
    built = build(small_model, "x=1..2..4x4")
    weights = {name: value.const_value.numpy() for name, value in small_model.graph.initializers.items()}
    with engine.load(built.folder).open() as session:
        found = session.run({"x": rows(2)})
        assert session.placement
    check(found, y=np.maximum(rows(2) @ weights["w0"], 0) @ weights["w1"])


@pytest.mark.parametrize("size", [1, 3, 8])
def test_runs_at_every_end_of_the_profile(build, check, size):
    """One engine runs at the smallest, the tuned and the largest batch."""
    with build(DOUBLE, "x=1..3..8x4").open() as session:
        check(session.run({"x": rows(size)}), y=2 * rows(size))


def test_changes_size_from_call_to_call(build, check):
    """A session takes another batch in each call."""
    with build(DOUBLE, "x=1..8x4").open() as session:
        for size in (8, 1, 5, 8):
            check(session.run({"x": rows(size)}), y=2 * rows(size))


def test_runs_without_a_profile(build, check):
    """A dynamic dimension that no profile names takes any size."""
    with build(DOUBLE).open() as session:
        check(session.run({"x": rows(11)}), y=2 * rows(11))


def test_takes_several_inputs_in_any_order(build, check):
    """Inputs go by name, whatever the order of the feeds, and outputs come in the graph's order."""
    text = """many (float[batch, 4] a, float[batch, 4] b, float[4] c) => (float[batch, 4] z, float[batch, 4] y)
              { y = Sub(a, b)  z = Sub(y, c) }"""
    c = np.float32([1, 2, 3, 4])
    with build(text, "a=1..4x4", "b=1..4x4").open() as session:
        found = session.run({"c": c, "b": rows(2, 50), "a": rows(2)})
    check(found, z=rows(2) - rows(2, 50) - c, y=rows(2) - rows(2, 50))


def test_keeps_an_input_that_is_not_used(build, check):
    """An input without a consumer is still asked for and given."""
    text = "unused (float[batch, 4] x, float[batch, 4] spare) => (float[batch, 4] y) { y = Abs(x) }"
    with build(text).open() as session:
        assert [info.name for info in session.inputs] == ["x", "spare"]
        check(session.run({"x": rows(1), "spare": rows(1)}), y=rows(1))


def test_keeps_unusual_names(build, check):
    """Names with slashes, colons and commas survive."""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {DOUBLE}')
    model.graph.inputs[0].name, model.graph.outputs[0].name = "serving/x:0", "out,put:1"
    with build(model).open() as session:
        check(session.run({"serving/x:0": rows(2)}), **{"out,put:1": 2 * rows(2)})


def test_takes_int64_and_bool(build, check):
    """Integer and boolean tensors keep their types on both sides."""
    text = """logic (int64[n] i, bool[n] b) => (int64[n] j, bool[n] c) { j = Add(i, i)  c = Not(b) }"""
    i, b = np.array([1, -2, 3]), np.array([True, False, True])
    with build(text).open() as session:
        check(session.run({"i": i, "b": b}), j=2 * i, c=~b)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float16", "float64"])
def test_takes_other_types(build, check, dtype):
    """The usual element types pass through an operator unchanged."""
    kind = {"float64": "double"}.get(dtype, dtype)
    text = f"typed ({kind}[n, 4] x) => ({kind}[4, n] y) {{ y = Transpose <perm = [1, 0]> (x) }}"
    x = np.arange(8).reshape(2, 4).astype(dtype)
    with build(text).open() as session:
        check(session.run({"x": x}), y=np.ascontiguousarray(x.T))


def test_takes_bfloat16(build, check):
    """A type that numpy lacks travels as an array of `ml_dtypes`."""
    text = "brain (bfloat16[n, 4] x) => (bfloat16[n, 4] y) { y = Identity(x) }"
    x = rows(2).astype(ml_dtypes.bfloat16)
    with build(text).open() as session:
        check(session.run({"x": x}), y=x)


def test_keeps_large_int64(build, check):
    """An integer beyond 32 bits comes back as it went in."""
    text = "large (int64[n] x) => (int64[n] y) { y = Add(x, x) }"
    x = np.array([2**40 + 3, -(2**50)])
    with build(text).open() as session:
        found = session.run({"x": x})
    check(found, y=2 * x)


def test_returns_scalars_as_arrays(build, check):
    """An output without axes is an array of no dimensions, not a Python or numpy scalar."""
    text = "total (float[batch, 4] x) => (float s) { s = ReduceSum <keepdims = 0> (x) }"
    with build(text).open() as session:
        check(session.run({"x": rows(2)}), s=rows(2).sum())


def test_takes_scalars(build, check):
    """An input without axes is an array of no dimensions."""
    text = "scale (float[batch, 4] x, float s) => (float[batch, 4] y) { y = Mul(x, s) }"
    with build(text).open() as session:
        check(session.run({"x": rows(2), "s": np.array(3, np.float32)}), y=3 * rows(2))


def test_takes_strings(build, check):
    """Texts go in as objects or as numpy's unicode, and come out as objects."""
    text = "words (string[n] x) => (string[n] y) { y = Identity(x) }"
    words = np.array(["one", "zwei", "trois et quatre", "五"])
    with build(text).open() as session:
        check(session.run({"x": words.astype(object)}), y=words.astype(object))
        check(session.run({"x": words}), y=words.astype(object))


def test_takes_no_rows(build, check):
    """An empty batch gives an empty result where the profile allows it."""
    with build(DOUBLE, "x=0..2..4x4").open() as session:
        check(session.run({"x": rows(0)}), y=rows(0))


def test_takes_sequences(build):
    """A list of arrays is handed through, and one comes back as a list."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
              chain (seq(float[n]) s, float[n] x) => (seq(float[n]) t) { t = SequenceInsert(s, x) }"""
    with build(ir.from_onnx_text(text)).open() as session:
        found = session.run({"s": [np.float32([1, 2])], "x": np.float32([3])})
    assert [array.tolist() for array in found["t"]] == [[1, 2], [3]]


def test_hands_out_an_input_as_a_copy(build, check):
    """An output that is an input, or another output, is the caller's own memory."""
    text = """same (float[batch, 4] x) => (float[batch, 4] y, float[batch, 4] z, float[batch, 4] w)
              { y = Abs(x)  z = Identity(y)  w = Identity(x) }"""
    x = rows(2)
    with build(text).open() as session:
        found = session.run({"x": x})
    check(found, y=x, z=x, w=x)
    found["w"][:], found["z"][:] = -1, -2
    assert x.min() == 0
    assert found["y"].min() >= 0


def test_gives_the_same_answer_twice(build):
    """Two runs on the same input agree bit for bit."""
    with build(DOUBLE).open() as session:
        first, second = session.run({"x": rows(3)}), session.run({"x": rows(3)})
    np.testing.assert_array_equal(first["y"], second["y"])


def test_outputs_belong_to_the_caller(build, check):
    """Neither a later call nor the end of the session changes what was returned, and it may be written to."""
    with build(DOUBLE).open() as session:
        first = session.run({"x": rows(2)})
        second = session.run({"x": rows(2, 100)})
        assert not np.shares_memory(first["y"], second["y"])
        check(first, y=2 * rows(2))
    check(second, y=2 * rows(2, 100))
    first["y"][:] = 0


def test_inputs_are_left_alone(build):
    """Inputs are read, not written; an array that may not be written to is as good as any."""
    x = rows(2)
    x.flags.writeable = False
    with build(DOUBLE).open() as session:
        session.run({"x": x})
    np.testing.assert_array_equal(x, rows(2))


def test_takes_strided_arrays(build, check):
    """An array that is not contiguous gives the same as its contiguous copy."""
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)
    with build(DOUBLE).open() as session:
        check(session.run({"x": wide[:, ::2]}), y=2 * wide[:, ::2])
        check(session.run({"x": np.asfortranarray(rows(3))}), y=2 * rows(3))


def test_two_sessions_at_once(build, check):
    """Two opened engines do not disturb each other, and one outlives the other."""
    first, second = build(DOUBLE, name="first"), build(DOUBLE, name="second")
    with first.open() as one:
        with second.open() as two:
            check(two.run({"x": rows(1)}), y=2 * rows(1))
            check(one.run({"x": rows(3)}), y=2 * rows(3))
        check(one.run({"x": rows(2)}), y=2 * rows(2))


def test_takes_calls_from_threads(build, check):
    """Calls from several threads each get the answer to their own input."""
    found = {}
    with build(DOUBLE).open() as session:

        def call(start):
            for _ in range(20):
                found[start] = session.run({"x": rows(4, start)})

        threads = [threading.Thread(target=call, args=(start,)) for start in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for start in (0, 100, 200, 300):
        check(found[start], y=2 * rows(4, start))


def test_takes_and_returns_torch_tensors(build):
    """Torch tensors in, torch tensors out, and nothing of them is copied on the way in or out."""
    torch = pytest.importorskip("torch")
    x = torch.arange(8, dtype=torch.float32).reshape(2, 4)
    with build(DOUBLE).open() as session:
        seen = {}
        infer = session._infer
        session._infer = lambda feeds: seen.setdefault("out", infer(seen.setdefault("in", feeds)))
        found = session.run({"x": x})["y"]
    assert isinstance(found, torch.Tensor)
    assert seen["in"]["x"].ctypes.data == x.data_ptr()
    assert seen["out"]["y"].ctypes.data == found.data_ptr()
    assert found.shape == x.shape
    assert found.dtype == x.dtype


def test_takes_bfloat16_tensors_of_torch(build):
    """Torch's bfloat16, which numpy cannot read, goes through and comes back."""
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.5, -2, 3, 4]], dtype=torch.bfloat16)
    text = "brain (bfloat16[n, 4] x) => (bfloat16[n, 4] y) { y = Identity(x) }"
    with build(text).open() as session:
        found = session.run({"x": x})["y"]
    assert found.dtype == torch.bfloat16
    assert found.shape == x.shape
