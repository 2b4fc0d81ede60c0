"""How far a build has come: from the progress monitor of a real build, and from lines of TensorRT 8's log."""

from __future__ import annotations

import os
import signal
import types

import numpy as np
import pytest

from enginery.backends.tensorrt import history
from enginery.backends.tensorrt.building_progress import following
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.log_fraction import LogFraction
from enginery.backends.tensorrt.phases import Phases
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api
from enginery.progress import listening


@pytest.fixture
def api():
    """Return TensorRT-RTX, which builds without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    return load_api("tensorrt_rtx")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Keep what one test remembers out of the others' way."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Job:
    """A network of convolutions, ready to be built."""

    def __init__(self, api, convolutions=6):
        trt = api.module
        self.log = BuildLog(api)
        self.builder = trt.Builder(self.log.logger)
        self.network = self.builder.create_network(api.network_flags())
        self.config = self.builder.create_builder_config()
        self.kept = []
        tensor = self.network.add_input("x", trt.DataType.FLOAT, (1, 32, 16, 16))
        for _ in range(convolutions):
            weights = np.full((32, 32, 3, 3), 0.01, np.float32)
            self.kept.append(weights)
            layer = self.network.add_convolution_nd(tensor, 32, (3, 3), weights)
            layer.padding_nd = (1, 1)
            tensor = self.network.add_activation(layer.get_output(0), trt.ActivationType.RELU).get_output(0)
        self.network.mark_output(tensor)

    def build(self):
        """Return the plan, or None where the build was cancelled."""
        return self.builder.build_serialized_network(self.network, self.config)


def test_a_real_build_tells_how_far_it_is(api, monkeypatch):
    """Fractions never go back, come to most of the build, and name TensorRT's own phases."""
    monkeypatch.setattr("enginery.backends.tensorrt.building_progress._EVERY_S", 0.0)
    job, heard = Job(api), []
    with listening(heard.append), following(api, job.config, job.log, expected_s=7.0):
        plan = job.build()
    assert plan is not None
    fractions = [advance.fraction for advance in heard]
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 20
    assert fractions[0] < 0.05
    assert fractions[-2] > 0.9
    assert fractions[-1] == 1.0
    assert {"Building engine", "Timing graph nodes"} <= {advance.phase for advance in heard}
    assert {advance.expected_s for advance in heard} == {7.0}
    assert job.config.progress_monitor is None, "it was taken away again"


def test_what_a_listener_raises_cancels_the_build(api, monkeypatch):
    """TensorRT is told to stop, returns nothing, and then the listener's error is raised, whatever was made of it."""
    monkeypatch.setattr("enginery.backends.tensorrt.building_progress._EVERY_S", 0.0)
    job, plans = Job(api), []

    def limit(advance):
        if advance.fraction > 0.2:
            raise TimeoutError(f"at {advance.phase}")

    with listening(limit), pytest.raises(TimeoutError, match="at "), following(api, job.config, job.log):
        plans.append(job.build())
        raise AssertionError("the builder returned nothing")
    assert plans == [None]
    with following(api, job.config, job.log):
        assert job.build() is not None, "the same network can be built afterwards"


def test_ctrl_c_cancels_the_build_and_nothing_else(api, monkeypatch):
    """An exception out of a callback would end the process; the interrupt waits until TensorRT has returned."""
    monkeypatch.setattr("enginery.backends.tensorrt.building_progress._EVERY_S", 0.0)
    job, plans, before = Job(api), [], signal.getsignal(signal.SIGINT)
    sent = []

    def interrupt(advance):
        if advance.fraction > 0.2 and not sent:
            sent.append(advance)
            os.kill(os.getpid(), signal.SIGINT)

    with listening(interrupt), pytest.raises(KeyboardInterrupt), following(api, job.config, job.log):
        plans.append(job.build())
    assert plans == [None]
    assert signal.getsignal(signal.SIGINT) is before


def test_what_another_signal_does_waits_for_the_builder(api, monkeypatch):
    """SIGTERM's own handler is called when TensorRT has returned, and not in the middle of its callback."""
    monkeypatch.setattr("enginery.backends.tensorrt.building_progress._EVERY_S", 0.0)
    job, plans, sent = Job(api), [], []

    def leave(number, _frame):
        raise SystemExit(128 + number)

    def terminate(_advance):
        if not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with listening(terminate), pytest.raises(SystemExit) as caught, following(api, job.config, job.log):
            plans.append(job.build())
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143
    assert plans == [None]


def test_how_long_a_build_took_foretells_a_similar_one(api):
    """The first of a kind has no forecast, the second has; one that failed is not remembered."""
    job = Job(api)
    work = history.Work("tensorrt_rtx 1", "", job.network.num_layers, "fp32")
    with pytest.raises(RuntimeError, match="refused"), following(api, job.config, job.log, work=work):
        raise RuntimeError("refused")
    assert history.expected_s(work) is None
    with following(api, job.config, job.log, work=work):
        assert job.build() is not None
    assert 0.0 < history.expected_s(work) < 60.0


def test_a_history_that_cannot_be_written_is_told_and_loses_no_engine(api, monkeypatch, tmp_path):
    """The note names the reason."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "file"))
    job = Job(api, convolutions=1)
    with following(api, job.config, job.log, work=history.Work("tensorrt_rtx 1", "", 2, "fp32")):
        assert job.build() is not None
    assert any("how long this build took was not kept" in note for note in job.log.notes())


def test_versions_without_a_monitor_are_read_from_their_log():
    """The log's lines are followed while the block runs, and not afterwards."""

    class Logger:
        def __init__(self):
            pass

    module = types.SimpleNamespace(ILogger=Logger)
    api = Api(LIBRARIES["tensorrt"], module, "8.6.0")
    log, heard = BuildLog(api), []
    config = types.SimpleNamespace(num_optimization_profiles=1)
    with listening(heard.append), following(api, config, log):
        log.take("VERBOSE", "After vertical fusions: 2 layers")
    log.take("VERBOSE", "=============== Computing costs for conv1")
    assert [(advance.fraction, advance.phase) for advance in heard] == [(0.03, "optimising the graph"), (1.0, "built")]


LINES_OF_8_6 = """\
Original: 5 layers
After dead-layer removal: 5 layers
After Myelin optimization: 5 layers
After vertical fusions: 4 layers
After final dead-layer removal: 4 layers
After tensor merging: 4 layers
Graph construction and optimization completed in 0.05 seconds.
---------- Layers Running on GPU ----------
=============== Computing reformatting costs
*************** Autotuning Reformat: Float(1,2) -> Half(1,2) ***************
=============== Computing costs for conv1 + relu1
*************** Autotuning format combination: Float(1,2) -> Float(1,2) ***************
--------------- Timing Runner: conv1 + relu1 (CaskConvolution[0x80000009])
=============== Computing costs for conv2 + relu2
=============== Computing costs for conv3 + relu3
=============== Computing costs for {ForeignNode[LayerNorm_1...MatMul_7]}
Formats and tactics selection completed in 21.9 seconds.
After reformat layers: 6 layers
Engine generation completed in 23.4 seconds.
""".splitlines()


def test_fractions_from_the_log_of_8_6():
    """Layers that are timed move it; it ends near 1, and never goes back."""
    reader = LogFraction(profiles=1)
    told = [reader.take(line) for line in LINES_OF_8_6]
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    third = told[LINES_OF_8_6.index("=============== Computing costs for conv3 + relu3")]
    assert third == (pytest.approx(0.05 + 0.88 * 2 / 4), "timing conv3 + relu3")
    assert told[-1] == (0.99, "writing the engine")


def test_each_profile_is_timed():
    """With two profiles, the layers of one are half."""
    reader = LogFraction(profiles=2)
    for line in LINES_OF_8_6[:7]:
        reader.take(line)
    for layer in range(4):
        fraction, _ = reader.take(f"=============== Computing costs for conv{layer}")
    assert fraction == pytest.approx(0.05 + 0.88 * 3 / 8)


def test_nested_phases_make_one_fraction():
    """A phase takes its parent's step; frames leave nearly all to what is within them."""
    phases = Phases()
    phases.start("Building engine", None, 6)
    phases.step("Building engine", 0)
    assert phases.fraction < 0.05
    phases.start("Timing graph nodes", "Building engine", 4)
    seen = []
    for step in range(4):
        phases.step("Timing graph nodes", step)
        seen.append(phases.fraction)
    assert seen == sorted(set(seen))
    assert seen[1] == pytest.approx(0.45, abs=0.05)
    phases.finish("Timing graph nodes")
    assert phases.current == "Building engine"
    phases.start("Unknown", "nobody", 1)
    phases.finish("Building engine")
    assert phases.fraction == 1.0


def test_the_nearest_builds_foretell():
    """Twice the layers take twice as long; what is too unlike says nothing."""
    work = history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16")
    history.remember(work, 30.0)
    assert history.expected_s(work) == pytest.approx(30.0)
    twice = history.Work("tensorrt 8.6.0", "NVIDIA L4", 200, "fp16")
    assert history.expected_s(twice) == pytest.approx(60.0)
    assert history.expected_s(history.Work("tensorrt 8.6.0", "NVIDIA H200", 100_000, "int8")) is None


def test_builds_with_and_without_timings_are_told_apart():
    """Another's operations and timings count: the three nearest are those of its own kind."""
    for at in range(3):
        history.remember(history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16", flops=10**9), 40.0 + at)
        history.remember(history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16", flops=10**9, warm=True), 8.0 + at)
        history.remember(history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16", flops=10**12), 90.0 + at)
    warm = history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16", flops=10**9, warm=True)
    assert history.expected_s(warm) == pytest.approx(9.0, rel=0.05)
    large = history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16", flops=2 * 10**12)
    assert history.expected_s(large) == pytest.approx(91.0, rel=0.05)


def test_a_history_of_another_version_is_no_error(folder):
    """It is as if there were none, and the next build writes it anew."""
    folder.mkdir()
    (folder / "tensorrt-builds.json").write_text('[{"colour": "blue"}]')
    work = history.Work("tensorrt 8.6.0", "NVIDIA L4", 100, "fp16")
    assert history.expected_s(work) is None
    history.remember(work, 4.0)
    assert history.expected_s(work) == pytest.approx(4.0)
