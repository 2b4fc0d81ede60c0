"""The table of an engine's layers, narrow and wide."""

from __future__ import annotations

from enginery.records import LayerRecord
from enginery.reports.layers_report import layers_text
from enginery.reports.layout import Style

LAYERS = (
    LayerRecord(
        "Reformatting CopyNode for Input Tensor 0 to /layer1/conv1/Conv + /layer1/relu/Relu", "Reformat", "",
        ("fp32 linear",), ("fp16 CHW2",), ("/layer1/conv1/Conv", "/layer1/relu/Relu"), ("layer1.conv1", "layer1.relu"),
    ),
    LayerRecord(
        "/layer1/conv1/Conv + /layer1/relu/Relu", "CaskConvolution", "fp16", ("fp16 CHW2",), ("fp16 CHW2",),
        ("/layer1/conv1/Conv", "/layer1/relu/Relu"), ("layer1.conv1", "layer1.relu"),
    ),
    LayerRecord(
        "{ForeignNode[/head/a/Softmax.../head/z/MatMul]}", "Myelin", "", ("fp16 linear", "fp16 linear"), ("fp32",),
        tuple(f"/head/{name}" for name in "abcd"), ("head",),
    ),
)  # fmt: skip


def test_wide():
    """Everything fits; long names keep their ends, further nodes are counted."""
    text = layers_text(LAYERS, Style(140))
    summary, blank, heading, _, first, *_ = text.splitlines()
    assert (
        summary == "3 layers: 1 in fp16, 2 in none (-): moving data, or not telling; 3 of them hold several ONNX nodes"
    )
    assert blank == ""
    assert heading.split() == ["#", "layer", "kind", "in", "reads", "writes", "ONNX", "nodes", "modules"]
    assert first.startswith("0  to input 0 of ...er1/conv1/Conv +1  Reformat         -     fp32 linear")
    assert "2 x fp16 linear" in text
    assert "and 2 more" in text
    assert "left out" not in text
    assert max(map(len, text.splitlines())) <= 140


def test_narrow():
    """What tells least is left out first, and that is said."""
    text = layers_text(LAYERS, Style(80))
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith("(left out at this width: reads, writes, ONNX nodes)")
    assert "CaskConvolution  fp16" in text


def test_nothing():
    """An engine without layers has a heading and no rows."""
    assert layers_text(()).startswith("0 layers")
