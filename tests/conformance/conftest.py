"""The backends under test, the models they build, and the table of known gaps."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from enginery import backends
from enginery.backends import engine
from enginery.errors import BuildError, RunError
from enginery.spec import BuildSpec, parse_shapes

TOY = importlib.metadata.EntryPoint("toy", "toy_backend", backends.ENTRY_POINT_GROUP)
NAMES = (*backends.BACKENDS, TOY.name)
FAILS = pytest.fail.Exception  # what pytest.raises itself raises when nothing was raised


@dataclass(frozen=True)
class Gap:
    """One test that one backend does not pass.

    Args:
        kind: `notyet` (ours to build), `impossible` (the library cannot), or `never` (it makes no sense there).
        raises: the exception the test ends with; any other, or a pass, fails the run.
    """

    kind: str
    raises: type[BaseException]
    reason: str


GAPS = {
    ("null", "test_refuses_an_unknown_operator"): Gap("never", FAILS, "it looks at no operator"),
    ("null", "test_refuses_a_precision_it_lacks"): Gap("never", StopIteration, "it takes every precision"),
    ("null", "test_takes_sequences"): Gap("never", RunError, "it knows tensors only"),
    ("openvino", "test_takes_strings"): Gap("impossible", BuildError, "OpenVINO 2026.4 crashes on texts"),
    ("openvino", "test_takes_sequences"): Gap("impossible", BuildError, "OpenVINO has no sequences"),
    ("openvino", "test_keeps_large_int64"): Gap("impossible", AssertionError, "its CPU plugin computes int64 in int32"),
}


def pytest_generate_tests(metafunc):
    """Run every test that takes a backend on each of them."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", NAMES, indirect=True)


def pytest_collection_modifyitems(items):
    """Mark the known gaps, strictly: what passes unexpectedly, or fails otherwise than expected, fails the run."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        gap = GAPS.get((name, getattr(item, "originalname", "")))
        if gap is not None:
            reason = f"{gap.kind}: {gap.reason}"
            item.add_marker(pytest.mark.xfail(raises=gap.raises, reason=reason, strict=True))


@pytest.fixture
def plugin(monkeypatch):
    """Make the toy backend known as an installed distribution would."""
    found = importlib.metadata.entry_points

    def with_toy(**selection):
        ours = selection == {"group": backends.ENTRY_POINT_GROUP}
        return (*found(**selection), TOY) if ours else found(**selection)

    monkeypatch.setattr(importlib.metadata, "entry_points", with_toy)
    backends.table.cache_clear()
    yield TOY.name
    monkeypatch.undo()
    backends.table.cache_clear()


@pytest.fixture
def backend(request, plugin):
    """Return the name of the backend under test."""
    assert plugin in backends.names()
    found = backends.get(request.param).probe()
    if not found.usable:  # one that only builds here is tested by its own tests
        pytest.skip(f"{request.param}: {found.reason}; {found.mend}")
    return request.param


@pytest.fixture
def build(backend, tmp_path):
    """Return a function that builds a model given as ONNX text, with shapes as the command line writes them."""

    def make(text, *shapes, name="model", **spec):
        model = (
            text
            if isinstance(text, ir.Model)
            else ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
        )
        asked = BuildSpec(shapes=parse_shapes(shapes), **spec)
        return engine.build(model, asked, tmp_path / f"{name}.engine", backend=backend)

    return make


@pytest.fixture
def check(backend):
    """Return a function that compares outputs: names, dtypes, shapes; and values, of backends that compute."""

    def compare(found, **expected):
        assert list(found) == list(expected)
        for name, wanted in expected.items():
            assert isinstance(found[name], np.ndarray), f"{name} is a {type(found[name]).__name__}"
            assert found[name].dtype == wanted.dtype, f"{name} is {found[name].dtype}, not {wanted.dtype}"
            assert found[name].shape == wanted.shape, f"{name} has shape {found[name].shape}, not {wanted.shape}"
            if backend == "null":
                continue
            if wanted.dtype.kind == "f":
                np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(found[name], wanted)

    return compare
