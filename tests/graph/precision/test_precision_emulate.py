"""A float32 graph rounds and overflows where a plan stores narrow numbers, on a library that would not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from enginery.graph import base
from enginery.spec import PrecisionPlan

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
LARGE = f"""{HEAD} g (float[n] x) => (float[n] y) <float[1] k = {{300.0}}> {{
    [up] a = Mul(x, k) [more] b = Mul(a, k) [down] c = Div(b, k) [end] y = Div(c, k) }}"""
BRANCH = f"""{HEAD} g (float[n] x, bool c) => (float[n] y) {{
    y = If (c) <then_branch = t () => (float[n] p) {{ p = Exp(x) }}, else_branch = e () => (float[n] q) {{
        l = Constant<value = float {{0.1}}>() q = Mul(x, l) }}> }}"""


def run(model, feeds):
    """Run a graph on ONNX Runtime as it stands."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]


def strictly(model, plan, feeds):
    """Run the cast graph on ONNX's reference, which stores every number as the graph says."""
    with np.errstate(all="ignore"):
        return ReferenceEvaluator(ir.to_proto(base.apply_plan(model, plan))).run(None, feeds)[0]


@pytest.mark.parametrize("text", [LARGE, BRANCH], ids=["chain", "branches"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("condition", [True, False])
def test_it_rounds_as_the_types_do(text, precision, condition):
    """ONNX Runtime on the emulation gives what a strict evaluator gives on the narrow graph, infinities among them."""
    model, plan = ir.from_onnx_text(text), PrecisionPlan(precision)
    feeds = {"x": np.array([0.1, -2.0, 3.14159, 1.5], np.float32)}
    feeds |= {"c": np.array(condition)} if len(model.graph.inputs) > 1 else {}
    expected = strictly(model, plan, feeds)
    np.testing.assert_allclose(
        run(base.emulate(model, plan), feeds), expected, rtol=2e-3 if precision == "fp16" else 2e-2
    )
    assert np.isinf(expected).any() == (text is LARGE and precision == "fp16")


def test_names_that_the_graph_has_are_not_given_twice():
    """A graph may call its own tensors as the casts would be called, its ends too."""
    model = ir.from_onnx_text(f"""{HEAD} g (float16[2] a) => (float16[2] y) {{
        a_back = Neg(a) a_back_rounded = Abs(a_back) b = Exp(a_back_rounded) b_rounded = Neg(b)
        b_rounded_back = Add(b, b_rounded) y_wide = Sqrt(b_rounded) y = Add(b_rounded_back, y_wide) }}""")
    feeds = {"a": np.array([0.5, -1.5], np.float16)}
    text = f"{HEAD} g (float[2] a) => (float[2] y) {{ b = Exp(a) b_rounded = Neg(b) y = Add(b, b_rounded) }}"
    other = base.emulate(ir.from_onnx_text(text), PrecisionPlan("fp16"))
    np.testing.assert_array_equal(run(other, {"a": feeds["a"].astype(np.float32)}), [0, 0])
    emulated = base.emulate(model, PrecisionPlan("fp16"))
    names = [value.name for node in emulated.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert run(emulated, feeds).dtype == np.float16


def test_kept_nodes_are_exact():
    """A node that the plan keeps is not rounded, and neither is what two such nodes hand on."""
    model = ir.from_onnx_text(LARGE)
    x = np.array([1.5, 2.0, 3.0, 4.0], np.float32)
    kept = PrecisionPlan("fp16", dict.fromkeys(("more", "down"), "fp32"))
    np.testing.assert_allclose(run(base.emulate(model, kept), {"x": x}), x, rtol=2e-3)
    assert not np.isfinite(run(base.emulate(model, PrecisionPlan("fp16")), {"x": x})).all()
    assert base.emulate(model, PrecisionPlan("fp32")) is model
