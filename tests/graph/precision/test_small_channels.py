"""Channels of weights near zero or of zeros alone: their biases come through INT8, and no other scale changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph.base import quantize
from enginery.graph.precision.forms import scale_weight

HEAD = '<ir_version: 9, opset_import: ["": 17]>'
CONVOLUTION = f"""{HEAD} g (float[2, 3, 4, 4] x) => (float[2, 4, 4, 4] y) {{
    [first] c = Conv (x, w, b) r = Relu(c) [last] y = Conv (r, eye)
}}"""
PRODUCT = f"""{HEAD} g (float[32, 3] x) => (float[32, 4] y) {{
    [first] m = MatMul (x, w) c = Add (m, b) r = Relu(c) [last] y = MatMul (r, eye)
}}"""
FACTORS = np.float32([1e-8, 0, 1, 1])
BIAS = np.float32([0.5, 0.5, 0.1, 0.2])
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((4, 3)).astype(np.float32) * FACTORS[:, None]


def graph(text: str, **arrays: np.ndarray) -> ir.Model:
    """Return a graph with its weights."""
    found = ir.from_onnx_text(text)
    for name, array in arrays.items():
        value = next(one for node in found.graph for one in node.inputs if one is not None and one.name == name)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = value.const_value.shape, ir.TensorType(ir.DataType.FLOAT)
        found.graph.register_initializer(value)
    return found


def convolution(weight: np.ndarray = WEIGHT) -> tuple[ir.Model, np.ndarray]:
    """Return a convolution with such weights, and inputs up to 30."""
    x = 10 * np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    eye = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    return graph(CONVOLUTION, w=weight.reshape(4, 3, 1, 1), b=BIAS, eye=eye), x


def product(weight: np.ndarray = WEIGHT) -> tuple[ir.Model, np.ndarray]:
    """Return a matrix product with a sum behind it, which ONNX Runtime computes as one."""
    x = 10 * np.random.default_rng(1).standard_normal((32, 3)).astype(np.float32)
    return graph(PRODUCT, w=np.ascontiguousarray(weight.T), b=BIAS, eye=np.eye(4, dtype=np.float32)), x


@pytest.mark.parametrize("make", [convolution, product])
@pytest.mark.parametrize("form", ["symmetric", "asymmetric", "whole"])
def test_the_bias_comes_through(run, make, form):
    """Within one step of what is made, on ONNX Runtime, which quantises a bias itself where the graph does not."""
    model, x = make()
    (expected,), (found,) = run(model, x=x), run(quantize(model, [{"x": x}], form=form), x=x)
    step = float(np.abs(expected).max()) / 127
    for channel in (0, 1):
        np.testing.assert_allclose(found[:, channel], 0.5, atol=step)


def test_all_weights_are_zeros(run):
    """What is left is the bias, to less than a step of the activation behind it."""
    model, x = convolution(np.zeros_like(WEIGHT))
    result = quantize(model, [{"x": x}], form="whole")
    bias, scale = (result.graph.initializers[f"b_first_{name}"].const_value.numpy() for name in ("quantized", "scale"))
    np.testing.assert_allclose(bias * scale.astype(np.float64), BIAS, rtol=1e-6)
    (found,) = run(result, x=x)
    np.testing.assert_allclose(found.mean((0, 2, 3)), BIAS, atol=0.5 / 255)


@pytest.mark.parametrize("form", ["symmetric", "asymmetric", "whole"])
def test_ordinary_channels_keep_their_scales(form):
    """To the bit: the largest weight of each by 127."""
    model, x = convolution()
    scale = quantize(model, [{"x": x}], form=form).graph.initializers["w_scale"].const_value.numpy()
    largest = np.abs(WEIGHT).max(axis=1)
    np.testing.assert_array_equal(scale[2:], (largest / 127)[2:])
    assert largest[0] / 127 < scale[0] < scale[2:].min()


def test_weights_that_one_reader_has_a_bias_for():
    """A weight is quantised once for all readers, so that the largest of their biases can be written."""
    text = f"""{HEAD} g (float[2, 3, 4, 4] x) => (float[2, 4, 4, 4] y, float[2, 4, 4, 4] z) {{
        [first] y = Conv (x, w, b) [second] z = Conv (x, w, large)
    }}"""
    _, x = convolution()
    model = graph(text, w=WEIGHT.reshape(4, 3, 1, 1), b=BIAS, large=100 * BIAS)
    kept = quantize(model, [{"x": x}], form="whole").graph.initializers
    for name, bias in (("b_first", BIAS), ("large_second", 100 * BIAS)):
        numbers, scale = (kept[f"{name}_{part}"].const_value.numpy() for part in ("quantized", "scale"))
        np.testing.assert_allclose(numbers * scale.astype(np.float64), bias, atol=float(scale[2:].max()))


def test_weights_that_float32_hardly_holds():
    """Their scale would be no number that anything can be divided by."""
    found = scale_weight(np.float32([[1e-44, -1e-44], [1, 2]]), 0, "INT8")
    np.testing.assert_array_equal(found.scale, np.float32([2, 2]) / np.float32(127))
    assert found.numbers is not None
    assert found.numbers.tolist() == [[0, 0], [64, 127]]
