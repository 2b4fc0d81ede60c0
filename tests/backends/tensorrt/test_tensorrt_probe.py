"""What each TensorRT backend says of a machine before anything is imported, and of plugin libraries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enginery import backends, optional
from enginery.backends.tensorrt import backend as module
from enginery.backends.tensorrt.plugins import load_plugins
from enginery.backends.tensorrt.targets import check_capabilities, target_of
from enginery.backends.tensorrt.versions import LIBRARIES, Api, opset_ceiling, precisions
from enginery.errors import BackendError, FeatureError, PrecisionError
from enginery.machine import describe_machine
from enginery.records import GraphRecord

H200 = "NVIDIA H200, 143771 MiB, compute capability 9.0"
L4 = "NVIDIA L4, 23034 MiB, compute capability 8.9"


@pytest.fixture
def probe(monkeypatch):
    """Return a function that probes one library on a machine with those GPUs."""

    def answer(library, *gpus, version="10.3.0", cuda=True):
        made = replace(describe_machine(), gpus=gpus, driver="580.65" if gpus else None)
        monkeypatch.setattr(module, "describe_machine", lambda: made)
        monkeypatch.setattr(module, "_installed_version", lambda _: version)
        monkeypatch.setattr(module, "_device_here", lambda: False)
        monkeypatch.setattr(optional, "installed", lambda name: cuda or name != "cuda")
        return module.TensorRTBackend(library).probe()

    return answer


def test_library_without_a_gpu_is_not_called_missing(probe, monkeypatch):
    """It is installed, and its version is told."""
    probe("tensorrt")
    monkeypatch.setattr(backends, "get", lambda _: module.TensorRTBackend("tensorrt"))
    with pytest.raises(BackendError, match=r"cannot be used here: TensorRT 10.3.0 is installed, but no NVIDIA GPU"):
        backends.get_available("tensorrt")


def test_tensorrt_needs_a_gpu(probe):
    """Without one it builds nothing; with one it does all."""
    without = probe("tensorrt")
    assert (without.available, without.version) == (False, "10.3.0")
    assert "no NVIDIA GPU is here" in without.reason
    assert "nvidia-smi" in without.mend
    assert probe("tensorrt", H200).usable


def test_rtx_builds_without_a_gpu_and_runs_on_some(probe):
    """No GPU, and one of a data centre: it builds; a GPU of its list: it runs too."""
    for gpus, said in (((), "ahead of time"), ((H200,), "does not run on NVIDIA H200 (compute capability 9.0)")):
        found = probe("tensorrt_rtx", *gpus)
        assert (found.available, found.runs, found.usable) == (True, False, False)
        assert said in found.reason
        assert found.mend
    assert probe("tensorrt_rtx", L4).usable


def test_what_is_not_installed(probe):
    """The library itself, and what its engines run with, each with its pip line."""
    missing = probe("tensorrt", H200, version=None)
    assert (missing.available, missing.mend) == (False, 'run: pip install "enginery[tensorrt]"')
    without_cuda = probe("tensorrt", H200, cuda=False)
    assert (without_cuda.available, without_cuda.runs) == (True, False)
    assert "cuda-python is not installed" in without_cuda.reason


@pytest.mark.parametrize(
    ("library", "version", "opset", "bf16"),
    [
        ("tensorrt", "8.5.3.1", 17, False), ("tensorrt", "8.6.0", 17, False), ("tensorrt", "10.0.1", 20, True),
        ("tensorrt", "10.16.1", 20, True), ("tensorrt", "11.4.0", 25, True), ("tensorrt_rtx", "1.4.0", 20, True),
        ("tensorrt_rtx", "1.7.1.116", 25, True),
    ],
)  # fmt: skip
def test_what_a_version_can_do(library, version, opset, bf16):
    """The opset's ceiling and the precisions follow from the version alone."""
    assert opset_ceiling(LIBRARIES[library], version) == opset
    since_typed = {"bf16", "fp8"} if bf16 else set()
    assert precisions(LIBRARIES[library], version) == {"fp32", "tf32", "fp16", "int8"} | since_typed


@pytest.mark.parametrize(
    ("library", "version", "fixed"),
    [
        ("tensorrt", "8.5.3.1", [{}]), ("tensorrt", "8.6.0", [{}, {"optimization_level": 5}]),
        ("tensorrt_rtx", "1.7.1.116", [{}, {"optimization_level": 5}]),
    ],
)  # fmt: skip
def test_what_optimize_tries(monkeypatch, library, version, fixed):
    """Where sizes vary, profiles of one size; else the highest level, which 8.5 has not."""
    monkeypatch.setattr(module, "_installed_version", lambda _: version)
    graph = GraphRecord("g", (), (), 1, {}, 0, 0, None, {"": 17}, 8, "", ("batch",))
    backend, machine = module.TensorRTBackend(library), describe_machine()
    assert list(backend.variants(graph, machine)) == [{}, {"narrow": "ends"}]
    assert list(backend.variants(replace(graph, dynamic_dims=()), machine)) == fixed


def test_a_target_is_the_gpu_that_it_was_built_on():
    """TensorRT's is the GPU that is here; TensorRT-RTX's what was asked for."""
    machine = replace(describe_machine(), gpus=(H200, L4), driver="580.65")
    built = target_of(Api(LIBRARIES["tensorrt"], None, "8.6.0"), (), 1, machine)
    assert (built.gpu, built.compute_capabilities, built.driver) == ("NVIDIA L4", ("8.9",), "580.65")
    ahead = target_of(Api(LIBRARIES["tensorrt_rtx"], None, "1.7.1"), ("8.6",), 0, machine)
    assert (ahead.library, ahead.gpu, ahead.compute_capabilities) == ("tensorrt_rtx", "", ("8.6",))


def test_a_precision_that_no_asked_gpu_has():
    """Where none is left, another precision is the mend."""
    with pytest.raises(PrecisionError, match=r"compute capability 7.5 cannot compute in tf32.*ask for fp16 or fp32"):
        check_capabilities("tf32", ("7.5",))
    check_capabilities("fp16", ("7.5", "12.0"))


def test_plugin_libraries_are_looked_for_before_they_are_loaded(tmp_path):
    """One that is not there, one that is no library, and a library without plugins are told by the file's name."""
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from enginery.backends.tensorrt.versions import load_api

    rtx = load_api("tensorrt_rtx")
    plain = replace(rtx, library=LIBRARIES["tensorrt"])
    (tmp_path / "text.so").write_text("no library")
    assert load_plugins(plain, (), None) == ()
    with pytest.raises(BackendError, match=r"plugin library /nowhere/a.so is not there; give the path"):
        load_plugins(plain, ("/nowhere/a.so",), None)
    logger = rtx.module.Logger()
    with pytest.raises(BackendError, match=r"text.so cannot be loaded: .*; it must be built for TensorRT"):
        load_plugins(plain, (str(tmp_path / "text.so"),), logger)
    with pytest.raises(FeatureError, match="TensorRT-RTX has no plugins"):
        load_plugins(rtx, ("a.so",), logger)
