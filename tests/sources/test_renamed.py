"""Outputs are called as the user asked, in the graph and where the source computes itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import UnknownNameError, UsageError
from enginery.sources import open_source
from enginery.sources.renamed import match_names

TEXT = """<ir_version: 8, opset_import: ["": 17]>
pair (float[batch, 4] x) => (float[batch, 4] y, float[batch, 4] z) { scores = Relu(x) y = Neg(scores) z = Abs(y) }"""


def exported_names(**asked):
    """Export the model of two outputs; return the names of its outputs and the graph."""
    with_names = open_source(ir.from_onnx_text(TEXT), **asked)
    graph = with_names.export(shapes={}).graph
    return [value.name for value in graph.graph.outputs], graph


def test_names_in_order_and_inner_values_give_way():
    """One name for each output, in order; an inner value of that name gets another, and the graph stays valid."""
    names, graph = exported_names(output_names=["scores", "z"])
    assert names == ["scores", "z"]
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["scores"], {"x": np.ones((1, 4), np.float32)})[0], -np.ones((1, 4)))


def test_some_names_by_their_old_ones():
    """OLD=NEW changes one output and leaves the others."""
    assert exported_names(output_names=["z=boxes"])[0] == ["y", "boxes"]


def test_outputs_may_swap_their_names():
    """Two outputs may take each other's names."""
    assert exported_names(output_names=["y=z", "z=y"])[0] == ["z", "y"]


def test_an_input_passed_on_can_be_renamed():
    """An output that is an input keeps the input's name there."""
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> same (float[2] x) => (float[2] x) {}')
    graph = open_source(model, output_names=["y"]).export(shapes={}).graph.graph
    assert ([value.name for value in graph.inputs], [value.name for value in graph.outputs]) == (["x"], ["y"])


def test_wrong_names_are_refused():
    """Too few names, an unknown old name, one name twice and an input's name are errors that list what there is."""
    with pytest.raises(UsageError, match="1 output name for 2 outputs: y, z"):
        match_names(["scores"], ["y", "z"])
    with pytest.raises(UnknownNameError, match="unknown output 'yy'") as caught:
        match_names(["yy=scores"], ["y", "z"])
    assert "'y'" in str(caught.value.mend)
    with pytest.raises(UsageError, match="two outputs would be called 'z'"):
        match_names(["y=z"], ["y", "z"])
    with pytest.raises(UsageError, match="is no output's old and new name"):
        match_names(["y=a", "b"], ["y", "z"])
    with pytest.raises(UsageError, match="an input is called 'x' already"):
        exported_names(output_names=["x", "y"])


def test_the_source_computes_under_the_new_names():
    """A module in memory runs, and exports, under the names asked for, and a note says so."""
    torch = pytest.importorskip("torch")
    source = open_source(torch.nn.Linear(4, 3), example_inputs=torch.randn(2, 4), output_names=["scores"])
    assert list(source.run(source.example_feeds())) == ["scores"]
    exported = source.export(shapes={})
    assert [value.name for value in exported.graph.graph.outputs] == ["scores"]
    assert "the output 'output' is called 'scores', as asked for" in exported.record.notes
    source.close()
