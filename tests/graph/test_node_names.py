"""Every node of a graph that was read has a name of its own, which a plan can speak of."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from enginery.graph.base import all_nodes, convert_opset, load_model, normalise, save_model

TEXT = """<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] x, bool yes) => (float[2, 4] z) {
    [same] a = Relu(x) [same] b = Neg(a) c = Exp(b) [c] d = Abs(c)
    z = If(yes) <then_branch = t () => (float[2, 4] e) { e = Neg(d) }, else_branch = f () => (float[2, 4] e)
        { e = Abs(d) }>
}"""


def test_nodes_without_a_name_and_doubles(tmp_path):
    """The first of several keeps the name; one without is called after what it makes; reading again changes nothing."""
    model = ir.from_onnx_text(TEXT)
    normalise(model)
    names = [node.name for node in all_nodes(model)]
    assert names == ["same", "same_2", "c_2", "c", "z", "e", "e_2"]
    save_model(model, tmp_path / "named.onnx")
    assert [node.name for node in all_nodes(load_model(tmp_path / "named.onnx"))] == names


def test_nodes_that_an_opset_brings_have_names_of_their_own():
    """A node without a name that becomes several does not lend them the name of its operator."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2] z) {
        a = ReduceMean<axes = [1], keepdims = 1>(x) b = Sub(x, a) z = ReduceMean<axes = [1], keepdims = 0>(b) }"""
    raised = convert_opset(ir.from_onnx_text(text), 22)
    names = [node.name for node in all_nodes(raised) if node.name]
    assert len(names) == len(set(names)) > 2
    onnx.checker.check_model(ir.to_proto(raised), full_check=True)
