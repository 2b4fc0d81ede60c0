"""The judge of converters: it finds what is planted, whichever kernels a runtime has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery.graph.base import apply_plan, normalise
from enginery.spec import PrecisionPlan

ROOT = Path(__file__).parents[2]
TEXT = """<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) <float high = {300.0}> {
    [first] a = Mul(x, high) [second] b = Mul(a, high) [third] c = Div(b, high) [last] y = Div(c, high)
}"""
FEEDS = {"x": np.array([1.0, 2.0], np.float32)}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def model_of(text: str = TEXT) -> onnx.ModelProto:
    """Return the model of a text."""
    return ir.to_proto(ir.from_onnx_text(text))


def cast(precision: str = "fp16") -> onnx.ModelProto:
    """Cast the model, whose values go beyond float16's range in its middle."""
    model = ir.from_proto(model_of())
    normalise(model)
    return ir.to_proto(apply_plan(model, PrecisionPlan(precision)))


def test_what_overflows_is_off_though_onnxruntime_computes_in_float32():
    """300 * 300 is beyond float16; a library that stores float32 between nodes would hide it."""
    from benchmarks.converter_torture.judge import judge, original

    right = original(model_of(), FEEDS)
    verdict = judge(cast(), FEEDS, right, "fp16")
    assert verdict.passed == ("converted", "valid", "loads", "runs")
    assert (verdict.reason, verdict.ran) == ("off by inf", "emulated")
    assert "close" in judge(cast("bf16"), FEEDS, right, "bf16").passed


def test_what_is_off_is_explained_by_a_plan():
    """The search keeps the nodes that make or read what is beyond the range, and says why."""
    from benchmarks.converter_torture.explain import planned_verdict, rounding_error
    from benchmarks.converter_torture.judge import original

    right = original(model_of(), FEEDS)
    assert rounding_error(model_of(), FEEDS, right, "fp16") == float("inf")
    verdict, kept = planned_verdict(model_of(), FEEDS, right, "fp16")
    assert "close" in verdict.passed
    reason = "makes values up to 1.8e+05 in 'b', which exceed 65504"
    assert kept == f"2 of 4 nodes kept in fp32, such as 'second': {reason}"


def test_wrong_conversions_are_found():
    """Unsorted nodes are not valid, a wrong type does not load, and wrong values are not close."""
    from benchmarks.converter_torture.judge import judge, original

    right = original(model_of(), FEEDS)
    unsorted = model_of()
    nodes = list(unsorted.graph.node)[::-1]
    del unsorted.graph.node[:]
    unsorted.graph.node.extend(nodes)
    assert judge(unsorted, FEEDS, right, "fp16").passed == ("converted", "loads", "runs", "close")
    mistyped = model_of()
    mistyped.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.float16(300), "high"))
    assert judge(mistyped, FEEDS, right, "fp16").passed == ("converted",)
    other = model_of(TEXT.replace("300.0", "299.0").replace("y = Div", "y = Mul"))
    assert judge(other, FEEDS, right, "fp16").passed == ("converted", "valid", "loads", "runs")


def test_what_only_another_converter_passes_is_listed():
    """A stage that another passes is listed with the graph; of ours a plan explains, of others a told reason."""
    from benchmarks.converter_torture.table import markdown, summary

    every = ["converted", "valid", "loads", "runs", "close"]
    rows = [
        {"name": "a", "converter": "enginery", "passed": every[:4], "reason": "off by 1", "planned": "close"},
        {"name": "a", "converter": "other", "passed": every, "reason": "", "told": []},
        {"name": "c", "converter": "enginery", "passed": every[:4], "reason": "off by 1", "told": ["clamped"]},
        {"name": "c", "converter": "other", "passed": every[:4], "reason": "off by 1", "told": ["clamped"]},
        {"name": "b", "converter": "enginery", "passed": [], "invalid": "not valid"},
    ]
    found = summary(rows)
    assert (found["graphs"], found["invalid_originals"]) == (2, ["b"])
    assert [(one["name"], one["stage"]) for one in found["only_others_pass"]] == [("a", "close"), ("a", "all")]
    assert found["counts"]["enginery"]["explained"] == 1
    assert found["counts"]["other"]["explained"] == 2
    assert markdown({"few": {"fp16": found}}).splitlines()[2] == "| few (2) | fp16 | enginery | 2 | 2 | 2 | 0 | 1 | 0 |"


def test_a_large_cast_is_measured(tmp_path):
    """A small one: what is written is valid, and time and memory are told."""
    from benchmarks.converter_torture.large import run

    found = run(tmp_path / "large", 2, 64, ["enginery"])["converters"]["enginery"]
    assert found["result"] == "valid"
    assert found["seconds"] > 0
    assert found["resident_sum_bytes"] > 0


@pytest.mark.slow
def test_memory_stays_below_the_weights(tmp_path):
    """2.9 GB of weights become float16, and no process, nor all together, ever holds them."""
    from benchmarks.converter_torture.large import LAYERS, WIDTH, run

    found = run(tmp_path / "large", LAYERS, WIDTH, ["enginery"])
    assert found["weights_bytes"] > 2.9e9
    assert found["converters"]["enginery"]["resident_sum_ratio"] < 1.0
    assert found["converters"]["enginery"]["result"] == "valid"
