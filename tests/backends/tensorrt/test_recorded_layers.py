"""Layers as a real TensorRT told them: 8.6.0 on an H200, ResNet-50 with Q/DQ nodes, batch 1 to 128."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from enginery.backends.tensorrt.inspection import count, read_engine_text
from enginery.backends.tensorrt.layer_types import computed_in

RECORDED = Path(__file__).with_name("recorded") / "resnet50_int8_dynamic_8.6.0.json"
NODES = (
    "node_Conv_754", "node_relu", "node_max_pool2d", "node_Conv_756", "node_relu_1", "node_Conv_758", "node_relu_2",
    "node_mean", "node_linear",
)  # fmt: skip
KERNEL = "sm80_xmma_fprop_implicit_gemm_{}_nhwckrsc_nhwc_tilesize128x64x8_stage3_warpsize2x2x1_g1_ffma_aligna4_alignc4"


@pytest.fixture
def layers():
    """Return what is read of them."""
    x = ir.val("x", ir.DataType.FLOAT, [2])
    nodes = [ir.node("Neg", [x], name=name) for name in NODES]
    graph = ir.Graph([x], nodes[-1].outputs, nodes=nodes, opset_imports={"": 17}, name="g")
    return read_engine_text(RECORDED.read_text(), ir.Model(graph, ir_version=8))


def test_precision_is_told_by_weights_where_tensors_are_not(layers):
    """With dynamic shapes 8.6 tells no tensor's type: "N/A due to dynamic shapes"."""
    assert [layer.precision for layer in layers] == ["", "int8", "int8", "int8", "fp32", "int8", ""]
    assert count(layers) == {"fp32": 1, "int8": 4}
    assert {text for layer in layers for text in (*layer.inputs, *layer.outputs)} == {""}


def test_layers_name_the_nodes_of_their_metadata(layers):
    """The names in the metadata stand between characters that no eye sees."""
    assert layers[1].nodes == NODES[:3]
    assert [layer.nodes for layer in layers[2:4]] == [NODES[3:5], NODES[5:7]]


@pytest.mark.parametrize(
    ("types", "weights", "precision"),
    [
        ("f32f32_f32f32_f32", "Float", "fp32"),
        ("f32f32_tf32f32_f32", "Float", "tf32"),
        ("f16f16_f16f16_f16", "Half", "fp16"),
        ("f16f16_f16f32_f32", None, "fp16"),
        ("f32f32_f32f32_f32", None, "fp32"),
        ("f32f32_tf32f32_f32", None, "tf32"),
    ],
)
def test_an_engine_of_dynamic_shapes_tells_its_precision(types, weights, precision):
    """An FP32 layer counts as one, else an audit would find nothing to compare with what was asked."""
    said = {"Name": "conv", "TacticName": KERNEL.format(types)}
    said |= {"Weights": {"Type": weights, "Count": 1}} if weights else {}
    assert computed_in(said, "CaskConvolution", ("",), ("",)) == precision
