"""TensorRT's log: who gets which line, what is kept, and what a user is told of it."""

from __future__ import annotations

import gc
import os
import re
import threading
import types

import onnx.parser
import pytest

from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.log_words import is_noise, translate
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api


@pytest.fixture
def api():
    """Return TensorRT-RTX, which says much without a GPU."""
    pytest.importorskip("tensorrt_rtx")
    return load_api("tensorrt_rtx")


@pytest.fixture
def log():
    """Return a log of a library that only has a logger."""
    module = types.SimpleNamespace(ILogger=type("Logger", (), {"__init__": lambda _: None}))
    return BuildLog(Api(LIBRARIES["tensorrt"], module, "8.6.0"))


def test_a_real_builder_fills_its_log(api):
    """Severities have TensorRT's names; times never go back; the noise of a machine without a GPU is no error."""
    trt = api.module
    log = BuildLog(api)
    builder = trt.Builder(log.logger)
    network = builder.create_network(api.network_flags())
    assert builder.build_serialized_network(network, builder.create_builder_config()) is None
    assert any("Network must have at least one output" in error for error in log.errors())
    assert {line.severity for line in log.lines} <= {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"}
    assert [line.at_s for line in log.lines] == sorted(line.at_s for line in log.lines)
    assert "ERROR: " in log.tail()
    assert any("at least one output" in note for note in log.notes())


@pytest.mark.parametrize(
    ("nodes", "note"),
    [
        ("r = RandomNormalLike<seed=1.0>(x) y = Add(x, r)", "the seed of a random operator is not obeyed"),
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", "UINT8 quantisation was read as INT8"),
        ("y = Relu(x)", ""),
    ],
)
def test_what_a_real_parser_warns_of_is_translated(api, nodes, note):
    """Each warning becomes one note, however often it comes."""
    trt = api.module
    log = BuildLog(api)
    network = trt.Builder(log.logger).create_network(api.network_flags())
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {0}> '
        f"{{ {nodes} }}"
    )
    assert trt.OnnxParser(network, log.logger).parse(model.SerializeToString()), log.errors()
    assert len(log.notes()) == bool(note)
    assert "".join(log.notes()).startswith(note)


def test_two_logs_of_one_library_share_a_logger_and_not_their_lines(api):
    """The newest log of a thread takes its lines; within `taking` the named one does."""
    first, second = BuildLog(api), BuildLog(api)
    assert first.logger is second.logger
    warning = api.module.ILogger.WARNING
    second.logger.log(warning, "for the second")
    with first.taking():
        first.logger.log(warning, "for the first")
    assert [line.text for line in first.lines] == ["for the first"]
    assert [line.text for line in second.lines] == ["for the second"]


def test_a_line_of_a_thread_without_a_log_is_everyone_s(api):
    """A thread of TensorRT's own belongs to no log, so none misses what it says."""
    logs = [BuildLog(api), BuildLog(api)]
    say = threading.Thread(target=logs[0].logger.log, args=(api.module.ILogger.ERROR, "from afar"))
    say.start()
    say.join()
    assert [log.errors() for log in logs] == [("from afar",)] * 2


def test_a_log_that_nobody_keeps_takes_nothing_more(api):
    """Its thread's lines go to the one before."""
    kept = BuildLog(api)
    dropped = BuildLog(api)
    del dropped
    gc.collect()
    kept.logger.log(api.module.ILogger.INFO, "hello")
    assert kept.lines[-1].text == "hello"


def test_lines_are_whole_under_many_threads(log):
    """None is lost, and none is mixed with another."""
    threads = [
        threading.Thread(target=lambda name=name: [log.take("INFO", f"{name} {at}") for at in range(500)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line.text for line in log.lines) == sorted(f"{name} {at}" for name in "abcd" for at in range(500))


def test_of_very_many_verbose_lines_the_newest_are_kept(log, monkeypatch):
    """Warnings stay however old they are."""
    monkeypatch.setattr("enginery.backends.tensorrt.log._VERBOSE_KEPT", 10)
    log.take("WARNING", "early")
    for at in range(100):
        log.take("VERBOSE", f"tactic {at}")
    assert log.lines[0].text == "early"
    assert log.lines[-1].text == "tactic 99"
    assert len(log.lines) <= 21


def test_of_very_many_warnings_the_first_and_the_newest_are_kept(log, monkeypatch):
    """An engine that warns in each call does not fill the memory."""
    monkeypatch.setattr("enginery.backends.tensorrt.log._VERBOSE_KEPT", 10)
    monkeypatch.setattr("enginery.backends.tensorrt.log._OLDER_KEPT", 5)
    for at in range(200):
        log.take("WARNING", f"call {at}")
    assert (log.lines[0].text, log.lines[-1].text) == ("call 0", "call 199")
    assert len(log.lines) <= 26


def test_a_copy_on_disk_has_every_line(log, monkeypatch, tmp_path):
    """What was said before the file was opened stands in it too, and what comes after it was closed does not."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path))
    log.take("INFO", "before")
    with log.kept():
        log.take("VERBOSE", "within")
    log.take("INFO", "after")
    written = [re.sub(r"[\d.]+", "N", line) for line in log.path.read_text().splitlines()]
    assert written == ["[   N] INFO: before", "[   N] VERBOSE: within"]
    assert log.path.parent == tmp_path / "logs"


def test_the_newest_copies_stay(log, monkeypatch, tmp_path):
    """Each build has a file of its own, and old ones go."""
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path))
    paths = []
    for at in range(8):
        with log.kept():
            log.take("INFO", f"build {at}")
        paths.append(log.path)
        os.utime(log.path, (at, at))
    assert len(set(paths)) == 8
    assert set((tmp_path / "logs").iterdir()) == set(paths[-5:])


def test_a_copy_that_cannot_be_written_is_a_note(log, monkeypatch, tmp_path):
    """A build is not lost for it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path / "file"))
    with log.kept():
        log.take("INFO", "within")
    assert log.path is None
    assert "the full log of TensorRT was not kept" in log.notes()[0]


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        (
            [
                ("UNSUPPORTED_STATE: Skipping tactic 33 due to insufficient memory on requested size of 629145600 "
                "detected for tactic 0xa5a46bfbd719d757.\nTry decreasing the workspace size with "
                "IBuilderConfig::setMemoryPoolLimit()."),
                "Tactic Device request: 600MB Available: 302MB. Device memory is insufficient to use tactic.",
                "Skipping tactic 3 due to insuficient memory on requested size of 449 detected for tactic 4.",
            ],
            "2 kernels (tactics) could not be tried for want of memory: the engine is right",
        ),
        (
            [
                ("onnx2trt_utils.cpp:377: Your ONNX model has been generated with INT64 weights, while TensorRT does "
                "not natively support INT64. Attempting to cast down to INT32.")
            ],
            "INT64 was cast to INT32 (1 place)",
        ),
        (
            ["One or more weights outside the range of INT32 was clamped"] * 3,
            "values that INT32 or FLOAT cannot hold were clamped (3 warnings)",
        ),
        (
            [
                "Detected layernorm nodes in FP16: /encoder/norm1/Pow, /encoder/norm2/Pow",
                ("Running layernorm after self-attention in FP16 may cause overflow. Exporting the model to the latest "
                "available ONNX opset (later than opset 17) to use the INormalizationLayer"),
            ],
            "LayerNorm is computed in FP16 and may overflow",
        ),
        (
            [
                "Weights [name=Conv_620.weight] had the following issues when converted to FP16:",
                " - Subnormal FP16 values detected. ",
                ("If this is not the desired behavior, please modify the weights or retrain with regularization to "
                "reduce the magnitude of the weights."),
            ],
            "some weights are so small that FP16 holds them inexactly (1 warning)",
        ),
        (
            [
                ("No implementation of layer conv1 obeys the requested constraints. I.e. no conforming implementation "
                "was found for requested layer computation precision and output precision. Using fastest."),
                "No implementation of layer /block/LayerNorm obeys the requested constraints.",
            ],
            "fell back to another precision than was asked for, as no kernel has that one: conv1, /block/LayerNorm",
        ),
        (
            [("TensorRT supports QuantizeLinear/DequantizeLinear with UINT8 zero_point only on DLA (version >= 3.16). "
             "Defaulting to INT8 instead.")],
            "UINT8 quantisation was read as INT8",
        ),
        (["CUDA lazy loading is not enabled. Enabling it can significantly reduce device memory."], "CUDA's lazy"),
        (["TensorRT was linked against cuDNN 8.9.0 but loaded cuDNN 8.7.0"], "another version of cuDNN or cuBLAS"),
        (["Missing scale and zero-point for tensor a, expect fall back to non-int8"] * 2, "2 tensors had"),
        (["Using an engine plan file across different models of devices is not recommended"], "another model of GPU"),
    ],
)  # fmt: skip
def test_known_warnings_become_one_note(lines, note):
    """The wordings are TensorRT's own, of 8.x, 10 and RTX; the second line of a pair is not counted."""
    told = translate([("WARNING", line) for line in lines], "TensorRT")
    assert len(told) == 1
    assert note in told[0]


def test_unknown_warnings_are_grouped_and_counted_not_lost():
    """What differs only in numbers and names is one kind; many kinds are told as a number."""
    lines = [("WARNING", f"Strange thing {at} in '/layer/{at}/x' of 0x{at:04x}") for at in range(40)]
    lines.append(("ERROR", "Something else"))
    told = translate(lines, "TensorRT")
    assert told[0].startswith("TensorRT warned (40 times, of such a kind): Strange thing 0 in")
    assert told[1] == "TensorRT reported: Something else"
    kinds = [("WARNING", f"{'abcdefghijklmnop'[at] * 5} happened") for at in range(12)]
    assert translate(kinds, "TensorRT")[-1] == "TensorRT said 4 more lines, of 4 kinds: see the build's log"


def test_the_part_of_a_cache_that_is_not_read_is_told_once():
    """As 8.6.0 says it, twice, with the timings of single kernels in use."""
    lines = [
        (
            "ERROR",
            "1: [myelinCache.h::deserializeFromBuffer::52] Error Code 1: Myelin (Myelin error from unknown graph)",
        ),
        ("ERROR", "4: The timing cache will not be used!"),
    ]
    assert translate(lines[1:], "TensorRT") == ("the timing cache was not used",)
    (note,) = translate(lines, "TensorRT")
    assert note.startswith("the timing cache was used for single kernels, and not for fused regions")


def test_what_is_below_a_warning_says_nothing():
    """3,000 lines of INFO and VERBOSE are no notes."""
    assert translate([("INFO", "Global timing cache in use."), ("VERBOSE", "Tactic: 0x1")], "TensorRT") == ()


def test_noise_is_no_failure(log):
    """TensorRT-RTX reports an internal error on every build without a GPU, and builds."""
    log.take("INTERNAL_ERROR", "Error Code 9: Internal Error (Thread context has not been set)")
    assert is_noise(log.lines[0].text)
    assert log.errors() == ()
    assert log.notes() == ()
