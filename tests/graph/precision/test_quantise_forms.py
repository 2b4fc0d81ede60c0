"""The forms that quantised numbers take, on a network with a residual sum: what each reader fuses, and the answers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import Ranges, calibrate, make_plan, quantisable, quantize
from enginery.graph.precision import calibrate as calibrate_module
from enginery.graph.precision.forms import FORMS

TEXT = """<ir_version: 9, opset_import: ["": 17]> residual (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    [relu] r = Relu(a)
    [second] c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    [sum] s = Add(c, r)
    [pool] p = GlobalAveragePool(s)
    [flat] f = Flatten(p)
    [product] y = MatMul(f, w3)
}"""
NODES = ("first", "second", "sum", "product")


@pytest.fixture
def model():
    """Return the network, whose output channels differ widely in scale."""
    random = np.random.default_rng(0)
    sizes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 16, 3, 3), "b2": (16,), "w3": (16, 4)}
    found = ir.from_onnx_text(TEXT)
    for name, size in sizes.items():
        array = random.standard_normal(size).astype(np.float32) * np.float32(0.2)
        if array.ndim == 4:
            array *= np.logspace(-1, 1, size[0], dtype=np.float32).reshape(-1, 1, 1, 1)
        value = next(one for node in found.graph for one in node.inputs if one is not None and one.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = value.const_value.shape, ir.TensorType(ir.DataType.FLOAT)
        found.graph.register_initializer(value)
    return found


@pytest.fixture
def data():
    """Return four batches, none of whose values is below -1."""
    random = np.random.default_rng(1)
    return [{"x": random.uniform(-1, 3, (4, 3, 8, 8)).astype(np.float32)} for _ in range(4)]


def read_by(model: ir.Model, name: str, index: int) -> str:
    """Return the operator that makes an input of a node; empty for an initializer."""
    node = next(node for node in model.graph if node.name == name)
    producer = node.inputs[index].producer()
    return "" if producer is None else producer.op_type


def test_what_can_be_quantised(model):
    """Products, and the sum behind a convolution."""
    assert quantisable(model) == NODES


@pytest.mark.parametrize("form", ["symmetric", "asymmetric", "whole"])
def test_each_form_computes_the_same(model, data, run, form):
    """Within what eight bits can hold, and each node of the set reads quantised numbers."""
    result = quantize(model, data, form=form)
    assert set(NODES) <= set(make_plan(result, "int8").nodes)
    (expected,), (found,) = run(model, **data[0]), run(result, **data[0])
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_zero_points(model, data):
    """Unsigned activations have one, where there are values below zero; weights never."""
    result = quantize(model, data, form="asymmetric")
    points = {
        name: value.const_value for name, value in result.graph.initializers.items() if name.endswith("zero_point")
    }
    assert points["x_zero_point"].dtype == ir.DataType.UINT8
    assert int(points["x_zero_point"].numpy()) == 64
    assert int(points["r_zero_point"].numpy()) == 0
    assert points["w1_zero_point"].dtype == ir.DataType.INT8
    assert not points["w1_zero_point"].numpy().any()


def test_one_branch_of_a_sum_or_both(model, data):
    """What ends a convolution is at hand in full, unless all is in integers."""
    one = quantize(model, data, form="symmetric")
    assert (read_by(one, "sum", 0), read_by(one, "sum", 1)) == ("Conv", "DequantizeLinear")
    unsigned = quantize(model, data, form="asymmetric")
    assert (read_by(unsigned, "sum", 0), read_by(unsigned, "sum", 1)) == ("DequantizeLinear", "DequantizeLinear")
    assert read_by(unsigned, "first", 2) == ""
    whole = quantize(model, data, form="whole")
    assert (read_by(whole, "sum", 0), read_by(whole, "sum", 1)) == ("DequantizeLinear", "DequantizeLinear")
    assert read_by(whole, "first", 2) == "DequantizeLinear"
    assert {"b1_first_quantized", "b2_second_quantized"} <= set(whole.graph.initializers)
    assert whole.graph.initializers["b1_first_quantized"].dtype == ir.DataType.INT32


ATTENTION = """<ir_version: 9, opset_import: ["": 17]> attention (float[n, 8, 16] x) => (float[n, 8, 16] y) {
    [query] q = MatMul(x, w1)
    [key] k = MatMul(x, w2)
    [turn] t = Transpose <perm = [0, 2, 1]> (k)
    [scores] s = MatMul(q, t)
    [soft] p = Softmax(s)
    [mix] y = MatMul(p, q)
}"""


def with_weights(text: str, **sizes: tuple[int, ...]) -> ir.Model:
    """Return a network whose weights are random, from a fixed seed."""
    random, found = np.random.default_rng(0), ir.from_onnx_text(text)
    for name, size in sizes.items():
        tensor = ir.tensor(np.float32(0.2) * random.standard_normal(size).astype(np.float32), name=name)
        value = next(one for node in found.graph for one in node.inputs if one is not None and one.name == name)
        value.const_value, value.shape, value.type = tensor, tensor.shape, ir.TensorType(ir.DataType.FLOAT)
        found.graph.register_initializer(value)
    return found


def quantiser_of(model: ir.Model, name: str, index: int) -> ir.Node:
    """Return the QuantizeLinear whose numbers a node's input holds."""
    node = next(node for node in model.graph if node.name == name)
    return node.inputs[index].producer().inputs[0].producer()


def test_depthwise_convolutions_without_a_kernel():
    """TensorRT 8 has one for three by three before a Relu; others are quantised where a plan names them alone."""
    model = with_weights("""<ir_version: 9, opset_import: ["": 17]> g (float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) {
        [dense] a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu(a)
        [small] c = Conv <pads = [1, 1, 1, 1], group = 4> (b, small_w) d = Relu(c)
        [bare] e = Conv <pads = [1, 1, 1, 1], group = 4> (d, small_v) f = HardSwish(e)
        [large] h = Conv <pads = [2, 2, 2, 2], group = 4> (f, large_w) y = Relu(h)
    }""", w=(4, 4, 3, 3), small_w=(4, 1, 3, 3), small_v=(4, 1, 3, 3), large_w=(4, 1, 5, 5))  # fmt: skip
    assert quantisable(model) == ("dense", "small", "bare", "large")
    assert quantisable(model, "symmetric8") == ("dense", "small")
    ranges = calibrate(model, [{"x": np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)}])
    read = {node: read_by(quantize(model, ranges, form="symmetric8"), node, 0) for node in ("dense", "small", "bare")}
    assert read == {"dense": "DequantizeLinear", "small": "DequantizeLinear", "bare": "Relu"}
    asked = quantize(model, ranges, nodes=("large",), form="symmetric8")
    assert read_by(asked, "large", 0) == "DequantizeLinear"


def test_products_of_two_activations(run):
    """OpenVINO's attention has no zero points: what may be negative is signed, what a Softmax makes is not."""
    model = with_weights(ATTENTION, w1=(16, 16), w2=(16, 16))
    data = [{"x": np.random.default_rng(1).uniform(-1, 3, (2, 8, 16)).astype(np.float32)}]
    result = quantize(model, data, form="asymmetric")
    found = {
        (name, index): quantiser_of(result, name, index)
        for name, index in (("query", 0), ("scores", 0), ("scores", 1), ("mix", 0), ("mix", 1))
    }
    kinds = {place: node.inputs[2].dtype.name for place, node in found.items()}
    assert kinds == {
        ("query", 0): "UINT8", ("scores", 0): "INT8", ("scores", 1): "INT8", ("mix", 0): "UINT8", ("mix", 1): "INT8"
    }  # fmt: skip
    points = {place: int(node.inputs[2].const_value.numpy()) for place, node in found.items()}
    assert points.pop(("query", 0)) > 0
    assert not any(points.values())
    assert found["scores", 0] is found["mix", 1]
    (expected,), (answer,) = run(model, **data[0]), run(result, **data[0])
    assert np.linalg.norm(answer - expected) < 0.03 * np.linalg.norm(expected)


POOLED = """<ir_version: 9, opset_import: ["": 17]> pooled (float[n, 3, 8, 8] x) => (float[n, 4, 4, 4] y) {{
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    [pool] {made} = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    [second] c = Conv (m, w2)
    [other] {other}
    [last] y = Mul(c, d)
}}"""


def pooled(other: str, made: str = "m") -> ir.Model:
    """Return a network with a MaxPool between two convolutions, and what else reads the pooled numbers."""
    sizes = {"w1": (4, 3, 3, 3), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1)}
    used = {name: size for name, size in sizes.items() if name != "w3" or "w3" in other}
    return with_weights(POOLED.format(other=other, made=made), **used)


def test_quantised_before_pooling(data, run):
    """For OpenVINO, once for all readers of what is pooled; not a bit of the answer changes."""
    result = quantize(pooled("d = Conv (m, w3)"), data, form="asymmetric")
    assert sum(node.op_type == "QuantizeLinear" for node in result.graph) == 3
    before, after = quantiser_of(result, "pool", 0), quantiser_of(result, "second", 0)
    assert after is quantiser_of(result, "other", 0)
    assert after.inputs[0].producer().name == "pool"
    scales = [[value.const_value.numpy() for value in node.inputs[1:]] for node in (before, after)]
    assert scales[0] == scales[1]
    (found,) = run(result, **data[0])
    after.inputs[0].producer().replace_input_with(0, before.inputs[0])
    (expected,) = run(result, **data[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("other", "made"), [("d = Relu (m)", "m"), ("d = Cast <to = 1> (places)", "m, places")])
def test_not_quantised_before_pooling(data, other, made):
    """Where somebody else reads what is pooled, or where it was found."""
    result = quantize(pooled(other, made), data, form="asymmetric")
    assert read_by(result, "pool", 0) == "Conv"
    assert read_by(result, "second", 0) == "DequantizeLinear"


def test_any_set_of_nodes(model, data):
    """Others read what they did, and a tensor is quantised once for all who want it."""
    ranges = calibrate(model, data)
    result = quantize(model, ranges, nodes=["second", "sum"])
    assert set(make_plan(result, "int8").nodes) == {"second", "sum"}
    assert read_by(result, "first", 0) == read_by(result, "first", 1) == ""
    assert sum(node.op_type == "QuantizeLinear" for node in result.graph) == 1
    with pytest.raises(GraphError, match=r"node 'relu' \(Relu\) cannot read INT8"):
        quantize(model, ranges, nodes=["relu"])
    with pytest.raises(UnknownNameError, match="unknown node 'secnd'"):
        quantize(model, ranges, nodes=["secnd"])
    with pytest.raises(UnknownNameError, match="unknown form 'asymetric'"):
        quantize(model, ranges, form="asymetric")


def test_ranges_of_another_graph(model, data):
    """They are refused by the tensor that they do not know."""
    ranges = calibrate(model, data)
    assert ranges == calibrate(model, iter(data))
    less = Ranges(ranges.method, {"x": ranges.tensors["x"]}, ranges.batches)
    with pytest.raises(GraphError, match="do not say that of 'r'"):
        quantize(model, less)


def test_ranges_in_parts(model, data, monkeypatch):
    """Tensors that are too many for one run are handed out by several, and the ranges are the same."""
    whole = calibrate(model, data, method="percentile")
    monkeypatch.setattr(calibrate_module, "_BUDGET_BYTES", 1)
    parts = calibrate(model, data, method="percentile")
    assert parts.tensors.keys() == whole.tensors.keys()
    for name, ends in whole.tensors.items():
        assert parts.tensors[name] == pytest.approx(ends, rel=1e-4, abs=1e-4)


def test_fp8(model, data):
    """Its type came with opset 19, to which the graph is converted."""
    result = quantize(model, data, form="fp8")
    assert result.opset_imports[""] == 19
    kinds = {node.inputs[2].dtype for node in result.graph if node.op_type == "QuantizeLinear"}
    assert kinds == {ir.DataType.FLOAT8E4M3FN}
    plan = make_plan(result, "fp8", rest="bf16")
    assert set(plan.nodes.values()) == {"fp8"}
    assert set(plan.nodes) == set(NODES)


@pytest.mark.parametrize(("form", "error"), [("weights8", 0.01), ("weights4", 0.15)])
def test_weights_alone(model, data, run, form, error):
    """No data is needed, and no node computes in INT8; in four bits, each 32 numbers share a scale."""
    result = quantize(model, Ranges("minmax", {}, 0), form=form)
    assert result.opset_imports[""] == max(17, FORMS[form].lowest_opset)
    assert not any(node.op_type == "QuantizeLinear" for node in result.graph)
    assert read_by(result, "product", 1) == "DequantizeLinear"
    (expected,), (found,) = run(model, **data[0]), run(result, **data[0])
    assert 0 < np.linalg.norm(found - expected) < error * np.linalg.norm(expected)
    assert read_by(result, "first", 1) == ""
    with pytest.raises(GraphError, match="QuantizeLinear"):
        make_plan(result, "int8")


def test_no_weights_to_store(model):
    """A graph whose matrix products have none is refused, and not handed back as it was."""
    with pytest.raises(GraphError, match="no matrix product of the graph has a weight for weights4"):
        quantize(model, Ranges("minmax", {}, 0), nodes=["first"], form="weights4")
