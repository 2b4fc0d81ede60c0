"""Hand-built networks as sources: weights from anywhere, a function that a worker can import, a reference."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import enginery
from enginery.errors import (
    CorruptModelError,
    EngineryError,
    ExportError,
    SourceError,
    SourceNotFoundError,
    UnknownNameError,
    UnsafeModelError,
    UsageError,
)
from enginery.graph import files
from enginery.jobs import read_design
from enginery.sources import open_source
from enginery.sources.base import HandBuilt, Source
from enginery.sources.named_weights import open_weights, read_arrays, save_arrays
from enginery.sources.network_files import hash_of
from enginery.spec import BenchSpec, OptimizeSpec, VerifySpec, parse_shapes

ov = pytest.importorskip("openvino")

NET = """
import numpy as np
import openvino as ov

import enginery
import neighbour

W = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, np.float32), "rest": np.ones(2, np.float32)}


@enginery.network(backend="openvino", weights=W, reference="shifted.onnx")
def net(opset, weights):
    return neighbour.shifted(opset, weights)


@enginery.network(backend="openvino", weights=W, reference="shifted.onnx")
def other_names(opset, weights):
    return neighbour.shifted(opset, weights, name="z")


@enginery.network(backend="openvino", weights=W)
def alone(opset, weights):
    return neighbour.shifted(opset, weights)


@enginery.network(backend="openvino", weights=W)
def misspelt(opset, weights):
    return opset.add(weights["bb"], weights["b"])


@enginery.network(backend="openvino", weights=W)
def misfit(opset, weights):
    x = opset.parameter([-1, 3], dtype=np.float32, name="x")
    return ov.Model([opset.matmul(x, weights["w"], False, False)], [x], "misfit")


@enginery.network(backend="openvino", weights=W)
def no_layer(opset, weights):
    return opset.matmull(1, 2)


def late():
    return enginery.network(lambda opset, weights: net.function(opset, weights), backend="openvino", weights=W)
"""
NEIGHBOUR = """
import numpy as np
import openvino as ov


def shifted(opset, weights, name="y"):
    x = opset.parameter([-1, 4], dtype=np.float32, name="x")
    product = opset.matmul(x, weights["w"], False, False)
    return ov.Model([opset.add(product, weights["b"], name=name)], [x], "shifted")
"""
GRAPH = """<ir_version: 8, opset_import: ["": 17]>
shifted (float[n, 4] x) => (float[n, 4] y) { p = MatMul(x, w) y = Add(p, b) }"""


def nothing(opset, weights):
    """Build nothing."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder with a network, its neighbour and its reference."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    model = ir.from_onnx_text(
        GRAPH,
        initializers=[ir.tensor(np.eye(4, dtype=np.float32), name="w"), ir.tensor(np.ones(4, np.float32), name="b")],
    )
    files.save(model, tmp_path / "shifted.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    yield tmp_path
    sys.modules.pop("neighbour", None)


def built_by_hand(name):
    """Open one of the networks of the file."""
    return open_source(f"net.py:{name}")


@pytest.mark.usefixtures("here")
def test_a_network_describes_itself_and_is_a_source():
    """It is frozen, says what it is, and opens as a source that has a design and a reference."""
    network = enginery.network(nothing, backend="openvino", weights="w.npz", reference="deep/shifted.onnx")
    assert str(network) == "network nothing (for openvino, weights from w.npz, compared with shifted.onnx)"
    with pytest.raises(AttributeError, match="cannot assign"):
        network.backend = "null"
    source = built_by_hand("net")
    assert isinstance(source, Source)
    assert isinstance(source, HandBuilt)
    assert (source.kind, source.label, source.framework, source.backend) == ("network", "network net", None, "openvino")
    assert source.reference() is source.reference()
    assert source.reference().label == "shifted.onnx"
    assert source.example_feeds() is None
    source.close()


def test_what_is_no_function_is_refused():
    """A model given for the function is told what is wanted."""
    with pytest.raises(UsageError, match=r"a network is a function of the API and the weights, not a str"):
        enginery.network("net.py", backend="openvino")


def test_the_hash_is_of_the_code_and_the_weights(here):
    """Another line in the file, another weight and another backend are another network."""
    first = built_by_hand("net").sha256
    assert built_by_hand("net").sha256 == first
    assert built_by_hand("alone").sha256 != first
    (here / "net.py").write_text(NET.replace("np.ones(2, ", "np.zeros(2, "))
    assert built_by_hand("net").sha256 != first
    network = enginery.network(nothing, backend="openvino", weights={"w": np.ones(2, np.float32)})
    other = enginery.network(nothing, backend="openvino", weights={"w": np.ones((2, 1), np.float32)})
    assert open_source(network).sha256 != open_source(other).sha256


@pytest.mark.usefixtures("here")
def test_it_builds_verifies_and_notes_what_was_not_read():
    """In a worker: the file's neighbour is imported, the unread weight is noted, the outputs are the reference's."""
    engine = enginery.build("net.py:net", "net.engine", shapes=parse_shapes(["x=n:1..4x4"]))
    assert engine.manifest.source == "network net"
    assert engine.manifest.source_sha256 == built_by_hand("net").sha256
    (note,) = engine.manifest.build.notes
    assert note == "the network never read 1 of the 3 weights in the dictionary: rest; is a layer missing?"
    for source in ("net.py:net", "shifted.onnx"):
        assert enginery.verify("net.engine", source).passed


@pytest.mark.usefixtures("here")
def test_a_mismatch_of_names_lists_both():
    """Outputs are compared by name; the error has the engine's and the reference's."""
    enginery.build("net.py:other_names", "net.engine", shapes=parse_shapes(["x=1..4x4"]), in_process=True)
    with pytest.raises(UsageError, match=r"the outputs of net.engine are z, and those of shifted.onnx are y: they are"):
        enginery.verify("net.engine", "net.py:other_names")


@pytest.mark.usefixtures("here")
def test_without_a_reference():
    """`verify` and `optimize` say how to give one, before any work; `build` needs none."""
    enginery.build("net.py:alone", "net.engine", shapes=parse_shapes(["x=1..4x4"]), in_process=True)
    says = r'network alone has no reference .*; give one: @enginery.network\(backend="openvino", reference='
    with pytest.raises(UsageError, match=says):
        enginery.verify("net.engine", "net.py:alone")
    with pytest.raises(UsageError, match=says):
        enginery.optimize("net.py:alone", output="x.engine")
    assert enginery.verify("net.engine", "shifted.onnx").passed


@pytest.mark.usefixtures("here")
def test_it_has_no_onnx_form():
    """Export and running it as a source are refused, each with what to do instead."""
    with pytest.raises(
        ExportError, match=r"network net is built by hand .* no ONNX form; build it with its own backend"
    ):
        enginery.export("net.py:net", "net.onnx")
    with pytest.raises(SourceError, match="runs only as an engine"):
        built_by_hand("net").run({})
    with pytest.raises(SourceError, match="runs only as an engine"):
        built_by_hand("net").timer({})


def test_another_backend_cannot_build_it(here):
    """The mend says which can; a backend that is not known is told as anywhere."""
    with pytest.raises(
        UsageError, match=r"built by hand for openvino, so onnxruntime cannot build it; leave the backend"
    ):
        enginery.build("net.py:net", "x.engine", backend="onnxruntime")
    with pytest.raises(UnknownNameError, match="did you mean 'openvino'"):
        enginery.build(enginery.network(nothing, backend="openvinno"), "x.engine")
    assert not (here / "x.engine").exists()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("misspelt", UnknownNameError, r"unknown weight 'bb', at net.py:\d+, in misspelt: .*; did you mean 'b'\?"),
        (
            "misfit",
            SourceError,
            r"misfit raised RuntimeError: .* doesn't match .*, at net.py:\d+, in misfit: .*MatMul was",
        ),
        ("no_layer", SourceError, r"no_layer raised AttributeError: .* at net.py:\d+, .*; did you mean 'matmul'\?"),
        ("nett", SourceNotFoundError, r"net.py has no 'nett'; did you mean 'net.py:net'\?"),
    ],
)
def test_slips_in_the_file(name, error, says, here):
    """Each is told by the user's own line, or by the nearest name, from the worker as from here."""
    for in_process in (True, False):
        with pytest.raises(error, match=says):
            enginery.build(f"net.py:{name}", "x.engine", in_process=in_process)
    assert not (here / "x.engine").exists()


@pytest.mark.usefixtures("here")
def test_what_a_worker_cannot_import():
    """A lambda and a closure are refused with the mend, and can be built here; so can a name that was taken over."""
    with pytest.raises(UsageError, match=r"is a lambda, where a worker process cannot import it; move it to the top"):
        enginery.build("net.py:late", "x.engine")
    assert enginery.build("net.py:late", "x.engine", in_process=True).manifest.backend == "openvino"

    def inside(opset, weights):
        """Build nothing."""

    with pytest.raises(UsageError, match=r"inside is defined inside a function, .*in_process=True"):
        enginery.build(enginery.network(inside, backend="openvino"), "y.engine")


def test_a_module_of_a_package_is_imported_by_its_name(here):
    """Relative imports work in the worker, whatever folder the package is in."""
    package = here / "deep" / "models"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "neighbour.py").write_text(NEIGHBOUR)
    (package / "net.py").write_text(NET.replace("import neighbour", "from . import neighbour"))
    script = 'import enginery\nenginery.build("models.net:net", "net.engine")'
    subprocess.run([sys.executable, "-c", script], cwd=here / "deep", check=True)
    script = """
        import sys
        sys.path.insert(0, "deep")
        import enginery
        from models.net import net
        enginery.build(net, "n.engine")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=here, check=True)
    assert enginery.inspect(here / "n.engine").source == "network net"


def test_a_script_builds_what_it_defines(here):
    """A function of the script that is running is found in its file, and the script does not run again."""
    script = NET + textwrap.dedent("""
        print("once")
        if __name__ == "__main__":
            enginery.build(net, "net.engine")
    """)
    (here / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout == "once\n"
    assert enginery.verify("net.engine", "shifted.onnx").passed


def test_the_design_is_plain_files(here):
    """What a worker gets names the file, the function and the folder, and holds the weights that were in memory."""
    design = built_by_hand("net").design(here / "design", in_process=False)
    described = json.loads(design.path.read_text())
    assert described["place"] == str(here / "net.py")
    assert (described["name"], described["folder"], described["weights"]) == ("net", str(here), "")
    assert [one["name"] for one in described["arrays"]] == ["w", "b", "rest"]
    os.chdir(design.path.parent)
    definition = read_design(design.path)
    assert isinstance(definition.define(ov.opset13), ov.Model)
    assert Path.cwd() == design.path.parent


@pytest.mark.usefixtures("here")
def test_optimize_races_the_network_and_its_reference():
    """Rows are labelled; each has its own source; a network that cannot be built is a failed row with its reason."""
    spec = OptimizeSpec(
        parse_shapes(["x=n:1..4x4"]), backends=("openvino",), simplify=False, verify=VerifySpec(max_error=1e-5),
        bench=BenchSpec(warmup_ms=1, turn_ms=5, limit_s=0.05),
    )  # fmt: skip
    record = enginery.optimize("net.py:net", output="net.engine", spec=spec).record
    rows = {row.label: row for row in record.candidates}
    assert {"onnxruntime, plain", "openvino", "openvino, hand-built"} <= set(rows)
    by_hand = rows["openvino, hand-built"]
    assert (by_hand.role, by_hand.status in ("accepted", "chosen")) == ("candidate", True)
    assert by_hand.verify.error < 1e-6
    assert by_hand.build.notes[0].startswith("the network never read 1 of the 3")
    assert record.source == "network net"
    assert enginery.inspect("net.engine").source == ("network net" if "hand-built" in record.chosen else "shifted.onnx")


def test_the_hash_tells_functions_without_a_file_apart():
    """Of a function that was typed in, the constants and names count too, not the instructions alone."""
    made: dict[str, Any] = {}
    exec("def one(api, weights): return api.relu(1)\ndef two(api, weights): return api.relu(2)", made)  # noqa: S102
    made["two"].__qualname__ = "one"
    assert hash_of(made["one"], "openvino", open_weights(None)) != hash_of(made["two"], "openvino", open_weights(None))


@pytest.fixture
def arrays():
    """Weights of several types."""
    return {"layer.w": np.arange(6, dtype=np.float32).reshape(2, 3), "layer.b": np.ones((), np.float16)}


def test_weights_of_a_dictionary_survive_the_way_to_a_worker(arrays, tmp_path):
    """Values, shapes and types come back, also bfloat16's, empty arrays and names with slashes."""
    import ml_dtypes

    arrays |= {"a/b": np.array([1.5, -2], ml_dtypes.bfloat16), "empty": np.zeros((0, 3)), "large": np.ones(1 << 15)}
    listed = save_arrays(open_weights(arrays), tmp_path / "weights")
    found = read_arrays(json.loads(json.dumps(listed)), tmp_path / "weights")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def safetensors(arrays) -> bytes:
    """Write the format by hand."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        kind = {"float32": "F32", "float16": "F16"}[array.dtype.name]
        places = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": places}
        body += array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize("kind", ["npz", "onnx", "safetensors", "proto", "ir"])
def test_weights_of_files_and_models(kind, arrays, tmp_path):
    """All have the same names and values, and a file's hash is the weights'."""
    path = tmp_path / f"weights.{kind}"
    values = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in arrays.items()]
    graph = ir.Graph([], [], nodes=[], initializers=values, name="held", opset_imports={"": 17})
    model = ir.Model(graph, ir_version=10)
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "onnx":
        files.save(model, path)
    elif kind == "safetensors":
        path.write_bytes(safetensors(arrays))
    thing = {"proto": lambda: ir.to_proto(model), "ir": lambda: model}.get(kind, lambda: path)()
    weights = open_weights(thing)
    assert set(weights) == set(arrays)
    assert len(weights) == 2
    for name, array in arrays.items():
        assert weights[name].dtype == array.dtype
        np.testing.assert_array_equal(weights[name], array)
    assert weights.unread() == ()
    assert len(weights.sha256) == 64
    assert weights.get("none") is None
    assert "none" not in weights


def test_weights_of_a_module(tmp_path):
    """A module's state is taken by its names, from a file too; counters that no layer reads are not missed."""
    torch = pytest.importorskip("torch")
    weights = open_weights(torch.nn.BatchNorm1d(3))
    assert weights["running_var"].tolist() == [1, 1, 1]
    assert set(weights.unread()) == {"weight", "bias", "running_mean"}
    torch.save({"model": torch.nn.Linear(2, 1).state_dict()}, tmp_path / "linear.pt")
    assert {name: array.shape for name, array in open_weights(tmp_path / "linear.pt").items()} == {
        "weight": (1, 2),
        "bias": (1,),
    }
    with pytest.raises(SourceError, match=r"weight 'w' is no array: .*; convert it first"):
        open_weights({"w": torch.zeros(1, dtype=torch.bfloat16)})


def test_unknown_weights_are_told_with_the_nearest(arrays):
    """The error does not list hundreds of names; without any, it says so."""
    with pytest.raises(
        UnknownNameError, match=r"unknown weight 'layer.ww'; did you mean 'layer.w' or 'layer.b'\? \(there"
    ):
        open_weights(arrays)["layer.ww"]
    with pytest.raises(UnknownNameError, match="there are none in weights=None"):
        open_weights(None)["w"]


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("w.npz", b"PK nothing", CorruptModelError, "is no .npz"),
        ("w.npz", b"", CorruptModelError, "is no .npz"),
        ("w.safetensors", b"\x02\0\0\0\0\0\0\0[3", CorruptModelError, "is no whole .safetensors file"),
        ("w.safetensors", b"\x09\0\0\0\0\0\0\0{", CorruptModelError, "is no whole .safetensors file"),
        ("w.safetensors", safetensors({"w": np.ones(4, "f4")})[:-1], CorruptModelError, "tensor 'w' is said to be at"),
        ("w.onnx", b"nothing", CorruptModelError, "w.onnx"),
        ("w.bin", b"", SourceError, "w.bin is no file of weights .*; give one of .onnx, .npz, .safetensors"),
    ],
)  # fmt: skip
def test_files_that_hold_no_weights(name, content, error, says, tmp_path):
    """A damaged file, and one of another kind, is refused with what to give."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        open_weights(tmp_path / name)


def test_a_damaged_array_of_an_archive(tmp_path):
    """An archive is opened by its list; bytes that are damaged show when the array is read, as the file's fault."""
    path = tmp_path / "weights.npz"
    np.savez(path, w=np.arange(1000.0))
    damaged = bytearray(path.read_bytes())
    damaged[4000] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(CorruptModelError, match=r"array 'w' of weights.npz is damaged: Bad CRC-32 .*; copy the file"):
        open_weights(path)["w"]


def test_weights_that_are_none_or_run_code(tmp_path):
    """A missing file is told with the nearest name; pickled objects are refused; a number has no names."""
    np.savez(tmp_path / "weights.npz", w=np.array([{}], dtype=object))
    with pytest.raises(
        SourceNotFoundError, match=r"there is no file of weights .*wights.npz; did you mean '.*weights.npz'"
    ):
        open_weights(tmp_path / "wights.npz")
    with pytest.raises(UnsafeModelError, match="save arrays of numbers"):
        open_weights(tmp_path / "weights.npz")["w"]
    with pytest.raises(SourceError, match="'int' has no weights by name; give a dictionary"):
        open_weights(3)
    with pytest.raises(EngineryError, match="weight 'w' is a str, no array of numbers"):
        open_weights({"w": "text"})
