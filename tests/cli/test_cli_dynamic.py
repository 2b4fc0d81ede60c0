"""The flag --make-dynamic on the real command line."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from enginery.cli.main import main
from enginery.graph import files

FIXED = """<ir_version: 8, opset_import: ["": 17]> fixed (float[1, 2, 3] x) => (float[1, 4] y) <int64[2] s = {1, -1}> {
    f = Reshape(x, s) y = Gemm(f, w)
}"""


@pytest.fixture
def fixed(tmp_path):
    """Return the path of a model whose batch is 1."""
    model = ir.from_onnx_text(FIXED, [
        ir.tensor(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32), name="w")
    ])  # fmt: skip
    files.save(model, tmp_path / "fixed.onnx")
    return tmp_path / "fixed.onnx"


def test_an_engine_takes_several_rows(fixed, capsys):
    """A model with a batch of 1 is built for 1 to 8 and verified at both ends."""
    engine = str(fixed.with_suffix(".engine"))
    shapes = ["--make-dynamic", "batch", "--shapes", "x=1..4..8x2x3"]
    assert main(["build", str(fixed), "-o", engine, "--no-simplify", *shapes]) == 0
    capsys.readouterr()
    assert main(["verify", engine, str(fixed), "--make-dynamic", "batch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_what_cannot_be_dynamic_leaves_nothing(fixed, capsys):
    """An axis whose size is in the weights is refused with the node's name, and no file is written."""
    output = fixed.with_name("dynamic.onnx")
    assert main(["export", str(fixed), "-o", str(output), "--make-dynamic", "height=x:1"]) == 20
    said = capsys.readouterr().err
    assert "this graph cannot have a dynamic 'height': Gemm 'y' [1x4]: " in said
    assert "mend: export the model again with axis 1 of input 'x' dynamic" in said
    assert not output.exists()


def test_an_unknown_input_is_a_slip(fixed, capsys):
    """An input that is not there has the exit code of unknown names, and the nearest is suggested."""
    assert main(["export", str(fixed), "-o", str(fixed.with_name("never.onnx")), "--make-dynamic", "batch=xx:0"]) == 3
    assert "did you mean 'x'?" in capsys.readouterr().err
