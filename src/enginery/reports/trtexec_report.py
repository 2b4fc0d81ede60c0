"""What `enginery trtexec` found, in the shape of trtexec's own report, and its JSON files with trtexec's names."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from enginery.records import LayerRecord, LayerTimeRecord, QueryRecord, TrtexecRecord
from enginery.reports.layout import Column, Style, table
from enginery.spec import show_sizes

__all__ = [
    "explanations",
    "layers_json",
    "layers_text",
    "outputs_json",
    "percentile",
    "profile_json",
    "profile_text",
    "summary_text",
    "times_json",
    "warnings_of",
]

_ENQUEUE_BOUND = 0.8
_STEADY = 2.5

_ROWS: tuple[tuple[str, Callable[[QueryRecord], float], str], ...] = (
    (
        "Latency",
        operator.attrgetter("latency_ms"),
        "H2D Latency, GPU Compute Time and D2H Latency of a query together",
    ),
    ("Enqueue Time", operator.attrgetter("enqueue_ms"), "what the host takes to hand one query to the device"),
    ("H2D Latency", operator.attrgetter("h2d_ms"), "copying one query's inputs to the device"),
    ("GPU Compute Time", operator.attrgetter("gpu_ms"), "the device's time for the kernels of one query"),
    ("D2H Latency", operator.attrgetter("d2h_ms"), "copying one query's outputs to the host"),
)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the sample that `percent` of all do not exceed, counted as trtexec counts.

    Example:
        >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([1.0, 2.0], 100)
        (2.0, 2.0)
    """
    ordered = sorted(samples)
    above = int((100 - percent) * len(ordered) / 100)
    return ordered[max(len(ordered) - 1 - above, 0)]


def summary_text(record: TrtexecRecord, style: Style) -> str:
    """Return the trace, the summary and the warnings."""
    del style  # scripts read these lines: they are never wrapped
    if not record.queries:
        return "\n".join(_built(record))
    lines = [*_built(record), "", *_trace(record), "", "=== Performance summary ==="]
    lines.append(f"Throughput: {_figure(_throughput(record))} qps")
    for title, metric, _ in _ROWS:
        lines.append(f"{title}: {_row([metric(query) for query in record.queries], record.percentiles)}")
    total_s = sum(query.gpu_ms for query in record.queries) / 1e3
    lines += [f"Total Host Walltime: {_figure(record.walltime_ms / 1e3)} s"]
    lines += [f"Total GPU Compute Time: {_figure(total_s)} s"]
    return "\n".join([*lines, *(f"* {warning}" for warning in warnings_of(record))])


def _built(record: TrtexecRecord) -> list[str]:
    lines = [f"Library: {record.backend} {record.backend_version}"]
    if record.build_s is not None:
        lines.append(f"Engine built in {record.build_s:.3g} sec.")
    if record.load_ms is not None:
        lines.append(f"Engine deserialized in {record.load_ms / 1e3:.3g} sec.")
    lines.append(f"Plan: {record.plan or '(not kept)'}, {record.plan_bytes / 2**20:.3f} MiB")
    if record.engine:
        lines.append(f"Engine folder: {record.engine}")
    return [*lines, *(f"Note: {note}" for note in record.notes)]


def _trace(record: TrtexecRecord) -> list[str]:
    shapes = ", ".join(f"{name}:{show_sizes(shape)}" for name, shape in record.shapes.items())
    how = {"CUDA graph": record.cuda_graph, "spin-wait": record.spin, "data transfers": record.transfers}
    switches = ", ".join(f"{name} {'on' if is_on else 'off'}" for name, is_on in how.items())
    lines = [
        f"Measured on {record.placement}: {shapes}",
        f"Streams {record.streams}, {switches}",
        f"Warmup completed {record.warmups} queries over {record.warmup_ms:g} ms",
        f"Timing trace has {len(record.queries)} queries over {_figure(record.walltime_ms / 1e3)} s",
        "",
        "=== Trace details ===",
        f"Trace averages of {record.average_runs} runs:",
    ]
    whole = len(record.queries) // record.average_runs * record.average_runs
    for begin in range(0, whole, record.average_runs):
        part = record.queries[begin : begin + record.average_runs]
        gpu, host, enqueue = (
            _figure(statistics.fmean(getattr(query, name) for query in part))
            for name in ("gpu_ms", "latency_ms", "enqueue_ms")
        )
        lines.append(
            f"Average on {record.average_runs} runs - GPU latency: {gpu} ms - Host latency: {host} ms "
            f"(enqueue {enqueue} ms)"
        )
    return lines


def _throughput(record: TrtexecRecord) -> float:
    return len(record.queries) / record.walltime_ms * 1e3


def _row(samples: Sequence[float], percents: Iterable[float]) -> str:
    figures = [
        f"min = {_figure(min(samples))} ms", f"max = {_figure(max(samples))} ms",
        f"mean = {_figure(statistics.fmean(samples))} ms", f"median = {_figure(statistics.median(samples))} ms",
        *(f"percentile({percent:g}%) = {_figure(percentile(samples, percent))} ms" for percent in percents),
    ]  # fmt: skip
    return ", ".join(figures)


def _figure(value: float) -> str:
    return f"{value:.6g}"


def warnings_of(record: TrtexecRecord) -> tuple[str, ...]:
    """Say where a figure is not what it seems: bound by the host or by copies, unsteady, or of several streams.

    Example:
        >>> slow = QueryRecord((0.0, 1.0), (0.0, 0.1), (0.1, 1.1), (1.1, 1.2))
        >>> warnings_of(TrtexecRecord("tensorrt", "8.6.0", queries=(slow,), walltime_ms=1.2))[0][:42]
        'Throughput may be bound by Enqueue Time ra'
    """
    if not record.queries:
        return ()
    names = ("enqueue_ms", "h2d_ms", "gpu_ms", "d2h_ms")
    enqueue, h2d, gpu, d2h = ([getattr(query, name) for query in record.queries] for name in names)
    compute = statistics.median(gpu)
    found: list[str] = []
    if statistics.median(enqueue) > _ENQUEUE_BOUND * compute:
        mend = "they are in use already" if record.cuda_graph else "--useCudaGraph may raise it"
        found.append(f"Throughput may be bound by Enqueue Time rather than GPU Compute Time: CUDA graphs: {mend}.")
    copies = {"host-to-device": h2d, "device-to-host": d2h} if record.transfers else {}
    for way, samples in copies.items():
        if statistics.median(samples) >= compute:
            mend = "--noDataTransfers leaves copies out; session.pipeline() overlaps them"
            found.append(f"Throughput may be bound by {way} transfers rather than GPU Compute Time: {mend}.")
    mean = statistics.fmean(gpu)
    spread = statistics.pstdev(gpu) / mean * 100 if mean else 0.0
    if spread > _STEADY:
        mend = "locking the GPU's clocks or --useSpinWait may steady it"
        found.append(f"GPU Compute Time is unsteady, its coefficient of variation is {spread:.3g} %: {mend}.")
    if record.streams > 1:
        mend = "measure them with one"
        found.append(f"{record.streams} streams share the GPU: latencies of single queries say little; {mend}.")
    return tuple(found)


def explanations() -> str:
    """Say what each row of the summary is."""
    lines = ["=== Explanations of the performance metrics ==="]
    lines.append("Throughput: queries over Total Host Walltime. A query is one call, whatever its batch is.")
    lines += [f"{title}: {meaning}." for title, _, meaning in _ROWS]
    lines.append("Total Host Walltime: from the first counted query's enqueueing to the last one's end.")
    return "\n".join(lines)


def times_json(queries: Iterable[QueryRecord]) -> str:
    """Write every query with trtexec's names of its times, in milliseconds."""
    rows = []
    for query in queries:
        spans = {"Enq": query.enqueue, "H2d": query.h2d, "Compute": query.gpu, "D2h": query.d2h}
        row = {f"{end}{name}Ms": span[at] for name, span in spans.items() for at, end in enumerate(("start", "end"))}
        rows.append({
            **row, "h2dMs": query.h2d_ms, "computeMs": query.gpu_ms, "d2hMs": query.d2h_ms,
            "latencyMs": query.latency_ms,
        })  # fmt: skip
    return json.dumps(rows, indent=1) + "\n"


def profile_json(layers: Sequence[LayerTimeRecord], runs: int) -> str:
    """Write the time of each layer with trtexec's names: first how many runs there were, then a row a layer."""
    total = sum(layer.total_ms for layer in layers) or 1.0
    rows = [
        {"name": layer.name, "timeMs": layer.total_ms, "averageMs": layer.average_ms, "medianMs": layer.median_ms,
         "percentage": layer.total_ms / total * 100}
        for layer in layers
    ]  # fmt: skip
    return json.dumps([{"count": runs}, *rows], indent=1) + "\n"


def profile_text(layers: Sequence[LayerTimeRecord], runs: int, style: Style) -> str:
    """Return a table of the layers' times, the last row their sum."""
    total = sum(layer.total_ms for layer in layers)
    columns = (
        Column("Time(ms)", right=True), Column("Avg.(ms)", right=True), Column("Median(ms)", right=True),
        Column("Time(%)", right=True), Column("Layer", wraps=True),
    )  # fmt: skip
    rows = [
        [f"{layer.total_ms:.2f}", f"{layer.average_ms:.4f}", f"{layer.median_ms:.4f}",
         f"{layer.total_ms / (total or 1.0) * 100:.1f}", layer.name]
        for layer in layers
    ]  # fmt: skip
    average, median = (sum(each) for each in ([one.average_ms for one in layers], [one.median_ms for one in layers]))
    rows.append([f"{total:.2f}", f"{average:.4f}", f"{median:.4f}", "100.0", "Total"])
    return f"=== Profile ({runs} iterations) ===\n{table(columns, rows, style)}"


def layers_json(layers: Sequence[LayerRecord], tensors: Sequence[str]) -> str:
    """Write the layers that were built with trtexec's names, and what else is known of each.

    Args:
        layers: of the engine.
        tensors: names of its inputs and outputs.
    """
    rows = [
        {"Name": layer.name, "LayerType": layer.kind, "Precision": layer.precision,
         "Inputs": [{"Format/Datatype": each} for each in layer.inputs],
         "Outputs": [{"Format/Datatype": each} for each in layer.outputs],
         "TacticName": layer.tactic, "Nodes": layer.nodes, "Modules": layer.modules}
        for layer in layers
    ]  # fmt: skip
    return json.dumps({"Layers": rows, "Bindings": list(tensors)}, indent=1) + "\n"


def layers_text(layers: Sequence[LayerRecord], style: Style) -> str:
    """Return a table of what was built: each layer's kind, precision and tensors."""
    columns = (
        Column("Layer", wraps=True), Column("Kind"), Column("Precision"), Column("Inputs", wraps=True, rank=2),
        Column("Outputs", wraps=True, rank=1),
    )  # fmt: skip
    rows = [
        [layer.name, layer.kind, layer.precision or "-", ", ".join(layer.inputs), ", ".join(layer.outputs)]
        for layer in layers
    ]
    return f"=== Layer information ({len(layers)} layers) ===\n{table(columns, rows, style)}"


def outputs_json(outputs: Mapping[str, Any]) -> str:
    """Write arrays with trtexec's names: name, dimensions and values of each."""
    rows = [
        {"name": name, "dimensions": show_sizes(array.shape), "values": array.reshape(-1).tolist()}
        for name, array in outputs.items()
    ]
    return json.dumps(rows) + "\n"
