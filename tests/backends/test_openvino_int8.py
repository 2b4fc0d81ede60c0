"""What OpenVINO makes of a graph that was quantised for it: which operators become one layer of integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.backends import engine
from enginery.graph.base import quantize
from enginery.machine import describe_machine
from enginery.spec import BuildSpec

pytest.importorskip("openvino")
pytestmark = pytest.mark.skipif(
    "avx512_vnni" not in describe_machine().isa, reason="these are the layers of a processor with VNNI"
)
RESIDUAL = """<ir_version: 9, opset_import: ["": 17]> residual (float[1, 3, 32, 32] x) => (float[1, 16, 16, 16] y) {
    [first] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
    [relu] r = Relu(a)
    [pool] m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
    [second] b = Conv <pads = [1, 1, 1, 1]> (m, w2)
    [third] c = Conv <pads = [1, 1, 1, 1]> (m, w3)
    [sum] s = Add(b, c)
    [after] t = Relu(s)
    [last] y = Conv <pads = [1, 1, 1, 1]> (t, w4)
}"""
ATTENTION = """<ir_version: 9, opset_import: ["": 17]> attention (float[1, 64, 128] x) => (float[1, 64, 128] y)
<int64[4] parted = {1, 64, 4, 32}, int64[3] whole = {1, 64, 128}> {
    [query] q0 = MatMul(x, w1)
    q1 = Reshape(q0, parted)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    [key] k0 = MatMul(x, w2)
    k1 = Reshape(k0, parted)
    k = Transpose <perm = [0, 2, 3, 1]> (k1)
    [value] v0 = MatMul(x, w3)
    v1 = Reshape(v0, parted)
    v = Transpose <perm = [0, 2, 1, 3]> (v1)
    [scores] s = MatMul(q, k)
    [soft] p = Softmax(s)
    [mix] h = MatMul(p, v)
    [heads] t = Transpose <perm = [0, 2, 1, 3]> (h)
    j = Reshape(t, whole)
    [out] y = MatMul(j, w4)
}"""


@pytest.fixture
def layers(tmp_path):
    """Return a function that quantises and compiles a network, and returns its layers: kind, type, operators."""

    def compile_it(text: str, size: tuple[int, ...], *weights: tuple[int, ...]) -> list[tuple[str, str, str]]:
        random, model = np.random.default_rng(0), ir.from_onnx_text(text)
        for at, shape in enumerate(weights, 1):
            tensor = ir.tensor(np.float32(0.1) * random.standard_normal(shape).astype(np.float32), name=f"w{at}")
            value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == f"w{at}")
            value.const_value, value.shape, value.type = tensor, tensor.shape, ir.TensorType(ir.DataType.FLOAT)
            model.graph.register_initializer(value)
        data = [{"x": random.standard_normal(size).astype(np.float32)} for _ in range(2)]
        graph = quantize(model, data, form="asymmetric")
        built = engine.build(graph, BuildSpec(precision="int8"), tmp_path / "model.engine", backend="openvino")
        with built.open() as session:
            found = session._runner._compiled.get_runtime_model().get_ordered_ops()
            infos = [layer.get_rt_info() for layer in found]
            keys = ("layerType", "runtimePrecision", "originalLayersNames")
            return [tuple(str(info[key].value) for key in keys) for info in infos]

    return compile_it


def test_a_sum_and_a_pooling_are_of_integers(layers):
    """The sum is part of a convolution, and the pooling reads bytes."""
    found = layers(RESIDUAL, (1, 3, 32, 32), (16, 3, 3, 3), *[(16, 16, 3, 3)] * 3)
    assert [kind for kind, _, names in found if "sum" in names.split(",")] == ["Convolution"]
    assert [precision for kind, precision, _ in found if kind == "Pooling"] == ["u8"]
    assert [precision for kind, precision, _ in found if kind == "Convolution"] == ["u8"] * 4


def test_attention_is_one_layer_of_integers(layers):
    """Both products and the softmax between them are compiled together, on signed bytes."""
    found = layers(ATTENTION, (1, 64, 128), *[(128, 128)] * 4)
    parts = {"scores", "soft", "mix"}
    assert [(kind, precision) for kind, precision, names in found if parts & set(names.split(","))] == [
        ("Subgraph", "i8")
    ]
