"""`enginery trtexec`: real plans, built ahead of time by TensorRT-RTX; what happens without a GPU."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from enginery import backends, steps
from enginery.backends.tensorrt import foreign_plan
from enginery.cli.main import main
from enginery.errors import EngineFolderError
from enginery.trtexec_spec import TrtexecSpec, choose_library

RTX = "tensorrt_rtx"
builds = pytest.mark.skipif(not backends.get(RTX).probe().available, reason="tensorrt_rtx is not installed")
no_gpu = pytest.mark.skipif(backends.get(RTX).probe().usable, reason="a GPU is here, so the engine would run")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder, with the library of these tests; caches go there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINERY_TRTEXEC_BACKEND", RTX)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    """Write a small network with a dynamic batch."""
    weights = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "mm"), helper.make_node("Relu", ["h"], ["y"], "act")]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", s]) for n, s in (("x", 4), ("y", 8)))
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(weights, "w")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "m.onnx")
    return "m.onnx"


@builds
def test_a_plan_is_built_with_its_engine_folder(model, capsys):
    """The plan is the folder's artefact byte for byte; the last line says PASSED; the library is named loudly."""
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--skipInference", "--optShapes=x:4x4"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    line = r"# enginery trtexec --onnx=m.onnx --saveEngine=m.plan --skipInference --optShapes=x:4x4"
    assert re.fullmatch(rf"&&&& RUNNING TensorRT\.trtexec \[TensorRT-RTX v\d+\] {line}", lines[0])
    assert re.fullmatch(rf"&&&& PASSED TensorRT\.trtexec \[TensorRT-RTX v\d+\] {line}", lines[-1])
    assert "note: --optShapes: sizes to be fast at; alone, the only sizes" in told.err
    manifest = steps.inspect("m.plan.engine")
    assert hashlib.sha256(Path("m.plan").read_bytes()).hexdigest() == manifest.files["model.plan"].sha256
    assert manifest.precision == "tf32"
    assert str(manifest.inputs[0].profile) == "4x4"


@builds
def test_fp16_types_the_graph(model, capsys):
    """The layers that were built say so, on the screen and in the file."""
    words = [f"--onnx={model}", "--saveEngine", "m.plan", "-buildOnly", "--fp16", "--dumpLayerInfo"]
    assert main(["trtexec", *words, "--exportLayerInfo=l.json", "--shapes=x:2x4"]) == 0
    told = capsys.readouterr()
    assert "precision fp16 for the whole graph (TensorRT-RTX has no such flag: the graph is typed)" in told.err
    assert re.search(r"mm\s+MATRIX_MULTIPLY\s+fp16", told.out)
    layers = {layer["Name"]: layer["Precision"] for layer in json.loads(Path("l.json").read_text())["Layers"]}
    assert layers["mm"] == layers["act"] == "fp16"
    assert json.loads(Path("l.json").read_text())["Bindings"] == ["x", "y"]
    assert steps.inspect("m.plan.engine").precision == "fp16"


@builds
def test_single_nodes_have_their_own_precision(model):
    """--layerPrecisions is the plan of the graph."""
    words = ["--precisionConstraints=obey", "--layerPrecisions=*:fp16,act:fp32", "--shapes=x:2x4", "--skipInference"]
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", *words, "--exportLayerInfo=l.json"]) == 0
    layers = {layer["Name"]: layer["Precision"] for layer in json.loads(Path("l.json").read_text())["Layers"]}
    assert (layers["mm"], layers["act"]) == ("fp16", "fp32")


@builds
def test_profiles_and_options_reach_the_engine(model):
    """Two profiles, and the builder's options, stand in the manifest."""
    words = [
        "--minShapes=x:1x4", "--optShapes=x:2x4", "--maxShapes=x:4x4", "--profile=1", "--minShapes=x:8x4",
        "--optShapes=x:16x4", "--maxShapes=x:32x4", "--builderOptimizationLevel=2", "--memPoolSize=workspace:64M",
    ]  # fmt: skip
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--skipInference", *words]) == 0
    manifest = steps.inspect("m.plan.engine")
    assert str(manifest.inputs[0].profile) == "batch:1..2..32x4"
    assert [str(profile["x"]) for profile in manifest.profiles] == ["batch:8..16..32x4"]
    assert manifest.options["optimization_level"] == 2
    assert manifest.options["workspace_mib"] == 64


@builds
def test_json_is_the_record_alone(model, capsys):
    """Nothing else stands on stdout."""
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--skipInference", "--json"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["backend"] == RTX
    assert record["plan"] == "m.plan"
    assert record["queries"] == []
    assert "no sizes are given for input 'x': 1x4 is taken, as trtexec does" in told.err


@builds
def test_types_of_inputs_are_held_against_the_model(model, capsys):
    """What the model has is taken; another type is refused before anything is built."""
    words = ["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--skipInference", "--shapes=*:2x4"]
    assert main([*words, "--inputIOFormats=fp32:chw", "--outputIOFormats=chw"]) == 0
    assert main([*words, "--inputIOFormats=fp16:chw"]) == 2
    told = capsys.readouterr()
    assert "--inputIOFormats says float16 of input 'x', which is float32" in told.err
    assert main([*words, "--inputIOFormats=chw,chw"]) == 2
    assert main(["trtexec", f"--onnx={model}", "--shapes=*z:2x4", "--skipInference"]) == 3


@builds
@no_gpu
def test_measuring_without_a_gpu_fails_after_the_build(model, capsys):
    """The plan is kept, and the last line says FAILED; the exit code is that of a missing device."""
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--shapes=x:2x4"]) == 41
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith("&&&& FAILED TensorRT.trtexec [TensorRT-RTX v")
    assert "measuring it will fail; --skipInference only builds" in told.err
    assert "no NVIDIA GPU is here" in told.err
    assert "no flag names CUDA graph, spin-wait, data transfers: as trtexec 10 measures" in told.err
    assert steps.inspect("m.plan.engine").backend == RTX
    assert main(["trtexec", f"--onnx={model}", "--best", "--shapes=x:2x4"]) == 41
    for loaded in ("m.plan", "m.plan.engine"):
        assert main(["trtexec", f"--loadEngine={loaded}"]) == 41


@builds
@no_gpu
def test_a_plan_of_another_tool_names_who_wrote_it(model, tmp_path, capsys):
    """Its header is read before anything of it is loaded."""
    assert main(["trtexec", f"--onnx={model}", "--saveEngine=m.plan", "--skipInference"]) == 0
    foreign = tmp_path / "foreign.plan"
    foreign.write_bytes((tmp_path / "m.plan").read_bytes())
    version = backends.get(RTX).probe().version
    assert foreign_plan.read_header(foreign) == foreign_plan.PlanHeader(RTX, version)
    assert main(["trtexec", "--loadEngine=foreign.plan"]) == 41
    assert f"foreign.plan, written by TensorRT-RTX {version}, cannot be opened here" in capsys.readouterr().err
    assert main(["trtexec", "--loadEngine=foreign.plan", "--getPlanVersionOnly"]) == 0
    assert f"Note: the plan was written by version {version}" in capsys.readouterr().out


def test_a_file_that_is_no_plan_is_refused(tmp_path, monkeypatch, capsys):
    """Also one that is cut short, and one that is not there."""
    monkeypatch.delenv("ENGINERY_TRTEXEC_BACKEND")
    for name, content in (("text.plan", b"not a plan of any kind, by far"), ("short.plan", b"ftrt\0")):
        (tmp_path / name).write_bytes(content)
        assert main(["trtexec", f"--loadEngine={name}"]) == EngineFolderError.exit_code
        assert "does not begin as a TensorRT plan does" in capsys.readouterr().err
    assert main(["trtexec", "--loadEngine=none.plan"]) == EngineFolderError.exit_code
    (tmp_path / "old.plan").write_bytes(b"ftrt" + bytes(40))
    assert foreign_plan.read_header(tmp_path / "old.plan") == foreign_plan.PlanHeader("tensorrt", "")
    with pytest.raises(EngineFolderError, match=r"written by TensorRT .*load it with tensorrt"):
        foreign_plan.adopt(tmp_path / "old.plan", tmp_path / "e", backend=RTX)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--fp16"], 2, "name either a model to build from or a plan to load"),
        (["--onnx=m.onnx", "--loadEngine=m.plan"], 2, "give --onnx or --loadEngine"),
        (["--onnx=none.onnx", "--skipInference"], 11, "none.onnx"),
        (["--onnx=m.onnx", "--backend=tensorrt_rxt"], 3, "did you mean 'tensorrt_rtx'?"),
        (["--onnx=m.onnx", "--saveEngine=.", "--skipInference"], 61, "is a folder"),
        (["--getPlanVersionOnly", "--onnx=m.onnx"], 2, "reads a plan, and none is named"),
    ],
)
@builds
@pytest.mark.usefixtures("model")
def test_wrong_lines_fail(words, code, said, capsys):
    """Each with its own code, and FAILED as the last line of stdout."""
    assert main(["trtexec", *words]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert told.out.splitlines()[-1].startswith("&&&& FAILED TensorRT.trtexec")


@builds
def test_the_library_that_is_here_is_chosen_loudly(monkeypatch):
    """Where TensorRT is missing, TensorRT-RTX builds, and the note says what that means."""
    monkeypatch.delenv("ENGINERY_TRTEXEC_BACKEND")
    if backends.get("tensorrt").probe().available:
        assert choose_library(TrtexecSpec(onnx="m.onnx")).backend == "tensorrt"
        return
    chosen = choose_library(TrtexecSpec(onnx="m.onnx"))
    assert chosen.backend == RTX
    assert "BUILDS THIS, and not TensorRT" in chosen.note
    assert choose_library(TrtexecSpec(onnx="m.onnx", backend=RTX)).note == ""


@builds
def test_verbose_shows_the_librarys_log(model, capfd):
    """In this process, on stderr."""
    assert main(["trtexec", f"--onnx={model}", "--skipInference", "--verbose", "--shapes=x:2x4"]) == 0
    assert "INFO: Detected 1 inputs and 1 output network tensors." in capfd.readouterr().err
