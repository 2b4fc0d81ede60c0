"""CUDA's calls: what fails is named; and buffers and copies, which need no GPU to be right."""

from __future__ import annotations

import numpy as np
import pytest
from fake_gpu import CudaError, FakeRuntime

from enginery.backends.tensorrt.buffers import Buffers, bucket_bytes
from enginery.backends.tensorrt.copying import Copier
from enginery.backends.tensorrt.cuda import Cuda, load_cuda
from enginery.backends.tensorrt.graphs import Replay
from enginery.errors import BackendUnavailableError, RunError


@pytest.fixture
def gpu():
    """Return the fake GPU."""
    return FakeRuntime()


def real():
    """Return CUDA by the installed cuda-python."""
    pytest.importorskip("cuda.bindings.runtime")
    return load_cuda()


def test_real_bindings_have_every_function_of_the_fake_one():
    """The fake GPU has no function that cuda-python has not."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = [name for name in dir(FakeRuntime) if name.startswith("cuda")]
    assert len(names) > 25
    assert [name for name in names if not hasattr(runtime, name)] == []


def test_no_gpu_is_said_with_cudas_words():
    """By the installed cuda-python itself."""
    cuda = real()
    if cuda.driver_version() != (0, 0):
        pytest.skip("a driver is here")
    with pytest.raises(BackendUnavailableError, match=r"cudaGetDeviceCount answered cudaError\w+ \(\d+\): .*driver"):
        cuda.device_count()
    assert cuda.runtime_version() >= (12, 0)


def test_hidden_gpus_are_not_called_a_missing_driver(gpu):
    """CUDA answers the same where there is no GPU and where a variable hides it, so the mend names both."""
    gpu.fail = {"cudaSetDevice 0": CudaError.cudaErrorNoDevice}
    with pytest.raises(BackendUnavailableError, match=r"cudaErrorNoDevice \(100\)") as caught:
        Cuda(gpu).set_device(0)
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value.mend)


def test_failed_call_names_itself_and_the_error(gpu):
    """The call, the error's name, number and text."""
    cuda = Cuda(gpu)
    for name, call in (
        ("cudaMalloc", lambda: cuda.malloc(8)),
        ("cudaMemcpyAsync", lambda: cuda.copy_in(1, 2, 3, 4)),
        ("cudaMemcpyAsync", lambda: cuda.copy_out(1, 2, 3, 4)),
        ("cudaStreamSynchronize", lambda: cuda.synchronize(1)),
    ):
        gpu.fail = {name: CudaError.cudaErrorInvalidValue}
        with pytest.raises(RunError, match=rf"CUDA: {name} answered cudaErrorInvalidValue \(1\): text of"):
            call()


def test_device_is_described(gpu):
    """Names come as bytes."""
    found = Cuda(gpu).device(0)
    assert (found.name, found.compute_capability, found.multiprocessors) == ("Fake H200", "9.0", 132)
    assert Cuda(gpu).memory_info() == (1 << 30, 2 << 30)
    assert Cuda(gpu).driver_version() == (13, 0)


def test_buckets_waste_an_eighth_at_the_most():
    """And a bucket is its own bucket."""
    for size in (*range(1, 3000, 7), *np.random.default_rng(0).integers(3000, 1 << 34, 500).tolist()):
        bucket = bucket_bytes(size)
        assert size <= bucket <= max(512, size * 1.125 + 512)
        assert bucket_bytes(bucket) == bucket


def test_one_bucket_is_allocated_once(gpu):
    """Neighbouring sizes share memory."""
    buffers = Buffers(Cuda(gpu))
    assert buffers.get("x", 1000) is buffers.get("x", 1024)
    assert buffers.get("x", 1000) is not buffers.get("y", 1000)
    buffers.get("x", 9000).view((9,), np.dtype(np.int8))[:] = 3
    assert len(gpu.memory) == len(gpu.host) == 3
    buffers.close()
    assert (gpu.memory, gpu.host) == ({}, {})


def test_host_memory_is_freed_where_the_device_has_none(gpu):
    """A half-made pair leaves nothing."""
    gpu.fail["cudaMalloc"] = CudaError.cudaErrorMemoryAllocation
    with pytest.raises(RunError, match="cudaErrorMemoryAllocation"):
        Buffers(Cuda(gpu)).get("x", 1000)
    assert gpu.host == {}


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_large_arrays_are_copied_whole(threads):
    """By one thread or several, and where parts are scattered."""
    copier = Copier(threads)
    source = np.random.default_rng(0).integers(0, 255, (3, 5, 1_000_003), np.uint8)
    target = np.zeros_like(source)
    copier.copy(target, source)
    np.testing.assert_array_equal(target, source)
    turned = np.zeros(source.shape[::-1], np.uint8)
    copier.copy(turned, source.T)
    np.testing.assert_array_equal(turned, source.T)
    copier.close()


def test_replay_forgets_what_was_captured(gpu):
    """After that, it warms up again."""
    done = []
    replay = Replay(Cuda(gpu), 5, lambda: gpu.ask(5, lambda: done.append(1)), failed=lambda _: None)
    for _ in range(4):
        replay.go()
    assert (len(done), replay.captured) == (4, True)
    replay.drop()
    assert (replay.captured, gpu.graphs) == (False, {})
    replay.go()
    assert len(done) == 5
