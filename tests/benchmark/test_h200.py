"""The H200's script: what is built, how it is judged and written; the parts that need no GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

SIDE = """
from benchmarks.h200.answering import answer
from enginery.errors import BuildError

def fail(state):
    raise BuildError("no kernel for it", mend="ask for fp32")

def die(state):
    print("last words", flush=True)
    import os
    os.abort()

def nap(state):
    import time
    time.sleep(60)

def count(state, *, by):
    print("libraries print")
    state["sum"] = state.get("sum", 0) + by
    return state["sum"]

answer({"fail": fail, "die": die, "nap": nap, "count": count})
"""

pytestmark = pytest.mark.usefixtures("importable")


@pytest.fixture
def importable(monkeypatch):
    """Make the repository's benchmarks importable."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def side(tmp_path, monkeypatch):
    """A side whose handlers fail in every way."""
    from benchmarks.h200.sides import Side

    (tmp_path / "odd_side.py").write_text(SIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Side(sys.executable, "odd_side", tmp_path / "logs" / "side.log") as started:
        yield started


def test_a_side_answers_and_keeps_a_state(side):
    """Requests are answered in order, whatever libraries print."""
    assert [side.ask("count", limit_s=60, by=by) for by in (2, 3)] == [2, 5]


def test_an_error_over_there_is_told_with_its_mend(side):
    """Name, message and mend come over; the side goes on."""
    from benchmarks.h200.sides import SideError

    with pytest.raises(SideError, match="BuildError: no kernel for it") as caught:
        side.ask("fail", limit_s=60)
    assert (caught.value.name, caught.value.mend) == ("BuildError", "ask for fp32")
    assert side.ask("count", limit_s=60, by=1) == 1


@pytest.mark.parametrize(("what", "limit_s", "said"), [("die", 60, "last words"), ("nap", 0.5, "ended after 0 s")])
def test_a_crash_and_a_hang_are_told(side, what, limit_s, said):
    """The process's end is an error with the last lines of its log."""
    from benchmarks.h200.sides import SideError

    with pytest.raises(SideError, match=said):
        side.ask(what, limit_s=limit_s)


def test_what_is_timed_is_built_first():
    """Half-precision engines of the timed models come first; every model has every precision that it can."""
    from benchmarks.h200.driver import CONVOLUTIONAL, MODELS
    from benchmarks.h200.jobs import TANH, engine_names, list_jobs

    jobs = list_jobs(MODELS, CONVOLUTIONAL, largest=128)
    names = [job.name for job in jobs]
    assert names[:15] == [
        "resnet50.fp16.b1", "resnet50.fp16.b128", "vit.fp16.b1", "vit.fp16.b128", "bert.fp16.b1", "bert.fp16.b128",
        "resnet50.fp16.b128.uint8", "resnet50.fp16.dynamic", "resnet50.int8.dynamic", "bert.fp16.b128.kept",
        "bert.fp16.b1.kept", "vit.fp16.dynamic", "bert.fp16.dynamic", "vit.fp16.b128.tanh", "bert.fp16.b128.tanh",
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    wide = [job for job in jobs if ".." in job.batch]
    assert len(wide) == 7 * 3 + 4  # INT8 of what is made of convolutions
    assert {job.batch for job in wide} == {"1..32..128"}
    assert {job.name for job in jobs if job.narrow} == {"resnet50.int8.dynamic", *(f"{name}.fp16.dynamic" for name in (
        "resnet50", "vit", "bert", "minilm",
    ))}  # fmt: skip
    assert {name for model in ("resnet50", "vit", "bert") for batch in (1, 128)
            for label, name in engine_names(model, batch).items() if label != TANH} <= set(names)  # fmt: skip


def test_what_outlasts_the_time_left_is_ended(tmp_path, monkeypatch):
    """A side is ended with all that it started, when the time for all of them is up."""
    from benchmarks.h200.sides import Side, SideError

    (tmp_path / "odd_side.py").write_text(SIDE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Side(sys.executable, "odd_side", tmp_path / "side.log", left=lambda: 1.0) as side:
        with pytest.raises(SideError, match="was ended after 1 s"):
            side.ask("nap", limit_s=60)
        assert not side.alive


def test_what_failed_keeps_all_that_mending_needs(tmp_path):
    """The words of the error, its mend, and the end of the process's log are in the results."""
    run = make_run(tmp_path)
    from benchmarks.h200.sides import SideError

    def fail():
        raise SideError("no kernel", "BuildError", "ask for fp32", "last words")

    assert not run.put("engines", "vit", fail)
    assert run.store.found["engines"] == {
        "vit failed": {"error": "SideError: BuildError: no kernel", "mend": "ask for fp32", "log": "last words"}
    }


def test_the_narrowest_profile_is_taken():
    """Of the profiles that hold a shape, the hand-written loop takes the one that holds the least besides."""
    from benchmarks.h200.loops import narrowest_profile

    class Engine:
        num_optimization_profiles = 3

        def get_tensor_profile_shape(self, name, at):
            assert name == "x"
            low, high = ((1, 128), (1, 1), (128, 128))[at]
            return [(low, 4), (high, 4), (high, 4)]

    assert [narrowest_profile(Engine(), {"x": (rows, 4)}) for rows in (1, 7, 128)] == [1, 0, 2]


def test_what_an_inspector_says_is_counted_and_cut_to_a_length():
    """Half-precision edges of fused regions, kernels' types and metadata are counted; what is too long stays JSON."""
    from benchmarks.h200.inspecting import counted, shortened

    conv = {
        "Name": "conv", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma_fprop_tf32f32", "Metadata": "[ONNX x]",
        "Inputs": [{"Name": "x", "Format/Datatype": "Row major FP32"}], "Outputs": [],
    }  # fmt: skip
    said = {"Layers": [conv] * 2000, "Bindings": ["x"]}
    found = counted(said)
    assert found["tactics_by_type"] == {"tf32": 2000}
    assert (found["with_metadata"], found["foreign_edges"]) == (2000, {})
    text = shortened(said)
    kept = json.loads(text)
    assert len(text) < 200_000
    assert len(kept["Layers"]) + kept["left out"] == 2000


def make_run(folder, **asked):
    """Make a run of no models."""
    import time

    from benchmarks.h200.plan import Run
    from benchmarks.h200.store import Store

    end = time.monotonic() + 60
    return Run(
        work=folder, store=Store(folder), python=sys.executable, torch_python=sys.executable, backend="tensorrt",
        models=(), convolutional=(), batches=(1,), tiny=True, jobs=1, pattern="*", gpus=1, arrays={},
        deadline=end, build_until=end, build_end=end,
        **asked,
    )  # fmt: skip


def test_a_bound_passes_fails_or_was_not_run():
    """What is missing is told apart from what failed; a word such as inf fails."""
    from benchmarks.h200.bounds import Bound, bounds_text, judge

    bounds = [
        Bound("slow enough", ("a", "x"), most=2), Bound("fast enough", ("a", "y"), least=3),
        Bound("right", ("a", "right"), holds=True), Bound("missing", ("b", "x"), least=1),
        Bound("infinite", ("a", "error"), most=1),
    ]  # fmt: skip
    found = {"a": {"x": 2, "y": 2.9, "right": True, "error": "inf"}}
    judged = judge(found, bounds)
    assert [row.verdict for row in judged] == ["PASS", "FAIL", "PASS", "not run", "FAIL"]
    text = bounds_text(judged)
    assert text.splitlines()[-1] == "2 PASS, 2 FAIL, 1 not run"
    assert all(len(line) <= 100 for line in text.splitlines())


def test_every_bound_has_one_limit_and_a_place_of_its_own():
    """No two bounds read one figure, and each says what it may be."""
    from benchmarks.h200.bounds import BOUNDS, model_bounds
    from benchmarks.h200.driver import CONVOLUTIONAL, MODELS

    bounds = [*model_bounds(MODELS, CONVOLUTIONAL), *BOUNDS]
    assert len({bound.keys for bound in bounds}) == len({bound.what for bound in bounds}) == len(bounds)
    for bound in bounds:
        assert (bound.least is not None) + (bound.most is not None) + bound.holds == 1


def test_every_bound_of_a_stage_is_written_by_a_stage():
    """The first key of each bound is a stage, or what the stage `latency` writes of arrays of the device."""
    from benchmarks.h200.bounds import BOUNDS
    from benchmarks.h200.driver import STAGES

    assert {bound.keys[0] for bound in BOUNDS} <= {stage.name for stage in STAGES} | {"device"}


def test_results_are_added_to_and_whole_at_any_time(tmp_path):
    """A second run goes on from the first one's file; both folders hold the same."""
    from benchmarks.h200.store import Store

    work, output = tmp_path / "work", tmp_path / "output"
    Store(work).put("latency", ratio=1.0123456, bad=float("inf"), turns=(1.0, 2.0))
    again = Store(work, output)
    again.put("memory", grew=np.int64(3).item())
    expected = {"latency": {"ratio": 1.0123, "bad": "inf", "turns": [1.0, 2.0]}, "memory": {"grew": 3}}
    for folder in (work, output):
        assert json.loads((folder / "results.json").read_text()) == expected
        assert [path.name for path in folder.iterdir()] == ["results.json"]


def test_a_crash_of_one_stage_loses_nothing_of_the_others(tmp_path, capsys):
    """It is told and kept; after the deadline nothing is begun."""
    from benchmarks.h200.driver import _parser, _run
    from benchmarks.h200.plan import Stage

    asked = _parser().parse_args(["--dry-run-here", "--work", str(tmp_path / "w"), "--output", str(tmp_path / "o")])
    run = _run(asked, begin=0.0)
    run.deadline = float("inf")

    def crash(_):
        raise ValueError("it broke")

    Stage("one", crash, 1).take(run)
    Stage("two", lambda run: run.store.put("two", fine=True), 1).take(run)
    run.deadline = 0.0
    Stage("three", crash, 1).take(run)
    assert run.store.found["two"] == {"fine": True}
    assert run.store.found["stages"]["one"] == "crashed: ValueError: it broke"
    assert run.store.found["stages"]["three"] == "skipped: the budget is spent"
    assert "it broke" in capsys.readouterr().err


def test_odd_graphs_are_valid_and_run(tmp_path):
    """Each is a graph that ONNX takes; the ones that are run find what they must on ONNX Runtime."""
    import onnx

    from benchmarks.h200.odd_graphs import GRAPHS, HANDLERS, write_graph

    for name in GRAPHS:
        model = onnx.load(write_graph(name, tmp_path))
        if name != "plugin":
            onnx.checker.check_model(model)
    found = HANDLERS["dynamic_output"]({}, name="nms", backend="onnxruntime")
    assert found["right"]
    assert found["shape at min"][1] == 3


def test_bytes_are_normalised_by_the_graph(tmp_path):
    """The graph that takes bytes gives what the original gives for the normalised picture."""
    import onnx_ir as ir

    import enginery
    from benchmarks.h200.pixels import MEAN, SCALE, take_bytes

    text = (
        '<ir_version: 8, opset_import: ["": 17]> g (float[batch, 3] image) => (float[batch, 3] y) { y = Relu(image) }'
    )
    ir.save(ir.from_onnx_text(text), tmp_path / "floats.onnx")
    take_bytes(tmp_path / "floats.onnx", tmp_path / "bytes.onnx")
    engine = enginery.build(
        tmp_path / "bytes.onnx", tmp_path / "bytes.engine", shapes={"image": enginery.Shape.parse("1..4x3")},
        in_process=True,
    )  # fmt: skip
    pixels = np.array([[0, 128, 255]], np.uint8)
    with engine.open() as session:
        assert session.inputs[0].dtype == "uint8"
        np.testing.assert_allclose(session(pixels), np.maximum((pixels - MEAN) * SCALE, 0).astype(np.float32))


def test_a_mistyped_stage_or_model_ends_the_run(tmp_path):
    """Before anything is begun."""
    from benchmarks.h200.driver import main

    common = ["--dry-run-here", "--work", str(tmp_path / "w"), "--output", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="there is no stage 'latencies'"):
        main([*common, "--stage", "latencies"])
    with pytest.raises(SystemExit, match="there is no model 'resnet'"):
        main([*common, "--only", "resnet"])


def test_what_a_build_spent_on_timing_is_read_from_its_log():
    """Each kernel's line stands for the time since the one before it; lines of another form are passed over."""
    from benchmarks.h200.build_logs import time_spent

    log = """[   0.100] INFO: Opset version:    17
      a line of its own
[   1.100] VERBOSE: --------------- Timing Runner: conv (CaskConvolution[0x80000009])
[   1.350] VERBOSE: Tactic Name: sm80_xmma_fprop Tactic: 0x865894c4635874fd Time: 0.0191269
[   1.600] VERBOSE: Tactic: 0x00000000000003e8 Time: 0.00462
[   2.000] VERBOSE: CaskConvolution has no valid tactics for this config, skipping
"""
    assert time_spent(log) == {"kernels_timed": 2, "timing_s": 0.5, "other_s": 1.5}
    assert time_spent("") == {"kernels_timed": 0, "timing_s": 0.0, "other_s": 0.0}
