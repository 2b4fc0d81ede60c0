"""Large weights stay out of a conversion, and stand in the graph afterwards as if they had been there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.sources.tensorflow.freeze import LargeWeight
from enginery.sources.tensorflow.graph import name_nodes
from enginery.sources.tensorflow.weights import put_weights

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 2, 4)).astype(np.float32)  # as TensorFlow lays it out
SCALE, SHIFT = np.array([1, 2, 3, 4], np.float32), np.array([5, 6, 7, 8], np.float32)
CONVOLUTION = """<ir_version: 10, opset_import: ["": 18]>
g (float[1, 2, 5, 5] x, float[3, 3, 2, 4] kernel) => (float[1, 4, 3, 3] y)
<float[1, 4, 1, 1] scale = {1, 2, 3, 4}, float[1, 4, 1, 1] shift = {5, 6, 7, 8}> {
    moved = Transpose<perm = [3, 2, 0, 1]>(kernel)
    c = Conv(x, moved)
    m = Mul(c, scale)
    y = Add(shift, m)
}"""


def put(text, reads=None, **arrays):
    """Return the graph with the given weights; ``reads`` collects each read."""

    def reader(name, array):
        def read():
            if reads is not None:
                reads.append(name)
            return array

        return read

    model = ir.from_onnx_text(text)
    weights = {name: LargeWeight(f"layer/{name}", array.shape, reader(name, array)) for name, array in arrays.items()}
    put_weights(model, weights)
    return model


def test_layouts_scales_and_shifts_end_in_the_weights():
    """A transposed kernel, and normalisation behind it, become one convolution with a bias."""
    model = put(CONVOLUTION, kernel=KERNEL)
    (node,) = model.graph
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert (node.op_type, node.outputs[0].name, len(model.graph.initializers)) == ("Conv", "y", 2)
    kernel, bias = (value.const_value.numpy() for value in node.inputs[1:])
    np.testing.assert_array_equal(kernel, KERNEL.transpose(3, 2, 0, 1) * SCALE[:, None, None, None])
    np.testing.assert_array_equal(bias, SHIFT)
    assert model.graph.outputs[0] is node.outputs[0]
    assert kernel.flags.c_contiguous


def test_nobody_holds_the_values():
    """They are read again whenever a tensor is looked at."""
    reads: list[str] = []
    model = put(CONVOLUTION, reads, kernel=KERNEL)
    before = len(reads)
    tensor = next(iter(model.graph)).inputs[1].const_value
    tensor.numpy()
    tensor.numpy()
    assert len(reads) == before + 2


def test_a_scaled_matrix_product_is_one_product():
    """One number for each column is multiplied into the matrix; a matrix of numbers is not."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1, 2] x, float[2, 3] w) => (float[1, 3] y) <float[{}3] s = {{{}}}> {{ p = MatMul(x, w)  y = Mul(p, s) }}"""
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = put(text.format("", "1, 2, 3"), w=w)
    (node,) = model.graph
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), w * np.array([1, 2, 3], np.float32))
    assert [node.op_type for node in put(text.format("2, ", "1, 2, 3, 4, 5, 6"), w=w).graph] == ["MatMul", "Mul"]


def test_weights_that_others_read_are_left_alone():
    """A kernel of two convolutions, and a product that is an output too, are not scaled."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1, 2] x, float[2, 2] w) => (float[1, 2] y, float[1, 2] z)
    <float[2] s = {1, 2}> { p = MatMul(x, w)  y = Mul(p, s)  z = MatMul(y, w) }"""
    model = put(text, w=np.eye(2, dtype=np.float32))
    assert [node.op_type for node in model.graph] == ["MatMul", "Mul", "MatMul"]
    np.testing.assert_array_equal(model.graph.initializers["layer/w"].const_value.numpy(), np.eye(2))


def test_a_graph_does_not_grow():
    """What makes a weight many times larger stays a node."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1, 1000] w) => (float[99, 1000] y) <int64[2] n = {99, 1}> { t = Tile(w, n)  y = Relu(t) }"""
    assert [node.op_type for node in put(text, w=np.ones((1, 1000), np.float32)).graph] == ["Tile", "Relu"]


def test_no_two_nodes_have_one_name():
    """Names that become alike once a call's prefix is off stay apart."""
    text = """<ir_version: 10, opset_import: ["": 18]> g (float[2] x) => (float[2] y)
    { a = Relu(x)  b = Neg(a)  y = Abs(b) }"""
    model = ir.from_onnx_text(text)
    names = ("PartitionedCall/net/act/Relu", "StatefulPartitionedCall/net/act/Relu", "PartitionedCall/net/out/Abs")
    for node, name in zip(model.graph, names, strict=True):
        node.name = name
    name_nodes(model, ["net", "act", "out"])
    found = [node.name for node in model.graph]
    assert len(set(found)) == 3
    assert found[2] == "net/out/Abs"


def test_large_variables_and_constants_are_inputs():
    """Weights that are only read leave the graph, small ones stay, and a loop keeps its own as constants."""
    tf = pytest.importorskip("tensorflow")
    from enginery.sources.tensorflow.freeze import freeze

    rng = np.random.default_rng(0)
    read, gathered, looped, small = (
        tf.Variable(rng.standard_normal((size, size)).astype(np.float32), name=name)
        for name, size in (("read", 70), ("gathered", 70), ("looped", 70), ("small", 2))
    )
    literal = rng.standard_normal((70, 70)).astype(np.float32)

    @tf.function(autograph=False)
    def call(x):
        x = tf.matmul(tf.matmul(x, read), tf.constant(literal)) + tf.nn.embedding_lookup(gathered, tf.constant([3]))
        x = tf.while_loop(lambda i, _: i < 2, lambda i, x: (i + 1, tf.matmul(x, looped)), (0, x))[1]
        return x[:, :2] @ small + 1.0

    frozen = freeze(call.get_concrete_function(tf.TensorSpec((None, 70), tf.float32, name="x")))
    assert frozen.inputs == ("x:0",)
    found = {weight.name: weight.read() for weight in frozen.weights.values()}
    assert {"read", "gathered"} < set(found)
    assert len(found) == 3
    assert any(np.array_equal(array, literal) for array in found.values())
    kinds = {node.name: node.op for node in frozen.graph.node}
    assert all(kinds[name.partition(":")[0]] == "Placeholder" for name in frozen.weights)
    assert not {"ReadVariableOp", "ResourceGather", "StatefulPartitionedCall"} & set(kinds.values())
    feeds = {**{name: weight.read() for name, weight in frozen.weights.items()}}
    rows = rng.standard_normal((3, 70)).astype(np.float32)
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.import_graph_def(frozen.graph, name="")
        (result,) = session.run(list(frozen.outputs), {"x:0": rows, **feeds})
    np.testing.assert_allclose(result, call(tf.constant(rows)).numpy(), rtol=1e-3)
