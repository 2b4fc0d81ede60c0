"""A real builder in a worker that crashes, hangs or is interrupted: an error that says where, nothing that loads."""

from __future__ import annotations

import os
import signal

import numpy as np
import onnx_ir as ir
import pytest

from enginery import steps
from enginery.backends.base import Design
from enginery.errors import EngineFolderError, WorkerCrashError, WorkerTimeoutError
from enginery.graph import files
from enginery.jobs import build_arguments
from enginery.progress import Progress
from enginery.spec import BuildSpec
from enginery.worker import Worker

pytest.importorskip("tensorrt_rtx")

LAYERS = 60


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Return an ONNX file of many different convolutions, whose build takes a while."""
    random = np.random.default_rng(0)
    lines = [f"h{at} = Conv<pads=[1,1,1,1]>(h{at - 1}, w{at})\n r{at} = Relu(h{at})" for at in range(1, LAYERS)]
    sizes = [16 + at for at in range(LAYERS)]
    weights = ", ".join(f"float[{sizes[at]}, {sizes[at - 1]}, 3, 3] w{at}" for at in range(1, LAYERS))
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>'
        f"deep (float[1, {sizes[0]}, 24, 24] h0) => (float[1, {sizes[-1]}, 24, 24] r{LAYERS - 1}) <{weights}> "
        f"{{ {' '.join(lines)} }}"
    )
    model = ir.from_onnx_text(text)
    for node in model.graph:
        for value in node.inputs:
            if value.name.startswith("w") and value.const_value is None:
                shape = tuple(value.shape)
                value.const_value = ir.tensor(random.standard_normal(shape).astype(np.float32) / 20, name=value.name)
                model.graph.register_initializer(value)
    path = tmp_path_factory.mktemp("graph") / "deep.onnx"
    files.save(model, path)
    return path


@pytest.fixture
def arguments(graph, tmp_path):
    """Return the arguments of its build."""
    return build_arguments(Design(graph), backend="tensorrt_rtx", spec=BuildSpec(), output=tmp_path / "deep.engine")


def build(arguments, folder, limit_s, on_progress):
    """Build in a worker."""
    with Worker("build", folder=folder, python=None) as worker:
        return worker.call("build", arguments, limit_s=limit_s, on_progress=lambda told: on_progress(worker, told))


def left_of(arguments):
    """Return what stands where the engine should, finished or not."""
    output = arguments["output"]
    return [path.name for path in output.parent.iterdir() if output.name in path.name]


def test_a_builder_that_dies_leaves_nothing_and_its_last_words(arguments, tmp_path):
    """Killed by a signal in the middle of a real build."""

    def strike(worker, _told):
        os.kill(worker.pid, signal.SIGSEGV)

    with pytest.raises(WorkerCrashError) as caught:
        build(arguments, tmp_path / "worker", 300, strike)
    assert "died of SIGSEGV while it did 'build', " in caught.value.message
    assert "% done (" in caught.value.message
    assert "INFO: " in caught.value.message, "the builder's own log"
    assert "the full log of TensorRT-RTX is " in caught.value.message
    assert left_of(arguments) == []
    with pytest.raises(EngineFolderError):
        steps.load(arguments["output"])


def test_a_builder_that_hangs_is_ended_at_its_limit(arguments, tmp_path):
    """Stopped in the middle, it does nothing any more; the limit ends it."""
    stopped = []

    def stop(worker, told):
        if not stopped:
            stopped.append(told)
            os.kill(worker.pid, signal.SIGSTOP)

    with pytest.raises(WorkerTimeoutError, match=r"did not finish 'build' within 8 s, \d+% done"):
        build(arguments, tmp_path / "worker", 8, stop)
    assert stopped
    assert left_of(arguments) == []


def test_an_interrupt_of_the_parent_ends_the_builder(arguments, tmp_path):
    """Ctrl-C while the worker builds."""
    pids = []

    def interrupt(worker, _told):
        pids.append(worker.pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(arguments, tmp_path / "worker", 300, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert left_of(arguments) == []


class Heard(Progress):
    """Keeps every advance."""

    def advanced(self, advance):
        """Keep it."""
        super().advanced(advance)
        self.__dict__.setdefault("heard", []).append(advance)


def test_a_build_tells_its_progress_through_its_worker(graph, tmp_path):
    """Whole, it ends near 1, and its step was told how far it is."""
    progress = Heard()
    steps.build(graph, tmp_path / "deep.engine", backend="tensorrt_rtx", simplify=False, progress=progress)
    fractions = [advance.fraction for advance in progress.heard]
    assert fractions == sorted(fractions)
    assert len(fractions) >= 2
    assert fractions[-1] == 1.0
    assert progress.remaining_s() == 0.0


def test_a_build_in_this_process_is_cancelled_at_its_limit(graph, tmp_path):
    """There is no worker to kill: the builder is told to stop."""
    with pytest.raises(WorkerTimeoutError, match=r"not done within 0 s"):
        steps.build(
            graph, tmp_path / "deep.engine", backend="tensorrt_rtx", simplify=False, in_process=True, limit_s=0.0
        )
    assert not (tmp_path / "deep.engine").exists()
