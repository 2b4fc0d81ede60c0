"""The table of jobs: what each takes, does and returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from enginery import __version__, backends, jobs, storage
from enginery.backends.base import Design
from enginery.errors import UnknownNameError, WorkerError
from enginery.graph import files
from enginery.inputs.base import Case, load_cases, save_cases
from enginery.machine import describe_machine
from enginery.plain import from_plain, to_plain
from enginery.records import GraphRecord, ManifestRecord, VerifyRecord
from enginery.spec import BuildSpec, VerifySpec, parse_shapes
from enginery.worker import Worker

SPEC = BuildSpec(parse_shapes(["x=1..4x4"]))


@pytest.fixture
def folder(tmp_path, small_model):
    """Write a graph and two cases."""
    files.save(small_model, tmp_path / "graph.onnx")
    cases = [Case(name, {"x": np.ones((rows, 4), np.float32)}) for name, rows in (("min", 1), ("opt", 4))]
    save_cases(cases, tmp_path / "cases")
    return tmp_path


@pytest.fixture
def state(folder):
    """Build with the null backend, and open it."""
    state = {}
    assert do(state, "build", **arguments(folder))["backend"] == "null"
    opened = do(state, "open", engine=str(folder / "engine"), options={})
    assert opened["placement"] == "nowhere"
    assert opened["load_ms"] > 0
    yield state
    do(state, "close")


def arguments(folder):
    """Return the arguments of a build with the null backend."""
    return jobs.build_arguments(
        Design(folder / "graph.onnx", "small", "a", "b"), backend="null", spec=SPEC, output=folder / "engine"
    )


def do(state, job, **given):
    """Do a job as a worker would: arguments and results go through JSON."""
    given = json.loads(json.dumps(to_plain(given), default=str))
    return json.loads(json.dumps(to_plain(jobs.JOBS[job](state, given)), allow_nan=False))


def test_probe_tells_every_backend():
    """Each backend of the table is told, with what it offers, and so is the machine."""
    found = do({}, "probe")
    assert set(found["backends"]) == set(backends.names())
    assert found["machine"]["enginery"] == __version__
    null = found["backends"]["null"]
    assert (null["candidate"], null["available"], null["version"]) == (False, True, "0")
    assert "fp32" in null["precisions"]


def test_probe_tells_the_variants_of_a_graph():
    """With a graph each backend says what it would try; without one only the plainest."""
    graph = GraphRecord("g", (), (), 9, {"Conv": 4, "Concat": 3}, 0, 0, 10**9, {"": 17}, 8, "", ("batch",))
    machine = describe_machine()
    told = do({}, "probe", graph=graph)["backends"]["onnxruntime"]["variants"]
    assert told == [dict(options) for options in backends.get("onnxruntime").variants(graph, machine)]
    assert len(told) > 1
    assert do({}, "probe")["backends"]["onnxruntime"]["variants"] == [{}]


def test_build_returns_the_manifest_it_wrote(folder):
    """The manifest has the source and the spec, and is the one in the folder."""
    manifest = from_plain(ManifestRecord, do({}, "build", **arguments(folder)))
    assert (manifest.source, manifest.source_sha256, manifest.graph_sha256) == ("small", "a", "b")
    assert manifest.inputs[0].profile == SPEC.shapes["x"] or str(manifest.inputs[0].profile).endswith("1..4..4x4")
    assert storage.read_manifest(folder / "engine") == manifest


def test_build_arguments_are_absolute(folder, monkeypatch):
    """A worker works in its own folder, so relative paths are made absolute before they are sent."""
    monkeypatch.chdir(folder.parent)
    found = jobs.build_arguments(Design(Path("graph.onnx")), backend="null", spec=SPEC, output="engine")
    assert found["design"] == folder.parent / "graph.onnx"
    assert found["output"] == folder.parent / "engine"


def test_run_writes_the_outputs_of_every_case(state, folder):
    """Outputs are cases too, under their inputs' names."""
    assert do(state, "run", cases=folder / "cases", output=folder / "outputs") == {"cases": ["min", "opt"]}
    assert [(case.name, case.feeds["y"].shape) for case in load_cases(folder / "outputs")] == [
        ("min", (1, 3)),
        ("opt", (4, 3)),
    ]


def test_verify_compares_with_the_expected(state, folder):
    """Each case is compared with the expected outputs of its name, whatever their order."""
    expected = [
        Case(name, {"y": np.full((rows, 3), float(rows), np.float32)}) for name, rows in (("opt", 4), ("min", 1))
    ]
    save_cases(expected, folder / "expected")
    record = do(
        state, "verify", cases=folder / "cases", expected=folder / "expected", spec=VerifySpec(), reference="ones",
        inputs="two",
    )  # fmt: skip
    record = from_plain(VerifyRecord, record)
    assert (record.reference, record.inputs, record.passed) == ("ones", "two", False)
    assert {(output.case, output.max_abs) for output in record.outputs} == {("min", 1.0), ("opt", 4.0)}


def test_first_and_time(state, folder):
    """The first call is timed by itself; then samples for a time, and at least as many as asked for."""
    case = {"cases": folder / "cases", "case": "opt"}
    assert do(state, "first", **case)["ms"] > 0
    samples = do(state, "time", **case, warmup_ms=0.0, seconds=0.0, min_calls=5)["samples_ms"]
    assert len(samples) == 5
    assert min(samples) > 0


def test_an_unknown_case_suggests(state, folder):
    """A case that is not in the folder is named, with its nearest."""
    with pytest.raises(UnknownNameError, match=r"unknown case 'op'; did you mean 'opt'\?"):
        do(state, "first", cases=folder / "cases", case="op")


def test_nothing_open_is_an_error(folder):
    """Jobs that need a session say so."""
    with pytest.raises(WorkerError, match="no engine is open in this worker; do the job 'open' first"):
        do({}, "run", cases=folder / "cases", output=folder / "outputs")


def test_opening_again_closes_the_first(state, folder):
    """One worker holds one session."""
    first = state["session"]
    do(state, "open", engine=folder / "engine", options={})
    assert state["session"] is not first
    assert first._closed


def test_the_table_is_what_a_worker_takes(folder):
    """The same jobs through a real worker: build, open, run, close."""
    with Worker("whole", folder=folder / "worker") as worker:
        manifest = worker.call("build", arguments(folder), limit_s=60)
        assert from_plain(ManifestRecord, manifest).backend == "null"
        worker.call("open", {"engine": folder / "engine", "options": {}}, limit_s=60)
        worker.call("run", {"cases": folder / "cases", "output": folder / "outputs"}, limit_s=60)
        worker.call("close", {}, limit_s=60)
    assert len(load_cases(folder / "outputs")) == 2
