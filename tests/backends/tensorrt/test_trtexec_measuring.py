"""`enginery trtexec` from a plan to its summary and files, where the GPU is one of numpy memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest
from clocked_gpu import ClockedRuntime
from fake_gpu import PROFILE, DataType, FakeEngine, FakeRuntime, X, Y, doubling, fake_api, session_of
from onnx import TensorProto, helper

from enginery import backends, steps, storage
from enginery.backends.base import Availability
from enginery.backends.tensorrt import foreign_plan, rtx
from enginery.cli.main import main
from enginery.errors import BuildError
from enginery.records import LayerRecord
from enginery.spec import Shape

pytestmark = pytest.mark.skipif(not backends.get("tensorrt_rtx").probe().available, reason="tensorrt_rtx is not here")


@pytest.fixture
def opened_with(tmp_path, monkeypatch):
    """Build `m.plan` of y = 2 x with TensorRT-RTX, then let the library open it on the fake GPU; note the options."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ENGINERY_TRTEXEC_BACKEND", "tensorrt_rtx")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"], "double")], "net", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")
    shapes = {"minShapes": "x:1x3", "optShapes": "x:4x3", "maxShapes": "x:8x3"}
    words = [f"--{name}={spec}" for name, spec in shapes.items()]
    assert main(["trtexec", "--onnx=m.onnx", "--saveEngine=m.plan", "--skipInference", *words]) == 0
    taken: dict[str, object] = {}
    gpu = ClockedRuntime()

    def open_on_fake(_folder, _manifest, options):
        taken.update(options)
        return session_of(doubling(gpu), gpu, (X,), (Y,))._runner

    version = rtx.probe().version
    monkeypatch.setattr(rtx, "probe", lambda: Availability(available=True, version=version))
    monkeypatch.setattr(rtx, "open", open_on_fake)
    return taken


SHORT = ("--duration=0", "--warmUp=0", "--iterations=12")


def test_a_plan_is_measured(opened_with, capsys):
    """The summary has its rows, the last line is PASSED; the folder beside the plan was opened, as asked."""
    capsys.readouterr()
    assert main(["trtexec", "--loadEngine=m.plan", *SHORT, "--useCudaGraph", "--streams=2", "--percentile=50"]) == 0
    told = capsys.readouterr()
    assert opened_with["cuda_graph"] is True
    assert opened_with["spin"] is False
    assert re.search(r"^Throughput: [\d.e+]+ qps$", told.out, re.MULTILINE)
    assert re.search(r"^Latency: min = .* percentile\(50%\) = [\d.e-]+ ms$", told.out, re.MULTILINE)
    assert "Measured on fake: x:4x3" in told.out
    assert "Streams 2, CUDA graph on, spin-wait off, data transfers on" in told.out
    assert told.out.splitlines()[-1].startswith("&&&& PASSED TensorRT.trtexec")
    assert "no flag names spin-wait, data transfers: as trtexec 10 measures" in told.err


def test_files_and_dumps_are_written(opened_with, capsys):
    """Times, layers and outputs, with trtexec's names; the last query's values are really those of the inputs."""
    Path("x.bin").write_bytes(bytes(24))
    words = ["--exportTimes=t.json", "--exportProfile=p.json", "--exportOutput=o.json", "--dumpProfile", "--dumpOutput"]
    assert (
        main(["trtexec", "--loadEngine=m.plan.engine", *SHORT, *words, "--shapes=x:2x3", "--loadInputs=x:x.bin"]) == 0
    )
    told = capsys.readouterr()
    times = json.loads(Path("t.json").read_text())
    assert len(times) == 12
    assert all(row["startH2dMs"] <= row["endComputeMs"] <= row["endD2hMs"] for row in times)
    profile = json.loads(Path("p.json").read_text())
    assert profile[0] == {"count": 10}
    assert [row["name"] for row in profile[1:]] == ["conv1", "fc"]
    assert json.loads(Path("o.json").read_text()) == [{"name": "y", "dimensions": "2x3", "values": [0.0] * 6}]
    assert "=== Profile (10 iterations) ===" in told.out
    assert re.search(r"y\s+float32\s+2x3", told.out)
    assert opened_with["cuda_graph"] is False


def test_only_loading_is_timed(opened_with, capsys):
    """--timeDeserialize measures no query."""
    capsys.readouterr()
    assert main(["trtexec", "--loadEngine=m.plan", "--timeDeserialize", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["queries"] == []
    assert record["load_ms"] > 0
    assert opened_with


@pytest.mark.usefixtures("opened_with")
def test_best_takes_no_options_of_one_build(capsys):
    """Each precision is built with the library's own, so a flag that would be lost is refused."""
    assert main(["trtexec", "--onnx=m.onnx", "--best", "--builderOptimizationLevel=5", "--shapes=x:2x3"]) == 2
    assert (
        "--best tries each precision with the library's own options, not optimization_level" in capsys.readouterr().err
    )


def test_sizes_outside_the_profile_are_refused(opened_with, capsys):
    """Before anything is opened."""
    assert main(["trtexec", "--loadEngine=m.plan", "--shapes=x:9x3"]) == 34
    assert "--shapes gives input 'x' 9x3, and the engine takes batch:1..4..8x3" in capsys.readouterr().err
    assert opened_with == {}


def test_a_folder_is_made_around_a_foreign_plan(opened_with, monkeypatch, capsys):
    """What the plan says of itself stands in the manifest, what it cannot say is unknown; then it is measured."""
    layer = LayerRecord("double", "ELEMENTWISE", "fp32")
    found = foreign_plan._Opened((X,), (Y,), ({"x": Shape.parse("1..1..2x3")},), (layer,))
    monkeypatch.setattr(foreign_plan, "_open", lambda *_: found)
    Path("foreign.plan").write_bytes(Path("m.plan").read_bytes())
    assert main(["trtexec", "--loadEngine=foreign.plan", "--saveEngine=kept.plan", *SHORT]) == 0
    told = capsys.readouterr()
    manifest = steps.inspect("kept.plan.engine")
    assert manifest.precision == "unknown"
    assert manifest.precision_built == {"fp32": 1}
    assert manifest.inputs == (X,)
    assert [str(profile["x"]) for profile in manifest.profiles] == ["1..1..2x3"]
    hashes = {storage.hash_file(Path(name)) for name in ("foreign.plan", "kept.plan")}
    assert hashes == {manifest.files["model.plan"].sha256}
    assert "Note: another tool built this plan" in told.out
    assert opened_with["cuda_graph"] is False


def test_an_engines_tensors_are_read_by_name():
    """Names for sizes that vary, the first profile with the inputs, the others apart; elements of no array refused."""

    class Engine(FakeEngine):
        def is_shape_inference_io(self, name):
            return name in self.host

    given = {
        "inputs": {"x": (DataType.FLOAT, (-1, 3)), "sizes": (DataType.INT32, (2,))},
        "outputs": {"y": (DataType.HALF, (-1, 3), None)},
        "compute": None,
        "profiles": ({**PROFILE}, {"x": ((2, 3), (2, 3), (2, 3))}),
        "host": ("sizes",),
    }
    inputs, outputs, profiles = foreign_plan.read_infos(fake_api(), Engine(FakeRuntime(), **given))
    assert [(info.name, info.dtype, info.shape) for info in (*inputs, *outputs)] == [
        ("x", "float32", ("x_0", 3)), ("sizes", "int32", (2,)), ("y", "float16", ("y_0", 3)),
    ]  # fmt: skip
    assert [info.profile and str(info.profile) for info in inputs] == ["1..4..8x3", None]
    assert {name: str(shape) for name, shape in profiles[0].items()} == {"x": "2x3"}
    given["outputs"] = {"y": (DataType.FP4, (3,), None)}
    with pytest.raises(BuildError, match="tensor 'y' of the plan holds FP4"):
        foreign_plan.read_infos(fake_api(), Engine(FakeRuntime(), **given))
