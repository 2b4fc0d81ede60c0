"""A graph cut in two: what crosses, and what the models on either side compute."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.evaluation import Evaluator
from enginery.graph.base import cuts_of

BRANCHES = """<ir_version: 8, opset_import: ["": 17]>
    g (float[n, 2] x, float[n, 2] z) => (float[n, 2] y, float[n, 2] a) { [neg] a = Neg(x)
    [shape] s = Shape(x) [abs] b = Abs(z) [flat] c = Reshape(b, minus) [back] d = Reshape(c, s)
    [add] y = Add(a, d) }"""
CAPTURING = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x, bool[1] c) => (float[2] y) {
    [neg] a = Neg(x) [abs] b = Abs(x)
    [if] t = If(c) <then_branch = t () => (float[2] p) { [inner] p = Exp(a) },
                    else_branch = e () => (float[2] q) { [other] q = Identity(b) }>
    [add] y = Add(t, b) }"""
SEQUENCES = """<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {
    zero = Constant<value_int = 0>() [make] q = SequenceConstruct(x, x) [take] t = SequenceAt(q, zero)
    [neg] y = Neg(t) }"""
FEEDS = {"x": np.array([[1, -2], [3, 4]], np.float32), "z": np.array([[-5, 6], [7, -8]], np.float32)}


@pytest.fixture
def branches():
    """Return a graph with two branches, whose sizes one of them reads."""
    model = ir.from_onnx_text(BRANCHES)
    value = next(v for node in model.graph for v in node.inputs if v.name == "minus")
    value.const_value = ir.tensor(np.array([-1], np.int64), name="minus")
    model.graph.register_initializer(value)
    return cuts_of(model)


def evaluate(model, feeds, folder):
    """Run a model on ONNX Runtime."""
    with Evaluator(folder) as evaluator:
        return evaluator.run(model, [feeds])[0]


def test_what_crosses(branches):
    """Tensors cross from where they are made to where they are last read; outputs cross to the end, sizes never."""
    assert [node.name for node in branches.nodes] == ["neg", "shape", "abs", "flat", "back", "add"]
    assert branches.places == tuple(range(7))
    assert [branches.crossing(place) for place in branches.places] == [
        (), ("a",), ("a",), ("a", "b"), ("a", "c"), ("a", "d"), ("a", "y"),
    ]  # fmt: skip
    assert branches.sizes_crossing(4) == ("s",)
    assert [node.name for node in branches.describe(0, 6, ["y"])] == ["neg", "shape", "abs", "flat", "back", "add"]
    assert [node.name for node in branches.describe(0, 4, ["c"])] == ["abs", "flat"]


def test_parts_compute_what_the_whole_does(branches, tmp_path):
    """The model before a cut and the model behind it give together what the whole gives."""
    whole = branches.part((), ["y"])
    before = branches.part((), ["a", "c"])
    made = evaluate(before, FEEDS, tmp_path)
    behind = branches.part(["a", "c"], ["y"])
    assert [value.name for value in behind.graph.inputs] == ["x", "a", "c"]  # x for the sizes
    found = evaluate(behind, {"x": FEEDS["x"], **made}, tmp_path)
    np.testing.assert_array_equal(found["y"], evaluate(whole, FEEDS, tmp_path)["y"])


def test_a_part_has_only_the_inputs_that_it_needs(branches):
    """An engine with inputs that nothing reads would be another engine."""
    assert [value.name for value in branches.part((), ["b"]).graph.inputs] == ["z"]


def test_a_window_has_the_sizes_of_one_call(branches, tmp_path):
    """Sizes become constants, so that what is left reads nothing but what crosses; types are cast inside."""
    given = {"a": np.array([[1, 2], [3, 4]], np.float64), "c": np.array([1, 2, 3, 4], np.float32)}
    model = branches.window(4, ["y"], given, {"s": np.array([2, 2], np.int64)})
    assert [(v.name, v.dtype.name, list(v.shape)) for v in model.graph.inputs] == [
        ("a", "DOUBLE", [2, 2]), ("c", "FLOAT", [4]),
    ]  # fmt: skip
    np.testing.assert_array_equal(evaluate(model, given, tmp_path)["y"], [[2, 4], [6, 8]])


def test_what_a_body_reads_from_around_it_crosses(tmp_path):
    """A branch's own nodes are inside one node; what they capture is read by that."""
    cuts = cuts_of(ir.from_onnx_text(CAPTURING))
    assert cuts.crossing(2) == ("a", "b")
    (node,) = cuts.describe(2, 3)
    assert (node.operator, node.inner) == ("If", ("inner", "other"))
    model = cuts.part(["a", "b"], ["t"])
    feeds = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32), "c": np.array([True])}
    assert evaluate(model, feeds, tmp_path)["t"].tolist() == [1, 1]


def test_there_is_no_cut_where_something_else_than_tensors_crosses():
    """A sequence is no output that engines have in common."""
    cuts = cuts_of(ir.from_onnx_text(SEQUENCES))
    assert [cuts.nodes[place - 1].op_type for place in cuts.places if place] == ["SequenceAt", "Neg"]
