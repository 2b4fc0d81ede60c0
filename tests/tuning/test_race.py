"""Every contestant is built, verified and timed in its own worker; what fails is a row, and nothing is left behind."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enginery import storage
from enginery.backends.base import Design
from enginery.benchmark.base import call_timer
from enginery.errors import (
    BuildError,
    EngineryError,
    HashMismatchError,
    NoCandidateError,
    WorkerCrashError,
    WorkerMemoryError,
)
from enginery.graph import files
from enginery.inputs.base import Case, save_cases
from enginery.progress import Progress
from enginery.records import VerifyRecord
from enginery.spec import BenchSpec, OptimizeSpec, parse_shapes
from enginery.tuning import lane, race
from enginery.tuning.candidates import GRAPH, PLAIN, Contestant
from enginery.tuning.lane import Course, Lane
from enginery.tuning.refine import to_refine
from enginery.worker import Worker

BENCH = BenchSpec(warmup_ms=2, turn_ms=5, min_samples=3, min_turns=2, stable_within=10, limit_s=0.5)
SPEC = OptimizeSpec(shapes=parse_shapes(["x=1..4..8x4"]), bench=BENCH, job_limit_s=60)

PATHS = ("cases", "expected", "folder")

# Workers whose builds can be told to fail in each way.
BAD_BUILD = """
import os, time
from enginery import errors, jobs
build, run = jobs.build, jobs.time_calls

def bad_build(state, arguments):
    how = arguments["spec"]["options"].pop("how", "")
    if how == "abort":
        print("the library gives up")
        os.abort()
    if how == "hang":
        time.sleep(60)
    if how == "grow":
        kept = [bytearray(b"x") * (8 << 20) for _ in range(200) if not time.sleep(0.002)]
    if how == "refuse":
        raise errors.BuildError("no kernel for Foo", mend="use Bar")
    return build(state, arguments)

def bad_time(state, arguments):
    if "abort-timing" in os.getcwd():
        os.abort()
    return run(state, arguments)

jobs.JOBS.update(build=bad_build, time=bad_time)
jobs.main()
"""


class Steps(Progress):
    """Keeps what it was told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.fixture
def course(tmp_path, small_model):
    """Write the graph, one case and its right outputs; return the arguments of a race."""
    graph = tmp_path / "graph.onnx"
    files.save(small_model, graph)
    weights = {
        name: value.const_value.numpy() for name, value in small_model.graph.initializers.items() if value.const_value
    }
    cases, expected = [], []
    for name, rows in (("min", 1), ("opt", 4), ("max", 8)):
        x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
        cases.append(Case(name, {"x": x}))
        expected.append(Case(name, {"y": np.maximum(x @ weights["w0"], 0) @ weights["w1"]}))
    save_cases(cases, tmp_path / "cases")
    save_cases(expected, tmp_path / "expected")
    design = Design(graph, "small", "0", "1")
    return {
        "designs": {GRAPH: design, PLAIN: design}, "cases": tmp_path / "cases", "expected": tmp_path / "expected",
        "bench_case": "opt", "spec": SPEC, "folder": tmp_path / "scratch", "reference": "numpy", "inputs": "random",
    }  # fmt: skip


@pytest.fixture
def quick(course):
    """Let the outputs of the null backend, which is quick to open, be the right ones."""
    zeros = [Case(name, {"y": np.zeros((rows, 3), np.float32)}) for name, rows in (("min", 1), ("opt", 4), ("max", 8))]
    course["expected"] = course["expected"].with_name("zeros")
    save_cases(zeros, course["expected"])
    return course


@pytest.fixture
def bad_builds(monkeypatch):
    """Let the workers of a race fail as their options say."""
    monkeypatch.setattr(lane, "Worker", functools.partial(Worker, entry=("-c", BAD_BUILD)))


def candidate(label, backend="null", **fields):
    """Make a candidate."""
    return Contestant(label, fields.pop("role", "candidate"), backend, **fields)


def test_a_whole_race(course):
    """Built, verified and timed: the right one is chosen, the wrong one rejected though fast, baselines are timed."""
    contestants = [
        candidate("onnxruntime, plain", "onnxruntime", role="baseline", design=PLAIN),
        candidate("onnxruntime", "onnxruntime"),
        candidate("null"),
        candidate("gone", missing="it is not here"),
    ]
    calls = []
    found = race.race(
        contestants, **course, frameworks={"NumPy 2 eager": call_timer(lambda: calls.append(1))}, progress=Steps()
    )
    rows = {row.label: row for row in found.records}
    assert list(rows) == ["NumPy 2 eager", "onnxruntime, plain", "onnxruntime", "null", "gone"]
    assert [row.status for row in found.records] == ["timed", "timed", "chosen", "rejected", "failed"]
    assert found.chosen == "onnxruntime"
    assert rows["null"].reason.startswith("error 1.00e+00 is above 1.00e-03")
    assert rows["null"].bench.p50_ms > 0
    assert rows["gone"].reason == "it is not here"
    chosen = rows["onnxruntime"]
    assert chosen.verify.error < 1e-6
    assert chosen.bench.shapes == {"x": (4, 4)}
    assert chosen.bench.first_call_ms > 0
    assert chosen.bench.load_ms > 0
    assert "CPU" in chosen.bench.placement
    assert rows["NumPy 2 eager"].backend == "numpy"
    assert rows["NumPy 2 eager"].bench.samples < len(calls)
    assert storage.read_manifest(found.engines["onnxruntime"]).source == "small"
    assert set(found.engines) == {"onnxruntime, plain", "onnxruntime", "null"}


@pytest.mark.usefixtures("bad_builds")
def test_failures_are_rows(quick):
    """A crash, a blow-up, a refusal and a crash on the clock: four rows with reasons, and one that is chosen."""
    contestants = [
        candidate("good"),
        candidate("abort", options={"how": "abort"}),
        candidate("grow", options={"how": "grow"}),
        candidate("refuse", options={"how": "refuse"}),
        candidate("abort-timing"),
    ]
    quick["spec"] = OptimizeSpec(shapes=SPEC.shapes, bench=BENCH, memory_limit_bytes=500 << 20)
    found = race.race(contestants, **quick)
    reasons = {row.label: row.reason for row in found.records if row.status == "failed"}
    assert list(reasons) == ["abort", "grow", "refuse", "abort-timing"]
    assert reasons["abort"].startswith(
        "crashed: worker 'abort' died of SIGABRT while it did 'build'; its log ends with"
    )
    assert "the library gives up" in reasons["abort"]
    assert reasons["grow"].startswith("out of memory: worker 'grow' held")
    assert reasons["refuse"] == "no kernel for Foo; use Bar"
    assert reasons["abort-timing"].startswith("crashed: worker 'abort-timing' died of SIGABRT while it did 'time'")
    assert found.chosen == "good"
    assert next(row for row in found.records if row.label == "abort-timing").verify.passed


@pytest.mark.usefixtures("bad_builds")
def test_a_hang_is_a_row(quick):
    """A build that hangs is ended at the time limit, and its row says so."""
    quick["spec"] = OptimizeSpec(job_limit_s=0.5)
    with pytest.raises(NoCandidateError, match=r"hang: timed out: worker 'hang' did not finish 'build' within 0.5 s"):
        race.race([candidate("hang", options={"how": "hang"})], **quick)


def test_none_left_lists_the_reasons(course):
    """Where all are missing nothing is started, and the error has the list."""
    with pytest.raises(NoCandidateError, match="gone: it is not here"):
        race.race([candidate("gone", missing="it is not here")], **course)


def test_a_framework_that_fails_is_a_row(quick):
    """The source framework's own failure does not end the run."""
    found = race.race([candidate("good")], **quick, frameworks={"torch": call_timer(lambda: 1 // 0)})
    assert found.records[0].status == "failed"
    assert found.records[0].reason == "it failed with ZeroDivisionError: integer division or modulo by zero"


def test_cold_lanes_open_for_every_turn(quick, monkeypatch):
    """Where memory is short a worker is closed before the next build, and its engine opened anew for each turn."""
    monkeypatch.setattr(lane, "free_memory_bytes", lambda: 0)
    found = race.race([candidate("first"), candidate("second")], **quick)
    rows = {row.label: row for row in found.records}
    assert len(rows["first"].bench.turns_ms) >= 2
    assert found.notes == ("memory was short, so these were opened anew for every turn: first",)


def test_a_build_short_of_memory_is_tried_again_with_the_others_closed(quick, monkeypatch):
    """A build that outgrew what the warm workers left gets all of it, once."""
    real, tried = lane.Lane.prepare, []

    def prepare(self, on_wait, on_progress):
        tried.append(self.contestant.label)
        if tried == ["first", "second"]:
            raise WorkerMemoryError("too big")
        real(self, on_wait, on_progress)

    monkeypatch.setattr(lane.Lane, "prepare", prepare)
    found = race.race([candidate("first"), candidate("second")], **quick)
    assert tried == ["first", "second", "second"]
    assert sorted(row.status for row in found.records) == ["accepted", "chosen"]
    assert found.notes[0].endswith("first")


def test_progress_follows_the_steps(quick):
    """Every step is planned, begun and ended."""
    progress = Steps()
    race.race([candidate("first"), candidate("second")], **quick, progress=progress)
    assert [step.name for step in progress.steps] == ["build and verify first", "build and verify second", "time"]
    assert all(step.ended is not None for step in progress.steps)
    assert progress.remaining_s() == 0


def test_an_interrupt_leaves_nothing(course, monkeypatch):
    """Ctrl-C in a build kills every worker and removes every folder."""
    pids = []
    real = Worker.call

    def call(self, job, arguments, **named):
        pids.append(self.pid)
        if job == "verify":
            raise KeyboardInterrupt
        return real(self, job, arguments, **named)

    monkeypatch.setattr(Worker, "call", call)
    with pytest.raises(KeyboardInterrupt):
        race.race([candidate("good")], **course)
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(course["folder"].iterdir()) == []


def test_a_real_interrupt_leaves_nothing(course):
    """SIGINT to the process of a race: it ends with KeyboardInterrupt, without workers and without folders."""
    code = textwrap.dedent(f"""
        import functools
        from pathlib import Path
        from enginery.backends.base import Design
        from enginery.spec import OptimizeSpec
        from enginery.tuning import lane, race
        from enginery.tuning.candidates import Contestant
        from enginery.worker import Worker
        lane.Worker = functools.partial(Worker, entry=("-c", {BAD_BUILD!r}))
        paths = dict(zip({PATHS!r}, map(Path, {[str(course[name]) for name in PATHS]!r})))
        race.race([Contestant("good", "candidate", "null"),
                   Contestant("hang", "candidate", "null", options={{"how": "hang"}})],
                  **paths, designs={{"graph": Design(Path({str(course["designs"][GRAPH].path)!r}))}}, bench_case="opt",
                  spec=OptimizeSpec(), reference="", inputs="")
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    hanging = course["folder"] / "01-hang" / "worker" / "0001-build.json"
    deadline = time.monotonic() + 30
    while not hanging.exists():
        assert time.monotonic() < deadline
        assert parent.poll() is None, parent.communicate()[1]
        time.sleep(0.02)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=30)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert list(course["folder"].iterdir()) == []


def test_engines_are_timed_and_told_in_their_manifests(course, tmp_path):
    """time_engines takes built engines, and writes the record where the engine is."""
    found = race.race([candidate("onnxruntime", "onnxruntime")], **course)
    paths = {"one": found.engines["onnxruntime"], "two": found.engines["onnxruntime"]}
    records = race.time_engines(
        paths, cases=course["cases"], bench_case="max", folder=tmp_path / "again", options={"threads": 1}, spec=BENCH
    )
    assert list(records) == ["one", "two"]
    assert records["one"].shapes == {"x": (8, 4)}
    assert "1 thread" in records["one"].placement
    assert storage.read_manifest(paths["two"]).bench == records["two"]


def test_an_engine_that_cannot_be_timed_is_an_error(quick, tmp_path):
    """Asked for by name, an engine's failure is raised as it was."""
    engine = race.race([candidate("good")], **quick).engines["good"]
    (engine / "model.null").write_bytes(b"changed")
    with pytest.raises(HashMismatchError, match="has 7 bytes, the manifest says 0"):
        race.time_engines({"one": engine}, cases=quick["cases"], bench_case="opt", folder=tmp_path / "again")


def test_reasons_are_one_line_of_bounded_length():
    """A long log keeps its beginning and its end."""
    error = WorkerCrashError("it died; its log ends with:\n" + "x" * 2000 + "\nthe cause", mend="look")
    reason = race.reason_of(error)
    assert reason.startswith("crashed: it died; its log ends with: | xxx")
    assert reason.endswith("the cause")
    assert len(reason) < 450
    assert race.reason_of(BuildError("no kernel", mend="use another")) == "no kernel; use another"


def test_a_search_begins_with_a_candidate_that_ran(tmp_path):
    """Of one backend and precision, the first that was built and verified, not the first that is listed."""
    course = Course(tmp_path, "opt", SPEC)
    missed = VerifyRecord("reference", "random", (), (), 1.0, 1e-3, passed=False)
    half = functools.partial(Contestant, role="candidate", backend="toy", precision="fp16")
    broken = Lane(half("toy fp16"), course, tmp_path, error=EngineryError("it broke", mend="no"))
    ran = Lane(half("toy fp16 slow=1", options={"slow": 1}), course, tmp_path, verify=missed)
    wide = Lane(half("toy", precision="fp32"), course, tmp_path, verify=missed)
    assert to_refine([broken, ran, wide]) == [ran]
    good = Lane(half("toy fp16 slow=2"), course, tmp_path, verify=replace(missed, error=0.0, passed=True))
    assert to_refine([broken, good, ran]) == []
