"""Data to calibrate with that does not look like the model's inputs is refused, and the message says why."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import DataError
from enginery.graph.precision.calibration_data import checked

TEXT = """<ir_version: 9, opset_import: ["": 17]> g (float[n, 3] x, int64[n] ids) => (float[n, 3] y) { y = Relu(x) }"""
IDS = np.zeros(2, np.int64)


@pytest.fixture
def model():
    """Return a graph of two inputs."""
    return ir.from_onnx_text(TEXT)


@pytest.fixture
def rows():
    """Return two rows of real values."""
    return np.array([[0, 1, 2], [-1, 0.5, 3]], np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"x": x.astype(np.float64)}, "the data for 'x' is float64, and the model takes float32"),
        (lambda x: {"x": x[:, :2]}, "the data for 'x' is 2x2, and the model takes nx3"),
        (lambda x: {"x": x[0]}, "the data for 'x' is 3, and the model takes nx3"),
        (lambda x: {"x": x * np.float32(np.nan)}, "the data for 'x' is not finite"),
        (lambda x: {"x": np.ones_like(x)}, "the data for 'x' is 1 everywhere; record real inputs"),
        (lambda x: {"y": x, "x": None}, "lacks the input 'x'; record every input; the data holds ids, y"),
        (lambda x: {"x": x[:1], "ids": IDS[:1]}, "there is one row of data to calibrate with"),
        (lambda x: {"x": x[[0, 0, 0]]}, "all 3 rows of data to calibrate with are the same: no range follows from one"),
        (lambda x: {"x": x * 100}, r"lies in -100\.\.300, and the example inputs in -1\.\.3; prepare the data"),
        (lambda x: {"x": x / 100}, r"lies in -0\.01\.\.0\.03, and the example inputs in -1\.\.3"),
    ],
)
def test_refused(model, rows, change, message):
    """Each slip by itself."""
    feeds = {"ids": IDS, "x": rows, **change(rows)}
    given = {name: array for name, array in feeds.items() if array is not None}
    with pytest.raises(DataError, match=message):
        list(checked(model, [given], {"x": rows}))


def test_taken(model, rows):
    """Batches pass through in their order, one at a time; example inputs of one value say nothing."""
    batches = [{"x": rows, "ids": IDS}, {"x": rows * 2, "ids": IDS}]
    handed = checked(model, iter(batches), {"x": np.zeros_like(rows)})
    assert next(handed)["x"] is rows
    assert len(list(handed)) == 1
    with pytest.raises(DataError, match="there is no data to calibrate with"):
        list(checked(model, []))


def test_one_row_in_many_batches(model, rows):
    """It is as little as one row; a row of another length, or one other number, is another."""
    one = {"x": rows[:1], "ids": IDS[:1]}
    with pytest.raises(DataError, match="all 3 rows of data to calibrate with are the same"):
        list(checked(model, [one] * 3))
    for other in ({"x": rows[1:], "ids": IDS[:1]}, {"x": rows[:1], "ids": IDS[:1] + 1}):
        assert len(list(checked(model, [one, other]))) == 2
    lengths = ir.from_onnx_text(TEXT.replace("3] x", "m] x"))
    assert len(list(checked(lengths, [one, {**one, "x": np.concatenate([rows[:1]] * 2, axis=1)}]))) == 2


@pytest.mark.parametrize(("factor", "told"), [(1e30, True), (1e-30, True), (100, False), (0.01, False)])
def test_sizes_that_no_example_says_are_right(model, rows, factor, told):
    """They are told of where they are far from what models take, and never refused."""
    said = []
    feeds = {"x": rows * np.float32(factor), "ids": IDS}
    for examples in (None, {"x": np.zeros_like(rows)}):
        said.clear()
        list(checked(model, [feeds], examples, said.append))
        assert [line for line in said if "'x' lies in -" in line and "no example inputs" in line] == said
        assert bool(said) is told


def test_an_input_that_never_varies_is_told_beside_one_that_does(rows):
    """A scale or a mask of ones is no reason to refuse what else was recorded."""
    x, scale = ir.val("x", ir.DataType.FLOAT, ["n", 3]), ir.val("scale", ir.DataType.FLOAT, [1])
    product = ir.node("Mul", [x, scale])
    graph = ir.Graph([x, scale], product.outputs, nodes=[product], opset_imports={"": 17})
    said = []
    feeds = {"x": rows, "scale": np.float32([2])}
    list(checked(ir.Model(graph, ir_version=8), [feeds], {"x": rows, "scale": np.float32([1])}, said.append))
    assert said == ["the data for 'scale' is 2 everywhere: ranges that follow from it hold for no other value"]
