"""Texts of the other records: what each must tell."""

from __future__ import annotations

import math
from dataclasses import replace

import literal_records as literal
import numpy as np
import pytest

from enginery.records import DoctorRecord, DoctorRow, OutputRecord
from enginery.reports.as_json import as_json
from enginery.reports.outputs_report import summarise_outputs
from enginery.reports.text import (
    Style,
    bench_text,
    build_text,
    doctor_text,
    engine_text,
    export_text,
    graph_text,
    outputs_text,
    verify_text,
)


def test_graph_text_tells_totals_tensors_and_operators():
    """A graph's report has its size, its work, its dynamic dimensions and its operators, the most frequent first."""
    text = graph_text(literal.GRAPH)
    assert "25,530,472 (97.4 MiB)" in text
    assert "8.2 G" in text
    assert "ai.onnx 20" in text
    assert "Conv 53, Relu 49, Add 16" in text
    assert "batch:1..8..32x3x224x224" in text
    assert "batchx1000" in text


def test_graph_text_says_what_is_unknown():
    """Open shapes and unknown ranks are said, not guessed."""
    text = graph_text(replace(literal.GRAPH, flops=None, outputs=(replace(literal.SCORES, shape=None),)))
    assert "unknown: shapes are open" in text
    assert "any rank" in text


def test_export_text_lists_attempts_and_notes():
    """Exporters that were tried before are told with their reason."""
    text = export_text(literal.EXPORT, "resnet50.onnx")
    assert "torch.onnx.export (trace): outputs were off by 3.1" in text
    assert "one buffer was left out" in text
    assert "image: batch" in text


def test_engine_text_tells_precision_asked_and_built():
    """Both precisions, versions, hashes, sizes and the saved records are there."""
    text = engine_text(literal.manifest())
    assert "asked for fp32; built fp32 (124 operators)" in text
    assert "openvino 1.2" in text
    assert "model.bin" in text
    assert "97.4 MiB" in text
    assert "passed; error 2.1e-07" in text
    assert "20.0 ±0.1 ms, 400 rows/s at image 8x3x224x224" in text


def test_engine_text_tells_what_a_plan_asked_for():
    """Where nodes differ, how many are asked for in each precision stands beside what was built."""
    record = literal.manifest()
    build = replace(record.build, planned={"fp16": 40, "fp32": 3})
    text = engine_text(replace(record, build=build, precision="fp16", precision_built={"fp16": 30, "fp32": 2}))
    assert "asked for fp16: fp16 (40 nodes), fp32 (3 nodes); built fp16 (30 operators), fp32 (2 operators)" in text


def test_engine_text_without_records_says_so():
    """An engine that was neither verified nor timed is not said to be."""
    text = engine_text(replace(literal.manifest(), verify=None, bench=None, build=None))
    assert "verified    no" in text
    assert "timed       no" in text


def test_build_text_names_the_folder():
    """The report of a build says where the engine is and how large."""
    text = build_text(literal.manifest(), "out.engine")
    assert text.startswith("engine     out.engine")
    assert "97.3 MiB" in text


def test_verify_text_passes_and_fails_loudly():
    """The verdict stands last; a failure says by how much."""
    assert verify_text(literal.verify(2.1e-7)).endswith("passed: error 2.1e-07, at most 1.0e-03")
    assert verify_text(literal.verify(2e-2)).splitlines()[-1] == "FAILED: error 2.00e-02 is above 1.00e-03"


def test_verify_text_folds_recorded_batches_into_their_worst():
    """Many recorded batches make one row, with the worst figure of each kind."""
    outputs = tuple(
        OutputRecord("scores", f"data {at}", "float32", (8, 10), 0.1 * at, 0.01, 1e-4 * at, 1 - 0.01 * at, 90.0 - at)
        for at in range(1, 6)
    )
    text = verify_text(replace(literal.verify(1e-4), outputs=outputs))
    line = next(line for line in text.splitlines() if "worst of 5" in line)
    assert line.split()[-5:] == ["5.0e-01", "1.0e-02", "5.0e-04", "0.9500000", "85.0"]


def test_verify_text_shows_nan_and_equal_outputs():
    """NaN and Inf are counted beside the reference's; outputs without a difference have no finite SNR."""
    output = OutputRecord("y", "opt", "float32", (2,), 0.0, 0.0, 0.0, 1.0, math.inf, nan=3, reference_nan=1)
    text = verify_text(replace(literal.verify(1e-4), outputs=(output,)), Style(140))
    assert "equal" in text
    assert "3/0 (ref 1/0)" in text


@pytest.mark.parametrize("width", [80, 100, 140])
def test_bench_text_fits_and_compares(width):
    """Two engines are compared with the first, within the width."""
    text = bench_text({"a.engine": literal.bench(20.0), "b.engine": literal.bench(10.0, stable=False)}, Style(width))
    assert max(map(len, text.splitlines())) <= width
    assert "2.00x" in text
    assert "~10.0" in text
    assert "the interval is within 1 % or 10 s have passed" in " ".join(text.split())


def test_bench_text_of_one_engine_compares_nothing():
    """A single engine has no column of comparisons."""
    assert "vs first" not in bench_text({"a.engine": literal.bench(20.0)}, Style(140))


def test_outputs_text_ranks_scores():
    """Outputs of shape [rows, classes] show the five best classes of each row."""
    scores = np.array([[0.1, 0.5, 0.2, 0.0, 0.15, 0.05]], np.float32)
    text = outputs_text({"scores": scores})
    assert "1x6" in text
    assert [text.index(f"{at} (") for at in (1, 2, 4, 0, 5)] == sorted(text.index(f"{at} (") for at in (1, 2, 4, 0, 5))


def test_outputs_text_takes_any_array():
    """Empty, integer, text, NaN and large outputs are all described."""
    outputs = {
        "empty": np.zeros((0, 3), np.float32),
        "ids": np.array([3, 9], np.int64),
        "words": np.array(["a", "b"], object),
        "holes": np.array([np.nan, 1.0]),
        "many": np.zeros((20, 4), np.float32),
    }
    found = {one.name: one for one in summarise_outputs(outputs)}
    assert found["empty"].mean is None
    assert (found["ids"].min, found["ids"].max) == (3.0, 9.0)
    assert found["words"].min is None
    assert (found["holes"].nan, found["holes"].mean) == (1, 1.0)
    assert "12 more rows" in outputs_text(outputs)


def test_doctor_text_groups_mends():
    """What one command mends is listed once, with the exact command, and what is broken is loud."""
    rows = (
        DoctorRow("core", "numpy", "2.0", "here"),
        DoctorRow("extra", "torch", None, "missing", "for the extra 'torch'", 'pip install "enginery[torch]"'),
        DoctorRow("gpu", "CUDA mix", None, "broken", "two runtimes clash", "pip uninstall -y cupy-cuda12x"),
    )
    text = doctor_text(DoctorRecord(literal.MACHINE, rows))
    assert 'pip install "enginery[torch]"' in text
    assert "BROKEN" in text
    assert text.endswith("broken: CUDA mix")
    assert doctor_text(DoctorRecord(literal.MACHINE, rows[:1])).endswith("Nothing is broken.")


def test_as_json_ends_with_a_line_break():
    """JSON text is whole lines."""
    assert as_json({"x": 1.5}) == '{\n  "x": 1.5\n}\n'
