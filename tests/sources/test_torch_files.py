"""Files of PyTorch: programs and TorchScript export, and whatever would run code, or is no model, is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import (
    CorruptModelError,
    CustomOperatorError,
    SourceError,
    SourceNotFoundError,
    UnsafeModelError,
    UsageError,
)
from enginery.sources import open_source
from enginery.spec import Example, parse_shapes

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
nn = torch.nn


class Scaled(nn.Module):
    """Two inputs, one by keyword; a buffer; a nested output."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x, *, scale):
        y = (self.layer(x) + self.shift) * scale
        return {"states": y, "pooled": (y.mean(1), y.amax(1))}


@pytest.fixture(scope="module")
def program():
    """An exported program with a dynamic batch up to 64, and a dynamic length."""
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=1)
    return torch.export.export(
        Scaled().eval(),
        (torch.randn(2, 5, 4),),
        {"scale": torch.ones(2, 1, 1)},
        dynamic_shapes={"x": {0: batch, 1: length}, "scale": {0: batch}},
    )


@pytest.fixture(scope="module")
def archive(program, tmp_path_factory):
    """Path of the program saved."""
    path = tmp_path_factory.mktemp("programs") / "model.pt2"
    torch.export.save(program, path)
    return path


def rewritten(archive, path, change):
    """Write an archive anew, with each entry as `change(name, data)` gives it."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def assert_agree(source, graph, feeds):
    """The source and its graph give the same names and numbers."""
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    expected = source.run(feeds)
    assert list(expected) == names
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def test_a_program_keeps_its_own_axes_and_inputs(archive):
    """A file brings its example inputs and dynamic axes; equal symbols share a name; module paths are there."""
    source = open_source(archive)
    assert source.label == "model.pt2 (torch program)"
    assert source.framework.endswith("exported program")
    exported = source.export(shapes={})
    assert exported.record.exporter == "torch.onnx.export (ExportedProgram)"
    assert [(v.name, str(v.shape)) for v in exported.graph.graph.inputs] == [
        ("x", "[batch,dim1,4]"),
        ("scale", "[batch,1,1]"),
    ]
    assert [(v.name, str(v.shape)) for v in exported.graph.graph.outputs] == [
        ("states", "[batch,dim1,3]"),
        ("pooled_0", "[batch,3]"),
        ("pooled_1", "[batch,3]"),
    ]
    assert_agree(source, exported.graph, source.example_feeds())
    rng = np.random.default_rng(0)
    assert_agree(
        source,
        exported.graph,
        {"x": rng.random((3, 7, 4), np.float32), "scale": rng.random((3, 1, 1), np.float32)},
    )


def test_a_program_in_memory_takes_the_names_asked_for(program):
    """A range with a name names the program's axis everywhere; opset 17 falls back to tracing."""
    source = open_source(program)
    shapes = parse_shapes(["x=b:1..4xlen:1..5..9x4;scale=b:1..4x1x1"])
    exported = source.export(shapes=shapes)
    assert str(exported.graph.graph.inputs[0].shape) == "[b,len,4]"
    assert str(exported.graph.graph.outputs[0].shape) == "[b,len,3]"
    assert exported.record.dynamic_axes == {"x": ("b", "len"), "scale": ("b",)}
    old = source.export(shapes=shapes, opset=17)
    assert old.record.exporter == "torch.onnx.export (TorchScript)"
    assert_agree(source, old.graph, source.example_feeds())


def test_sizes_that_follow_from_one_another():
    """A program whose sizes are formulas of one another keeps them, and the note says what was not varied."""

    class Halves(nn.Module):
        def forward(self, x, y):
            return x.reshape(x.shape[0], 2, -1).sum(1) + y

    batch, half = torch.export.Dim("batch"), torch.export.Dim("half")
    made = torch.export.export(
        Halves(), (torch.randn(2, 8), torch.randn(2, 4)), dynamic_shapes=({0: batch, 1: 2 * half}, {0: batch, 1: half})
    )
    source = open_source(made)
    exported = source.export(shapes={})
    assert [str(value.shape) for value in exported.graph.graph.inputs] == ["[batch,2*dim1]", "[batch,dim1]"]
    assert exported.record.notes == ("sizes follow from dim1, which was checked at one value only",)
    rng = np.random.default_rng(0)
    assert_agree(source, exported.graph, {"x": rng.random((3, 6), np.float32), "y": rng.random((3, 3), np.float32)})


def test_a_program_in_half_precision_stays_so():
    """What a program computes in is part of it, and a note says so."""
    made = torch.export.export(nn.Linear(4, 3).half(), (torch.randn(2, 4).half(),))
    exported = open_source(made).export(shapes={})
    assert exported.graph.graph.inputs[0].dtype == ir.DataType.FLOAT16
    assert exported.record.notes == ("the program's float16 parameters stay so in the graph",)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ("x=2x5x4,scale=2x1..3x1", r"input 'scale', axis 1 is fixed at 1 in .*, 1\.\.3\.\.3 was asked for; ask for 1"),
        (
            "x=1..128x5x4",
            r"input 'x', axis 0 may be 1\.\.64 in .*, 1\.\.128\.\.128 was asked for.*export it again with",
        ),
        ("x=2x5x7", r"input 'x', axis 2 is fixed at 4 in .*, 7 was asked for"),
    ],
)
def test_a_program_is_not_stretched(program, shapes, message):
    """A range or size that a program does not have names the axis and how to export it again."""
    with pytest.raises(SourceError, match=message):
        open_source(program).export(shapes=parse_shapes([shapes]))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["trace", "script"])
def test_torchscript_files(kind, tmp_path):
    """A file of TorchScript exports with a dynamic batch, under the name that its example gives."""
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    made = torch.jit.trace(module, torch.randn(2, 4)) if kind == "trace" else torch.jit.script(module)
    torch.jit.save(made, tmp_path / "model.pt")
    source = open_source(tmp_path / "model.pt", examples=[Example.parse("features:float32[1,4]")])
    assert source.framework.endswith("TorchScript")
    exported = source.export(shapes=parse_shapes(["features=1..8x4"]))
    assert [str(v.shape) for v in exported.graph.graph.outputs] == ["[batch,3]"]
    assert exported.record.notes == ()
    for batch in (1, 5):
        assert_agree(source, exported.graph, {"features": np.ones((batch, 4), np.float32)})


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_branches_of_torchscript_stay_branches():
    """A scripted module in memory keeps what depends on values."""

    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.sum() > 0):
                return x + 1
            return x - 1

    source = open_source(torch.jit.script(Branch()), example_inputs=torch.ones(2, 3))
    assert source.label == "TorchScript module Branch"
    exported = source.export(shapes=parse_shapes(["x=1..4x3"]))
    for value in (1, -1):
        assert_agree(source, exported.graph, {"x": np.full((3, 3), value, np.float32)})


def test_custom_operators_are_named(tmp_path):
    """Files that need an operator which is not registered here name it, whichever kind of file."""
    code = (
        "import sys, torch\n"
        "library = torch.library.Library('kitchen', 'DEF')\n"
        "library.define('stir(Tensor x) -> Tensor')\n"
        "library.impl('stir', lambda x: x + 1, 'CompositeExplicitAutograd')\n"
        "torch.library.register_fake('kitchen::stir', torch.empty_like)\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.ops.kitchen.stir(x)\n"
        "torch.jit.save(torch.jit.trace(Net(), torch.ones(2)), sys.argv[1] + '/net.pt')\n"
        "torch.export.save(torch.export.export(Net(), (torch.ones(2),)), sys.argv[1] + '/net.pt2')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True, capture_output=True)
    for name in ("net.pt", "net.pt2"):
        with pytest.raises(CustomOperatorError, match=r"needs custom operators that are not here: kitchen::stir; give"):
            open_source(tmp_path / name)


class Touch:
    """What a hostile pickle does: loading it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_pickle_is_executed(tmp_path):
    """A pickle that would run code is refused by the name of what it imports, and does not run."""
    trap = tmp_path / "trap"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Touch(trap)))
    torch.save({"a": Touch(trap)}, tmp_path / "new.pt")
    torch.save({"a": Touch(trap)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("plain.pt", "new.pt", "old.pth"):
        with pytest.raises(UnsafeModelError, match=r"is a pickle that imports \w+\.mkdir when it is loaded"):
            open_source(tmp_path / name)
    with pytest.raises(UnsafeModelError, match=r"is a pickle that imports \w+\.mkdir"):
        open_source(nn.Linear(2, 1), weights=tmp_path / "new.pt")
    torch.save(Scaled(), tmp_path / "whole.pt")
    with pytest.raises(UnsafeModelError, match=r"Scaled.*; save its state_dict\(\) and give the factory"):
        open_source(tmp_path / "whole.pt")
    assert not trap.exists()


def of_model(**changes):
    """Return a change of an archive that sets the first of each of these keys in the model's JSON."""

    def put(tree, key, value):
        for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
            if isinstance(child, dict) and key in child:
                child[key] = value
                return True
            if put(child, key, value):
                return True
        return False

    def change(name, data):
        if not name.endswith("models/model.json"):
            return data
        tree = {"top": json.loads(data)}
        assert all(put(tree, key, value) for key, value in changes.items())
        return json.dumps(tree["top"])

    return change


RUNS = "__import__('os').mkdir('trap')"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (of_model(expr_str=RUNS), "expr_str"),
        (of_model(guards_code=[RUNS]), "guards_code"),
        (of_model(target="torch.os.mkdir"), "target"),
        (of_model(target="torch.ops.load_library"), "target"),
        (of_model(name="x):\n import os\n os.mkdir('trap')#"), "name"),
    ],
    ids=["size", "guard", "function", "library", "name"],
)
def test_no_text_of_a_program_is_executed(archive, tmp_path, monkeypatch, change, named):
    """Texts of an archive that would be evaluated or called are refused, and are not."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeModelError, match=f"has, as {named}, what could run"):
        open_source(rewritten(archive, tmp_path / "bad.pt2", change))
    assert not (tmp_path / "trap").exists()


def test_no_pickle_of_a_program_is_executed(archive, tmp_path):
    """Example inputs that are a hostile pickle are refused before torch falls back to unpickling all."""
    held = io.BytesIO()
    torch.save(((Touch(tmp_path / "trap"),), {}), held)
    path = rewritten(
        archive, tmp_path / "bad.pt2", lambda name, data: held.getvalue() if "sample_inputs" in name else data
    )
    with pytest.raises(UnsafeModelError, match=r"\(data/sample_inputs/model\.pt\) is a pickle that imports"):
        open_source(path)
    assert not (tmp_path / "trap").exists()


def test_guards_that_a_program_needs_pass(tmp_path):
    """What torch.export itself writes about sizes is harmless: sums, products, remainders, minima."""

    class Guarded(nn.Module):
        def forward(self, x, mask):
            y = x.reshape(x.shape[0], -1, 4)
            if x.shape[1] % 2 == 0 and x.shape[1] == mask.shape[1]:
                y = y * 2
            return torch.cat([y[:, : x.shape[1] // 2], y], dim=1) + mask.sum()

    auto = torch.export.Dim.AUTO
    made = torch.export.export(
        Guarded(), (torch.randn(2, 8, 4), torch.ones(2, 8)), dynamic_shapes=({0: auto, 1: auto}, {0: auto, 1: auto})
    )
    torch.export.save(made, tmp_path / "guarded.pt2")
    source = open_source(tmp_path / "guarded.pt2")
    assert source.run(source.example_feeds())["output"].shape == (2, 12, 4)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("junk.pt", b"hello world" * 10, "is no file of PyTorch, or cut short"),
        ("empty.pth", b"", "is no file of PyTorch, or cut short"),
        ("junk.pt2", b"hello", r"is no archive, as \.pt2 files are"),
        ("cut.pt", b"PK\x03\x04 and no more", "is cut short: it begins as an archive"),
    ],
)
def test_files_that_are_none_of_it(tmp_path, name, data, message):
    """What is cut short or something else is corrupt."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorruptModelError, match=message):
        open_source(tmp_path / name)


def test_other_archives_and_no_file(tmp_path):
    """An archive of something else is corrupt; a path without a file suggests the nearest."""
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        other.writestr("other/readme.txt", "hello")
    with pytest.raises(CorruptModelError, match="is an archive, but not one of PyTorch"):
        open_source(tmp_path / "other.pt")
    with pytest.raises(SourceNotFoundError, match="did you mean"):
        open_source(tmp_path / "othe.pt")


def test_a_state_dict_alone_wants_its_module(tmp_path):
    """Weights without a module say how to give both."""
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(SourceError, match=r"holds 2 tensors by name .*file\.py:factory --weights .*weights\.pt"):
        open_source(tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="which has its own; leave them out"):
        open_source(tmp_path / "weights.pt", weights="other.pt")
