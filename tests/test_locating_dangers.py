"""Six dangers of float16, each in the middle of a network of a hundred nodes: bisection names the node that is one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import enginery
from enginery.graph import files
from enginery.graph.base import apply_plan, make_plan
from enginery.spec import VerifySpec

FOUND = {
    "activation of 1e5": ("jump", "Mul", {"Cast", "Mul"}),
    "softmax mask of finfo.min": ("jump", "Mul", {"Cast", "Mul"}),
    "layer norm in parts": ("jump", "Pow", {"Cast", "Pow"}),
    "epsilon of 1e-12": ("amplified", "Div", {"Cast", "Sqrt", "Div"}),
    "weight of 7e4": ("jump", "MatMul", {"Cast", "MatMul"}),
    "sum over 1e6 elements": ("jump", "ReduceSum", {"Cast", "ReduceSum"}),
}
"""The kind of divergence, the operator of its node, and what the smallest model is made of."""


@pytest.fixture(scope="module")
def dangers():
    """Return the module that plants them."""
    path = Path(__file__).parents[1] / "benchmarks" / "models" / "planted_dangers.py"
    spec = importlib.util.spec_from_file_location("planted_dangers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted_dangers"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_a_planted_danger_is_named(dangers, name, tmp_path):
    """Cast to float16 throughout, on the evaluator that computes as the graph says, against the float32 original."""
    model, feeds = dangers.planted(name)
    np.savez(tmp_path / "inputs.npz", **feeds)
    files.save(model, tmp_path / "model.onnx")
    files.save(apply_plan(model, make_plan(model, "fp16")), tmp_path / "half.onnx")
    engine = enginery.build(tmp_path / "half.onnx", tmp_path / "half.engine", backend="reference", simplify=False)
    record = enginery.verify(
        engine.folder, tmp_path / "half.onnx", against=tmp_path / "model.onnx", data=tmp_path / "inputs.npz",
        layers=True, spec=VerifySpec(max_error=0.01), output=tmp_path / "divergence",
    )  # fmt: skip
    found = record.divergence
    kind, operator, smallest = FOUND[name]
    assert found.kind == kind
    assert (found.nodes[-1].operator, found.nodes[-1].module) == (operator, "danger")
    assert set(found.smallest.operators) == smallest
    assert found.builds <= 16


def test_every_danger_is_looked_for(dangers):
    """One that is added there is expected here."""
    assert set(dangers.DANGERS) == set(FOUND)
