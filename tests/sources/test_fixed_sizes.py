"""A batch that a module's code fixes is an error that names the line, whichever line fails, or none."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.cli.main import main
from enginery.errors import ExportError
from enginery.sources import open_source
from enginery.spec import Shape

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.gru = nn.Linear(12, 5), nn.GRU(4, 6, batch_first=True)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))

    def forward(self, x):
        x = torch.relu(x)
        {code}
        return torch.relu(x)
"""
PLANTED = {
    "no later line fails": ("x = x.reshape(4, -1)", 4, "8x3x4 becomes 4x24, and 3x3x4 becomes 4x9"),
    "a batch of one": ("x = x.view(1, -1)", 1, "8x3x4 becomes 1x96, and 3x3x4 becomes 1x36"),
    "rows that do not grow": ("x = x.reshape(4, -1).mean(1)", 4, "8x3x4 becomes 4x24, and 3x3x4 becomes 4x9"),
    "a multiple": ("x = x.view(4 * 3, -1)", 4, "8x3x4 becomes 12x8, and 3x3x4 becomes 12x3"),
    "a later line fails": ("y = x.reshape(4, -1); x = x + 1\n        x = self.fc(y)", 4, "8x3x4 becomes 4x24"),
    "a state": ("h = torch.zeros(1, 4, 6)\n        x = self.gru(x, h)[0]", 4, "it makes 1x4x6 whatever the input"),
    "a token": (
        "t = self.token.expand(4, -1, -1)\n        x = torch.cat([t, x], 1)", 4, "it makes 4x1x4 whatever the input",
    ),
}  # fmt: skip


def planted(folder, code):
    """Write a network with some lines in it; return its path."""
    path = folder / "net.py"
    path.write_text(NET.format(code=code))
    return path


@pytest.mark.parametrize("place", PLANTED)
def test_the_line_is_named(place, tmp_path):
    """The error names the file, the line, its text and the sizes at both batches."""
    code, batch, sizes = PLANTED[place]
    source = open_source(f"{planted(tmp_path, code)}:Net", example_inputs=torch.randn(batch, 3, 4))
    with pytest.raises(ExportError) as caught:
        source.export(shapes={"x": Shape.parse("1..8x3x4")})
    line = code.partition("\n")[0]
    assert f"most likely {'at' if 'gives' in caught.value.message else 'fixed at'} net.py:13, in forward: {line} (" in (
        caught.value.message
    )
    assert sizes in caught.value.message


@pytest.mark.parametrize(
    "code",
    ["x = x[:4]", "x = x.sum(0, keepdim=True)", "x = x.flatten()", "x = x.view(1, x.shape[0], -1)", "x = x.mean()"],
)
def test_what_is_meant_is_taken(code, tmp_path):
    """Rows cut off, sums over the batch and sizes of the input's shape are exported without a word."""
    source = open_source(f"{planted(tmp_path, code)}:Net", example_inputs=torch.randn(4, 3, 4))
    exported = source.export(shapes={"x": Shape.parse("1..8x3x4")})
    assert not any("rows at every batch" in note for note in exported.record.notes)


def test_rows_that_may_be_meant_are_noted(tmp_path):
    """A fixed number of rows that is nobody's batch is exported as it is, with a note that names the line."""
    source = open_source(f"{planted(tmp_path, 'x = x.reshape(4, -1)')}:Net", example_inputs=torch.randn(1, 3, 4))
    exported = source.export(shapes={"x": Shape.parse("1..7..8x3x4")})
    note = next(note for note in exported.record.notes if "rows at every batch" in note)
    assert note.startswith("output 'output' has 4 rows at every batch, most likely because of net.py:13, in forward")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_names_the_operator():
    """Where there are no lines of Python, the operator and its sizes are named."""

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x).reshape(4, -1)

    source = open_source(torch.jit.trace(Fixed(), torch.randn(4, 3, 4)), example_inputs=torch.randn(4, 3, 4))
    with pytest.raises(ExportError, match="most likely at the operator view: 8x3x4 becomes 4x24, and 3x3x4"):
        source.export(shapes={"x": Shape.parse("1..8x3x4")})


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    """`enginery export` ends with code 13, prints the line, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    planted(tmp_path, "x = x.reshape(4, -1)")
    command = ["export", "net.py:Net", "-o", "net.onnx", "--example", "x:float32[4,3,4]", "--shapes", "x=1..8x3x4"]
    assert main(command) == 13
    assert "net.py:13, in forward: x = x.reshape(4, -1)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["net.py"]


def test_the_recorder_leaves_the_numbers_alone(tmp_path):
    """A module computes the same after its operators were recorded, and its example is not changed."""
    source = open_source(f"{planted(tmp_path, 'x = x.reshape(4, -1)')}:Net", example_inputs=torch.ones(4, 3, 4))
    before = source.run(source.example_feeds())["output"]
    with pytest.raises(ExportError):
        source.export(shapes={"x": Shape.parse("1..8x3x4")})
    np.testing.assert_array_equal(source.run(source.example_feeds())["output"], before)
