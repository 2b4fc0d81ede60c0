"""Anything that might be a trained model is either opened, or refused with what to do."""

from __future__ import annotations

import enum
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from enginery import sources
from enginery.errors import (
    CorruptModelError,
    ExportError,
    InputNameError,
    SourceError,
    SourceNotFoundError,
    UnknownNameError,
)
from enginery.sources import open_source
from enginery.sources.base import Source
from enginery.spec import Shape


def affine(batch: int | str = "batch") -> onnx.ModelProto:
    """Return y = 2 x + 1 over [batch, 3]; the weight is listed among the inputs too, as old files do."""
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [3], [2.0, 2.0, 2.0])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    listed = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3])
    nodes = [helper.make_node("Mul", ["x", "weight"], ["scaled"]), helper.make_node("Add", ["scaled", "one"], ["y"])]
    graph = helper.make_graph(nodes, "affine", [x, listed], [y], [weight, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An ONNX file."""
    onnx.save(affine(), tmp_path / "affine.onnx")
    return tmp_path / "affine.onnx"


@pytest.mark.parametrize("form", ["path", "text", "proto", "ir"])
def test_an_onnx_model_is_opened_in_every_form(path, form):
    """A path, a text, a protobuf and an IR model give the same graph, outputs and example inputs."""
    thing = {"path": path, "text": str(path), "proto": affine(), "ir": ir.from_proto(affine())}[form]
    if form == "ir":
        thing.graph.inputs.pop()
    source = open_source(thing, example_inputs=np.ones((2, 3), np.float32))
    assert isinstance(source, Source)
    assert source.kind == "onnx"
    assert source.framework is None
    assert source.label == ("affine.onnx" if form in ("path", "text") else "onnx model affine")
    assert len(source.sha256) == 64
    exported = source.export(shapes={"x": Shape.parse("1..4x3")}, opset=None)
    assert [value.name for value in exported.graph.graph.inputs] == ["x"]
    assert exported.record.exporter == "none"
    assert exported.record.opset == 17
    assert exported.record.dynamic_axes == {"x": ("batch",)}
    assert exported.record.nodes == 2
    assert exported.record.peak_memory_bytes > 0
    feeds = source.example_feeds()
    assert list(feeds) == ["x"]
    np.testing.assert_array_equal(source.run(feeds)["y"], np.full((2, 3), 3.0, np.float32))
    assert len(source.timer(feeds)(0.0, 0.0, 1)) == 1


def test_an_exported_graph_is_the_callers_to_change():
    """Changing what was exported does not change a model in memory."""
    model = ir.from_proto(affine())
    graph = open_source(model).export(shapes={}, opset=None).graph
    graph.graph.outputs.clear()
    assert len(model.graph.outputs) == 1


def test_the_opset_is_converted_or_refused(path):
    """Another opset is converted to and noted; one that the converter cannot reach is an error."""
    exported = open_source(path).export(shapes={}, opset=20)
    assert exported.graph.opset_imports[""] == exported.record.opset == 20
    assert exported.record.notes == ("converted from opset 17 to 20",)
    with pytest.raises(ExportError, match="there is no opset 9999 in the installed onnx; give"):
        open_source(path).export(shapes={}, opset=9999)


def test_wrong_names_are_refused(path):
    """A shape or an array for an input that is not there names those that are."""
    source = open_source(path)
    with pytest.raises(UnknownNameError, match="unknown input 'xx'; did you mean 'x'"):
        source.export(shapes={"xx": Shape.parse("1")}, opset=None)
    with pytest.raises(InputNameError, match="the inputs are x"):
        source.run({"z": np.zeros(1)})
    with pytest.raises(InputNameError, match="2 example inputs for 1 inputs; the inputs are x"):
        open_source(path, example_inputs=(np.zeros(1), np.zeros(1))).example_feeds()


def test_a_truncated_file_is_corrupt(path):
    """A file that is cut short is told apart from one that is not there."""
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptModelError):
        open_source(path).export(shapes={}, opset=None)


def test_a_missing_file_suggests_its_neighbours(path):
    """A name that is nearly right is suggested; where nothing is near, the folder is named."""
    with pytest.raises(SourceNotFoundError, match=r"there is no file .*afine\.onnx; did you mean '.*affine\.onnx'\?"):
        open_source(path.with_name("afine.onnx"))
    with pytest.raises(SourceNotFoundError, match=r"there is no .*afine; did you mean"):
        open_source(path.with_name("afine"))
    with pytest.raises(SourceNotFoundError, match=r"there is no folder .*nowhere either; check the path"):
        open_source(path.parent / "nowhere" / "model.onnx")


def test_folders_are_told_apart(tmp_path):
    """An engine and any other folder each get their own words."""
    for name, inside in (("built", "engine.json"), ("other", "readme")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).write_text("{}")
    with pytest.raises(SourceError, match="is an engine, not a trained model; give what it was built from"):
        open_source(tmp_path / "built")
    with pytest.raises(SourceError, match="is no trained model that Enginery knows; give an ONNX file"):
        open_source(tmp_path / "other")


def test_other_things_are_refused_with_what_is_accepted():
    """The refusal names the type and lists every row of the table."""

    class Shade(enum.Enum):
        DARK = 1

    for thing, name in ((3, "int"), (Shade.DARK, "Shade")):
        with pytest.raises(SourceError) as caught:
            open_source(thing)
        assert name in caught.value.message
        for row in sources.SOURCES.values():
            assert row.summary in caught.value.mend


def test_a_slip_in_an_option_is_told():
    """An option that does not exist is refused as by any other function, before any work."""
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        open_source("model.onnx", signatur="x")


def test_an_open_source_is_handed_through(path):
    """Opening what is open gives it back."""
    source = open_source(path)
    assert open_source(source) is source
