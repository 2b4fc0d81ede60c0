"""What is in a graph, and how a source became one."""

from __future__ import annotations

from collections.abc import Iterable

from enginery.records import ExportRecord, GraphRecord, TensorInfo
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, join, table

__all__ = ["export_text", "graph_text", "operators_line", "tensors_table"]


def graph_text(record: GraphRecord, style: Style = PLAIN) -> str:
    """Render what is in a graph: totals, tensors and operators."""
    parameters = f"{record.parameters:,} ({figures.byte_size(record.parameter_bytes)})"
    counts = ((record.functions, "function"), (record.subgraphs, "subgraph"))
    inner = [figures.plural(number, noun) for number, noun in counts if number]
    said = facts(
        [
            ("graph", record.name or "(no name)"),
            ("nodes", ", ".join([f"{record.nodes:,}", *inner])),
            ("parameters", parameters),
            ("FLOPs", figures.count(record.flops) if record.flops is not None else _why_unknown(record)),
            ("opset", ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in record.opsets.items())),
            ("IR version", str(record.ir_version)),
            ("dynamic", ", ".join(record.dynamic_dims) or "no dimension"),
            ("producer", record.producer),
            ("SHA-256", record.sha256),
            ("operators", operators_line(record)),
        ],
        style,
    )
    return join(said, tensors_table(record.inputs, record.outputs, style))


def export_text(record: ExportRecord, output: str, style: Style = PLAIN) -> str:
    """Render how a source became a graph, and where that is."""
    axes = [f"{name}: {', '.join(names)}" for name, names in record.dynamic_axes.items() if names]
    return facts(
        [
            ("graph", output),
            ("source", record.source),
            ("exporter", record.exporter),
            ("opset", str(record.opset)),
            ("nodes", _nodes(record)),
            ("dynamic", "; ".join(axes) or "no dimension"),
            ("took", figures.duration(record.seconds)),
            ("memory", f"{figures.byte_size(record.peak_memory_bytes)} at most" if record.peak_memory_bytes else ""),
            ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
            *(("tried before", attempt) for attempt in record.attempts),
            *(("note", note) for note in record.notes),
        ],
        style,
    )


def _nodes(record: ExportRecord) -> str:
    said = [f"{record.nodes:,}"]
    if record.nodes_simplified is not None:
        said.append(f"{record.nodes_simplified:,} after simplification")
    if record.nodes_with_module:
        said.append(f"{record.nodes_with_module:,} with the module they came from")
    return ", ".join(said)


def operators_line(record: GraphRecord) -> str:
    """Write how often each operator occurs, the most frequent first."""
    ordered = sorted(record.operators.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number}" for name, number in ordered)


def tensors_table(inputs: Iterable[TensorInfo], outputs: Iterable[TensorInfo], style: Style = PLAIN) -> str:
    """Render inputs and outputs: name, element type, shape, and the profile where there is one."""
    inputs, outputs = tuple(inputs), tuple(outputs)
    profiled = any(info.profile is not None for info in inputs)
    columns = [Column(""), Column("tensor", wraps=True), Column("dtype"), Column("shape", wraps=True)]
    if profiled:
        columns.append(Column("takes (min..opt..max)", wraps=True))
    rows = [
        [kind, info.name, info.dtype, _own_shape(info), *([str(info.profile or "any")] if kind == "input" else [""])]
        for kind, group in (("input", inputs), ("output", outputs))
        for info in group
    ]
    return table(columns, [row[: len(columns)] for row in rows], style)


def _own_shape(info: TensorInfo) -> str:
    shape = "any rank" if info.shape is None else figures.shape(info.shape)
    return f"{shape} ({info.layout})" if info.layout else shape


def _why_unknown(record: GraphRecord) -> str:
    return "unknown: shapes are open" if record.dynamic_dims else "unknown: not all operators are ONNX's own"
