"""Running an engine on the host's path: shapes, graphs, threads, outputs and errors, on a GPU of numpy memory."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from fake_gpu import PROFILE, DataType, FakeRuntime, X, Y, doubling, session_of

from enginery.backends.tensorrt import lanes
from enginery.errors import BuildError, InputDtypeError, InputNameError, InputShapeError, RunError
from enginery.records import TensorInfo
from enginery.spec import Shape


@pytest.fixture
def gpu():
    """Return the fake GPU."""
    return FakeRuntime()


def batch(size, seed=0):
    """Return random rows."""
    return np.random.default_rng(seed).random((size, 3), np.float32)


def test_outputs_are_right_and_the_callers(gpu):
    """Later calls do not change what earlier ones returned."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        results = [(x := batch(4, seed), session(x)) for seed in range(6)]
    for x, y in results:
        np.testing.assert_array_equal(y, 2 * x)


def test_third_call_is_captured_and_later_ones_replayed(gpu):
    """Two calls are warm-ups; the graph is captured once."""
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for seed in range(5):
            np.testing.assert_array_equal(session(batch(4, seed)), 2 * batch(4, seed))
        assert gpu.calls.count("cudaStreamBeginCapture") == 1
        assert gpu.calls.count("cudaGraphLaunch") == 3
        assert engine.contexts[0].enqueued == 3


def test_no_graph_where_the_option_says_so(gpu):
    """Each call enqueues the engine."""
    with session_of(doubling(gpu), gpu, (X,), (Y,), cuda_graph=False) as session:
        for seed in range(5):
            np.testing.assert_array_equal(session(batch(4, seed)), 2 * batch(4, seed))
    assert "cudaGraphLaunch" not in gpu.calls


def test_refused_capture_falls_back_and_is_said_once(gpu, caplog):
    """Answers stay right, and the user is told once for all shapes."""
    gpu.refuse_capture = True
    with caplog.at_level(logging.WARNING), session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for size in (4, 2):
            for seed in range(5):
                np.testing.assert_array_equal(session(batch(size, seed)), 2 * batch(size, seed))
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "cudaErrorStreamCaptureInvalidated" in said[0]


def test_each_shape_has_a_context_and_a_graph(gpu):
    """Taking turns between shapes captures nothing anew."""
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for _ in range(4):
            for size in (1, 3, 8):
                np.testing.assert_array_equal(session(batch(size)), 2 * batch(size))
    assert len(engine.contexts) == 3
    assert gpu.calls.count("cudaStreamBeginCapture") == 3


def test_context_that_cannot_be_shared_drops_its_graph_on_another_shape(gpu):
    """As on TensorRT 8.5, where one context takes all shapes."""
    engine = doubling(gpu, sharing=False)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for size in (2, 2, 2, 2, 3, 2, 3, 3, 3, 3):
            np.testing.assert_array_equal(session(batch(size, size)), 2 * batch(size, size))


def test_least_used_shape_gives_its_context_to_the_next(gpu, monkeypatch):
    """No more contexts are made than shapes are remembered."""
    monkeypatch.setattr(lanes, "_REMEMBERED", 2)
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for _ in range(3):
            for size in (1, 2, 3, 4, 4, 4, 4):
                np.testing.assert_array_equal(session(batch(size)), 2 * batch(size))
    assert len(engine.contexts) == 2


def test_everything_is_freed(gpu):
    """Device memory, page-locked memory and graphs."""
    session = session_of(doubling(gpu), gpu, (X,), (Y,), contexts=2)
    for size in (1, 2, 8, 8, 8, 8):
        session(batch(size))
    assert gpu.memory
    session.close()
    assert (gpu.memory, gpu.host, gpu.graphs) == ({}, {}, {})


def test_memory_is_flat_over_many_calls(gpu):
    """A thousand calls allocate nothing."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for size in (1, 5, 8):
            session(batch(size))
        held = len(gpu.memory), len(gpu.host)
        for turn in range(1000):
            session(batch(turn % 8 + 1))
        assert (len(gpu.memory), len(gpu.host)) == held


@pytest.mark.parametrize("contexts", [1, 4])
def test_eight_threads_get_their_own_answers(gpu, contexts):
    """Threads wait for a lane where there are fewer."""
    wrong = []
    with session_of(doubling(gpu), gpu, (X,), (Y,), contexts=contexts) as session:

        def work(seed):
            for turn in range(50):
                x = batch(turn % 8 + 1, 100 * seed + turn)
                if not np.array_equal(session(x), 2 * x):
                    wrong.append((seed, turn))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_narrowest_profile_is_taken(gpu):
    """A shape that two profiles hold runs in the narrower one."""
    narrow = {"x": ((2, 3), (2, 3), (2, 3))}
    engine = doubling(gpu, profiles=(PROFILE, narrow))
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for size in (2, 4):
            np.testing.assert_array_equal(session(batch(size)), 2 * batch(size))
    assert [context.at for context in engine.contexts] == [1, 0]


@pytest.mark.parametrize("sharing", [True, False])
def test_each_end_has_its_profile_and_other_sizes_the_wide_one(gpu, sharing):
    """As `narrow=ends` builds them: fast at three sizes, right at all, threads and replays included."""
    ends = [{"x": ((size, 3),) * 3} for size in (1, 4, 8)]
    engine = doubling(gpu, profiles=(PROFILE, *ends), sharing=sharing)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for turn in range(5):
            for size in (8, 1, 3, 4, 5):
                np.testing.assert_array_equal(session(batch(size, turn)), 2 * batch(size, turn))
    used = [context.at for context in engine.contexts if context.enqueued]
    assert used == ([3, 1, 0, 2, 0] if sharing else [3, 1, 0, 2])


def test_shape_in_no_profile_names_the_nearest(gpu):
    """The message has the axis, the size and the range."""
    profiles = ({"x": ((1, 3), (2, 3), (2, 3))}, {"x": ((6, 3), (8, 3), (8, 3))})
    with (
        session_of(doubling(gpu, profiles=profiles), gpu, (X,), (Y,)) as session,
        pytest.raises(InputShapeError, match=r"'x', axis 0: size 5 .* the nearest, profile 1, allows 6 to 8"),
    ):
        session(batch(5))


def test_outputs_go_into_the_callers_arrays(gpu):
    """The array that was given comes back, filled."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        for seed in range(4):
            mine = np.zeros((4, 3), np.float32)
            found = session.run({"x": batch(4, seed)}, outputs={"y": mine})
            assert found["y"] is mine
            np.testing.assert_array_equal(mine, 2 * batch(4, seed))


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"y": np.zeros((8, 3), np.float32)}, InputShapeError, r"output 'y' has the shape \(4, 3\)"),
        ({"y": np.zeros((4, 3))}, InputDtypeError, "output 'y' holds float32"),
        ({"z": np.zeros((4, 3), np.float32)}, InputNameError, "unknown output 'z'"),
        ({"y": [1.0]}, InputDtypeError, "'y' is no numpy array"),
    ],
)
def test_wrong_arrays_for_outputs_are_refused(gpu, given, error, text):
    """Nothing is broadcast or cast into a caller's array."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, pytest.raises(error, match=text):
        session.run({"x": batch(4)}, outputs=given)


def test_whole_numbers_of_64_bits_are_narrowed_with_a_check(gpu):
    """TensorRT 8 has no int64; a value that does not fit is refused."""
    infos = (TensorInfo("x", "int64", (2,)),), (TensorInfo("y", "int64", (2,)),)
    engine = doubling(gpu, inputs={"x": (DataType.INT32, (2,))}, outputs={"y": (DataType.INT32, (2,), lambda _: (2,))})
    with session_of(engine, gpu, *infos) as session:
        found = session(np.array([3, -4]))
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, [6, -8])
        with pytest.raises(InputDtypeError, match=r"holds 3000000000.* takes int32.*; give values from -2147483648 to"):
            session(np.array([1, 3_000_000_000]))


def test_data_dependent_output_has_the_size_that_was_found(gpu):
    """Also where it is empty; nothing is captured."""
    engine = doubling(
        gpu,
        outputs={"y": (DataType.INT32, (2, -1), lambda _: (2, -1)), "n": (DataType.FLOAT, (-1, 3), lambda s: s["x"])},
        compute=lambda x: {"y": np.stack(np.nonzero(x > 0)), "n": -x},
    )
    infos = (TensorInfo("y", "int64", (2, "found")), TensorInfo("n", "float32", ("batch", 3)))
    with session_of(engine, gpu, (X,), infos) as session:
        for x in (np.eye(8, 3, dtype=np.float32), np.zeros((8, 3), np.float32), np.ones((8, 3), np.float32)):
            found = session.run({"x": x})
            np.testing.assert_array_equal(found["y"], np.stack(np.nonzero(x)))
            np.testing.assert_array_equal(found["n"], -x)
        assert list(found) == ["y", "n"]
        assert "cudaStreamBeginCapture" not in gpu.calls
    assert gpu.memory == {}


def test_failed_allocation_inside_tensorrt_is_the_error_that_is_raised(gpu):
    """The engine runs again once there is memory."""
    engine = doubling(
        gpu, outputs={"y": (DataType.FLOAT, (-1, 3), lambda _: (-1, 3))}, compute=lambda x: {"y": np.repeat(x, 90, 0)}
    )
    with session_of(engine, gpu, (X,), (Y,)) as session:
        session(batch(1))
        code = FakeRuntime.cudaMalloc.__globals__["CudaError"].cudaErrorMemoryAllocation
        gpu.fail["cudaMalloc"] = code
        with pytest.raises(RunError, match=r"cudaMalloc answered cudaErrorMemoryAllocation \(2\).*free memory"):
            session(batch(8))
        gpu.fail.clear()
        assert session(batch(8)).shape == (720, 3)


def test_values_of_a_shape_input_count_as_a_shape(gpu):
    """Other values are another case, as another shape is."""
    engine = doubling(
        gpu,
        inputs={"x": (DataType.FLOAT, (12,)), "sizes": (DataType.INT32, (2,))},
        outputs={"y": (DataType.FLOAT, (-1, -1), lambda shapes: shapes["sizes values"])},
        compute=lambda x, sizes: {"y": x.reshape(sizes) * sizes[0]},
        profiles=({},),
        host=("sizes",),
    )
    infos = (TensorInfo("x", "float32", (12,)), TensorInfo("sizes", "int64", (2,)))
    x = np.arange(12, dtype=np.float32)
    with session_of(engine, gpu, infos, (TensorInfo("y", "float32", ("?", "?")),)) as session:
        for _ in range(4):
            for sizes in ((3, 4), (2, 6)):
                np.testing.assert_array_equal(session(x, np.array(sizes)), x.reshape(sizes) * sizes[0])
        with pytest.raises(InputDtypeError, match="'sizes' holds 3000000000, and the engine takes int32"):
            session(x, np.array((2, 3_000_000_000)))
    assert len(engine.contexts) == 2


def test_refusal_carries_tensorrts_own_words(gpu):
    """The last error of the log is in the message, and that of an earlier call is not."""
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,), cuda_graph=False) as session:
        session(batch(4))
        engine.contexts[0].refuse = True
        with pytest.raises(RunError, match=r"could not run the engine, and said nothing"):
            session(batch(4))
        gpu.log.said.append("[runner] something went wrong")
        with pytest.raises(RunError, match=r"TensorRT 8\.6\.0 could not run the engine: \[runner\] something"):
            session(batch(4))
        with pytest.raises(RunError, match=r"could not run the engine, and said nothing"):
            session(batch(4))


def test_manifest_that_does_not_fit_the_plan_is_refused(gpu):
    """Names and element types are compared when it is opened."""
    with pytest.raises(BuildError, match="the plan's tensors are x, y; the manifest does not agree about y, z"):
        session_of(doubling(gpu), gpu, (X,), (TensorInfo("z", "float32", ("batch", 3)),))
    wrong = TensorInfo("x", "int8", ("batch", 3), Shape.parse("1..8x3"))
    with pytest.raises(BuildError, match="tensor 'x' is int8 in the manifest and float32 in the plan"):
        session_of(doubling(gpu), gpu, (wrong,), (Y,))
    engine = doubling(gpu, inputs={"x": (DataType.FP4, (-1, 3))})
    with pytest.raises(BuildError, match="tensor 'x' of the plan holds FP4"):
        session_of(engine, gpu, (X,), (Y,))


def test_profile_of_a_call_has_parts_and_layers(gpu):
    """Parts and layers are told, and the session runs on."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        record = session.profile({"x": batch(4)}, runs=3)
        assert (record.copy_in_ms, record.device_ms, record.copy_out_ms) == (0.5, 0.5, 0.5)
        assert record.enqueue_ms > 0
        assert [(layer.name, layer.median_ms, layer.total_ms) for layer in record.layers] == [
            ("conv1", 0.25, 0.75), ("fc", 0.5, 1.5),
        ]  # fmt: skip
        np.testing.assert_array_equal(session(batch(4)), 2 * batch(4))


def test_context_in_which_a_shape_was_refused_takes_the_old_one_again(gpu):
    """Where one context serves all shapes, a refusal half-way leaves another shape in it."""
    engine = doubling(gpu, sharing=False)
    refused = []

    def shape_of(shapes):
        if shapes["x"] == (5, 3) and not refused:
            refused.append(shapes["x"])
            raise RuntimeError("no room")
        return shapes["x"]

    engine.outputs["y"] = (DataType.FLOAT, (-1, 3), shape_of)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        for _ in range(4):
            session(batch(2))
        with pytest.raises(RunError, match="no room"):
            session(batch(5))
        for size in (2, 2, 2, 2, 5, 2):
            np.testing.assert_array_equal(session(batch(size)), 2 * batch(size))


def test_interrupted_capture_leaves_no_stream_behind_that_refuses(gpu, monkeypatch):
    """Ctrl-C in the third call: the fourth runs."""
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        session(batch(2))
        session(batch(2))
        run = engine.contexts[0].execute_async_v3

        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(engine.contexts[0], "execute_async_v3", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session(batch(2))
        assert gpu.capturing == {}
        monkeypatch.setattr(engine.contexts[0], "execute_async_v3", run)
        np.testing.assert_array_equal(session(batch(2)), 2 * batch(2))


def test_caller_that_waits_while_the_session_is_closed_is_told(gpu):
    """It neither hangs nor runs on what is gone."""
    running, go_on, found = threading.Event(), threading.Event(), []

    def compute(x):
        running.set()
        go_on.wait(10)
        return {"y": 2 * x}

    session = session_of(doubling(gpu, compute=compute), gpu, (X,), (Y,))

    def call():
        try:
            found.append(session(batch(2)).shape)
        except RunError as error:
            found.append(error.message)

    runner = session._runner
    first, second = threading.Thread(target=call), threading.Thread(target=call)
    first.start()
    assert running.wait(10)
    second.start()
    while not runner._waiting:
        pass
    closing = threading.Thread(target=session.close)
    closing.start()
    second.join(10)
    go_on.set()
    for thread in (first, closing):
        thread.join(10)
        assert not thread.is_alive()
    assert found == ["the session is closed", (2, 3)]
    with pytest.raises(RunError, match="the session is closed"):
        runner.infer({"x": batch(2)})
    assert gpu.memory == {}


def test_empty_tensors_are_not_copied(gpu):
    """A copy of no bytes cannot stand in a graph of every driver."""
    shape = TensorInfo("x", "float32", ("batch", 3), Shape.parse("0..4..8x3"))
    engine = doubling(gpu, profiles=({"x": ((0, 3), (4, 3), (8, 3))},))
    with session_of(engine, gpu, (shape,), (Y,)) as session:
        for _ in range(4):
            assert session(batch(0)).shape == (0, 3)
    assert "cudaMemcpyAsync" not in gpu.calls
