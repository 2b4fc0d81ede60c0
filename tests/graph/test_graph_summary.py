"""What is in a graph."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.graph import files
from enginery.graph.flops import node_flops
from enginery.graph.summary import summarise
from enginery.spec import parse_shapes

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def test_small(small_model):
    """Operators, parameters, bytes, names and operations are counted."""
    record = summarise(small_model, parse_shapes(["x=1..2..8x4"]))
    assert record.operators == {"MatMul": 2, "Relu": 1}
    assert (record.nodes, record.parameters, record.parameter_bytes) == (3, 35, 140)
    assert record.dynamic_dims == ("batch",)
    assert record.opsets == {"ai.onnx": 17}
    assert record.flops == 2 * 2 * 4 * 5 + 2 * 5 + 2 * 2 * 5 * 3


def test_unknown_shapes(small_model):
    """Without sizes for the dynamic inputs, operations cannot be counted."""
    assert summarise(small_model).flops is None


def test_resnet50(light_models):
    """ResNet-50 takes 8.18 GFLOP (4.09 billion multiply-adds) at 224 x 224 in its convolutions and its classifier."""
    from enginery.graph.infer import infer_shapes

    model = files.load(light_models / "light_resnet50.onnx")
    infer_shapes(model)
    products = sum(node_flops(node) for node in model.graph if node.op_type in ("Conv", "Gemm"))
    assert products == pytest.approx(8.18e9, rel=5e-3)
    assert summarise(model).flops == pytest.approx(8.18e9, rel=1e-2)


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("(float[1, 4, 8, 8] x) => (y) { y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w) }",
         {"w": (6, 2, 3, 3)}, 2 * 6 * 64 * 2 * 9),
        ("(float[1, 4, 8, 8] x) => (y) { y = ConvTranspose <strides = [2, 2]> (x, w, b) }",
         {"w": (4, 3, 2, 2), "b": (3,)}, 2 * 4 * 64 * 3 * 4 + 3 * 256),
        ("(float[5, 4] x) => (y) { y = Gemm <transB = 1> (x, w, b) }",
         {"w": (7, 4), "b": (7,)}, 2 * 5 * 4 * 7 + 35),
        ("(float[2, 5, 4] x) => (y) { y = MatMul (x, w) }", {"w": (4, 7)}, 2 * 2 * 5 * 4 * 7),
        ('(float[2, 5, 4] x) => (y) { y = Einsum <equation = "bij,jk->bik"> (x, w) }',
         {"w": (4, 7)}, 2 * 2 * 5 * 4 * 7),
        ('(float[2, 3, 5, 4] x) => (y) { y = Einsum <equation = "...ij,jk->...ik"> (x, w) }',
         {"w": (4, 7)}, 2 * 6 * 5 * 4 * 7),
        ("(float[6, 2, 5] x) => (y) { y = LSTM <hidden_size = 3> (x, w, r) }",
         {"w": (1, 12, 5), "r": (1, 12, 3)}, 2 * 4 * 6 * 2 * 3 * (5 + 3)),
        ("(float[1, 2, 8, 8] x) => (y) { y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }", {}, 2 * 16 * 4),
        ("(float[3, 4] x) => (y) { a = Relu(x) b = Transpose(a) y = Add(b, b) }", {}, 24),
        ("(float[3, 4] x) => (y) { y = Softmax(x) }", {}, 60),
    ],
)  # fmt: skip
def test_formulas(graph_of, body, weights, expected):
    """Each formula gives what is counted by hand."""
    model = graph_of(f"{HEAD} g {body}", **{name: np.zeros(size, np.float32) for name, size in weights.items()})
    assert summarise(model).flops == expected


def test_shapes_computed_in_the_graph(graph_of):
    """A reshape to sizes that the graph computes is followed, once the inputs are fixed."""
    model = graph_of(f"""{HEAD} g (float[n, 4] x) => (y) <int64[1] two = {{2}}, int64[1] m = {{-1}}> {{
        s = Shape <start = 0, end = 1> (x)
        h = Mul(s, two)
        t = Concat <axis = 0> (h, m)
        r = Reshape(x, t)
        y = Relu(r)
    }}""")
    assert summarise(model, parse_shapes(["x=1..3..8x4"])).flops is not None


def test_functions_and_subgraphs(graph_of):
    """Functions and subgraphs are counted: operators once each body, operations as often as a function is called."""
    model = graph_of("""<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        g (float[4] x, bool c) => (float[4] y) {
            a = own.twice (x)
            b = own.twice (a)
            y = If (c) <then_branch = t () => (float[4] p) { p = Neg (b) },
                        else_branch = e () => (float[4] q) { q = Abs (b) }>
        }
        <domain: "own", opset_import: ["" : 20]> twice (v) => (w) { w = Add (v, v) }
    """)
    record = summarise(model)
    assert record.operators == {"own.twice": 2, "Abs": 1, "Add": 1, "If": 1, "Neg": 1}
    assert (record.functions, record.subgraphs, record.nodes) == (1, 2, 6)
    assert record.flops == 4 * 4


def test_sizes_are_no_parameters(graph_of):
    """Integer constants that say shapes are not counted as parameters; weights in Constant nodes are."""
    model = graph_of(f"""{HEAD} g (float[4] x) => (y) {{
        c = Constant <value = float[4] {{1, 2, 3, 4}}> ()
        s = Constant <value = int64[2] {{2, 2}}> ()
        a = Add(x, c)
        y = Reshape(a, s)
    }}""")
    record = summarise(model)
    assert (record.parameters, record.parameter_bytes) == (4, 16)


def test_operators_of_others_are_not_guessed():
    """Nobody knows what an operator of another domain computes, whatever it is called."""
    import onnx_ir as ir

    text = """<ir_version: 8, opset_import: ["": 17, "acme": 1]>
        g (float[2, 2] x) => (float[2, 2] y) { y = acme.MatMul(x, x) }"""
    assert summarise(ir.from_onnx_text(text)).flops is None
