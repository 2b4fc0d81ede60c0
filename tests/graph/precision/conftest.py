"""What the tests of casting share."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from enginery.graph.base import all_nodes, apply_plan, load_model, save_model
from enginery.spec import PrecisionPlan


@pytest.fixture
def read():
    """Read a graph from text; nodes without a name are called after their first output."""

    def from_text(body: str, opset: int = 18) -> ir.Model:
        model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : {opset}]> {body}')
        for node in all_nodes(model):
            node.name = node.outputs[0].name
        return model

    return from_text


@pytest.fixture
def cast(tmp_path):
    """Cast a graph, check what comes out wholly, and read it back from a file."""

    def cast(model: ir.Model, precision: str = "fp16", nodes: dict | None = None, say=None) -> ir.Model:
        before = ir.to_proto(model).SerializeToString()
        result = apply_plan(model, PrecisionPlan(precision, nodes or {}), say=say)
        assert ir.to_proto(model).SerializeToString() == before, "the graph that was given has changed"
        save_model(result, tmp_path / "cast.onnx")
        onnx.checker.check_model(str(tmp_path / "cast.onnx"), full_check=True)
        return load_model(tmp_path / "cast.onnx")

    return cast


@pytest.fixture
def run(tmp_path):
    """Run a graph on ONNX Runtime."""
    import onnxruntime

    def run(model: ir.Model, **feeds) -> list:
        save_model(model, tmp_path / "run.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(tmp_path / "run.onnx", options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)

    return run
