"""Engines of hand-built networks: names, shapes, types and profiles, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from enginery import backends
from enginery.backends import engine as engines
from enginery.backends.base import Definition, NetworkBuilder
from enginery.errors import BuildError, SourceError, UnknownNameError, UsageError
from enginery.spec import BuildSpec, parse_shapes

ov = pytest.importorskip("openvino")


class Defined:
    """A definition without weights."""

    name = "net"
    notes = ("a note of the definition",)

    def __init__(self, function):
        self.define = function


def build(function, folder, *shapes, **spec):
    """Build what a function of the opset returns."""
    made = BuildSpec(parse_shapes(shapes), **spec)
    return engines.build(Defined(function), made, folder / "net.engine", backend="openvino", source="net")


def chain(opset, *, image="x", scores="y", dtype=np.float32, size=(-1, 4)):
    """Return a model with one operator."""
    x = opset.parameter(list(size), dtype=dtype, name=image)
    return ov.Model([opset.add(x, np.ones(1, dtype), name=scores)], [x], "chain")


def test_only_backends_with_an_api_build_networks():
    """The contract is an optional function, and a definition is what has one to call."""
    able = {name for name in backends.names() if isinstance(backends.get(name), NetworkBuilder)}
    assert "openvino" in able
    assert not able & {"onnxruntime", "reference", "null"}
    assert isinstance(Defined(chain), Definition)


def test_a_backend_without_an_api_says_who_has_one(tmp_path):
    """The mend names the backends that build networks."""
    with pytest.raises(UsageError, match=r"'onnxruntime' has no API .*; write the network for openvino"):
        engines.build(Defined(chain), BuildSpec(), tmp_path / "x.engine", backend="onnxruntime")
    assert not (tmp_path / "x.engine").exists()


def test_shapes_names_and_notes(tmp_path):
    """The axes are called as the profile calls them, through to the output; the definition's notes are kept."""
    engine = build(chain, tmp_path, "x=batch:1..2..8x4")
    manifest = engine.manifest
    assert [(info.name, info.dtype, info.shape) for info in manifest.inputs] == [("x", "float32", ("batch", 4))]
    assert [(info.name, info.dtype, info.shape) for info in manifest.outputs] == [("y", "float32", ("batch", 4))]
    assert str(manifest.inputs[0].profile) == "batch:1..2..8x4"
    assert manifest.build.notes == ("a note of the definition",)
    assert (manifest.name, manifest.graph_sha256) == ("net", "")
    with engine.open() as session:
        np.testing.assert_array_equal(session.run({"x": np.zeros((3, 4), np.float32)})["y"], np.ones((3, 4)))


def test_axes_without_a_name_have_one_made_up(tmp_path):
    """A profile without names, and none at all, call an axis by its input and place."""
    named = build(chain, tmp_path, "x=1..8x4").manifest
    assert (named.inputs[0].shape, named.outputs[0].shape) == (("x_batch", 4), ("x_batch", 4))
    assert build(chain, tmp_path).manifest.inputs[0].profile is None


@pytest.mark.parametrize(("dtype", "name"), [(np.int64, "int64"), (np.float16, "float16"), (np.uint8, "uint8")])
def test_element_types(tmp_path, dtype, name):
    """The manifest calls types as ONNX does, and a network's own half precision is not taken for a lowered one."""
    engine = build(lambda opset: chain(opset, dtype=dtype), tmp_path)
    assert (engine.manifest.inputs[0].dtype, engine.manifest.outputs[0].dtype) == (name, name)
    with engine.open() as session:
        assert session.run({"x": np.zeros((1, 4), dtype)})["y"].tolist() == [[1] * 4]
    assert any("64-bit" in note for note in engine.manifest.build.notes) == (name == "int64")


def test_several_outputs_keep_their_order_and_names(tmp_path):
    """A result may be named itself, by its operator, or by the tensor."""

    def three(opset):
        x = opset.parameter([2, 4], dtype=np.float32, name="x")
        last = opset.abs(x)
        last.output(0).set_names({"c"})
        return ov.Model([opset.result(opset.negative(x), name="b"), opset.relu(x, name="a"), last], [x], "three")

    engine = build(three, tmp_path)
    assert [info.name for info in engine.manifest.outputs] == ["b", "a", "c"]
    with engine.open() as session:
        found = session.run({"x": np.full((2, 4), -2, np.float32)})
    assert {name: float(array[0, 0]) for name, array in found.items()} == {"b": 2.0, "a": 0.0, "c": 2.0}


def unnamed_output(opset):
    """Forget the output's name."""
    x = opset.parameter([1], dtype=np.float32, name="x")
    return ov.Model([opset.relu(x)], [x], "net")


def unnamed_input(opset):
    """Forget the input's name."""
    x = opset.parameter([1], dtype=np.float32)
    return ov.Model([opset.relu(x, name="y")], [x], "net")


def twice(opset):
    """Give two outputs one name."""
    x = opset.parameter([1], dtype=np.float32, name="x")
    return ov.Model([opset.relu(x, name="y"), opset.abs(x, name="y")], [x], "net")


def texts(opset):
    """Take texts."""
    x = opset.parameter([1], dtype=ov.Type.string, name="x")
    return ov.Model([opset.result(x, name="y")], [x], "net")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (unnamed_output, r"output 0 of the network has no name; name the last operator"),
        (unnamed_input, r"input 0 of the network has no name; name it, as in opset\.parameter"),
        (twice, r"two outputs of the network are called 'y'; give each a name of its own"),
        (texts, r"'x' holds texts"),
    ],
)
def test_what_cannot_be_an_engine(function, says, tmp_path):
    """What has no name of its own, and what OpenVINO cannot hold, is refused; nothing is left."""
    with pytest.raises(BuildError, match=says):
        build(function, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("made", "said"), [(None, "nothing"), ([1], "a list")])
def test_what_is_no_model(made, said, tmp_path):
    """A function that forgets to return, or returns something else, is told what to return."""
    with pytest.raises(SourceError, match=rf"net returned {said}, not an openvino.Model; end it with: return openvino"):
        build(lambda _: made, tmp_path)


def test_shapes_that_do_not_fit(tmp_path):
    """A profile for an input that is not there, and a range for an axis that is fixed."""
    with pytest.raises(UnknownNameError, match=r"unknown input 'image'; known: x"):
        build(chain, tmp_path, "image=1..8x4")
    with pytest.raises(BuildError, match=r"axis 1: 1\.\.5\.\.5 was asked for, but the graph has fixed it at 4"):
        build(chain, tmp_path, "x=1..8x1..5")


def test_a_failure_of_the_library_is_diagnosed(tmp_path):
    """A definition's error that a library caused has the backend's mend; any other keeps its own."""

    def refused(opset):
        x = opset.parameter([1, 3], dtype=np.float32, name="x")
        try:
            opset.matmul(x, np.ones((4, 2), np.float32), transpose_a=False, transpose_b=False)
        except RuntimeError as error:
            raise SourceError("it was refused", mend="mend it") from error

    def wrong(_):
        raise SourceError("it is wrong", mend="mend it")

    with pytest.raises(SourceError, match=r"it was refused; the shapes or element types of what MatMul was given"):
        build(refused, tmp_path)
    with pytest.raises(SourceError, match="it is wrong; mend it"):
        build(wrong, tmp_path)
    with pytest.raises(BuildError, match=r"(?s)openvino cannot build the network net: Check .*; list every parameter"):
        build(lambda opset: ov.Model([opset.relu(opset.parameter([1], dtype=np.float32))], [], "net"), tmp_path)
