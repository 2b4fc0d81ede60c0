"""Plans: uniform ones, those of a quantised graph, and as text."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import apply_plan, check_quantised, make_plan
from enginery.spec import PrecisionPlan


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_a_uniform_plan_gives_every_node_its_precision(small_model, precision):
    """A uniform plan gives every node its precision."""
    plan = make_plan(small_model, precision)
    assert {plan.of(node.name) for node in small_model.graph} == {precision}


def test_an_unknown_precision_suggests_the_nearest(small_model):
    """An unknown precision suggests the nearest."""
    with pytest.raises(UnknownNameError, match="did you mean 'fp16'"):
        make_plan(small_model, "fp17")


def test_int8_needs_a_quantised_graph(small_model):
    """INT8 needs a quantised graph."""
    with pytest.raises(GraphError, match=r"no QuantizeLinear nodes.*--calibration"):
        make_plan(small_model, "int8")


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_plan_of_float32_changes_nothing(small_model, precision):
    """A plan of float32 changes nothing."""
    assert apply_plan(small_model, PrecisionPlan(precision)) is small_model


def test_a_plan_of_another_graph_is_refused(small_model):
    """A plan of another graph is refused, and the nearest of its nodes is named."""
    small_model.graph[0].name = "/first/MatMul"
    with pytest.raises(UnknownNameError, match=r"names '/first/MatMult', .* not have; did you mean '/first/MatMul'\?"):
        apply_plan(small_model, PrecisionPlan("fp16", {"/first/MatMult": "fp32"}))
    with pytest.raises(UnknownNameError, match="names 'a', 'b', 'c' and 1 more, which the graph"):
        apply_plan(small_model, PrecisionPlan("fp16", dict.fromkeys("abcd", "fp32")))


def test_int8_of_another_graph_is_no_matter_of_data(small_model):
    """A node that the graph does not have is named as such, before data is asked for."""
    with pytest.raises(UnknownNameError, match="the precision plan names 'conv', which the graph does not have"):
        check_quantised(small_model, PrecisionPlan("fp32", {"conv": "int8"}))


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_int8_for_all_that_is_not_named_needs_a_quantised_graph(small_model, precision):
    """As it does for a node that is named."""
    with pytest.raises(GraphError, match=rf"does not name in {precision}, and nothing quantises .*; give recorded inp"):
        check_quantised(small_model, PrecisionPlan(precision))


def test_nodes_on_dequantised_inputs_are_int8():
    """Nodes on dequantised inputs are INT8."""
    model = ir.from_onnx_text("""
        <ir_version: 9, opset_import: ["" : 19]>
        g (float[2, 4] x) => (float[2, 4] z) <float s = {0.1}, int8 zero = {0}> {
            q = QuantizeLinear(x, s, zero)
            d = DequantizeLinear(q, s, zero)
            y = Relu(d)
            z = Neg(y)
        }
    """)
    for node in model.graph:
        node.name = node.op_type
    check_quantised(model, PrecisionPlan("int8"))
    plan = make_plan(model, "int8", rest="fp16")
    assert plan.nodes == {"Relu": "int8"}
    assert plan.of("Neg") == "fp16"
