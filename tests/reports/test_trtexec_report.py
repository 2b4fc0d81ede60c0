"""The summary of queries, from made-up ones: figures, form, warnings, and the JSON files."""

from __future__ import annotations

import json
import re

import pytest

from enginery.records import LayerRecord, LayerTimeRecord, QueryRecord, TrtexecRecord
from enginery.reports.layout import Style
from enginery.reports.trtexec_report import (
    explanations,
    layers_text,
    outputs_json,
    percentile,
    profile_json,
    profile_text,
    summary_text,
    times_json,
    warnings_of,
)


def query(at: float, *, enqueue: float = 0.1, h2d: float = 0.2, gpu: float = 1.0, d2h: float = 0.3) -> QueryRecord:
    """Make one query whose parts follow each other."""
    begin = at + h2d
    return QueryRecord((at, at + enqueue), (at, begin), (begin, begin + gpu), (begin + gpu, begin + gpu + d2h))


def record(queries: list[QueryRecord], **changes: object) -> TrtexecRecord:
    """Make the record of a measurement."""
    return TrtexecRecord(**{
        "backend": "tensorrt", "backend_version": "8.6.0", "plan": "m.plan", "plan_bytes": 2**20, "load_ms": 12.0,
        "placement": "NVIDIA L4 (GPU 0)", "queries": tuple(queries), "warmups": 7, "warmup_ms": 200.0,
        "walltime_ms": 100.0, "shapes": {"x": (1, 3, 8, 8)}, **changes,
    })  # fmt: skip


def row(text: str, title: str) -> dict[str, float]:
    """Read one row of the summary, as a script that greps for it does."""
    line = next(line for line in text.splitlines() if line.startswith(f"{title}: "))
    return {name: float(value) for name, value in re.findall(r"([\w()%.]+) = ([\d.]+) ms", line)}


def test_the_summary_has_the_rows_that_scripts_read():
    """Throughput is queries over wall time; latency is the sum of its three parts."""
    text = summary_text(record([query(at, gpu=1.0 + at / 100) for at in range(50)]), Style())
    assert "=== Performance summary ===" in text
    assert "\nThroughput: 500 qps\n" in text
    latency = row(text, "Latency")
    assert latency["min"] == pytest.approx(1.5)
    assert latency["max"] == pytest.approx(1.99)
    assert latency["mean"] == pytest.approx(latency["median"]) == pytest.approx(1.745)
    assert latency["percentile(90%)"] == pytest.approx(1.94)
    assert latency["percentile(99%)"] == pytest.approx(1.99)
    assert row(text, "H2D Latency")["median"] == pytest.approx(0.2)
    assert row(text, "GPU Compute Time")["max"] == pytest.approx(1.49)
    assert row(text, "D2H Latency")["mean"] == pytest.approx(0.3)
    assert row(text, "Enqueue Time")["mean"] == pytest.approx(0.1)
    assert "Total Host Walltime: 0.1 s" in text
    assert "Total GPU Compute Time: 0.06225 s" in text


def test_the_trace_is_averaged_in_whole_parts():
    """Of 25 queries, two parts of ten are averaged; the rest would be a part of another size."""
    text = summary_text(record([query(at) for at in range(25)], average_runs=10), Style())
    lines = [line for line in text.splitlines() if line.startswith("Average on")]
    assert lines == ["Average on 10 runs - GPU latency: 1 ms - Host latency: 1.5 ms (enqueue 0.1 ms)"] * 2
    assert "Warmup completed 7 queries over 200 ms" in text
    assert "Timing trace has 25 queries over 0.1 s" in text
    assert "Measured on NVIDIA L4 (GPU 0): x:1x3x8x8" in text
    assert "Streams 1, CUDA graph off, spin-wait off, data transfers on" in text


def test_without_queries_only_the_build_is_told():
    """A build alone has no summary, and no figure that nothing measured."""
    text = summary_text(record([], build_s=2.5, engine="m.plan.engine", notes=("one note",)), Style())
    assert text.splitlines() == [
        "Library: tensorrt 8.6.0", "Engine built in 2.5 sec.", "Engine deserialized in 0.012 sec.",
        "Plan: m.plan, 1.000 MiB", "Engine folder: m.plan.engine", "Note: one note",
    ]  # fmt: skip
    assert warnings_of(record([])) == ()


@pytest.mark.parametrize(
    ("changes", "parts", "said"),
    [
        ({}, {"enqueue": 0.9}, "Enqueue Time rather than GPU Compute Time: CUDA graphs: --useCudaGraph may"),
        ({"cuda_graph": True}, {"enqueue": 0.9}, "CUDA graphs: they are in use already"),
        ({}, {"h2d": 1.0}, "bound by host-to-device transfers"),
        ({}, {"d2h": 1.5}, "bound by device-to-host transfers"),
        ({"streams": 2}, {}, "2 streams share the GPU: latencies of single queries say little"),
    ],
)
def test_a_figure_that_misleads_is_warned_of(changes, parts, said):
    """Each warning comes alone, when its own bound is passed, and is in the text."""
    found = record([query(at, **parts) for at in range(9)], **changes)
    assert len(warnings_of(found)) == 1
    assert said in warnings_of(found)[0]
    assert f"* {warnings_of(found)[0]}" in summary_text(found, Style())


def test_unsteady_compute_is_warned_of():
    """A coefficient of variation of 2.5 % is the bound."""
    steady = [query(at, gpu=1.0 + 0.02 * (at % 2)) for at in range(10)]
    unsteady = [query(at, gpu=1.0 + 0.2 * (at % 2)) for at in range(10)]
    assert warnings_of(record(steady)) == ()
    assert "coefficient of variation is 9.09 %" in warnings_of(record(unsteady))[0]


def test_copies_that_are_not_measured_are_not_warned_of():
    """Without transfers, a device's copy of no length bounds nothing."""
    found = record([query(0.0, h2d=0.0, d2h=0.0, gpu=0.0, enqueue=0.0)], transfers=False)
    assert warnings_of(found) == ()


def test_percentiles_are_counted_as_trtexec_counts():
    """The 90th of ten is the ninth; 0 is the least, 100 the largest."""
    samples = [float(number) for number in range(10, 0, -1)]
    assert [percentile(samples, each) for each in (0, 50, 90, 99, 100)] == [1.0, 5.0, 9.0, 10.0, 10.0]


def test_times_have_trtexec_names():
    """A reader of --exportTimes finds every field."""
    rows = json.loads(times_json([query(10.0), query(12.0)]))
    assert len(rows) == 2
    assert rows[0] == pytest.approx({
        "startEnqMs": 10.0, "endEnqMs": 10.1, "startH2dMs": 10.0, "endH2dMs": 10.2, "startComputeMs": 10.2,
        "endComputeMs": 11.2, "startD2hMs": 11.2, "endD2hMs": 11.5, "h2dMs": 0.2, "computeMs": 1.0, "d2hMs": 0.3,
        "latencyMs": 1.5,
    })  # fmt: skip


def test_layer_times_are_a_table_and_a_file():
    """The first entry says how many runs there were; shares add up to a hundred."""
    layers = [LayerTimeRecord("conv", 30.0, 3.0, 2.9), LayerTimeRecord("relu", 10.0, 1.0, 1.0)]
    rows = json.loads(profile_json(layers, 10))
    assert rows[0] == {"count": 10}
    assert [row["percentage"] for row in rows[1:]] == [75.0, 25.0]
    assert rows[1] == {"name": "conv", "timeMs": 30.0, "averageMs": 3.0, "medianMs": 2.9, "percentage": 75.0}
    text = profile_text(layers, 10, Style())
    assert text.startswith("=== Profile (10 iterations) ===")
    assert re.search(r"40\.00\s+4\.0000\s+3\.9000\s+100\.0\s+Total", text)


def test_layers_and_outputs_are_shown():
    """Kinds, precisions and types of layers; dimensions and values of outputs."""
    import numpy as np

    text = layers_text([LayerRecord("conv", "CONVOLUTION", "fp16", ("fp16",), ("fp32",))], Style())
    assert re.search(r"conv\s+CONVOLUTION\s+fp16\s+fp16\s+fp32", text)
    found = json.loads(outputs_json({"y": np.array([[1.0, 2.5]], np.float32)}))
    assert found == [{"name": "y", "dimensions": "1x2", "values": [1.0, 2.5]}]


def test_every_row_is_explained():
    """The explanations name each row that the summary has."""
    text = explanations()
    for title in ("Throughput", "Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency"):
        assert f"\n{title}: " in text
