"""One plan file gives the same nodes on ONNX Runtime, TensorRT-RTX and TensorRT 8.6: a small case, and the table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from enginery.spec import PrecisionPlan

ROOT = Path(__file__).parents[2]

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
pytest.importorskip("torch")


@pytest.fixture
def same_plan(monkeypatch):
    """Return the script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("same_plan")
    for name in ("same_plan", "models.plan_cases", "models"):
        sys.modules.pop(name, None)


@pytest.fixture
def case(same_plan):
    """Return the graph with an If, and a plan that keeps a node of a branch and the last one."""
    graph = importlib.import_module("models.plan_cases").branches()
    return same_plan.Case("if", {"": graph}, PrecisionPlan("fp16", {"else_exp": "fp32", "head": "fp32"}))


def test_a_graph_with_an_if_is_low_in_the_same_nodes(same_plan, case, tmp_path):
    """Those in the branches too; what was kept is kept everywhere."""
    found = same_plan.compare(case, tmp_path)
    assert found["planned"] == {"fp16": 5, "fp32": 2}
    assert set(found["read_back"]) == {"onnxruntime", "tensorrt_rtx", "tensorrt 8.6"}
    assert all(counts == found["planned"] for counts in found["read_back"].values())
    assert not any(found["differing"].values())


def test_a_node_that_is_not_kept_is_found(same_plan, case, tmp_path, monkeypatch):
    """A library that pins nothing has two nodes too many in fp16."""
    monkeypatch.setattr(same_plan, "constrain", lambda _api, _network, config, *_rest: config.set_flag("FP16"))
    found = same_plan.compare(case, tmp_path)
    assert found["differing"]["tensorrt 8.6"] == {"else_exp": "fp32, built fp16", "head": "fp32, built fp16"}
    assert not found["differing"]["tensorrt_rtx"]


def test_the_table_has_nothing_that_differs():
    """The result that is kept: five cases, in each the same nodes, and fusions by name."""
    said = json.loads((ROOT / "benchmarks" / "results" / "same_plan.json").read_text(encoding="utf-8"))
    assert len(said["cases"]) == 5
    for one in said["cases"].values():
        assert not any(one["differing"].values())
        assert all(set(one["by_fusion"][node]) > {node} for node in one["by_fusion"])
