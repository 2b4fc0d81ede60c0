"""Each command hands one frozen request to one function of the library, and renders what comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from enginery import pipeline, steps
from enginery.cli.main import main
from enginery.plain import from_json
from enginery.records import (
    BenchRecord,
    CandidateRecord,
    DoctorRecord,
    ExportRecord,
    GraphRecord,
    MachineRecord,
    ManifestRecord,
    OptimizeRecord,
    TensorInfo,
    VerifyRecord,
)
from enginery.spec import BenchSpec, Example, PrecisionPlan, Shape, VerifySpec

MACHINE = MachineRecord("Linux", "CPU", 2, 2**30, (), (), None, None, "3.11", "0.1", {})
X = TensorInfo("x", "float32", ("batch", 4))
GRAPH = GraphRecord("g", (X,), (X,), 1, {"Relu": 1}, 0, 0, None, {"": 20}, 10, "me", ("batch",))
EXPORT = ExportRecord("m.onnx", "onnx_file", "none", {}, 20, {}, 0.1, 1)
MANIFEST = ManifestRecord("null", "0", "0.1", "g", (X,), (X,), "fp32", {}, {}, "m", "", "", MACHINE, {}, "now")
BENCH = BenchRecord(
    {"x": (1, 4)}, 1, 20, 1, 1, 1, 1, 1, 1, 0.9, 1.1, 1000, stable=True,
    rule="rule", turns_ms=(1,), first_call_ms=2, load_ms=3, placement="CPU",
)  # fmt: skip
VERIFY = VerifyRecord("m.onnx", "random", (), (), 1e-7, 1e-3, passed=True)
OPTIMIZED = OptimizeRecord(
    "m.onnx", EXPORT, GRAPH, None,
    (CandidateRecord("null", "candidate", "null", "here", "fp32", {}, "chosen", "the only one", None, VERIFY, BENCH),),
    "null", "m.engine", MACHINE, {}, 1.0,
)  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """Replace every function of the library by one that notes what it was asked for, and is loud on stdout."""
    calls: dict[str, tuple[tuple, dict]] = {}

    def stub(module, name, answer):
        def called(*args, **kwargs):
            print("a library talks on stdout")  # noqa: T201 - that is the point
            kwargs.get("progress", SimpleNamespace(say=print)).say("a loud line")
            calls[name] = (args, kwargs)
            return answer

        monkeypatch.setattr(module, name, called)

    stub(pipeline, "optimize", SimpleNamespace(record=OPTIMIZED, engine=Path("m.engine")))
    stub(steps, "export", EXPORT)
    stub(steps, "build", SimpleNamespace(manifest=MANIFEST))
    stub(steps, "verify", VERIFY)
    stub(steps, "bench", {"m.engine": BENCH})
    stub(steps, "doctor", DoctorRecord(MACHINE, ()))
    return calls


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["optimize", "m.onnx"], OptimizeRecord),
        (["export", "m.onnx", "-o", "n.onnx"], ExportRecord),
        (["build", "m.onnx", "-o", "m.engine"], ManifestRecord),
        (["verify", "m.engine", "m.onnx"], VerifyRecord),
        (["doctor"], DoctorRecord),
    ],
)
def test_json_is_the_record_and_nothing_else(words, kind, asked, capsys):
    """Stdout reads back as the record; what libraries print, progress and loud lines are on stderr."""
    assert main([*words, "--json"]) == 0
    found = capsys.readouterr()
    assert isinstance(from_json(kind, found.out), kind)
    assert "a library talks on stdout" in found.err
    assert "a loud line" in found.err
    assert len(asked) == 1


@pytest.mark.usefixtures("asked")
def test_json_of_bench_is_a_record_for_each_engine(capsys):
    """The labels are the keys."""
    assert main(["bench", "m.engine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["m.engine"]["p50_ms"] == 1


def test_optimize_makes_one_frozen_spec(asked, capsys):
    """Every flag of optimize arrives in its place."""
    words = (
        "optimize m.onnx -o out.engine --shapes x=1..8x4 --example x:float32[1,4] --precision best --max-error 0.01 "
        "--objective size --max-latency 5 --backend onnxruntime --backend openvino --environment old=/opt/bin/python "
        "--data held.npz --range x=0..1 --seed 7 --no-simplify --time-limit 60"
    )
    assert main(words.split()) == 0
    (source,), given = asked["optimize"]
    spec = given["spec"]
    assert source == "m.onnx"
    assert spec.shapes == {"x": Shape.parse("1..8x4")}
    assert (spec.precision, spec.objective, spec.max_latency_ms) == ("best", "size", 5.0)
    assert spec.backends == ("onnxruntime", "openvino")
    assert spec.environments == {"old": "/opt/bin/python"}
    assert (spec.simplify, spec.job_limit_s) == (False, 60.0)
    assert spec.verify == VerifySpec(max_error=0.01, seed=7)
    assert (given["output"], given["data"]) == ("out.engine", "held.npz")
    assert given["examples"] == (Example("x", "float32", (1, 4)),)
    assert (given["ranges"]["x"].low, given["ranges"]["x"].high) == (0.0, 1.0)
    said = capsys.readouterr().out
    assert "enginery run m.engine x=x.npy -o outputs.npz" in said


def test_build_passes_its_options(asked, capsys):
    """The backend's own options are read as their types."""
    words = (
        "build m.onnx -o m.engine --backend null --option threads=2 --option spin=false --precision fp16 --in-process"
    )
    assert main([*words.split(), "--time-limit", "9"]) == 0
    args, given = asked["build"]
    assert args == ("m.onnx", "m.engine")
    assert (given["backend"], given["precision"], given["in_process"], given["limit_s"]) == ("null", "fp16", True, 9.0)
    assert given["options"] == {"threads": 2, "spin": False}
    assert given["simplify"] is True
    assert capsys.readouterr().out.startswith("engine")


def test_a_precision_plan_is_read_from_its_file(asked, tmp_path):
    """Build and optimize take the file of an engine; no precision is passed on where none was given."""
    (tmp_path / "precision.json").write_text('{"precision": "fp16", "nodes": {"/Softmax": "fp32"}}')
    plan = PrecisionPlan("fp16", {"/Softmax": "fp32"})
    assert main(["build", "m.onnx", "-o", "m.engine", "--precision-plan", str(tmp_path)]) == 0
    assert (asked["build"][1]["plan"], asked["build"][1]["precision"]) == (plan, None)
    assert main(["optimize", "m.onnx", "--precision-plan", str(tmp_path / "precision.json")]) == 0
    assert asked["optimize"][1]["spec"].plan == plan
    assert main(["build", "m.onnx", "-o", "m.engine", "--precision-plan", str(tmp_path / "mine.json")]) == 2


def test_bench_passes_engines_in_order(asked):
    """Several engines, the end of the profile and the limit arrive."""
    assert main(["bench", "a.engine", "b.engine", "--at", "max", "--time-limit", "3"]) == 0
    (engines,), given = asked["bench"]
    assert engines == ("a.engine", "b.engine")
    assert (given["at"], given["spec"]) == ("max", BenchSpec(limit_s=3.0))


def test_export_passes_opset_and_shapes(asked, capsys):
    """The opset and the profile reach the exporter."""
    assert main(["export", "m.py:net", "-o", "n.onnx", "--opset", "18", "--shapes", "x=1..2x4"]) == 0
    args, given = asked["export"]
    assert args == ("m.py:net", "n.onnx")
    assert (given["opset"], given["shapes"]["x"].at("max")) == (18, (2, 4))
    assert "n.onnx" in capsys.readouterr().out


def test_verify_fails_after_it_has_told(monkeypatch, capsys):
    """A failed verification prints its table, then leaves with the code of VerifyError."""
    failed = VerifyRecord("m.onnx", "random", (), (), 0.5, 1e-3, passed=False)
    monkeypatch.setattr(steps, "verify", lambda *_args, **_kwargs: failed)
    assert main(["verify", "m.engine", "m.onnx"]) == 80
    found = capsys.readouterr()
    assert "FAILED: error 5.00e-01 is above 1.00e-03" in found.out
    assert "error: m.engine does not agree with m.onnx" in found.err
    assert "mend: " in found.err


def test_verify_hands_over_what_layers_need(monkeypatch):
    """The flag, the folder, and what to compare with; a folder alone is a slip."""
    asked = {}
    monkeypatch.setattr(steps, "verify", lambda *_args, **given: asked.update(given) or VERIFY)
    assert main(["verify", "m.engine", "m.onnx", "--layers", "-o", "found", "--against", "n.onnx", "--json"]) == 0
    assert (asked["layers"], asked["output"], asked["against"]) == (True, "found", "n.onnx")
    assert main(["verify", "m.engine", "m.onnx", "--json"]) == 0
    assert (asked["layers"], asked["output"], asked["against"]) == (False, "divergence", None)
    assert main(["verify", "m.engine", "m.onnx", "-o", "found"]) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["build", "m.onnx", "-o", "x", "--backend", "onnxrt"], 3, "did you mean 'onnxruntime'?"),
        (["optimize", "m.onnx", "--backend", "openvin"], 3, "did you mean 'openvino'?"),
        (["optimize", "m.onnx", "--precision", "fp61"], 3, "did you mean 'fp16'?"),
        (["optimize", "m.onnx", "--objective", "latensy"], 3, "did you mean 'latency'?"),
        (["optimize", "m.onnx", "--shapes", "1x3"], 2, "'1x3' names no input"),
        (["optimize", "m.onnx", "--example", "x"], 2, "is not an example input"),
        (["optimize", "m.onnx", "--environment", "old"], 2, "NAME=/path/to/python"),
        (["build", "m.onnx", "-o", "x", "--option", "threads"], 2, "'threads' is no option"),
        (["build", "m.onnx", "-o", "x", "--option", "a=1", "--option", "a=2"], 2, "given twice"),
        (["run", "m.engine", "x.npy", "-o", "out.txt"], 2, "name a .npz or a .npy file"),
    ],
)
def test_bad_words_are_refused_before_any_work(words, code, said, asked, capsys):
    """What cannot be meant is refused at once, with its own code and mend, and no step is called."""
    assert main(words) == code
    assert said in capsys.readouterr().err
    assert not asked


def test_another_environment_may_have_other_backends(asked):
    """With --environment a name that is unknown here may be known there."""
    assert main(["optimize", "m.onnx", "--backend", "elsewhere", "--environment", f"e={sys.executable}"]) == 0
    assert asked["optimize"][1]["spec"].backends == ("elsewhere",)


def test_inspect_takes_a_graph_and_an_engine(tmp_path, small_model, capsys):
    """The same command describes both, as text and as JSON."""
    import onnx_ir as ir

    path, engine = tmp_path / "small.onnx", tmp_path / "small.engine"
    ir.save(small_model, path)
    assert main(["build", str(path), "-o", str(engine), "--backend", "null", "--in-process"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(path)]) == 0
    assert "MatMul 2, Relu 1" in capsys.readouterr().out
    assert main(["inspect", str(engine), "--json"]) == 0
    assert from_json(ManifestRecord, capsys.readouterr().out).backend == "null"
    assert main(["inspect", str(engine)]) == 0
    assert "model.null" in capsys.readouterr().out


def test_run_writes_what_the_engine_answers(tmp_path, small_model, capsys):
    """Outputs go to .npz by name or to one .npy, and a summary to stdout."""
    import onnx_ir as ir

    path, engine, x = tmp_path / "small.onnx", str(tmp_path / "small.engine"), tmp_path / "x.npy"
    ir.save(small_model, path)
    np.save(x, np.ones((2, 4), np.float32))
    assert main(["build", str(path), "-o", engine, "--backend", "null", "--in-process"]) == 0
    assert main(["run", engine, str(x), "-o", str(tmp_path / "out.npz")]) == 0
    assert main(["run", engine, f"x={x}", "-o", str(tmp_path / "out.npy")]) == 0
    with np.load(tmp_path / "out.npz") as found:
        assert found["y"].shape == (2, 3)
    assert np.load(tmp_path / "out.npy").shape == (2, 3)
    capsys.readouterr()
    assert main(["run", engine, str(x), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [2, 3]


def test_run_refuses_wrong_arrays_and_writes_nothing(tmp_path, small_model, capsys):
    """A wrong rank has its own exit code, and no output file appears."""
    import onnx_ir as ir

    path, engine, x = tmp_path / "small.onnx", str(tmp_path / "small.engine"), tmp_path / "x.npy"
    ir.save(small_model, path)
    np.save(x, np.ones((4,), np.float32))
    assert main(["build", str(path), "-o", engine, "--backend", "null", "--in-process"]) == 0
    assert main(["run", engine, str(x), "-o", str(tmp_path / "out.npz")]) == 33
    assert main(["run", engine, "-o", str(tmp_path / "out.npz")]) == 31
    assert not (tmp_path / "out.npz").exists()
    assert "'x'" in capsys.readouterr().err


def test_write_outputs_takes_any_name_and_element_type(tmp_path):
    """An output may be called `file`, hold text, or be of a type that numpy has no name for."""
    import ml_dtypes

    from enginery.cli.run import write_outputs
    from enginery.errors import UsageError

    outputs = {
        "file": np.arange(3),
        "a/b": np.array(["x", "yy"], object),
        "half": np.array([1.5], ml_dtypes.bfloat16),
    }
    write_outputs(outputs, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["file"].tolist() == [0, 1, 2]
        assert found["a/b"].tolist() == ["x", "yy"]
        assert (found["half"].dtype, found["half"].tolist()) == (np.float32, [1.5])
    with pytest.raises(UsageError, match="holds one array"):
        write_outputs(outputs, tmp_path / "out.npy")
