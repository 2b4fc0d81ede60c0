"""INT8 by recorded data, on the digits network: the form that TensorRT takes, the names kept, bad data refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import DataError, GraphError, UnknownNameError
from enginery.graph.base import Ranges, all_nodes, apply_plan, load_model, make_plan, quantize
from enginery.graph.modules import note_modules

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


@pytest.fixture
def digits():
    """Return the network with the modules of its nodes."""
    model = load_model(DIGITS / "digits.onnx")
    note_modules(model)
    return model


@pytest.fixture
def images():
    """Return real images of digits."""
    return np.load(DIGITS / "heldout.npz")["image"]


@pytest.fixture
def batches(images):
    """Return ten calls of ten images."""
    return [{"image": images[at : at + 10]} for at in range(0, 100, 10)]


def test_the_form_that_tensorrt_takes(digits, batches):
    """Signed, symmetric, weights per channel, biases and outputs as they were."""
    said = []
    result = quantize(digits, batches, say=said.append)
    assert said == ["quantised 5 activations and 5 weights, by minmax over 10 batches"]
    points = [
        value.const_value
        for node in all_nodes(result)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for value in node.inputs[2:]
    ]
    assert len(points) == 15
    assert {tensor.dtype for tensor in points} == {ir.DataType.INT8}
    assert not any(tensor.numpy().any() for tensor in points)
    convolution = next(node for node in result.graph if node.op_type == "Conv")
    weight = convolution.inputs[1].producer()
    assert weight.inputs[1].const_value.shape.numpy() == (weight.inputs[0].const_value.shape[0],)
    assert convolution.inputs[2].const_value.dtype == ir.DataType.FLOAT


def test_names_and_modules_stay(digits, batches):
    """Nodes keep both; what stands before a node is of its module."""
    before = {node.name: dict(node.metadata_props) for node in digits.graph}
    result = quantize(digits, batches)
    after = {node.name: dict(node.metadata_props) for node in result.graph}
    assert all(after[name].items() >= props.items() for name, props in before.items())
    assert all("enginery.module" in props for props in after.values())
    assert [value.name for value in result.graph.outputs] == ["scores"]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_the_answers_stay_right(digits, batches, images, run, method):
    """By each method, alone and with the rest in half, which needs no cast around the quantised nodes."""
    result = quantize(digits, batches, method=method)
    (expected,) = run(digits, image=images)
    typed = apply_plan(result, make_plan(result, "int8", rest="fp16"))
    assert sum(node.op_type == "Cast" for node in typed.graph) == 1
    for model in (result, typed):
        (found,) = run(model, image=images)
        assert (found.argmax(1) == expected.argmax(1)).mean() > 0.99
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_more_batches_widen_the_ranges(digits, images):
    """Every batch counts, the last as much as the first."""
    quiet = [{"image": images[:10] * 0.1}] * 8
    loud = [*quiet, {"image": images[:10]}]
    scales = [
        float(quantize(digits, batches).graph.initializers["image_scale"].const_value.numpy())
        for batches in (quiet, loud, loud[::-1])
    ]
    assert scales[0] < scales[1] == scales[2]


def test_excluded_nodes_stay(digits, batches):
    """They read float32."""
    name = next(node.name for node in digits.graph if node.op_type == "Conv")
    result = quantize(digits, batches, exclude=[name])
    assert name not in make_plan(result, "int8").nodes
    with pytest.raises(UnknownNameError, match="unknown node 'nowhere'"):
        quantize(digits, batches, exclude=["nowhere"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "there is no data to calibrate with"),
        (lambda batches: [{**batches[0], "image": np.zeros_like(batches[0]["image"])}], "'image' is 0 everywhere"),
        (lambda batches: [{"image": batches[0]["image"] * np.float32(np.inf)}], "'image' is not finite"),
        (lambda _: [{"picture": np.ones(3)}], "lacks the input 'image'"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_data_from_which_no_range_follows(digits, batches, change, message):
    """It is refused before anything is run."""
    with pytest.raises(DataError, match=message):
        quantize(digits, change(batches))


HEAD = '<ir_version: 10, opset_import: ["" : 18]> g'
IN_A_BODY = f"""{HEAD} (float[2, 2] x, bool c) => (float[2, 2] y) {{
    [choice] y = If (c) <
        then_branch = then () => (float[2, 2] t) {{ [inner] t = MatMul (x, x) }},
        else_branch = other () => (float[2, 2] e) {{ [neg] e = Neg (x) }}
    >
}}"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD} (double[2, 2] x) => (double[2, 2] y) {{ [mm] y = MatMul (x, x) }}",
         "MatMul 'mm' computes in float64, and only what is float32 is quantised; export the model in float32"),
        (f"{HEAD} (float16[2, 2] x) => (float16[2, 2] y) {{ [mm] y = MatMul (x, x) }}",
         "MatMul 'mm' computes in float16, and only what is float32 is quantised; export the model in float32"),
        (f"{HEAD} (int32[2, 2] x) => (int32[2, 2] y) {{ [mm] y = MatMul (x, x) }}",
         "MatMul 'mm' computes in int32, and only what is float32 is quantised; ask for another precision"),
        (f"{HEAD} (float[2, 2] x) => (float[2, 2] y) {{ y = MatMul (x, x) }}", "MatMul '' has no name"),
        (IN_A_BODY, "MatMul 'inner' is in the body of an If, Loop, Scan or function"),
        (f"{HEAD} (float[2, 2] x) => (float[2, 2] y) {{ [relu] y = Relu (x) }}",
         r"none of the operators that are quantised \(Conv, .*\); ask for another precision"),
    ],
)  # fmt: skip
def test_nothing_to_quantise(text, message):
    """It says what stands against it, not that there is nothing; with data and with ranges."""
    model = ir.from_onnx_text(text)
    for given in ([], Ranges("minmax", {}, 1)):
        with pytest.raises(GraphError, match=message):
            quantize(model, given)


def test_graphs_that_cannot_be_quantised(digits, batches, small_model):
    """Quantised already, too old, or without heavy operators."""
    with pytest.raises(GraphError, match="quantised already"):
        quantize(quantize(digits, batches), batches)
    digits.opset_imports[""] = 12
    with pytest.raises(GraphError, match="opset 12, and scales per channel came with 13"):
        quantize(digits, batches)
    with pytest.raises(UnknownNameError, match="method of calibration"):
        quantize(small_model, [], method="guess")
