"""Opening a plan: what is compared before it is read, and what is said where TensorRT refuses it."""

from __future__ import annotations

import dataclasses
import types

import pytest
from fake_gpu import FakeRuntime, X, Y, doubling, fake_api

from enginery.backends.session import Session
from enginery.backends.tensorrt import runtime
from enginery.backends.tensorrt.cuda import Cuda, DeviceInfo
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.options import read_options
from enginery.backends.tensorrt.versions import load_api
from enginery.errors import BackendUnavailableError, BuildError, FeatureError
from enginery.records import TargetRecord

HERE = DeviceInfo(0, "NVIDIA H200", "9.0", 1 << 37, 132)
TARGET = TargetRecord("tensorrt", "8.6.0", "NVIDIA H200", ("9.0",), "580")


def check(target=TARGET, **options):
    """Compare a target with the H200 and TensorRT 8.6.0."""
    runtime.check_target(fake_api(), target, HERE, read_options(options))


def test_the_machine_it_was_built_on_opens_it():
    """So does any GPU, where the target names none."""
    check()
    check(dataclasses.replace(TARGET, compute_capabilities=()))
    check(dataclasses.replace(TARGET, version="8.6.1"), version_compatible=True)
    check(dataclasses.replace(TARGET, compute_capabilities=("8.0",)), hardware_compatibility="ampere_plus")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"library": "tensorrt_rtx"}, "built by tensorrt_rtx, and tensorrt is to open it; build the engine again"),
        ({"version": "10.3.0"}, r"built by TensorRT 10\.3\.0, and 8\.6\.0 is here: .* install tensorrt==10\.3\.0"),
        (
            {"gpu": "NVIDIA L4", "compute_capabilities": ("8.9",)},
            r"built for NVIDIA L4 of compute capability 8\.9, and NVIDIA H200 has 9\.0; .*hardware_compatibility",
        ),
    ],
)
def test_another_machine_is_refused_before_the_plan_is_read(change, text):
    """The message has both sides, the mend what to build or install."""
    with pytest.raises(BackendUnavailableError, match=text):
        check(dataclasses.replace(TARGET, **change))


def test_refused_plan_has_the_librarys_own_words(tmp_path):
    """A real library reads a file that is no plan."""
    pytest.importorskip("tensorrt_rtx")
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"x" * 1000)
    api = load_api("tensorrt_rtx")
    with pytest.raises(BuildError, match=r"refused the plan .*model\.plan \(1000 bytes\): .*Serialization.*cut short"):
        runtime.deserialize(api, plan, BuildLog(api))


def opening(tmp_path, monkeypatch, **options):
    """Open an engine folder whose plan a fake library reads."""
    gpu, api = FakeRuntime(), fake_api()
    engine = doubling(gpu)
    monkeypatch.setattr(runtime, "load_cuda", lambda: Cuda(gpu))
    monkeypatch.setattr(runtime, "BuildLog", lambda _: types.SimpleNamespace(logger=None, errors=tuple))
    monkeypatch.setattr(runtime, "deserialize", lambda *_, **__: engine)
    manifest = types.SimpleNamespace(target=TARGET, inputs=(X,), outputs=(Y,))
    return gpu, runtime.open_plan(api, tmp_path, manifest, read_options(options))


def test_options_of_the_session_reach_the_runner(tmp_path, monkeypatch):
    """Placement names the GPU and the library."""
    import numpy as np

    gpu, runner = opening(tmp_path, monkeypatch, cuda_graph=False, contexts=2, spin=True)
    assert runner.placement == "Fake H200 (GPU 0), TensorRT 8.6.0"
    assert gpu.calls[:2] == ["cudaSetDevice 0", "cudaSetDeviceFlags"]  # the flags are of the thread's device
    with Session(runner, (X,), (Y,)) as session:
        for _ in range(5):
            np.testing.assert_array_equal(session(np.ones((2, 3), np.float32)), np.full((2, 3), 2, np.float32))
    assert "cudaStreamBeginCapture" not in gpu.calls
    assert gpu.memory == {}


def test_streamed_weights_need_a_version_that_has_them(tmp_path, monkeypatch):
    """TensorRT 8 has none; it is said, not ignored."""
    with pytest.raises(FeatureError, match=r"weights streamed .* TensorRT 8\.6\.0 is here"):
        opening(tmp_path, monkeypatch, weight_budget_mib=64)
