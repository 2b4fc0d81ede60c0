"""`enginery onnx2trt`: letters as getopt takes them, and real plans built ahead of time by TensorRT-RTX."""

from __future__ import annotations

import re

import onnx
import pytest
from onnx import TensorProto, helper

from enginery import backends, steps
from enginery.cli.main import main
from enginery.cli.onnx2trt import ONNX2TRT, split_letters

RTX = "tensorrt_rtx"
builds = pytest.mark.skipif(not backends.get(RTX).probe().available, reason="tensorrt_rtx is not installed")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Work in an empty folder; caches go there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(sizes: list[int | str]) -> None:
    """Write `m.onnx`, y = relu(x), with these sizes."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "act")], "net", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "m.onnx")


@pytest.mark.parametrize(
    ("words", "parted"),
    [
        (["-vl", "m.onnx"], ["-v", "-l", "m.onnx"]),
        (["-b8", "-d16"], ["-b", "8", "-d", "16"]),
        (["-vom.plan"], ["-v", "-o", "m.plan"]),
        (["-o", "m.plan", "--backend=x"], ["-o", "m.plan", "--backend=x"]),
        (["-vx"], ["-v", "-x"]),
        (["-"], ["-"]),
    ],
)
def test_letters_may_stand_together(words, parted):
    """As C's getopt reads them; a value may be joined to its letter."""
    assert split_letters(words) == parted


@builds
def test_a_plan_is_built_for_every_batch(capsys):
    """-b is the largest batch, -d the precision, -w bytes, -l the layers."""
    write(["batch", 4])
    words = ["m.onnx", "-o", "m.plan", "-b", "8", "-d", "16", "-w", str(64 << 20), "-l", "--backend", RTX]
    assert main(["onnx2trt", *words]) == 0
    told = capsys.readouterr()
    assert re.search(r"act\s+ACTIVATION\s+fp16", told.out)
    assert told.out.splitlines()[-1].startswith("&&&& PASSED TensorRT.onnx2trt [TensorRT-RTX v")
    assert "note: -b: the first axis of each input, where it is dynamic, goes from 1 to N (32)" in told.err
    manifest = steps.inspect("m.plan.engine")
    assert str(manifest.inputs[0].profile) == "batch:1..8..8x4"
    assert manifest.precision == "fp16"
    assert manifest.options["workspace_mib"] == 64


@builds
def test_the_defaults_are_onnx2trts(capsys):
    """Batches to 32 in float32; a fixed size stays; -q leaves the meanings out."""
    write(["batch", 4])
    assert main(["onnx2trt", "m.onnx", "-qom.plan", "--backend", RTX]) == 0
    assert str(steps.inspect("m.plan.engine").inputs[0].profile) == "batch:1..32..32x4"
    assert steps.inspect("m.plan.engine").precision == "fp32"
    assert "note: -o" not in capsys.readouterr().err
    write([2, 4])
    assert main(["onnx2trt", "m.onnx", "-om.plan", "--backend", RTX]) == 0
    assert str(steps.inspect("m.plan.engine").inputs[0].profile) == "2x4"


@builds
@pytest.mark.parametrize(
    ("sizes", "words", "code", "said"),
    [
        (["b", 4], ["m.onnx"], 2, "write it as: enginery onnx2trt model.onnx -o model.plan"),
        (["b", 4], ["-o", "m.plan"], 2, "no model and a plan are named"),
        (["b", 4], ["m.onnx", "-om.plan", "-d", "12"], 2, "give the bits of a number: 32, 16 or 8"),
        (["b", 4], ["m.onnx", "-om.plan", "-b", "0"], 2, "-b is '0'; give a whole number"),
        (["b", "n"], ["m.onnx", "-om.plan"], 2, "leaves more than its first axis open"),
        ([2, 4], ["m.onnx", "-om.plan", "-b", "8"], 2, "the model has fixed every size"),
        (["b", 4], ["m.onnx", "-om.plan", "-x"], 3, "onnx2trt has no flag -x"),
        (["b", 4], ["m.onnx", "-om.plan", "-d8"], 20, "the graph has no QuantizeLinear nodes"),
    ],
)
def test_wrong_lines_fail(sizes, words, code, said, capsys):
    """Each with its mend, and FAILED as the last line of stdout."""
    write(sizes)
    assert main(["onnx2trt", *words, "--backend", RTX]) == code
    told = capsys.readouterr()
    assert said in told.err.replace("\nmend: ", "; ")
    assert told.out.splitlines()[-1].startswith("&&&& FAILED TensorRT.onnx2trt")


@pytest.mark.parametrize("flag", [flag for flag in ONNX2TRT.flags if flag.mend], ids=lambda flag: flag.name)
def test_a_flag_that_cannot_be_honoured_is_refused(flag, capsys):
    """It says why and what to do instead."""
    assert main(["onnx2trt", "m.onnx", f"-{flag.name}", *(["x"] if flag.takes else [])]) == 2
    assert f"error: -{flag.name} of onnx2trt: {flag.here}\nmend: {flag.mend}\n" in capsys.readouterr().err


def test_versions_and_help(capsys):
    """-V names both libraries, -h every flag."""
    assert main(["onnx2trt", "-V"]) == 0
    assert re.search(r"^enginery \S+\nTensorRT .+\nTensorRT-RTX .+$", capsys.readouterr().out, re.MULTILINE)
    assert main(["onnx2trt", "-h"]) == 0
    text = capsys.readouterr().out
    assert all(flag.spelt in text and flag.here in text for flag in ONNX2TRT.flags)
