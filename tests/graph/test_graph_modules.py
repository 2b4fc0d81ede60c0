"""Each node says which module of the source it came from, and goes on saying so when it is simplified and saved."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph.files import load, save
from enginery.graph.modules import MODULE_KEY, inherit_modules, note_modules
from enginery.graph.outline import module_path
from enginery.graph.simplify import simplify

SCOPES = "pkg.torch.onnx.name_scopes"


def model_of(*nodes, weights=()):
    """Build a model from a chain of nodes."""
    inputs = [nodes[0].inputs[0]]
    graph = ir.Graph(inputs, nodes[-1].outputs, nodes=nodes, initializers=weights, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("name", "metadata", "path"),
    [
        ("n", {SCOPES: "['', 'layer3.0', 'layer3.0.conv2', 'conv2d']"}, "layer3.0.conv2"),
        ("/layer3/layer3.0/conv2/Conv", {}, "layer3.0.conv2"),
        ("resnet50/conv1_conv/Conv2D", {}, "resnet50.conv1_conv"),
        ("StatefulPartitionedCall/StatefulPartitionedCall_1/resnet50/conv1_conv/Conv2D", {}, "resnet50.conv1_conv"),
        ("PartitionedCall/Relu", {}, None),
        ("node_Relu_3", {}, None),
        ("/a/Relu", {MODULE_KEY: "b.0"}, "b.0"),
    ],
)
def test_where_a_path_is_found(name, metadata, path):
    """Paths come from what is noted, torch's metadata, or a name with slashes, without TensorFlow's calls."""
    node = ir.node("Relu", [ir.val("x", ir.DataType.FLOAT, [3])], name=name)
    node.metadata_props.update(metadata)
    assert note_modules(model_of(node)) == (1 if path else 0)
    assert node.metadata_props.get(MODULE_KEY) == path
    assert module_path(node) == tuple(path.split(".") if path else ())


def test_a_weight_tells_where_its_node_came_from():
    """A node without any path of its own takes that of the weight it reads."""
    x = ir.val("x", ir.DataType.FLOAT, [2, 3])
    weight = ir.Value(name="head.1.weight", const_value=ir.tensor(np.ones((3, 4), np.float32)))
    node = ir.node("MatMul", [x, weight], name="MatMul_7")
    assert note_modules(model_of(node, weights=[weight])) == 1
    assert node.metadata_props[MODULE_KEY] == "head.1"


def test_a_convolution_keeps_its_path_where_a_batch_norm_was_folded_into_it():
    """Torch's exporter gives such a convolution the batch norm's place; its weight knows better."""
    x = ir.val("x", ir.DataType.FLOAT, [1, 1, 2, 2])
    weight = ir.val("layer1.0.conv1.weight", const_value=ir.tensor(np.ones((1, 1, 1, 1), np.float32)))
    conv = ir.node("Conv", [x, weight], name="n")
    conv.metadata_props[SCOPES] = "['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'batch_norm']"
    conv.metadata_props["pkg.onnxscript.rewriter.rule_name"] = "FuseBatchNormIntoConv"
    graph = ir.Graph([x], conv.outputs, nodes=[conv], initializers=[weight], opset_imports={"": 20})
    assert note_modules(ir.Model(graph, ir_version=10)) == 1
    assert conv.metadata_props["enginery.module"] == "layer1.0.conv1"


def test_a_replaced_node_takes_the_path_of_the_output_it_keeps():
    """What a pass puts in the place of nodes inherits; a path of its own stands."""
    x = ir.val("x", ir.DataType.FLOAT, [3])
    old = ir.node("Relu", [x], name="/a/Relu")
    old.outputs[0].name = "y"
    before = model_of(old)
    note_modules(before)
    after = before.clone()
    (new,) = after.graph
    new.metadata_props.clear()
    inherit_modules(before, after)
    assert new.metadata_props[MODULE_KEY] == "a"
    new.metadata_props[MODULE_KEY] = "b"
    inherit_modules(before, after)
    assert new.metadata_props[MODULE_KEY] == "b"


def test_paths_survive_simplification_and_saving(tmp_path):
    """A convolution that swallows its batch normalisation still says where its output was made."""
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return ir.Value(name=name, const_value=ir.tensor(rng.random(shape, np.float32) + 0.5))

    weights = [weight("w", 4, 3, 1, 1), *(weight(name, 4) for name in ("scale", "bias", "mean", "variance"))]
    for value in weights:
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), value.const_value.shape
    x = ir.val("x", ir.DataType.FLOAT, [1, 3, 2, 2])
    conv = ir.node("Conv", [x, weights[0]], name="/block/conv/Conv")
    conv.outputs[0].name = "c"
    norm = ir.node("BatchNormalization", [conv.outputs[0], *weights[1:]], name="/block/bn/BatchNormalization")
    norm.outputs[0].name = "n"
    relu = ir.node("Relu", norm.outputs, name="/block/act/Relu")
    relu.outputs[0].name, relu.outputs[0].shape = "y", ir.Shape([1, 4, 2, 2])
    relu.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model = model_of(conv, norm, relu, weights=weights)
    note_modules(model)
    simpler, record = simplify(model, evaluate=None, say=lambda _: None)
    assert [one.status for one in record.passes if "batch norm" in one.name.lower()] == ["changed"], record
    save(simpler, tmp_path / "model.onnx")
    found = {node.op_type: node.metadata_props[MODULE_KEY] for node in load(tmp_path / "model.onnx").graph}
    assert found["Relu"] == "block.act"
    assert found["Conv"] in ("block.conv", "block.bn")
