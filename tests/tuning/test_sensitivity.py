"""What float16 cannot bear is named before it harms, and the search keeps just that."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from enginery.backends.base import Design
from enginery.graph import base, files
from enginery.graph.base import NodeStudy
from enginery.inputs.base import Case, save_cases
from enginery.records import SensitivityRecord
from enginery.spec import BenchSpec, OptimizeSpec, PrecisionPlan, VerifySpec
from enginery.tuning import race
from enginery.tuning.candidates import GRAPH, Contestant
from enginery.tuning.search import Outcome, search_plan
from enginery.tuning.sensitivity import group_nodes, sensitivity
from enginery.tuning.simulation import Simulator
from enginery.tuning.watching import look

BOUND = VerifySpec(max_error=3e-3, repeats=1, max_rows=0)
BENCH = BenchSpec(warmup_ms=1, turn_ms=5, min_samples=3, min_turns=2, stable_within=10, limit_s=0.1)


def load_benchmark(name):
    """Load a module of the benchmarks' models by its path."""
    path = Path(__file__).parents[2] / "benchmarks" / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


DANGERS = load_benchmark("planted_dangers")


@pytest.fixture
def ground(tmp_path):
    """Return a function that plants a danger, writes graph, inputs and right outputs, and returns their paths."""

    def write(name):
        for folder in ("cases", "expected", "scratch"):
            shutil.rmtree(tmp_path / folder, ignore_errors=True)
        model, feeds = DANGERS.planted(name)
        session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
        files.save(model, tmp_path / "graph.onnx")
        save_cases([Case("opt", feeds)], tmp_path / "cases")
        save_cases([Case("opt", {"y": session.run(None, feeds)[0]})], tmp_path / "expected")
        return {"cases": tmp_path / "cases", "expected": tmp_path / "expected", "folder": tmp_path / "scratch"}

    return write


def record_of(ground, name, **how):
    """Return how a planted network bears float16."""
    paths = ground(name)
    with Simulator(paths["cases"].with_name("graph.onnx"), **paths, spec=BOUND) as simulator:
        return sensitivity(simulator, "fp16", **how)


@pytest.mark.parametrize(
    ("name", "operator", "kind", "said"),
    [
        ("activation of 1e5", "Mul", "overflow", "exceed 65504"),
        ("softmax mask of finfo.min", "Mul", "overflow", "3.4e+38"),
        ("layer norm in parts", "Pow", "overflow", "exceed 65504"),
        ("epsilon of 1e-12", "Add", "vanishing", "become 0"),
        ("weight of 7e4", "MatMul", "weight", "7e+04"),
        ("sum over 1e6 elements", "ReduceSum", "accumulation", "1,000,008 numbers"),
    ],
)
def test_each_danger_is_named(ground, name, operator, kind, said):
    """The node and its module stand at the top of the ranking, with what was seen; nothing far away is in danger."""
    record = record_of(ground, name, measure=False)
    assert not record.error < BOUND.max_error
    named = [row for row in record.nodes if row.dangers and row.dangers[0].severity != "possible"]
    assert {row.module for row in named} == {"danger"}
    row = next(row for row in named if row.operator == operator)
    danger = next(danger for danger in row.dangers if danger.kind == kind)
    assert said in danger.text
    assert record.total >= 100


def test_errors_are_measured_alone_and_memory_is_bounded(ground):
    """Only the planted group harms; watched in small parts, tensors show the same."""
    record = record_of(ground, "activation of 1e5", chunk_bytes=1 << 17)
    assert record.groups[0].name == "danger"
    assert np.isinf(record.groups[0].error)
    assert all(group.error < 1e-3 for group in record.groups[1:])
    assert record.runs > 5
    whole = record_of(ground, "activation of 1e5", measure=False)
    assert whole.runs == 1
    assert [(row.name, row.largest) for row in whole.nodes][:3] == [(row.name, row.largest) for row in record.nodes][:3]


def run_race(ground, name, resume=None):
    """Let ONNX Runtime build it in float16, and search."""
    paths = ground(name)
    spec = OptimizeSpec(precision="fp16", verify=BOUND, bench=BENCH, resume=resume)
    half = Contestant("onnxruntime fp16", "candidate", "onnxruntime", precision="fp16",
                      options={"allow_precision": "fp32"})  # fmt: skip
    return race.race(
        [half], designs={GRAPH: Design(paths["cases"].with_name("graph.onnx"), "planted", "0", "1")}, bench_case="opt",
        spec=spec, reference="onnxruntime", inputs="one", **paths,
    )  # fmt: skip


def test_a_weight_beyond_the_range_is_found_and_kept(ground, tmp_path, monkeypatch):
    """Plain float16 is off by a twentieth on ONNX Runtime; one node in float32 mends it, and a second run knows it."""
    found = run_race(ground, "weight of 7e4", str(tmp_path / "state"))
    rows = {row.label: row for row in found.records}
    assert rows["onnxruntime fp16"].status == "rejected"
    assert rows["onnxruntime fp16"].verify.error > 0.05
    chosen = rows["onnxruntime fp16+fp32"]
    assert chosen.status == "chosen"
    assert chosen.verify.error < BOUND.max_error
    (search,) = found.searches
    assert [row.split("/")[1] for row in chosen.plan.nodes] == ["danger"]
    assert len(search.kept) <= 0.05 * search.total
    assert search.words == "FP16 except 1 node kept in FP32 (danger MatMul: weights exceed 65504)"
    assert {step.what for step in search.steps} == {"simulated", "built"}

    monkeypatch.setattr(Simulator, "judge", None)  # a second run asks for nothing that the first has measured
    again = run_race(ground, "weight of 7e4", str(tmp_path / "state"))
    assert all(step.again for step in again.searches[0].steps)
    assert again.searches[0].kept == search.kept
    assert again.chosen == found.chosen


def test_a_function_is_looked_at_from_outside(tmp_path):
    """What it makes inside cannot be watched; what it hands out can, and its nodes may be kept."""
    model = ir.from_onnx_text("""
        <ir_version: 10, opset_import: ["" : 18, "own" : 1]> g (float[2] x) => (float[2] y) {
            [call] a = own.steep (x) [last] y = Log (a)
        }
        <opset_import: ["" : 18], domain: "own"> steep (i) => (o) { [inner] h = Exp (i) [outer] o = Exp (h) }
    """)
    files.save(model, tmp_path / "graph.onnx")
    feeds = {"x": np.float32([2.5, 3.0])}
    save_cases([Case("opt", feeds)], tmp_path / "cases")
    save_cases([Case("opt", {"y": np.exp(feeds["x"])})], tmp_path / "expected")
    paths = {"cases": tmp_path / "cases", "expected": tmp_path / "expected", "folder": tmp_path}
    with Simulator(tmp_path / "graph.onnx", **paths, spec=BOUND) as simulator:
        record = sensitivity(simulator, "fp16")

        def trial(plan):
            found = simulator.judge(plan)
            return Outcome(found.passed, found.reason, found.error, found.cosine, 0.0)

        found = search_plan(record, trial, None)
    assert sorted(row.name for row in record.nodes) == ["inner", "last", "outer"]
    assert record.watched == 2
    assert found.plan is not None
    assert set(found.plan.nodes) == {"outer", "last"}


@pytest.mark.slow
@pytest.mark.parametrize("name", DANGERS.DANGERS)
def test_each_planted_danger_is_mended(ground, name):
    """Plain float16 breaks each; the plan keeps at most 5 % of the nodes, and holds on ONNX Runtime too."""
    paths = ground(name)
    with Simulator(paths["cases"].with_name("graph.onnx"), **paths, spec=BOUND) as simulator:
        assert not simulator.judge(PrecisionPlan("fp16")).passed

        def trial(plan):
            record = simulator.judge(plan)
            return Outcome(record.passed, record.reason, record.error, record.cosine, 0.0)

        record: SensitivityRecord = sensitivity(simulator, "fp16")
        plan = search_plan(record, trial, None).plan
    assert 1 <= len(plan.nodes) <= 0.05 * record.total
    model, feeds = DANGERS.planted(name)
    expected = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)[0]
    typed = ir.to_proto(base.apply_plan(model, plan)).SerializeToString()
    error = np.linalg.norm(onnxruntime.InferenceSession(typed).run(None, feeds)[0] - expected)
    assert error < BOUND.max_error * np.linalg.norm(expected)


def test_groups_are_modules():
    """Modules are taken together until there are few enough; nodes of no module go by their place."""
    nodes = [
        NodeStudy(f"n{at}", "Relu", f"enc.{at // 10}.{at % 10}" if at < 90 else "", True, (), (), {})  # noqa: FBT003
        for at in range(100)
    ]
    groups = group_nodes(nodes, 12)
    assert len(groups) == 12
    assert groups["enc.3"] == tuple(f"n{at}" for at in range(30, 40))
    assert {"n90 .. n93", "n94 .. n97", "n98 .. n99"} <= set(groups)
    assert group_nodes(nodes[:3], 12) == {"n0": ("n0",), "n1": ("n1",), "n2": ("n2",)}


def test_a_module_that_holds_nearly_all_is_divided():
    """By its own modules where there are few enough, else by place: one group of everything would tell nothing."""

    def study_of(modules):
        return [NodeStudy(f"n{at}", "Relu", name, True, (), (), {}) for at, name in enumerate(modules)]  # noqa: FBT003

    by_modules = group_nodes(study_of(["stem", "head"] + [f"net.{at // 10}.{at % 10}" for at in range(60)]), 9)
    assert sorted(by_modules) == ["head", "net.0", "net.1", "net.2", "net.3", "net.4", "net.5", "stem"]
    by_places = group_nodes(study_of([""] * 3 + [f"net.{at}" for at in range(60)]), 9)
    assert sum(map(len, by_places.values())) == 63
    assert max(map(len, by_places.values())) <= 63 / 2
    assert len(group_nodes(study_of(["stem"] + ["net"] * 60), 2)) == 2
    called_as_modules = group_nodes(study_of(["", *(f"n{at % 3}" for at in range(9))]), 4)
    assert called_as_modules["n0 (elsewhere)"] == ("n0",)
    assert sum(map(len, called_as_modules.values())) == 10


def test_what_is_seen_of_a_tensor():
    """Infinities are the graph's own and no danger; zeros vanish nowhere; the rest is counted."""
    array = np.array([0.0, -7e4, np.inf, 1e-9, 1e-5, 2.0], np.float32)
    seen = look(array, (65504.0, 6.1e-5, 6e-8))
    assert (seen.beyond, seen.vanished, seen.subnormal, seen.elements) == (1, 1, 1, 6)
    assert (seen.largest, seen.smallest) == (7e4, pytest.approx(1e-9))
