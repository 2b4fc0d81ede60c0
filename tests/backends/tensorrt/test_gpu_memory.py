"""Whether a build can fit the GPU: refused only where it clearly cannot."""

from __future__ import annotations

import types

import onnx_ir as ir
import pytest

from enginery.backends.tensorrt import building, gpu_memory
from enginery.backends.tensorrt.gpu_memory import check_room, free_bytes
from enginery.backends.tensorrt.versions import LIBRARIES, Api
from enginery.errors import BuildError, DeviceMemoryError

GIB = 1 << 30


def test_weights_that_do_not_fit_are_refused():
    """The message has both sizes, the mend what frees memory."""
    with pytest.raises(
        DeviceMemoryError, match=r"the weights take 6\.0 GiB and 4\.0 GiB of GPU memory are free"
    ) as caught:
        check_room(6 * GIB, 0, 4 * GIB)
    assert "nvidia-smi" in caught.value.mend
    assert check_room(6 * GIB, 0, 4 * GIB, streamed=True) != "", "they stay on the host, but the builder holds them"


@pytest.mark.parametrize(
    ("weights", "workspace_mib", "free", "note"),
    [
        (GIB, 0, 8 * GIB, ""),
        (GIB, 4096, 8 * GIB, ""),
        (GIB, 16384, 8 * GIB, "workspace_mib=16384 is more than the 8.0 GiB of GPU memory that are free"),
        (3 * GIB, 0, 4 * GIB, "the build may need 6.3 GiB of GPU memory and 4.0 GiB are free"),
        (100 * GIB, 0, None, ""),
    ],
)
def test_what_may_be_short_is_told(weights, workspace_mib, free, note):
    """Where memory is not known, nothing is said."""
    assert check_room(weights, workspace_mib, free).startswith(note)
    assert bool(check_room(weights, workspace_mib, free)) == bool(note)


def test_free_memory_is_asked_of_the_device_that_builds(monkeypatch):
    """Where cuda-python is not here, it is not known."""
    devices = []

    class Cuda:
        """Stands for a machine with two GPUs."""

        def set_device(self, index):
            """Note it."""
            devices.append(index)

        def memory_info(self):
            """Return free and whole memory."""
            return 5 * GIB, 8 * GIB

    monkeypatch.setattr(gpu_memory, "load_cuda", Cuda)
    monkeypatch.setattr(gpu_memory.optional, "installed", lambda _: True)
    assert free_bytes(1) == 5 * GIB
    assert devices == [1]
    monkeypatch.setattr(gpu_memory.optional, "installed", lambda _: False)
    assert free_bytes(0) is None


@pytest.mark.parametrize(
    ("device", "gpus", "installed", "asked"),
    [(0, (), True, []), (0, ("NVIDIA L4",), True, [0]), (0, ("NVIDIA L4",), False, []), (1, (), False, [1])],
)
def test_the_gpu_is_chosen_before_the_builder_is_made(monkeypatch, device, gpus, installed, asked):
    """Another than the first is never left out in silence: where it cannot be chosen, choosing it raises."""
    chosen = []
    monkeypatch.setattr(gpu_memory, "describe_machine", lambda: types.SimpleNamespace(gpus=gpus))
    monkeypatch.setattr(gpu_memory.optional, "installed", lambda _: installed)
    monkeypatch.setattr(gpu_memory, "load_cuda", lambda: types.SimpleNamespace(set_device=chosen.append))
    gpu_memory.use_device(device)
    assert chosen == asked


@pytest.mark.parametrize(
    ("said", "kind"),
    [("2: OutOfMemory (no further information)", DeviceMemoryError), ("4: cannot build engine", BuildError)],
)
def test_a_build_that_ran_out_of_memory_is_told_apart(said, kind):
    """It may go well when other programs have ended; a graph that cannot be built stays so."""
    log = types.SimpleNamespace(errors=lambda: [said], path=None)
    construction = types.SimpleNamespace(api=Api(LIBRARIES["tensorrt"], types.SimpleNamespace(), "8.6.0"), log=log)
    empty = ir.from_onnx_text('<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float x) { }')
    error = building.Construction._failure(construction, empty)
    assert type(error) is kind
    assert said in error.message
    assert error.mend
