"""What a search found is built as each candidate would be, survives trouble, and is remembered only where it holds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enginery.backends.base import Design
from enginery.errors import BuildError, DeviceMemoryError, WorkerError, WorkerMemoryError, WorkerTimeoutError
from enginery.graph import base, files
from enginery.inputs.base import Case, save_cases
from enginery.machine import describe_machine
from enginery.progress import Progress
from enginery.quantising import Calibration, Quantiser
from enginery.spec import BenchSpec, OptimizeSpec, PrecisionPlan, VerifySpec
from enginery.tuning import keys, refine
from enginery.tuning.candidates import GRAPH, Contestant
from enginery.tuning.journal import Journal
from enginery.tuning.lane import Course, Lane
from enginery.tuning.regions import Regions, raise_slow_regions
from enginery.tuning.search import Outcome
from enginery.tuning.trials import Builder, Pace
from enginery.worker import Worker
from telling import Said

BOUND = VerifySpec(max_error=3e-3, repeats=1, max_rows=0)
BENCH = BenchSpec(warmup_ms=1, turn_ms=5, min_samples=3, min_turns=2, stable_within=10, limit_s=0.1)
WIDE = {"allow_precision": "fp32"}
MIXED = PrecisionPlan("fp16", {"steep": "fp32", "small": "fp32"})


def nothing(*_):
    """Be told something, and do nothing."""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Return the course of a graph of five nodes, of which float16 bears three."""
    import onnx_ir as ir

    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    w, v = (random.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        steep (float[8, 4] x) => (float[8, 4] y) <float[4, 4] w, float[4, 4] v, float large, float little> {
            [first] a = MatMul (x, w)
            [steep] b = Mul (a, large)
            [small] c = Mul (b, little)
            [soft] d = Relu (c)
            [last] y = MatMul (d, v)
        }
    """)
    for name, array in {"w": w, "v": v, "large": np.float32(1e6), "little": np.float32(1e-6)}.items():
        value = next(v for node in model.graph for v in node.inputs if v.name == name)
        value.const_value = ir.tensor(np.asarray(array), name=name)
        model.graph.register_initializer(value)
    files.save(model, tmp_path / "graph.onnx")
    x = random.standard_normal((8, 4)).astype(np.float32)
    save_cases([Case("opt", {"x": x})], tmp_path / "cases")
    save_cases([Case("opt", {"y": np.maximum(x @ w, 0) @ v})], tmp_path / "expected")
    spec = OptimizeSpec(precision="fp16", verify=BOUND, bench=BENCH, job_limit_s=60, resume=str(tmp_path / "state"))
    design = Design(tmp_path / "graph.onnx", "steep", "0", files.hash_model(tmp_path / "graph.onnx"))
    return Course(tmp_path / "cases", "opt", spec, tmp_path / "expected", {GRAPH: design})


def half(label="onnxruntime fp16", **options):
    """Return a candidate in float16, which may leave to float32 what it has no kernel for."""
    return Contestant(label, "candidate", "onnxruntime", precision="fp16", options={**WIDE, **options})


def ran(course, folder, contestant=None):
    """Return a lane that was built and verified, and missed the bound."""
    lane = Lane(contestant or half(), course, folder)
    lane.prepare(nothing, nothing)
    lane.close()
    assert not lane.verify.passed
    return lane


def broken(course, folder, **options):
    """Return a lane whose worker was lost."""
    lane = Lane(half(f"onnxruntime fp16 {options}", **options), course, folder, error=WorkerTimeoutError("too late"))
    assert lane.verify is None
    return lane


def builder_of(course, folder, journal=None, quantise=None):
    """Return what builds plans in float16."""
    return Builder(
        half(), course, folder, Journal(None) if journal is None else journal, {}, Pace(Progress()), quantise
    )


def test_every_lane_is_built_with_its_own_options(course, tmp_path):
    """The engine that the search built is that of the lane it began from, wherever that stands among its siblings."""
    lanes = [broken(course, tmp_path / "0", optimization="basic"), ran(course, tmp_path / "1")]
    found = refine.refine(lanes, course, tmp_path, Progress())
    assert found.searches[0].found == tuple(lane.contestant.label for lane in found.lanes)
    assert [lane.build.options["optimization"] for lane in found.lanes] == ["basic", "all"]
    assert [lane.contestant.label.split()[1] for lane in found.lanes] == ["fp16+fp32"] * 2
    for lane in found.lanes:
        assert lane.contestant.options.items() <= lane.build.options.items()
        assert lane.verify.passed
        lane.close()


def test_an_interrupt_in_a_search_leaves_no_worker(course, tmp_path, monkeypatch):
    """Lanes that are warm already, of which the race does not know yet, are ended and removed."""
    real, pids = Lane.prepare, []

    def prepare(self, on_wait, on_progress):
        if self.folder.parent.name == "mixed-2":
            raise KeyboardInterrupt
        real(self, on_wait, on_progress)
        pids.extend(self.pids)

    lanes = [ran(course, tmp_path / "0"), *(broken(course, tmp_path / str(at), threads=at) for at in (1, 2))]
    monkeypatch.setattr(Lane, "prepare", prepare)
    with pytest.raises(KeyboardInterrupt):
        refine.refine(lanes, course, tmp_path, Progress())
    assert len(pids) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(tmp_path.glob("search-*/mixed-*/*"))


def test_what_a_search_remembers_is_of_this_model_and_this_machine(course, tmp_path, monkeypatch):
    """The same again measures nothing; other weights measure all; another machine builds, and simulates nothing."""
    root, measured, real = ran(course, tmp_path / "0"), [], refine.sensitivity

    def sensitivity(*arguments, **named):
        measured.append(arguments)
        return real(*arguments, **named)

    def again(course):
        (search,) = refine.refine(
            [replace(root, course=course)], course, tmp_path / f"run-{next(runs)}", Progress()
        ).searches
        assert search.found, search.words
        return {step.what: step.again for step in search.steps}, len(measured)

    runs = itertools.count()

    def of_other_weights():
        return replace(course, designs={GRAPH: replace(course.designs[GRAPH], source_sha256="1")})

    monkeypatch.setattr(refine, "sensitivity", sensitivity)
    monkeypatch.setattr(Lane, "prepare", kept_open(Lane.prepare))
    assert again(course) == ({"simulated": False, "built": False}, 1)
    assert again(course) == ({"simulated": True, "built": True}, 1)
    assert again(of_other_weights()) == ({"simulated": False, "built": False}, 2)
    monkeypatch.setattr(keys, "describe_machine", lambda: replace(describe_machine(), gpus=("another",)))
    assert again(course) == ({"simulated": True, "built": False}, 2)


def kept_open(prepare):
    """Let lanes be closed as soon as they are prepared."""

    def and_close(self, on_wait, on_progress):
        prepare(self, on_wait, on_progress)
        self.close()

    return and_close


def test_a_quantised_outcome_is_of_its_calibration(course, tmp_path):
    """Data with other ranges, or another method, makes another key; the same data makes the same one."""
    design, found = course.designs[GRAPH], []
    values = np.random.default_rng(1).standard_normal((64, 8, 4)).astype(np.float32)
    values[0, 0, 0] = 100.0  # which the method that looks for the least loss cuts off
    plan = PrecisionPlan("fp32", dict.fromkeys(base.quantisable(files.load(design.path)), "int8"))
    for at, (scale, method) in enumerate(((1, "minmax"), (1, "minmax"), (3, "minmax"), (1, "entropy"))):
        folder = tmp_path / str(at)
        folder.mkdir()
        data = [{"x": scale * batch} for batch in values]
        made = Quantiser(Calibration(data, method), {}, folder, Progress()).quantise(design, plan, "symmetric")
        contestant = Contestant(
            "int8", "candidate", "onnxruntime", precision="int8", design="q", plan=plan, origin=GRAPH
        )
        own = replace(course, designs={GRAPH: design, "q": made})
        found.append(refine._Desk(own, tmp_path, Progress())._about(contestant))
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert found[0] != found[3]


@pytest.mark.parametrize(
    ("error", "kept"),
    [(WorkerMemoryError, 0), (WorkerTimeoutError, 0), (WorkerError, 0), (DeviceMemoryError, 0), (BuildError, 1)],
)
def test_only_what_would_fail_again_is_remembered(course, tmp_path, monkeypatch, error, kept):
    """A refusal of the backend is written down; a worker that ran out of memory or time is asked again."""

    def prepare(*_):
        raise error("no")

    monkeypatch.setattr(Lane, "prepare", prepare)
    outcome = builder_of(course, tmp_path, Journal(tmp_path / "state"))(MIXED)
    assert (outcome.holds, outcome.reason) == (False, "no")
    assert len(Journal(tmp_path / "state")) == kept


class Clock(Regions):
    """Times that are given; an error among them is raised."""

    def compare(self, low, high):
        (region,) = set(low.nodes) - set(high.nodes)
        if isinstance(self.about[region], Exception):
            raise self.about[region]
        return self.about[region]


def test_a_region_that_cannot_be_timed_stays(course, tmp_path, monkeypatch):
    """Its trouble is told in its step; regions after it are timed, and what was raised before it stays raised."""
    times = {"a": (2.0, 1.0), "b": WorkerTimeoutError("too late"), "c": (2.0, 1.0), "d": (1.0, 2.0)}
    monkeypatch.setattr(Builder, "__call__", lambda *_: held())
    timing = Clock(builder_of(course, tmp_path), Journal(None), times, [])
    plan = raise_slow_regions(PrecisionPlan("fp32", dict.fromkeys("abcd", "int8")), {n: (n,) for n in "abcd"}, timing)
    assert list(plan.nodes) == ["b", "d"]
    assert timing.slow == ["a", "c"]
    assert timing.trouble == "too late"
    assert [(step.holds, step.reason) for step in timing.steps][1] == (True, "not timed: too late")
    assert timing.steps[1].action == "keep lower b (1 nodes)"


def held():
    """Return the outcome of a plan that holds the bounds."""
    return Outcome(holds=True, reason="", error=0.0, cosine=1.0, seconds=0.0)


def test_a_plan_outlives_trouble_on_the_clock(course, tmp_path, monkeypatch):
    """A search that found a plan keeps it where its regions can not be timed, and says so."""
    design = course.designs[GRAPH]
    batches = [{"x": np.random.default_rng(at).standard_normal((8, 4)).astype(np.float32)} for at in range(16)]
    own, plan = tmp_path / "own", PrecisionPlan("fp32", {"first": "int8", "last": "int8"})
    own.mkdir()
    quantiser = Quantiser(Calibration(batches), {}, own, Progress())
    made = quantiser.quantise(design, plan, "symmetric")
    loose = replace(course, spec=replace(course.spec, verify=replace(BOUND, max_error=0.5)),
                    designs={GRAPH: design, "q": made})  # fmt: skip
    contestant = Contestant("onnxruntime int8", "candidate", "onnxruntime", precision="int8", design="q", plan=plan,
                            origin=GRAPH)  # fmt: skip
    root, said = Lane(contestant, loose, tmp_path / "0"), Said()
    root.prepare(nothing, nothing)
    root.close()
    assert root.verify.passed

    def compare(*_):
        raise WorkerTimeoutError("too late")

    monkeypatch.setattr(Regions, "compare", compare)
    (search,) = refine.refine([root], loose, tmp_path, said, quantiser.quantise).searches
    assert "no plan" not in search.words
    assert [step.reason for step in search.steps] == ["not timed: too late"] * 2
    assert said.lines == ["onnxruntime int8: not every region was timed: too late"]


def test_a_lane_that_fails_leaves_no_other(course, tmp_path, monkeypatch):
    """Where the second engine of a pair cannot be opened, the worker of the first is ended."""
    real, pids = Worker.start, []

    def start(self):
        real(self)
        if pids:
            self.kill()
            raise WorkerError("no more of them")
        pids.append(self.pid)

    monkeypatch.setattr(Worker, "start", start)
    timing = Regions(builder_of(course, tmp_path), Journal(None), {}, [])
    with pytest.raises(WorkerError, match="no more"):
        timing.compare(MIXED, PrecisionPlan("fp16", {"steep": "fp32"}))
    assert len(pids) == 1
    assert not Path(f"/proc/{pids[0]}").exists()
