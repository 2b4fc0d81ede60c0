"""Every backend keeps the contract: its functions, its manifest, its options, its refusals."""

from __future__ import annotations

import inspect

import numpy as np
import onnx_ir as ir
import pytest

from enginery import backends, storage
from enginery.backends import base, engine
from enginery.errors import BuildError, HashMismatchError, PrecisionError, UnknownNameError
from enginery.graph.base import tensor_infos
from enginery.machine import describe_machine
from enginery.records import GraphRecord
from enginery.spec import PRECISIONS, BuildSpec

DOUBLE = "double (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }"
FUNCTIONS = [name for name in vars(base.Backend) if not name.startswith("_")]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_has_the_functions_of_the_contract(backend, function):
    """A backend's functions have the parameters, kinds, defaults and annotations of the Protocol's."""
    expected = inspect.signature(getattr(base.Backend, function))
    found = inspect.signature(getattr(backends.get(backend), function))
    wanted = [parameter for name, parameter in expected.parameters.items() if name != "self"]
    assert list(found.parameters.values()) == wanted


def test_says_whether_it_is_here(backend):
    """What is here has a version, and needs no mend."""
    found = backends.get(backend).probe()
    assert isinstance(found, base.Availability)
    assert found.available
    assert found.version
    assert not found.reason
    assert not found.mend


def test_says_what_it_can_do(backend, small_model):
    """Precisions are known names, fp32 among them; the opset ceiling holds what the tests build."""
    can = backends.get(backend).capabilities(describe_machine(), small_model)
    assert can.precisions <= set(PRECISIONS)
    assert "fp32" in can.precisions
    assert can.max_opset >= 17
    assert can.dynamic_shapes
    assert can.unsupported == ()


def test_builds_and_runs_every_variant(backend, build, check):
    """The first variant is the plain one; each builds, is written down, and gives the same answer."""
    infos = tensor_infos(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {DOUBLE}').graph.inputs)
    graph = GraphRecord("double", infos, (), 9, {"Conv": 4, "Concat": 3}, 0, 0, 10**9, {"": 17}, 8, "", ("batch",))
    found = backends.get(backend).variants(graph, describe_machine())
    assert found[0] == {}
    assert len({str(options) for options in found}) == len(found) <= 5
    for options in found:
        built = build(DOUBLE, options=options)
        assert options.items() <= dict(built.manifest.options).items()
        with built.open() as session:
            check(session.run({"x": np.ones((2, 4), np.float32)}), y=np.full((2, 4), 2, np.float32))


def test_writes_a_manifest_that_reads_back(backend, build):
    """What stands on disk is what was built: tensors, profile, precision, options, files and their hashes."""
    built = build(DOUBLE, "x=1..2..8x4")
    manifest = engine.load(built.folder).manifest
    assert manifest == built.manifest
    assert manifest.backend == backend
    assert manifest.precision == "fp32"
    assert [(info.name, info.dtype, info.shape) for info in manifest.outputs] == [("y", "float32", ("batch", 4))]
    assert str(manifest.inputs[0].profile) == "batch:1..2..8x4"
    assert storage.record_files(built.folder) == dict(manifest.files)
    assert set(manifest.precision_built) == {"fp32"}


def test_refuses_a_tampered_engine_before_opening_it(backend, build, monkeypatch):
    """One changed byte is found by the hash, and the backend never sees the file."""
    built = build(DOUBLE)
    file = built.folder / next(iter(built.manifest.files))
    text = bytearray(file.read_bytes() or b"x")
    text[-1] ^= 1
    file.write_bytes(text)
    monkeypatch.setattr(backends.get(backend), "open", lambda *_: pytest.fail("the backend was asked to open it"))
    with pytest.raises(HashMismatchError, match=r"the manifest says"):
        engine.load(built.folder).open()


def test_refuses_a_precision_it_lacks(backend, build):
    """A precision that cannot be computed in here is refused, and those that can are named."""
    can = backends.get(backend).capabilities(describe_machine())
    lacking = next(name for name in PRECISIONS if name not in can.precisions)
    with pytest.raises(PrecisionError, match=f"{backend!r} cannot compute in {lacking} .*it offers: .*fp32"):
        build(DOUBLE, precision=lacking)


def test_refuses_an_unknown_option(build, tmp_path):
    """An option that the backend does not have is refused, at building and at opening."""
    with pytest.raises(UnknownNameError, match="unknown option 'thread'"):
        build(DOUBLE, options={"thread": 2})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnknownNameError, match="unknown option 'thread'"):
        build(DOUBLE).open({"thread": 2})


def test_refuses_an_unknown_operator(build, tmp_path):
    """A graph that the library cannot run fails when it is built, with a mend, and leaves nothing behind."""
    text = """<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]>
              odd (float[n] x) => (float[n] y) { y = my.ops.Foo(x) }"""
    with pytest.raises(BuildError, match="cannot build this graph") as caught:
        build(ir.from_onnx_text(text))
    assert caught.value.mend
    assert list(tmp_path.iterdir()) == []


def test_leaves_the_graph_alone(backend, small_model, tmp_path):
    """Building does not change the graph that was handed over."""
    before = ir.to_proto(small_model).SerializeToString()
    engine.build(small_model, BuildSpec(), tmp_path / "model.engine", backend=backend)
    assert ir.to_proto(small_model).SerializeToString() == before
