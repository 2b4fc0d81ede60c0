"""Precision by flags and layers, on a network with TensorRT 8's own method names; the rest is asked of real GPUs."""

from __future__ import annotations

import enum
import types

import onnx_ir as ir
import pytest

from enginery.backends.tensorrt.versions import LIBRARIES, Api
from enginery.backends.tensorrt.weak_typing import constrain, is_plain
from enginery.errors import PrecisionError
from enginery.spec import PrecisionPlan

BuilderFlag = enum.Enum("BuilderFlag", "FP16 INT8 TF32 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS")
DataType = enum.Enum("DataType", "FLOAT HALF INT32")
LayerType = enum.Enum("LayerType", "CONVOLUTION CONSTANT SHAPE SOFTMAX ELEMENTWISE")


class FakeTensor:
    """An ITensor."""

    def __init__(self, dtype, *, is_shape_tensor=False, name="(Unnamed ITensor)"):
        self.dtype, self.is_shape_tensor, self.name = dtype, is_shape_tensor, name


class FakeLayer:
    """An ILayer of 8.6."""

    metadata = ""
    precision = "its own"

    def __init__(self, name, kind, *outputs, inputs=()):
        self.name, self.type, self.outputs, self.types, self.inputs = name, kind, outputs, {}, inputs

    @property
    def num_inputs(self):
        """Return how many inputs there are."""
        return len(self.inputs)

    def get_input(self, at):
        """Return one input; None where it is optional."""
        return self.inputs[at]

    @property
    def num_outputs(self):
        """Return how many outputs there are."""
        return len(self.outputs)

    def get_output(self, at):
        """Return one output."""
        return self.outputs[at]

    def set_output_type(self, at, dtype):
        """Note the type."""
        self.types[at] = dtype


class FakeNetwork:
    """An INetworkDefinition."""

    def __init__(self, *layers):
        self.layers = layers

    @property
    def num_layers(self):
        """Return how many layers there are."""
        return len(self.layers)

    def get_layer(self, at):
        """Return one layer."""
        return self.layers[at]


class FakeConfig:
    """An IBuilderConfig."""

    def __init__(self):
        self.flags = set()

    def set_flag(self, flag):
        """Note a flag."""
        self.flags.add(flag)


@pytest.fixture
def api():
    """Return an Api of version 8.6."""
    trt = types.SimpleNamespace(
        BuilderFlag=BuilderFlag, DataType=DataType, LayerType=LayerType, ILayer=FakeLayer, IBuilderConfig=FakeConfig
    )
    return Api(LIBRARIES["tensorrt"], trt, "8.6.0")


@pytest.fixture
def graph():
    """Return the graph that the network was parsed from."""
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) {
            a = Conv(x, w) b = Softmax(a) s = Shape(b) y = Add(b, b)
        }
    """)
    return named(model)


@pytest.fixture
def plain():
    """Return a graph of kinds whose kernels TensorRT times one by one; the same network fits it."""
    return named(
        ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) { a = Conv(x, w) y = Add(a, a) }
    """)
    )


def named(model):
    """Give each node its operator's name."""
    for node in model.graph:
        node.name = node.op_type
    return model


@pytest.fixture
def network():
    """Return its network: the Add has a helper layer, and a constant of its own."""
    tensor = FakeTensor(DataType.FLOAT)
    return FakeNetwork(
        FakeLayer("Conv", LayerType.CONVOLUTION, tensor),
        FakeLayer("Softmax", LayerType.SOFTMAX, tensor),
        FakeLayer("Shape", LayerType.SHAPE, FakeTensor(DataType.INT32, is_shape_tensor=True)),
        FakeLayer("Add_3", LayerType.CONSTANT, tensor),
        FakeLayer("Add", LayerType.ELEMENTWISE, tensor, FakeTensor(DataType.INT32)),
    )


def pinned(network) -> dict:
    """Return the precision of the layers that have one."""
    return {layer.name: layer.precision for layer in network.layers if layer.precision != "its own"}


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("fp32", set()), ("tf32", set()), ("fp16", {BuilderFlag.FP16}), ("int8", {BuilderFlag.INT8})],
)
def test_a_uniform_plan_is_a_flag(api, graph, network, precision, flags):
    """The builder chooses the kernels; no layer is pinned. TF32 is the configuration's own."""
    config = FakeConfig()
    assert constrain(api, network, config, PrecisionPlan(precision), graph) == ()
    assert config.flags == flags
    assert pinned(network) == {}


def test_what_multiplies_is_half_in_a_plain_network(api, plain, network):
    """Else float32 kernels are timed too; a layer that has none in half is the audit's to judge."""
    config = FakeConfig()
    assert constrain(api, network, config, PrecisionPlan("fp16"), plain) == ()
    assert config.flags == {BuilderFlag.FP16, BuilderFlag.PREFER_PRECISION_CONSTRAINTS}
    assert pinned(network) == {"Conv": DataType.HALF}
    assert network.layers[0].types == {}, "what it hands over is the builder's to choose"


def test_float32_may_stand_in_where_that_is_allowed(api, plain, network):
    """The builder takes the faster of both."""
    config = FakeConfig()
    assert constrain(api, network, config, PrecisionPlan("fp16"), plain, wider=True) == ()
    assert config.flags == {BuilderFlag.FP16}
    assert pinned(network) == {}


def test_nodes_kept_in_float32_are_pinned(api, graph, network):
    """By precision and output types; sizes and constants are left alone; what multiplies stays half."""
    config = FakeConfig()
    plan = PrecisionPlan("fp16", {"Add": "fp32", "Softmax": "fp32", "Shape": "fp32"})
    assert constrain(api, network, config, plan, graph) == ()
    assert config.flags == {BuilderFlag.FP16, BuilderFlag.OBEY_PRECISION_CONSTRAINTS}
    assert pinned(network) == {"Conv": DataType.HALF, "Softmax": DataType.FLOAT, "Add": DataType.FLOAT}
    assert network.layers[-1].types == {0: DataType.FLOAT}
    assert network.layers[0].types == {}, "what it hands over is the builder's to choose"


def test_single_half_nodes_in_a_float32_plan(api, graph, network):
    """All others are pinned to float32, for the flag allows half everywhere."""
    constrain(api, network, FakeConfig(), PrecisionPlan("fp32", {"Conv": "fp16"}), graph)
    assert pinned(network) == {"Conv": DataType.HALF, "Softmax": DataType.FLOAT, "Add": DataType.FLOAT}


def test_quantised_nodes_are_not_pinned(api, graph, network):
    """The graph's own nodes quantise; the flags allow INT8, and half for the rest."""
    config = FakeConfig()
    assert constrain(api, network, config, PrecisionPlan("fp16", {"Conv": "int8"}), graph) == ()
    assert config.flags == {BuilderFlag.FP16, BuilderFlag.INT8}
    assert pinned(network) == {}


def test_layers_without_a_name_are_found_by_their_tensors(api, graph):
    """As 8.6 leaves those of a normalisation: the last one makes a tensor of the graph, others feed it."""
    inner, kept = (
        FakeTensor(DataType.FLOAT, name="(Unnamed Layer* 1) [Reduce]_output"),
        FakeTensor(DataType.FLOAT, name="b"),
    )
    network = FakeNetwork(
        FakeLayer("(Unnamed Layer* 1) [Reduce]", LayerType.ELEMENTWISE, inner),
        FakeLayer("(Unnamed Layer* 2) [Softmax]", LayerType.SOFTMAX, kept, inputs=(inner, None)),
        FakeLayer("Add", LayerType.ELEMENTWISE, FakeTensor(DataType.FLOAT, name="y"), inputs=(kept, kept)),
    )
    assert constrain(api, network, FakeConfig(), PrecisionPlan("fp16", {"Softmax": "fp32"}), graph) == ()
    assert [layer.precision for layer in network.layers] == [DataType.FLOAT, DataType.FLOAT, "its own"]


def test_nodes_without_a_layer_are_told(api, graph):
    """The parser may have folded them."""
    (note,) = constrain(api, FakeNetwork(), FakeConfig(), PrecisionPlan("fp16", {"Softmax": "fp32"}), graph)
    assert (
        note == "the parser made no layer to pin of 1 node of the precision plan, which follows its neighbours: Softmax"
    )


def test_bf16_is_refused(api, graph, network):
    """8 has no flag for it."""
    with pytest.raises(PrecisionError, match=r"TensorRT 8\.6\.0 cannot compute in bf16: that came with version 10"):
        constrain(api, network, FakeConfig(), PrecisionPlan("bf16"), graph)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Conv(x, w)", True),
        ("y = Conv<group = 4>(x, w)", False),
        ("a = Conv(x, w) y = Relu(a)", True),
        ("a = Conv(x, w) y = Softmax(a)", False),
        ("y = Relu(x)", False),
    ],
)
def test_which_networks_are_plain(body, expected):
    """Depthwise convolutions and attention are not."""
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4, 8, 8] x, float[4, 4, 1, 1] w) => (float y)'
    assert is_plain(ir.from_onnx_text(f"{head} {{ {body} }}")) is expected
