"""A graph as plain data."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from enginery.graph.base import tensor_info
from enginery.graph.outline import module_path, outline
from enginery.plain import to_json


def test_nodes_and_edges(small_model):
    """Nodes say what they are and weigh; edges join inputs, nodes and outputs."""
    found = outline(small_model)
    assert [node.op for node in found.nodes] == ["MatMul", "Relu", "MatMul"]
    assert found.nodes[0].parameter_bytes == 80
    assert found.nodes[0].weights[0].name == "w0"
    assert [(edge.source, edge.target) for edge in found.edges] == [
        ("input:x", "0"), ("0", "1"), ("1", "2"), ("2", "output:y"),
    ]  # fmt: skip
    assert found.edges[0].shape == ("batch", 4)
    assert found.outputs == (tensor_info(small_model.graph.outputs[0]),)
    assert json.loads(to_json(found))["name"] == "small"


def test_subgraphs(graph_of):
    """Nodes of subgraphs name their parent, and edges lead into them."""
    model = graph_of("""<ir_version: 10, opset_import: ["" : 20]> g (float[4] x, bool c) => (float[4] y) {
        b = Relu (x)
        y = If (c) <then_branch = t () => (float[4] p) { p = Neg (b) },
                    else_branch = e () => (float[4] q) { q = Abs (b) }>
    }""")
    found = outline(model)
    assert [(node.id, node.parent) for node in found.nodes] == [
        ("0", None), ("1", None), ("1/then_branch/0", "1"), ("1/else_branch/0", "1"),
    ]  # fmt: skip
    assert ("0", "1/then_branch/0") in {(edge.source, edge.target) for edge in found.edges}
    assert found.nodes[1].attributes["then_branch"] == "graph of 1 nodes"


@pytest.mark.parametrize(
    ("name", "metadata", "expected"),
    [
        ("/layer1/layer1.0/conv1/Conv", {}, ("layer1", "0", "conv1")),
        ("Conv_12", {}, ()),
        (None, {}, ()),
        (
            "n",
            {"pkg.torch.onnx.name_scopes": "['', 'layers.0', 'layers.0.norm', 'layer_norm']"},
            ("layers", "0", "norm"),
        ),
        ("n", {"pkg.torch.onnx.name_scopes": "['', 'add']"}, ()),
        ("n", {"pkg.torch.onnx.name_scopes": "['_empty_nn_module_stack_from_metadata_hook', 'sym']"}, ()),
        ("/a/Relu", {"pkg.torch.onnx.name_scopes": "broken"}, ("a",)),
    ],
)
def test_module_path(name, metadata, expected):
    """The module path comes from the exporter's metadata, else from slashes in the name, else from nowhere."""
    assert module_path(ir.Node("", "Relu", [], name=name, metadata_props=metadata)) == expected


def test_attributes(graph_of):
    """Attributes are short texts."""
    model = graph_of("""<ir_version: 10, opset_import: ["" : 20]> g (float[1, 1, 4, 4] x) => (y) {
        c = Constant <value = float[2] {1, 2}> ()
        y = MaxPool <kernel_shape = [2, 2], auto_pad = "VALID", ceil_mode = 1> (x)
    }""")
    nodes = outline(model).nodes
    assert nodes[0].attributes == {"value": "float 2: [1.0, 2.0]"}
    assert nodes[1].attributes == {"kernel_shape": "2, 2", "auto_pad": "VALID", "ceil_mode": "1"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_torch_export(tmp_path):
    """What torch's exporter writes today gives module paths."""
    torch = pytest.importorskip("torch")
    inner = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
    program = torch.onnx.export(torch.nn.Sequential(inner).eval(), (torch.zeros(1, 4),), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    from enginery.graph import files

    assert ("0", "0") in {node.module for node in outline(files.load(tmp_path / "model.onnx")).nodes}
