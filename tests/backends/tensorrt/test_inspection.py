"""Reading what an inspector says, in the words of 8.6, 10 and 11, and what a typed network says before it is built."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from enginery.backends.tensorrt.inspection import UNREADABLE, count, read_engine_text, read_network_layers
from enginery.backends.tensorrt.layer_types import precision_word, tensor_text
from enginery.backends.tensorrt.node_names import NodeNames
from enginery.backends.tensorrt.versions import load_api
from enginery.graph.base import apply_plan, load_model, make_plan, save_model

CONV, RELU = "/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/relu/Relu"
ADD, SOFTMAX, MUL = "/layer1/layer1.0/Add", "/head/Softmax", "/head/Mul"


@pytest.fixture
def graph():
    """Return five named nodes in a row."""
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) {
            a = Conv(x, w) b = Relu(a) c = Add(b, b) d = Softmax(c) y = Mul(d, d)
        }
    """)
    for node, name in zip(model.graph, (CONV, RELU, ADD, SOFTMAX, MUL), strict=True):
        node.name = name
    return model


def said(name: str, kind: str, reads: str, writes: str, **more) -> dict:
    """Write one layer as TensorRT 8.6 and 10 do."""
    tensors = {
        key: [{"Name": "t", "Location": "Device", "Dimensions": [1], "Format/Datatype": text}]
        for key, text in (("Inputs", reads), ("Outputs", writes))
    }
    return {"Name": name, "LayerType": kind, **tensors, "TacticValue": "0x1", "StreamId": 0, **more}


def read(graph, *layers):
    """Read layers from the text of an engine."""
    return read_engine_text(json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]}), graph)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Row major linear FP32", "fp32 linear"),
        ("Row major linear FP16 format", "fp16 linear"),
        ("Row major Int8 format", "int8 linear"),
        ("Two wide channel vectorized row major FP16 format", "fp16 CHW2"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8 CHW32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16 HWC8"),
        ("Half NC/2HW2", "fp16 NC/2HW2"),
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("Float", "fp32"),
        ("Int32", "int32"),
        ("FP8", "fp8"),
        ("unheard of", "unheard of"),
    ],
)
def test_types_and_formats(text, expected):
    """Every word seen becomes ours; what is not known is kept."""
    assert tensor_text({"Format/Datatype": text}) == expected


def test_types_and_formats_of_11():
    """From 11 on type and format are two texts."""
    assert tensor_text({"Name": "x", "Format": "Row major linear", "Datatype": "Half"}) == "fp16 linear"
    assert precision_word("kBF16") == ""


def test_a_fusion_is_mapped_by_its_metadata(graph):
    """The metadata of 8.6 and later names each node, with a separator, and the functions around it."""
    metadata = f"[ONNX Layer: {CONV} | block (Block)]\x1f[ONNX Layer: {RELU}]"
    (layer,) = read(graph, said("anything", "CaskConvolution", "Half", "Half", Metadata=metadata))
    assert layer.nodes == (CONV, RELU)
    assert layer.modules == ("layer1.0.conv1", "layer1.0.relu")
    assert layer.precision == "fp16"


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        (f"{CONV} + {RELU}", (CONV, RELU)),
        (f"{CONV} || {ADD}", (CONV, ADD)),
        (f"PWN({ADD})", (ADD,)),
        (f"PWN(PWN({RELU}), {ADD})", (RELU, ADD)),
        (f"{CONV} + PWN({RELU})", (CONV, RELU)),
        (f"Reformatting CopyNode for Input Tensor 0 to {CONV} + {RELU}", (CONV, RELU)),
        (f"{SOFTMAX}_12", (SOFTMAX,)),
        ("(Unnamed Layer* 12) [Shuffle]", ()),
        ("__myl_MulSum_myl0_3", ()),
    ],
)
def test_names_without_metadata(graph, name, nodes):
    """8.5 tells the nodes in the names alone."""
    assert NodeNames(graph).of_layer(name) == nodes


def test_a_node_without_a_name_is_called_after_its_output(graph):
    """The parser calls it ``node_of_`` and the output."""
    graph.graph[1].name = None
    assert NodeNames(graph).of_layer("node_of_b") == ("node_of_b",)


def test_a_region_spans_the_nodes_between_its_ends(graph):
    """What Myelin compiles as a whole names its ends; nodes of other layers are not in it."""
    layers = read(
        graph,
        said(f"{{ForeignNode[{CONV}...{MUL}]}}", "Myelin", "Row major linear FP32", "Row major linear FP32"),
        said(f"PWN({ADD})", "PointWiseV2", "Float", "Float"),
    )
    assert layers[0].nodes == (CONV, RELU, SOFTMAX, MUL)
    assert layers[0].precision == "", "float32 at the edges proves nothing of the inside"


def test_a_region_that_begins_with_a_weight(graph):
    """An end that is no node leaves its side open; what other layers have is not in it."""
    layers = read(
        graph,
        said(f"{{ForeignNode[onnx::MatMul_113 + (Unnamed Layer* 3) [Shuffle]...{MUL}]}}", "Myelin", "Float", "Float"),
        said(CONV, "CaskConvolution", "Float", "Float"),
    )
    assert layers[0].nodes == (RELU, ADD, SOFTMAX, MUL)


def test_a_region_with_narrow_edges_is_narrow(graph):
    """A half tensor at its edge can only come from inside."""
    (layer,) = read(graph, said(f"{{ForeignNode[{CONV}...{MUL}]}}", "Myelin", "Half", "Row major linear FP32"))
    assert layer.precision == "fp16"


def test_what_each_layer_computes_in(graph):
    """Layers that move data count for nothing; kernels tell TF32, inputs INT8."""
    int8 = "Thirty-two wide channel vectorized row major Int8 format"
    layers = read(
        graph,
        said("Reformatting CopyNode for Input Tensor 0 to a", "Reformat", "Row major linear FP32", int8),
        said(CONV, "CaskConvolution", int8, "Row major linear FP16 format", Weights={"Type": "Int8", "Count": 9}),
        said(RELU, "CaskConvolution", "Float", "Float", TacticName="sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32"),
        said(ADD, "CaskConvolution", "Float", "Float", TacticName="ampere_scudnn_128x64_relu_small_nn_v1"),
        said(MUL, "Shuffle", "Half", "Half"),
    )
    assert [layer.precision for layer in layers] == ["", "int8", "tf32", "fp32", ""]
    assert count(layers) == {"fp32": 1, "int8": 1, "tf32": 1}


def test_texts_that_are_hardly_json(graph):
    """Infinite numbers and control characters stand in TensorRT's text as they are."""
    text = '{"Layers": [{"Name": "NAME", "LayerType": "Clip", "Alpha": -inf, "Beta": inf,\n "Metadata": "a\x1fb"}]}'
    text = text.replace("NAME", MUL)
    (layer,) = read_engine_text(text, graph)
    assert (layer.kind, layer.nodes) == ("Clip", (MUL,))


def test_names_only(graph):
    """An engine without details tells names alone, and no precision."""
    (layer,) = read_engine_text(json.dumps({"Layers": [f"{CONV} + {RELU}"]}), graph)
    assert (layer.nodes, layer.kind, layer.precision) == ((CONV, RELU), "", "")


def test_what_is_no_json_is_told(graph):
    """A finished engine is not thrown away for its inspector's text."""
    (layer,) = read_engine_text("nothing", graph)
    assert layer.kind == UNREADABLE
    assert "begins 'nothing'" in layer.name


def test_a_typed_network_before_it_is_built(light_models, tmp_path):
    """Where the engine cannot be opened here, the network tells: every layer with weights is half."""
    pytest.importorskip("tensorrt_rtx")
    model = load_model(light_models / "light_squeezenet.onnx")
    typed = apply_plan(model, make_plan(model, "fp16"))
    save_model(typed, tmp_path / "typed.onnx")
    api = load_api("tensorrt_rtx")
    trt = api.module
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(api.network_flags())
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(tmp_path / "typed.onnx"))
    layers = read_network_layers(api, network, typed)
    convolutions = [layer for layer in layers if layer.kind == "CONVOLUTION"]
    assert {layer.precision for layer in convolutions} == {"fp16"}
    assert len(convolutions) == 26
    assert all(len(layer.nodes) == 1 for layer in convolutions)
