"""Networks written with TensorRT's own API, built ahead of time: names, shapes, types and profiles."""

from __future__ import annotations

import json

import numpy as np
import pytest

from enginery.backends import engine as engines
from enginery.errors import BuildError, PrecisionMismatchError, SourceError, UnknownNameError
from enginery.sources.named_weights import open_weights
from enginery.spec import BuildSpec, parse_shapes

trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)


class Defined:
    """A definition without weights."""

    name = "net"
    notes = ("a note of the definition",)

    def __init__(self, function):
        self.define = function


def build(function, folder, *shapes, **spec):
    """Build what a function adds to an empty network."""
    asked = BuildSpec(parse_shapes(shapes), **spec)
    return engines.build(Defined(function), asked, folder / "net.engine", backend="tensorrt_rtx", source="net")


def product(network, *, dtype=np.float32, output="y", size=(-1, 4)):
    """Add one matrix product; its weights are a temporary array, which TensorRT keeps."""
    kind = trt.float16 if dtype == np.float16 else trt.float32
    x = network.add_input("x", kind, size)
    weights = network.add_constant((4, 4), np.eye(4, dtype=dtype)).get_output(0)
    layer = network.add_matrix_multiply(x, trt.MatrixOperation.NONE, weights, trt.MatrixOperation.NONE)
    tensor = layer.get_output(0)
    if output:
        layer.name, tensor.name = "product", output
    network.mark_output(tensor)


def test_shapes_names_and_notes(tmp_path):
    """The input's axis is called as the profile calls it; the definition's notes are kept; layers are listed."""
    engine = build(product, tmp_path, "x=batch:1..2..8x4", options={"compute_capabilities": "8.9"})
    manifest = engine.manifest
    assert [(info.name, info.dtype, info.shape) for info in manifest.inputs] == [("x", "float32", ("batch", 4))]
    assert [(info.name, info.dtype, info.shape) for info in manifest.outputs] == [("y", "float32", ("?", 4))]
    assert str(manifest.inputs[0].profile) == "batch:1..2..8x4"
    assert manifest.build.notes == ("a note of the definition",)
    assert manifest.target.compute_capabilities == ("8.9",)
    layers = json.loads((engine.folder / "layers.json").read_text(encoding="utf-8"))
    assert "product" in {layer["name"] for layer in layers}


def test_narrow_profiles(tmp_path):
    """A hand-built network takes them as a graph does."""
    engine = build(product, tmp_path, "x=batch:1..2..8x4", options={"narrow": "ends"})
    assert [str(one["x"]) for one in engine.manifest.profiles] == ["batch:1x4", "batch:2x4", "batch:8x4"]


def test_precision_stands_in_the_network(tmp_path):
    """A network in float16 is fp16; one in float32 is not, whatever was asked for."""
    half = build(lambda network: product(network, dtype=np.float16), tmp_path, "x=1..8x4", precision="fp16")
    assert half.manifest.precision_built == {"fp16": 1}
    assert [info.dtype for info in (*half.manifest.inputs, *half.manifest.outputs)] == ["float16", "float16"]
    with pytest.raises(PrecisionMismatchError, match=r"fp16 was asked for.*product"):
        build(product, tmp_path, "x=1..8x4", precision="fp16")


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (lambda network: product(network, output=""), BuildError, "output 0 of the network has no name; .*before"),
        (lambda network: network.add_input("x", trt.float32, (1, 4)) and None, BuildError, "has no output"),
        (lambda _: 3, SourceError, "returned a int, .*mark_output"),
        (lambda network: network.add_activaton(), BuildError, "did you mean network.add_activation"),
    ],
)
def test_networks_that_are_no_networks(tmp_path, function, kind, said):
    """What is not named, marked or filled is refused, and nothing is left behind."""
    with pytest.raises(kind, match=said):
        build(function, tmp_path, "x=1..8x4")
    assert list(tmp_path.iterdir()) == []


def test_ranges_are_held_against_the_network(tmp_path):
    """An open axis needs a range, a fixed one keeps its size, and a name must be an input's."""
    with pytest.raises(BuildError, match=r"input 'x', axis 0 \(x_batch\)"):
        build(product, tmp_path)
    with pytest.raises(BuildError, match=r"axis 1: 5 was asked for, but the graph has fixed it at 4"):
        build(product, tmp_path, "x=1..8x5")
    with pytest.raises(UnknownNameError, match="unknown input 'z'"):
        build(product, tmp_path, "z=1..8x4")
    assert build(lambda network: product(network, size=(2, 4)), tmp_path).manifest.inputs[0].shape == (2, 4)


def test_weights_of_a_file_are_of_types_that_tensorrt_knows(tmp_path):
    """It compares element types by identity, and an array read from a file may bring a type of its own."""
    own = np.zeros(4, np.dtype("float32").newbyteorder("<"))
    with pytest.raises(ValueError, match="Could not implicitly convert"):
        trt.Weights(own)
    np.savez(tmp_path / "w.npz", w=own)
    for given in ({"w": own}, tmp_path / "w.npz"):
        assert trt.Weights(open_weights(given)["w"]).size == 4
