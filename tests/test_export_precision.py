"""Exporting a graph with the types of a precision."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from enginery import steps
from enginery.errors import UsageError
from enginery.graph.base import load_model, save_model, tensor_infos
from enginery.spec import PrecisionPlan


@pytest.fixture
def source(small_model, tmp_path):
    """Write a small model of float32."""
    save_model(small_model, tmp_path / "source.onnx")
    return tmp_path / "source.onnx"


def types(path) -> list[str]:
    """Return the types of a graph's inputs, weights and outputs, each once, in this order."""
    graph = load_model(path).graph
    infos = [tensor_infos(values) for values in (graph.inputs, graph.initializers.values(), graph.outputs)]
    return [dtype for these in infos for dtype in dict.fromkeys(info.dtype for info in these)]


@pytest.mark.parametrize(("precision", "narrow"), [("fp16", "float16"), ("bf16", "bfloat16")])
def test_weights_take_the_type_and_ends_on_request(precision, narrow, source, tmp_path):
    """The ends keep float32, or take the type too; what is written is valid and says nothing else."""
    steps.export(source, tmp_path / "typed.onnx", precision=precision)
    steps.export(source, tmp_path / "ends.onnx", precision=precision, convert_io=True)
    assert types(tmp_path / "typed.onnx") == ["float32", narrow, "float32"]
    assert types(tmp_path / "ends.onnx") == [narrow] * 3
    onnx.checker.check_model(str(tmp_path / "ends.onnx"), full_check=True)
    steps.export(source, tmp_path / "plain.onnx")
    assert types(tmp_path / "plain.onnx") == ["float32"] * 3


def test_an_engine_of_converted_ends_takes_half_arrays(source, tmp_path):
    """Its session asks for float16 and gives it."""
    steps.export(source, tmp_path / "ends.onnx", precision="fp16", convert_io=True)
    steps.build(tmp_path / "ends.onnx", tmp_path / "half.engine", backend="onnxruntime")
    with steps.load(tmp_path / "half.engine") as session:
        (name,) = (info.name for info in session.inputs)
        (found,) = session.run({name: np.ones((2, 4), np.float16)}).values()
    assert found.dtype == np.float16


def test_a_plan_keeps_nodes(source, tmp_path):
    """The nodes that a plan names stay float32, with their weights."""
    names = [node.name for node in load_model(source).graph if node.op_type == "MatMul"]
    steps.export(source, tmp_path / "kept.onnx", plan=PrecisionPlan("fp16", dict.fromkeys(names[:1], "fp32")))
    kept = load_model(tmp_path / "kept.onnx").graph
    made = {node.name: node.outputs[0].dtype.name for node in kept if node.op_type == "MatMul"}
    assert list(made.values()) == ["FLOAT", "FLOAT16"]


def test_what_types_cannot_say_is_refused(source, tmp_path):
    """int8 needs ranges, and ends need a type; each before anything is written."""
    with pytest.raises(UsageError, match=r"int8 is more than a change of the graph's types; .*steps\.quantize"):
        steps.export(source, tmp_path / "no.onnx", precision="int8")
    with pytest.raises(UsageError, match="inputs and outputs shall be converted, and the precision is fp32; name"):
        steps.export(source, tmp_path / "no.onnx", convert_io=True)
    assert not (tmp_path / "no.onnx").exists()
