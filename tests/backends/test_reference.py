"""What is the reference evaluator's own."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery.backends import engine, reference
from enginery.errors import BuildError
from enginery.machine import describe_machine
from enginery.spec import BuildSpec


def test_reads_what_onnx_reads():
    """Its ceiling is the installed onnx's."""
    assert reference.capabilities(describe_machine()).max_opset == onnx.defs.onnx_opset_version()


def test_runs_functions_of_the_model(tmp_path):
    """A function that the model brings along is known."""
    text = """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[n] x) => (float[n] y) { y = local.twice(x) }
        <opset_import: ["" : 17], domain: "local">
        twice (a) => (b) { b = Add(a, a) }
    """
    built = engine.build(ir.from_onnx_text(text), BuildSpec(), tmp_path / "model.engine", backend="reference")
    with built.open() as session:
        assert session.placement == "numpy, 1 thread"
        assert session(np.float32([1, 2])).tolist() == [2, 4]


def test_diagnoses_an_operator_it_lacks(tmp_path):
    """The mend says which operators it knows."""
    text = '<ir_version: 8, opset_import: ["" : 17, "my" : 1]> m (float[n] x) => (float[n] y) { y = my.Foo(x) }'
    with pytest.raises(BuildError) as caught:
        engine.build(ir.from_onnx_text(text), BuildSpec(), tmp_path / "model.engine", backend="reference")
    assert caught.value.mend.startswith("the reference evaluator knows ONNX's own operators only")
    assert reference.diagnose(ValueError("something else"), None) is None
