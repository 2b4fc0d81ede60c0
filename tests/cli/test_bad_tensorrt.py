"""TensorRT-RTX given what it should not be given, on the command line and without a GPU; it builds ahead of time."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import refuse

from enginery.dry_running import dry_run
from enginery.reports.text import dry_run_text

pytest.importorskip("tensorrt_rtx")

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"
RTX = ("--backend", "tensorrt_rtx")
SHAPES = ("--shapes", "image=1..4..8x1x8x8")


def model(text: str, path: Path) -> Path:
    """Write a model given as ONNX's own text."""
    import onnx_ir as ir

    ir.save(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17]> {text}'), path)
    return path


@pytest.mark.parametrize(
    ("option", "code", "says"),
    [
        ("workspace=3", 3, ("unknown option 'workspace'", "did you mean 'workspace_mib'?")),
        ("workspace_mib=99999999999999999999", 2, ("'workspace_mib' is 99999999999999999999", "give 0 to ")),
        ("allow_precision=fp16,half", 3, ("unknown precision of option 'allow_precision': 'half'", "bf16, fp16")),
        ("compute_capabilities=9.0", 3, ("builds for no compute capability '9.0'", "8.9, 12.0", "--backend tensorrt")),
    ],
)
def test_option_no_graph_could_be_built_with_is_refused_before_the_export(tmp_path, option, code, says):
    """The program does not begin to work, for an export can take minutes."""
    said = refuse(tmp_path, code, "build", DIGITS, "-o", "x.engine", *RTX, *SHAPES, "--option", option, says=says)
    assert "export" not in said


def test_dry_run_of_texts_tells_their_type_and_their_activations_as_not_known(tmp_path):
    """Texts have no size in bytes."""
    path = model("g (string[3] x) => (string[3] y) { y = Identity(x) }", tmp_path / "texts.onnx")
    record = dry_run(path, backend="tensorrt_rtx", simplify=False, in_process=True)
    assert record.activation_bytes is None
    assert not record.converts
    assert any("STRING" in finding.text.upper() for finding in record.findings)


def test_dry_run_says_one_reason_once(tmp_path):
    """A quantisation that names two nodes is one row, and open axes are one reason."""
    body = "s = Constant<value = float {0.1}>() z = Constant<value = uint8 {128}>() q = QuantizeLinear(x, s, z)"
    path = model(f"g (float[2] x) => (float[2] y) {{ {body} y = DequantizeLinear(q, s, z) }}", tmp_path / "uint8.onnx")
    quantised = dry_run(path, backend="tensorrt_rtx", simplify=False, in_process=True)
    shown = dry_run_text(quantised)
    assert "it will not build: 1 reason\n" in shown
    assert shown.count("quantise to UINT8") == 1
    open_axes = dry_run(DIGITS, backend="tensorrt_rtx", simplify=False, in_process=True)
    assert [finding.severity for finding in open_axes.findings] == ["refused"]


def test_node_without_a_name_that_the_builder_refuses_is_told_as_well(tmp_path):
    """What it says of a layer is traced to the node, and the mend is that of its operator."""
    inputs = "k = Constant<value: tensor = int64 {5}>() i = Constant<value: tensor = float {0.5}>()"
    head = "g (float[1, 9, 4] b, float[1, 3, 9] s) => (int64[N, 3] y)"
    path = model(f"{head} {{ {inputs} y = NonMaxSuppression(b, s, k, i) }}", tmp_path / "nms.onnx")
    says = ("node 'y' (NonMaxSuppression)", "outputs' sizes depend on data", "--option partition=auto")
    refuse(tmp_path, 42, "build", path, "-o", "x.engine", *RTX, "--no-simplify", says=says)


def test_node_without_a_name_is_told_by_what_it_makes(tmp_path):
    """The parser's own word for it is no help; the mend is what TensorRT-RTX leaves to others."""
    text = "g (float[2, 3, 3] x) => (float[2] y) { a = Relu(x) y = Det(a) }"
    path = model(text, tmp_path / "det.onnx")
    says = ("node 'y' (Det)", "--option partition=auto")
    refuse(tmp_path, 42, "build", path, "-o", "x.engine", *RTX, "--no-simplify", says=says)
