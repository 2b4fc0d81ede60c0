"""Casting as a property: random graphs with branches, shared weights, mixed types and kept nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginery.graph.base import all_nodes, apply_plan
from enginery.spec import PrecisionPlan

UNARY = ("Relu", "Neg", "Tanh", "Identity", "Sigmoid", "Softmax", "Transpose")
BINARY = ("Add", "Mul", "Sub", "Max", "MatMul")
DOUBTFUL = ("Cast<to = 1>", "Cast<to = 10>", "Cast<to = 11>")
KINDS = ("unary", "binary", "if", "loop", "cast", "normal", "optional", "fill", "size")


WEIGHTS = ", ".join(str(value) for value in np.random.default_rng(0).standard_normal(16).round(3) / 2)
HEAD = f"<float[4, 4] w = {{{WEIGHTS}}}, float[4] row = {{1.0, 0.5, 2.0, 0.25}}, float one = {{1.0}}, int64 n = {{3}}>"


def node_text(draw, kind: str, at: int, known: list[str]) -> str:
    """Draw the text of one node that makes ``v{at}`` of what is known, with what it needs before it."""
    name, first, second, third = f"v{at}", *(draw(st.sampled_from(known)) for _ in range(3))
    texts = {
        "unary": f"{name} = {draw(st.sampled_from(UNARY))}({first})",
        "binary": f"{name} = {draw(st.sampled_from(BINARY))}({first}, {second})",
        "cast": f"c{at} = {draw(st.sampled_from(DOUBTFUL))}({first}) {name} = Cast<to = 1>(c{at})",
        "normal": f"{name} = LayerNormalization({first}, row)",
        "optional": f"{name} = Clip({first}, , one)",
        "fill": f"s{at} = Shape({first}) {name} = ConstantOfShape<value = float[1] {{0.5}}>(s{at})",
        "size": f"n{at} = Size({first}) f{at} = Cast<to = 1>(n{at}) {name} = Div({first}, f{at})",
        "if": (
            f"{name} = If(yes) <then_branch = a{at} () => (float[4, 4] t{at}) {{ t{at} = Tanh({first}) }}, "
            f"else_branch = b{at} () => (float[4, 4] e{at}) {{ e{at} = Mul({second}, {third}) }}>"
        ),
        "loop": (
            f"{name} = Loop(n, yes, {first}) <body = l{at} (int64 i{at}, bool k{at}, float[4, 4] p{at}) => "
            f"(bool g{at}, float[4, 4] o{at}) "
            f"{{ g{at} = Identity(k{at}) q{at} = Add(p{at}, {second}) o{at} = Tanh(q{at}) }}>"
        ),
    }
    return texts[kind]


@st.composite
def graphs(draw) -> tuple[str, list[str]]:
    """Draw the text of a graph over 4 by 4 matrices, and the names of its nodes."""
    known, lines, nodes = ["x", "w"], [], []
    for at in range(draw(st.integers(1, 9))):
        lines.append(node_text(draw, draw(st.sampled_from(KINDS)), at, known))
        known.append(f"v{at}")
        nodes.append(f"v{at}")
    made = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
    outputs = ", ".join(f"float[4, 4] {name}" for name in made)
    return f"g (float[4, 4] x, bool yes) => ({outputs}) {HEAD} {{ {' '.join(lines)} }}", nodes


def model_of(text: str) -> ir.Model:
    """Read a graph; nodes are called after their outputs."""
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    for node in all_nodes(model):
        node.name = node.outputs[0].name
    return model


def outputs_of(model: ir.Model) -> list:
    """Run a graph on ONNX Runtime, on fixed inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    feeds = {"x": x, "yes": np.ones((), bool)}
    return session.run(None, {one.name: feeds[one.name] for one in session.get_inputs()})


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=graphs(), data=st.data())
def test_every_graph_stays_valid_and_agrees(precision, drawn, data):
    """The whole checker passes, half graphs run and agree, kept nodes are float32, and no cast undoes another."""
    text, nodes = drawn
    model = model_of(text)
    kept = data.draw(st.lists(st.sampled_from(nodes), max_size=2, unique=True))
    result = apply_plan(model, PrecisionPlan(precision, dict.fromkeys(kept, "fp32")))
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [value.name for value in result.graph.outputs] == [value.name for value in model.graph.outputs]
    assert not [node.name for node in all_nodes(result) if undoes(node)]
    if precision == "fp16":
        for found, expected in zip(outputs_of(result), outputs_of(model), strict=True):
            assert np.linalg.norm(found - expected) <= 2e-2 * np.linalg.norm(expected) + 1e-2


def undoes(node: ir.Node) -> bool:
    """Say whether a cast to half or float32 reads another that was put there."""
    source = node.inputs[0].producer() if node.op_type == "Cast" else None
    added = source is not None and source.op_type == "Cast" and "_Cast_" in (source.name or "")
    return added and "_Cast_" in (node.name or "")
