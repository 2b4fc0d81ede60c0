"""What is said before a build: what will not convert, how it would be shared, and what memory it takes."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from enginery import optional
from enginery.backends.dry_run import dry_run
from enginery.cli.main import main
from enginery.reports.text import dry_run_text
from enginery.spec import BuildSpec, parse_shapes

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
WEIGHTS = "<float[3, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}>"
UNIQUE = f"""g (float[n, 3] x) => (float[n, 3] y) {WEIGHTS} {{
    [m] a = MatMul(x, w) [relu] b = Relu(a) [unique] u = Unique(b) [size] s = Size(u)
    [cast] f = Cast <to = 1> (s) [add] c = Add(b, f) [n] y = MatMul(c, w) }}"""
PLAIN = f"g (float[n, 3] x) => (float[n, 3] y) {WEIGHTS} {{ [m] a = MatMul(x, w) [relu] y = Relu(a) }}"
on_rtx = pytest.mark.skipif(not optional.installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")


def look(text: str, backend: str, *shapes: str, **spec):
    """Make a dry run of a graph."""
    return dry_run(ir.from_onnx_text(HEAD + text), BuildSpec(parse_shapes(shapes), **spec), backend=backend)


def test_every_backend_is_asked_for_precision_and_profiles():
    """A precision that is not to be had will not build; open axes are told with how to close them."""
    found = look(PLAIN, "onnxruntime", precision="fp8")
    assert not found.converts
    assert found.findings[0].text.startswith("backend 'onnxruntime' cannot compute in fp8 on this machine: it has no ")
    assert "--shapes x=1..8..32x3" in [finding.mend.removeprefix("say its sizes: ") for finding in found.findings]
    assert found.activation_bytes is None


def test_memory_is_estimated_at_the_largest_sizes():
    """At most two tensors of 8 times 3 floats live at one time; the weights are nine floats."""
    found = look(PLAIN, "onnxruntime", "x=1..4..8x3")
    assert (found.activation_bytes, found.weights_bytes, found.nodes) == (2 * 8 * 3 * 4, 36, 2)
    assert found.converts
    assert "192 B at the max sizes" in dry_run_text(found)


def test_shape_that_does_not_fit_will_not_build():
    """It is a finding as the build's error would be, with its mend."""
    found = look(PLAIN, "onnxruntime", "x=1..4..8x5")
    assert not found.converts
    assert "axis 1: 5 was asked for, but the graph has fixed it at 3" in found.findings[0].text


def test_operator_set_that_is_not_read_will_not_build():
    """The backend's limit and the graph's version are named."""
    text = PLAIN
    model = ir.from_onnx_text(HEAD.replace("17", "6") + text)
    found = dry_run(model, BuildSpec(), backend="onnxruntime")
    assert found.findings[0].text == "onnxruntime reads opset 7 at least and the graph has 6"


@on_rtx
def test_operator_without_importer():
    """It is named, and the parts are shown that the option would make."""
    found = look(UNIQUE, "tensorrt_rtx", "x=1..4..8x3")
    assert not found.converts
    assert found.findings[0].subject == "unique"
    assert found.findings[0].text.startswith("'unique' (Unique) cannot be built: TensorRT-RTX")
    assert [part.nodes for part in found.parts] == [("m", "relu"), ("unique", "size"), ("cast", "add", "n")]
    assert [part.handed_over_bytes for part in found.parts] == [0, 4 * 3 * 4, 4 * 3 * 4 + 8]
    assert "Unique makes u, whose size depends on data" in [finding.text for finding in found.findings]


@on_rtx
def test_option_turns_refusals_into_moves():
    """With partition=auto the graph converts, in parts; where nothing is left, it does not."""
    found = look(UNIQUE, "tensorrt_rtx", "x=1..4..8x3", options={"partition": "auto"})
    assert found.converts
    assert found.findings[0].severity == "moved"
    assert "it builds in 3 parts" in dry_run_text(found)
    found = look("g (float[4] x) => (int64[k, m] y) { y = NonZero(x) }", "tensorrt_rtx", options={"partition": "auto"})
    assert not found.converts
    assert found.findings[0].text == "cut in parts, nothing of this graph would be left for tensorrt_rtx"


@on_rtx
def test_parser_reads_the_graph_where_all_operators_are_listed():
    """MaxPool is listed, and with indices it is refused; a graph that the parser takes may still fail."""
    text = """g (float[1, 1, 3, 3] x) => (float[1, 1, 2, 2] y, int64[1, 1, 2, 2] i) {
        [relu] a = Relu(x) [pool] y, i = MaxPool <kernel_shape = [2, 2]> (a) }"""
    found = look(text, "tensorrt_rtx")
    assert [finding.subject for finding in found.findings if finding.severity == "refused"] == ["pool"]
    assert "node 'pool' (MaxPool)" in found.findings[0].text
    found = look(PLAIN, "tensorrt_rtx", "x=1..4..8x3")
    assert found.converts
    assert found.findings[0].text.endswith("takes all of it; only a build proves that it builds")


@on_rtx
def test_profiles_and_types_that_are_missing():
    """Open axes without a range will not build; an input of a type that TensorRT has not may not."""
    found = look(PLAIN, "tensorrt_rtx")
    assert not found.converts
    assert "no range was given for open axes" in found.findings[0].text
    found = look("g (int16[2] x) => (float[2] y) { [cast] y = Cast <to = 1> (x) }", "tensorrt_rtx")
    assert {"x", "cast"} <= {finding.subject for finding in found.findings}


def test_command_line_says_it_by_its_exit_code(tmp_path, capsys):
    """0 where it converts, 42 where not; nothing is written."""
    path = tmp_path / "model.onnx"
    ir.save(ir.from_onnx_text(HEAD + PLAIN), path)
    assert main(["build", str(path), "--dry-run", "--shapes", "x=1..4x3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["backend"] == "onnxruntime"
    assert record["nodes"] == 2
    assert main(["build", str(path), "--dry-run", "--precision", "fp8", "--in-process"]) == 42
    assert "it will not build: 1 reason" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
