"""Arrays of the device in and out, on a GPU of numpy memory, where the host's torch tensors lie as well."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fake_gpu import DataType, FakeRuntime, X, Y, doubling, session_of

from enginery.backends import device_arrays
from enginery.backends.tensorrt import on_device
from enginery.errors import InputDtypeError, InputNameError, InputShapeError, RunError
from enginery.records import TensorInfo
from enginery.spec import Shape

CALLERS = 7001


class Held:
    """An array with the interface, of another library."""

    def __init__(self, array, stream=CALLERS, strides=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3,
            "stream": stream, "strides": strides,
        }  # fmt: skip


@pytest.fixture
def gpu():
    """Return the fake GPU."""
    return FakeRuntime()


@pytest.fixture(autouse=True)
def numpys_alignment(monkeypatch):
    """Take memory as numpy aligns it; the GPU's allocators give multiples of 256 bytes."""
    monkeypatch.setattr(on_device, "_ALIGNMENT", 16)


def batch(size, seed=0):
    """Return random rows."""
    return np.random.default_rng(seed).random((size, 3), np.float32)


def read(array):
    """Return what lies at the address that an array with the interface names."""
    import ctypes

    found = array.__cuda_array_interface__
    size = int(np.prod(found["shape"])) * np.dtype(found["typestr"]).itemsize
    memory = (ctypes.c_ubyte * size).from_address(found["data"][0])
    return np.frombuffer(memory, found["typestr"]).reshape(found["shape"]).copy()


@pytest.mark.parametrize("stream", [CALLERS, None, 1])
def test_outputs_lie_on_the_device(gpu, stream):
    """On the caller's stream, on none, and on the default one."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for seed in range(5):
            x = batch(4, seed)
            found = session(Held(x, stream))
            np.testing.assert_array_equal(read(found), 2 * x)


def test_nothing_is_copied(gpu):
    """The engine reads and writes the caller's memory."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        session.run({"x": Held(batch(4))}, outputs={"y": Held(np.empty((4, 3), np.float32))})
    assert "cudaMemcpyAsync" not in gpu.calls


def test_known_addresses_are_replayed_and_new_ones_enqueued(gpu):
    """A graph is captured for addresses that came three times."""
    engine = doubling(gpu)
    x, y = Held(batch(4)), Held(np.empty((4, 3), np.float32))
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for _ in range(6):
            y.array[:] = 0
            assert session.run({"x": x}, outputs={"y": y})["y"] is y
            np.testing.assert_array_equal(y.array, 2 * x.array)
        assert gpu.calls.count("cudaGraphLaunch") == 4
        keep = [Held(batch(4, seed)) for seed in range(5)]
        for other in keep:
            session.run({"x": other}, outputs={"y": y})
            np.testing.assert_array_equal(y.array, 2 * other.array)
        assert gpu.calls.count("cudaGraphLaunch") == 4
        assert gpu.calls.count("cudaStreamBeginCapture") == 1


def test_streams_wait_for_one_another(gpu):
    """Calls on several streams share memory, so they stay in order."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        session(Held(batch(4), stream=7001))
        assert not [call for call in gpu.calls if call.startswith("wait")]
        session(Held(batch(4), stream=7002))
        assert [call.split()[1] for call in gpu.calls if call.startswith("wait")] == ["7002"]
        gpu.calls.clear()
        session(batch(4))
        assert len([call for call in gpu.calls if call.startswith("wait")]) == 1


def test_host_and_device_take_turns(gpu):
    """One session takes both kinds."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for seed in range(6):
            x = batch(3, seed)
            np.testing.assert_array_equal(session(x), 2 * x)
            np.testing.assert_array_equal(read(session(Held(x))), 2 * x)


def test_everything_is_freed(gpu):
    """Graphs, contexts, and arrays that were made."""
    x, y = Held(batch(4)), Held(np.empty((4, 3), np.float32))
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for _ in range(4):
            session.run({"x": x}, outputs={"y": y})
        session(x)
    assert (gpu.memory, gpu.host, gpu.graphs) == ({}, {}, {})


def test_data_dependent_output_is_an_array_of_its_size(gpu):
    """Also where it is empty."""
    engine = doubling(
        gpu,
        outputs={"y": (DataType.INT32, (2, -1), lambda _: (2, -1))},
        compute=lambda x: {"y": np.stack(np.nonzero(x > 0))},
    )
    with session_of(engine, gpu, (X,), (TensorInfo("y", "int64", (2, "found")),)) as session:
        for x in (np.eye(8, 3, dtype=np.float32), np.zeros((8, 3), np.float32)):
            found = session(Held(x))
            assert found.shape == (2, np.count_nonzero(x))
            if found.shape[1]:
                np.testing.assert_array_equal(read(found), np.stack(np.nonzero(x)))
        del found


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (Held(np.zeros((9, 3), np.float32)), InputShapeError, r"'x', axis 0 \(batch\): size 9 .* allows 1 to 8"),
        (Held(np.zeros((4, 3))), InputDtypeError, "'x' has dtype float64, the engine takes float32 on the device"),
        (Held(np.zeros((4, 3), np.float32), strides=(4, 16)), InputDtypeError, "does not lie in one piece"),
    ],
)
def test_wrong_inputs_are_refused(gpu, given, error, text):
    """Shape, element type and layout are checked without a copy."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, pytest.raises(error, match=text):
        session(given)


def test_wrong_names_and_kinds_are_refused(gpu):
    """Inputs and outputs are named in the message."""
    two = {"x": (DataType.FLOAT, (-1, 3)), "w": (DataType.FLOAT, (-1, 3))}
    sizes = dict.fromkeys(two, ((1, 3), (4, 3), (8, 3)))
    engine = doubling(gpu, inputs=two, compute=lambda x, w: {"y": x + w}, profiles=(sizes,))
    infos = (X, TensorInfo("w", "float32", ("batch", 3), X.profile))
    with session_of(engine, gpu, infos, (Y,)) as session:
        np.testing.assert_array_equal(read(session(Held(batch(2)), Held(batch(2, 1)))), batch(2) + batch(2, 1))
        with pytest.raises(InputNameError, match="input 'w' is missing"):
            session.run({"x": Held(batch(4))})
        with pytest.raises(InputDtypeError, match="input 'w' is a ndarray of the host, others lie on the device"):
            session.run({"x": Held(batch(4)), "w": batch(4)})
        with pytest.raises(InputNameError, match="unknown output 'z'"):
            session.run({"x": Held(batch(4)), "w": Held(batch(4))}, outputs={"z": Held(batch(4))})
        with pytest.raises(InputShapeError, match="output 'y' has the shape"):
            session.run({"x": Held(batch(4)), "w": Held(batch(4))}, outputs={"y": Held(batch(5))})


def test_torch_tensors_come_back_as_torch_tensors(gpu, monkeypatch):
    """Torch is not imported for that, and stays its caller's."""
    torch = pytest.importorskip("torch")
    kind = device_arrays._torch()
    monkeypatch.setattr(kind, "_raw_stream", lambda _: CALLERS)
    monkeypatch.setattr("enginery.backends.session.kind_of", lambda _: kind)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for seed in range(5):
            x = torch.from_numpy(batch(4, seed))
            found = session(x)
            assert isinstance(found, torch.Tensor)
            assert torch.equal(found, 2 * x)
        mine = torch.empty(4, 3)
        assert session.run({"x": x}, outputs={"y": mine})["y"] is mine
        assert torch.equal(mine, 2 * x)
        with pytest.raises(InputDtypeError, match="has dtype float16, the engine takes float32"):
            session(x.half())
        with pytest.raises(InputDtypeError, match=r"one piece, row by row; give tensor\.contiguous\(\)"):
            session(torch.zeros(3, 4).T)
        events = [call for call in gpu.calls if call.startswith("record")]
        assert events == []  # torch's streams live on, so the event waits until another stream comes


def torch_here(monkeypatch):
    """Return torch, whose tensors of the host lie on the fake GPU."""
    torch = pytest.importorskip("torch")
    kind = device_arrays._torch()
    monkeypatch.setattr(kind, "_raw_stream", lambda _: CALLERS)
    monkeypatch.setattr("enginery.backends.session.kind_of", lambda _: kind)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    return torch


@pytest.mark.parametrize("given", [True, False])
def test_a_call_like_the_last_one_takes_the_short_way(gpu, monkeypatch, given):
    """It gives the same, and outputs that are still held are not written to again."""
    torch = torch_here(monkeypatch)
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        x, mine, before = torch.empty(4, 3), torch.empty(4, 3), None
        # As a caching allocator does, it hands out the same few again, the first that nobody holds.
        pool, ran, counted = [torch.empty(4, 3) for _ in range(4)], [], []
        unheld = sys.getrefcount(pool[0])
        monkeypatch.setattr(
            device_arrays._torch(), "_empty",
            lambda *_, **__: pool[next(at for at in range(4) if sys.getrefcount(pool[at]) == unheld)],
        )  # fmt: skip
        for seed in range(60):
            x.copy_(torch.from_numpy(batch(4, seed)))
            replay = session._gpu.replay
            if replay is not None and replay not in counted:
                monkeypatch.setattr(replay, "_launch", counting(replay._launch, ran))
                counted.append(replay)
            found = session.run({"x": x}, outputs={"y": mine} if given else None)["y"]
            assert torch.equal(found, 2 * x)
            assert (found is mine) == given
            if before is not None and not given:
                assert torch.equal(before[0], before[1])
            before = found, 2 * x
        assert len(ran) > 40, "also where the allocator hands out other arrays for each next call"
    assert session._gpu.replay is None


def test_arrays_without_a_stream_take_the_short_way_and_wait(gpu):
    """What they name no stream for is done when the call returns."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        x, y = Held(batch(4), stream=None), Held(np.empty((4, 3), np.float32), stream=None)
        for _ in range(6):
            session.run({"x": x}, outputs={"y": y})
        gpu.calls.clear()
        y.array[:] = 0
        assert session._gpu.replay({"x": x}, {"y": y}) == {"y": y}
        np.testing.assert_array_equal(y.array, 2 * x.array)
        assert [call.split()[0] for call in gpu.calls] == ["cudaGraphLaunch", "cudaStreamSynchronize"]
        np.testing.assert_array_equal(session(batch(4, 1)), 2 * batch(4, 1))


def counting(launch, ran):
    """Return the function, which says that it ran."""
    return lambda *given: (ran.append(1), launch(*given))[1]


def test_another_call_than_the_last_one_takes_the_long_way(gpu, monkeypatch):
    """Whatever differs is told, or run, as ever."""
    torch = torch_here(monkeypatch)
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        x, mine = torch.from_numpy(batch(4)), torch.empty(4, 3)
        for _ in range(6):
            session.run({"x": x}, outputs={"y": mine})
        replay = session._gpu.replay
        others = [
            ({"x": torch.from_numpy(batch(5))}, None), ({"x": x.half()}, None), ({"x": x.numpy()}, None),
            ({"z": x}, None), ({"x": x, "z": x}, None), ({"x": x}, {"y": torch.empty(5, 3)}),
            ({"x": x}, {"y": torch.empty(4, 3), "z": mine}), ({"x": x}, {"z": mine}), ({"x": x}, {"y": mine.numpy()}),
        ]  # fmt: skip
        assert [replay(*other) for other in others] == [None] * len(others)
        five = torch.from_numpy(batch(5))
        assert torch.equal(session.run({"x": five})["y"], 2 * five)
        assert torch.equal(session.run({"x": x}, outputs={"y": mine})["y"], 2 * x)
        monkeypatch.setattr(device_arrays._torch(), "_raw_stream", lambda _: CALLERS + 1)
        assert replay({"x": x}, {"y": mine}) is None


def test_the_short_way_is_of_the_last_kind_of_array(gpu, monkeypatch):
    """Calls of another type, on the same stream and of the same shapes, get it in turn."""
    torch = torch_here(monkeypatch)
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        mine = torch.empty(4, 3)
        x = torch.from_numpy(batch(4))
        for array in (x, torch.nn.Parameter(x, requires_grad=False), x):
            for _ in range(6):
                session.run({"x": array}, outputs={"y": mine})
            given = {"y": mine} if type(array) is torch.Tensor else None
            assert (session._gpu.replay({"x": array}, given) is None) == (given is None)
            assert session._gpu.replay._type is type(array)


def test_arrays_of_another_gpu_are_refused(gpu, monkeypatch):
    """Where there are several; an address there is none here."""
    monkeypatch.setattr(FakeRuntime, "cudaGetDeviceCount", lambda _: (0, 2))
    monkeypatch.setattr(device_arrays._Interface, "device", lambda *_: 1)
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        np.testing.assert_array_equal(session(batch(4)), 2 * batch(4))
        assert "cudaSetDevice 0" in gpu.calls
        with pytest.raises(InputDtypeError, match=r"lie on GPU 1, the engine on GPU 0; .*device=1"):
            session(Held(batch(4)))


def test_host_tensors_are_of_no_device():
    """They take the host's path."""
    torch = pytest.importorskip("torch")
    assert device_arrays.kind_of(torch.zeros(2)) is None
    assert device_arrays.kind_of(np.zeros(2)) is None


def test_part_of_an_array_that_lies_crooked_is_refused(gpu):
    """TensorRT's kernels trust its address."""
    whole = np.zeros(13, np.float32)
    crooked = next(whole[at : at + 12] for at in (0, 1) if whole[at:].ctypes.data % 16)
    with (
        session_of(doubling(gpu), gpu, (X,), (Y,)) as session,
        pytest.raises(InputDtypeError, match=r"the memory of 'x' begins at 0x.*multiples of 16 bytes.*tensor\.clone"),
    ):
        session(Held(crooked.reshape(4, 3)))


def test_graph_of_a_context_that_another_shape_took_is_not_replayed(gpu):
    """As on TensorRT 8.5, where one context takes all shapes."""
    engine = doubling(gpu, sharing=False)
    x, y = Held(batch(4)), Held(np.empty((4, 3), np.float32))
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for _ in range(4):
            session.run({"x": x}, outputs={"y": y})
        launched = gpu.calls.count("cudaGraphLaunch")
        assert launched
        session(Held(batch(2)))
        session.run({"x": x}, outputs={"y": y})
        assert gpu.calls.count("cudaGraphLaunch") == launched
        np.testing.assert_array_equal(y.array, 2 * x.array)


def test_empty_array_has_an_address(gpu):
    """TensorRT takes none for a tensor that nobody set."""
    shape = TensorInfo("x", "float32", ("batch", 3), Shape.parse("0..4..8x3"))
    engine = doubling(gpu, profiles=({"x": ((0, 3), (4, 3), (8, 3))},))
    nothing = Held(batch(0))
    nothing.__cuda_array_interface__["data"] = (0, False)
    with session_of(engine, gpu, (shape,), (Y,)) as session:
        assert session(nothing).shape == (0, 3)
        assert 0 not in engine.contexts[0].addresses.values()


def test_output_names_the_stream_that_fills_it(gpu):
    """Readers of the interface wait for it; where the input has none, the work is done."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        assert session(Held(batch(4))).__cuda_array_interface__["stream"] == CALLERS
        assert session(Held(batch(4), stream=None)).__cuda_array_interface__["stream"] is None


def test_threads_own_default_streams_wait_for_one_another(gpu):
    """They have one handle, and are as many as there are threads."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        session(Held(batch(4), stream=2))
        gpu.calls.clear()
        session(Held(batch(4), stream=2))
        first = next(call for call in gpu.calls if call.startswith(("wait", "record")))
        assert first.startswith("wait 2 ")


def test_arrays_of_the_host_among_those_of_the_device_are_refused(gpu):
    """Each time, not only the first: their addresses would end the GPU's work."""
    torch = pytest.importorskip("torch")
    kind = device_arrays._torch()
    with pytest.raises(AttributeError, match="no address on the device"):
        kind.read(torch.zeros(2))
    with (
        session_of(doubling(gpu), gpu, (X,), (Y,)) as session,
        pytest.raises(InputDtypeError, match="output 'y' is a ndarray that does not lie where the inputs do"),
    ):
        session.run({"x": Held(batch(4))}, outputs={"y": np.empty((4, 3), np.float32)})
    with pytest.raises(RunError, match="the session is closed"):
        session(Held(batch(4)))
