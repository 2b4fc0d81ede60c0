"""What the steps do by themselves, beside joining the stages."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from enginery import steps
from enginery.errors import SourceError, UnknownNameError, UsageError


def test_an_engine_named_twice_is_timed_twice():
    """Timing an engine against itself shows how far two measurements of one thing lie apart."""
    labels = list(steps._by_label(["a/x.engine", "a/x.engine", "b/x.engine", "b/x.engine"]))
    assert labels == ["x.engine", "a/x.engine", "b/x.engine", "b/x.engine (2)"]


def test_a_saved_model_is_called_what_it_is(tmp_path):
    """Inspecting a SavedModel says what the folder is, and to export it first; TensorFlow is not needed for it."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SourceError, match="is the folder of a TensorFlow SavedModel, neither an engine nor an ONNX"):
        steps.inspect(tmp_path)


def test_a_plan_is_given_by_its_file(tmp_path):
    """The engine that comes of it holds the same file; what it asks for is its narrowest word."""
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[2, 4] x) => (float[2, 4] y) { [root] a = Sqrt(x) [waves] y = Sin(a) }
    """)
    ir.save(model, tmp_path / "two.onnx")
    plan, built = tmp_path / "mine.json", tmp_path / "built.engine"
    plan.write_text('{"precision": "fp32", "nodes": {"waves": {"precision": "fp16", "reason": "it may"}}}')
    first = steps.build(tmp_path / "two.onnx", built, backend="null", plan=plan, in_process=True)
    assert first.manifest.precision == "fp16"
    assert first.manifest.build.planned == {"fp16": 1, "fp32": 1}
    again = steps.build(tmp_path / "two.onnx", tmp_path / "again.engine", backend="null", plan=built, in_process=True)
    assert (again.folder / "precision.json").read_bytes() == (built / "precision.json").read_bytes()
    plan.write_text('{"precision": "fp32", "nodes": {"wave": "fp16"}}')
    with pytest.raises(UnknownNameError, match="names 'wave', which the graph does not have; did you mean 'waves'"):
        steps.build(tmp_path / "two.onnx", built, backend="null", plan=plan)


def test_calibration_data_without_a_search_for_a_layer_is_refused(tmp_path, small_model):
    """It would be passed over: to verify on recorded inputs, they are given as data."""
    steps.build(small_model, tmp_path / "a.engine", backend="null", in_process=True)
    with pytest.raises(UsageError, match="nothing is built to find a layer; ask for --layers too"):
        steps.verify(tmp_path / "a.engine", small_model, calibration="held.npz")
