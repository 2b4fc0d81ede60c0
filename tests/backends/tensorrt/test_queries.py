"""The loop that measures queries, on a GPU of numpy memory whose events have a clock."""

from __future__ import annotations

import time

import numpy as np
import pytest
from clocked_gpu import ClockedRuntime
from fake_gpu import X, Y, doubling, opened, session_of

from enginery.backends.tensorrt.queries import Measuring, measure_queries
from enginery.errors import RunError

SHORT = Measuring(iterations=5, duration_s=0.0, warmup_ms=0.0)


@pytest.fixture
def gpu():
    """Return a fake GPU with a clock."""
    return ClockedRuntime()


def measured(gpu, how, **options):
    """Measure the engine of y = 2 x."""
    engine = doubling(gpu)
    return engine, measure_queries(opened(engine, gpu, (X,), (Y,), **options), {"x": np.ones((4, 3), np.float32)}, how)


def test_each_query_has_its_times_in_order(gpu):
    """Copies in, compute and copies out follow each other; the warm-up is not among them; all memory is freed."""
    _, trace = measured(gpu, SHORT)
    assert len(trace.queries) == 5
    assert trace.warmups == 1
    for query in trace.queries:
        marks = [*query.h2d, *query.gpu, *query.d2h]
        assert marks == sorted(marks)
        assert query.enqueue[0] < query.enqueue[1]
        assert query.latency_ms == pytest.approx(query.h2d_ms + query.gpu_ms + query.d2h_ms)
    starts = [query.enqueue[0] for query in trace.queries]
    assert starts == sorted(starts)
    assert starts[0] >= 0.0
    assert trace.walltime_ms >= trace.queries[-1].d2h[1] - trace.queries[0].h2d[0]
    assert gpu.memory == {}
    assert gpu.host == {}


def test_without_transfers_nothing_is_copied(gpu):
    """The inputs go to the device once, before anything is measured; both copies take no time."""
    how = Measuring(iterations=5, duration_s=0.0, warmup_ms=0.0, transfers=False)
    _, trace = measured(gpu, how)
    assert gpu.calls.count("cudaMemcpyAsync") == 1
    assert {query.h2d_ms for query in trace.queries} == {0.0}
    assert {query.d2h_ms for query in trace.queries} == {0.0}


def test_a_graph_is_captured_once_and_replayed(gpu):
    """Of seven runs, only the first one and the captured one are asked of the context."""
    engine, trace = measured(gpu, Measuring(iterations=6, duration_s=0.0, warmup_ms=0.0, cuda_graph=True))
    assert trace.cuda_graph
    assert engine.contexts[0].enqueued == 2
    assert gpu.calls.count("cudaGraphLaunch") == 7
    assert gpu.graphs == {}


def test_a_graph_that_cannot_be_captured_is_told(gpu, caplog):
    """The queries are measured without it, and the trace says so."""
    gpu.refuse_capture = True
    _, trace = measured(gpu, Measuring(iterations=2, duration_s=0.0, warmup_ms=0.0, cuda_graph=True))
    assert not trace.cuda_graph
    assert len(trace.queries) == 2
    assert "no CUDA graph could be captured" in caplog.text


@pytest.mark.parametrize("threads", [False, True])
def test_several_streams_share_the_queries(gpu, threads):
    """Each stream has a context of its own; at least so many queries are measured together."""
    engine, trace = measured(
        gpu, Measuring(iterations=7, duration_s=0.0, warmup_ms=0.0, streams=3, threads=threads, cuda_graph=False)
    )
    assert len(engine.contexts) == 3
    assert len(trace.queries) == 9


def test_one_query_at_a_time_where_copies_are_exposed(gpu):
    """With expose_dma, a query is enqueued only after the one before was collected."""
    _, trace = measured(gpu, Measuring(iterations=4, duration_s=0.0, warmup_ms=0.0, expose_dma=True))
    for before, after in zip(trace.queries, trace.queries[1:], strict=False):
        assert after.enqueue[0] >= before.enqueue[1]
        assert after.h2d[0] >= before.d2h[1]


def test_the_duration_is_kept(gpu):
    """More than the least number of queries are measured while there is time; idle time is slept between them."""
    begin = time.perf_counter()
    _, trace = measured(gpu, Measuring(iterations=1, duration_s=0.05, warmup_ms=20.0, idle_ms=5.0))
    assert time.perf_counter() - begin >= 0.07
    assert 2 <= len(trace.queries) <= 10
    assert 1 <= trace.warmups <= 4
    assert trace.walltime_ms >= 50.0


def test_a_refusal_is_an_error_and_frees_everything(gpu):
    """TensorRT's refusal in the middle is told, with its own words."""
    engine = doubling(gpu)
    with session_of(engine, gpu, (X,), (Y,)) as session:
        feeds = {"x": np.ones((2, 3), np.float32)}
        assert len(session._runner.measure(feeds, SHORT).queries) == 5
    assert gpu.memory == {}
    gpu.fail["cudaEventElapsedTime"] = next(code for code in type(gpu.cudaStreamSynchronize(0)[0]) if code == 1)
    with pytest.raises(RunError, match="cudaEventElapsedTime answered"):
        measured(gpu, SHORT)
    assert gpu.memory == {}
