"""Batches under way at once, on a GPU of numpy memory."""

from __future__ import annotations

import numpy as np
import pytest
from fake_gpu import DataType, FakeRuntime, X, Y, doubling, session_of

from enginery.backends.null import NullRunner
from enginery.backends.session import Session
from enginery.errors import InputDtypeError, InputNameError, InputRankError, InputShapeError, RunError, UsageError
from enginery.records import TensorInfo


@pytest.fixture
def gpu():
    """Return the fake GPU."""
    return FakeRuntime()


def batch(size, seed):
    """Return random rows."""
    return np.random.default_rng(seed).random((size, 3), np.float32)


@pytest.mark.parametrize("slots", [1, 3])
def test_results_come_in_order_and_are_the_callers(gpu, slots):
    """Whatever the number of slots, and with changing shapes."""
    batches = [batch(seed % 3 + 2, seed) for seed in range(20)]
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(slots) as pipeline:
        found = list(pipeline.map({"x": one} for one in batches))
    assert len(found) == len(batches)
    for one, outputs in zip(batches, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], 2 * one)


def test_who_stops_early_leaves_nothing_to_the_next(gpu):
    """After a break, and after a batch that was refused, the next batches get their own outputs."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(3) as pipeline:
        for outputs in pipeline.map({"x": batch(4, seed)} for seed in range(5)):
            np.testing.assert_array_equal(outputs["y"], 2 * batch(4, 0))
            break
        with pytest.raises(InputNameError):
            list(pipeline.map([{"x": batch(4, 1)}, {"x": batch(4, 2)}, {"z": batch(4, 3)}]))
        found = list(pipeline.map({"x": batch(4, seed)} for seed in (7, 8)))
        assert len(found) == 2
        for seed, outputs in zip((7, 8), found, strict=True):
            np.testing.assert_array_equal(outputs["y"], 2 * batch(4, seed))


def test_batches_under_way_are_not_mixed_with_others(gpu):
    """What was submitted by hand, or by a map that is not at its end, has results of its own to be taken first."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(2) as pipeline:
        slot = pipeline.slot({"x": (4, 3)})
        slot.inputs["x"][...] = batch(4, 1)
        pipeline.submit(slot)
        with pytest.raises(UsageError, match=r"submitted before are under way \(1\)"):
            next(pipeline.map([{"x": batch(4, 2)}]))
        np.testing.assert_array_equal(pipeline.result()["y"], 2 * batch(4, 1))


def test_next_batch_is_submitted_before_the_first_result(gpu):
    """As many batches are fetched as there are slots, and one more."""
    asked = []

    def batches():
        for seed in range(5):
            asked.append(seed)
            yield {"x": batch(4, seed)}

    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(3) as pipeline:
        results = pipeline.map(batches())
        next(results)
        assert asked == [0, 1, 2, 3]


def test_caller_fills_page_locked_inputs(gpu):
    """What is written into a slot is what the device reads."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline() as pipeline:
        for seed in range(6):
            slot = pipeline.slot({"x": (4, 3)})
            assert slot.inputs["x"].ctypes.data in gpu.host
            slot.inputs["x"][...] = batch(4, seed)
            pipeline.submit(slot)
            np.testing.assert_array_equal(pipeline.result()["y"], 2 * batch(4, seed))


def test_slots_that_are_filled_at_one_time_are_different_ones(gpu):
    """Nothing that a caller wrote is overwritten by its next batch."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(2) as pipeline:
        slots = [pipeline.slot({"x": (4, 3)}) for _ in range(2)]
        for seed, slot in enumerate(slots):
            slot.inputs["x"][...] = batch(4, seed)
        with pytest.raises(RunError, match="all 2 slots are under way or being filled"):
            pipeline.slot({"x": (4, 3)})
        for slot in slots:
            pipeline.submit(slot)
        for seed in range(2):
            np.testing.assert_array_equal(pipeline.result()["y"], 2 * batch(4, seed))


def test_slot_whose_new_shape_is_refused_has_no_inputs(gpu):
    """It cannot be submitted with those of before."""
    profiles = ({"x": ((1, 3), (4, 3), (4, 3))}, {"x": ((6, 3), (8, 3), (8, 3))})
    with session_of(doubling(gpu, profiles=profiles), gpu, (X,), (Y,)) as session, session.pipeline(1) as pipeline:
        list(pipeline.map([{"x": batch(4, 0)}]))
        with pytest.raises(InputShapeError, match="size 5 is in none"):
            pipeline.slot({"x": (5, 3)})
        (left,) = pipeline._free
        assert left.inputs == {}
        with pytest.raises(UsageError, match="the slot has no inputs yet"):
            left.submit()
        (found,) = pipeline.map([{"x": batch(4, 1)}])
        np.testing.assert_array_equal(found["y"], 2 * batch(4, 1))


@pytest.mark.parametrize(
    ("feeds", "error", "text"),
    [
        ({"x": np.zeros((4, 3))}, InputDtypeError, "'x' has dtype float64, the engine takes float32"),
        ({"x": np.zeros((4, 2), np.float32)}, InputShapeError, "'x', axis 1: size is 2, the engine takes 3"),
        ({"x": np.zeros(4, np.float32)}, InputRankError, "'x' has 1 dimensions"),
        ({"z": np.zeros(4, np.float32)}, InputNameError, "unknown input 'z'"),
    ],
)
def test_batches_are_checked_as_calls_are(gpu, feeds, error, text):
    """Nothing is cast or read beyond its end; the next batch runs."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(2) as pipeline:
        with pytest.raises(error, match=text):
            list(pipeline.map([feeds]))
        if error is not InputDtypeError:
            with pytest.raises(error, match=text):
                pipeline.slot({name: array.shape for name, array in feeds.items()})
        (found,) = pipeline.map([{"x": batch(8, 1)[::2]}])
        np.testing.assert_array_equal(found["y"], 2 * batch(8, 1)[::2])


def test_closed_slot_cannot_be_submitted(gpu):
    """Its memory is gone."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        with session.pipeline(1) as pipeline:
            slot = pipeline.slot({"x": (4, 3)})
        with pytest.raises(UsageError, match="the slot has no inputs yet"):
            slot.submit()


def test_pipeline_uses_the_engines_gpu(gpu, monkeypatch):
    """Whatever GPU the caller's thread had meanwhile."""
    monkeypatch.setattr(FakeRuntime, "cudaGetDeviceCount", lambda _: (0, 2))
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(1) as pipeline:
        gpu.calls.clear()
        list(pipeline.map([{"x": batch(4, 0)}]))
        assert gpu.calls[0] == "cudaSetDevice 0"


def test_small_whole_numbers_need_no_conversion(gpu):
    """An engine that takes bytes gets bytes."""
    engine = doubling(gpu, inputs={"x": (DataType.UINT8, (2,))}, outputs={"y": (DataType.FLOAT, (2,), lambda _: (2,))})
    infos = (TensorInfo("x", "uint8", (2,)),), (TensorInfo("y", "float32", (2,)),)
    with session_of(engine, gpu, *infos) as session, session.pipeline() as pipeline:
        (found,) = pipeline.map([{"x": np.array([3, 100], np.uint8)}])
    np.testing.assert_array_equal(found["y"], np.array([6, 200], np.float32))


def test_copies_and_engine_wait_for_one_another_on_three_streams(gpu):
    """Events join them: in, engine, out."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(1) as pipeline:
        gpu.calls.clear()
        list(pipeline.map([{"x": batch(4, 0)}]))
        order = [call.split()[0] for call in gpu.calls if call.startswith(("record", "wait", "cudaMemcpyAsync"))]
        streams = {call.split()[2] for call in gpu.calls if call.startswith("record")}
    assert order == ["cudaMemcpyAsync", "record", "wait", "record", "wait", "cudaMemcpyAsync", "record"]
    assert len(streams) == 3


def test_engine_is_replayed_from_each_slots_memory(gpu):
    """Each slot has a graph of its own."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session, session.pipeline(2) as pipeline:
        list(pipeline.map({"x": batch(4, seed)} for seed in range(10)))
        assert gpu.calls.count("cudaStreamBeginCapture") == 2
        assert gpu.calls.count("cudaGraphLaunch") == 6


def test_everything_is_freed_with_the_session(gpu):
    """A pipeline that was left open is closed with its session."""
    session = session_of(doubling(gpu), gpu, (X,), (Y,))
    pipeline = session.pipeline()
    slot = pipeline.slot({"x": (4, 3)})
    pipeline.submit(slot)
    session.close()
    assert (gpu.memory, gpu.host, gpu.graphs) == ({}, {}, {})
    with pytest.raises(RunError, match="the pipeline is closed; make another"):
        pipeline.slot({"x": (4, 3)})
    with pytest.raises(RunError, match="the session is closed"):
        session.pipeline()


def test_wrong_use_says_what_to_do(gpu):
    """Each message has its mend."""
    with session_of(doubling(gpu), gpu, (X,), (Y,)) as session:
        with pytest.raises(UsageError, match="a pipeline of 0 slots; give at least 1"):
            session.pipeline(0)
        with session.pipeline(1) as pipeline:
            with pytest.raises(RunError, match="no batch is under way; submit one first"):
                pipeline.result()
            with pytest.raises(InputNameError, match="input 'x' is missing"):
                pipeline.slot({})
            slot = pipeline.slot({"x": (4, 3)})
            pipeline.submit(slot)
            with pytest.raises(RunError, match="all 1 slots are under way or being filled; take a result first"):
                pipeline.slot({"x": (4, 3)})
            with pytest.raises(UsageError, match="the slot is under way already"):
                slot.submit()


def test_data_dependent_sizes_have_no_pipeline(gpu):
    """It is said before anything runs."""
    engine = doubling(gpu, outputs={"y": (DataType.FLOAT, (-1, 3), lambda _: (-1, 3))})
    with (
        session_of(engine, gpu, (X,), (Y,)) as session,
        session.pipeline() as pipeline,
        pytest.raises(UsageError, match=r"the sizes of y are known only .*; use session\.run"),
    ):
        pipeline.slot({"x": (4, 3)})


def test_backend_without_a_gpu_has_none():
    """Other backends say so."""
    infos = (TensorInfo("x", "float32", (1,)),)
    with Session(NullRunner(infos, infos), infos, infos) as session:
        with pytest.raises(UsageError, match="this backend has no pipeline"):
            session.pipeline()
        with pytest.raises(UsageError, match="this backend has no profile"):
            session.profile({"x": np.zeros(1, np.float32)})
