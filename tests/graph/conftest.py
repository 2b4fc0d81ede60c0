"""Graphs to try things on, and ways to run them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest


@pytest.fixture
def graph_of():
    """Return a function that makes a model from ONNX's text form and arrays for the names that are initializers."""

    def make(text: str, **weights) -> ir.Model:
        proto = onnx.parser.parse_model(text)
        for name, array in weights.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return ir.from_proto(proto)

    return make


@pytest.fixture
def run():
    """Return a function that runs a model on named arrays with ONNX's reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    def evaluate(model: ir.Model, **feeds) -> dict:
        evaluator = ReferenceEvaluator(ir.to_proto(model))
        return dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))

    return evaluate


@pytest.fixture
def run_ort(tmp_path):
    """Return a function that runs a model on named arrays with ONNX Runtime, unoptimised."""
    import onnxruntime

    from enginery.graph import files

    def evaluate(model: ir.Model, **feeds) -> dict:
        path = tmp_path / "evaluated.onnx"
        files.save(model, path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))

    return evaluate
