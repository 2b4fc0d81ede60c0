"""How long calls take: one row for each engine."""

from __future__ import annotations

from collections.abc import Mapping

from enginery.records import BenchRecord
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, join, table
from enginery.reports.optimize_report import speed_up

__all__ = ["bench_text"]

_COLUMNS = (
    Column("engine", wraps=True),
    Column("batch", right=True, rank=5),
    Column("min", right=True, rank=3),
    Column("p50 ms", right=True),
    Column("p90", right=True, rank=4),
    Column("p95", right=True, rank=6),
    Column("p99", right=True, rank=1),
    Column("mean", right=True, rank=7),
    Column("rows/s", right=True),
    Column("vs first", right=True, rank=2),
    Column("first call", right=True, rank=8),
    Column("load", right=True, rank=8),
    Column("samples", right=True, rank=9),
)


def bench_text(records: Mapping[str, BenchRecord], style: Style = PLAIN) -> str:
    """Render benchmarks by label: all times in milliseconds, the fastest marked.

    Args:
        records: benchmarks by the label of the engine, in the order they should appear.
        style: width and colour.
    """
    if not records:
        return "nothing was timed"
    first = next(iter(records.values()))
    alone = len(records) == 1
    columns = [column for column in _COLUMNS if not (alone and column.title == "vs first")]
    rows = [_row(label, bench, None if alone else first) for label, bench in records.items()]
    fastest = max(range(len(records)), key=lambda at: list(records.values())[at].throughput)
    drawn = table(columns, rows, style, marked=() if alone else (fastest,))
    return join(drawn, facts(_facts(records), style))


def _row(label: str, bench: BenchRecord, first: BenchRecord | None) -> list[str]:
    return [
        label,
        str(bench.batch),
        figures.milliseconds(bench.min_ms),
        figures.median_ms(bench),
        figures.milliseconds(bench.p90_ms),
        figures.milliseconds(bench.p95_ms),
        figures.milliseconds(bench.p99_ms),
        figures.milliseconds(bench.mean_ms),
        figures.integer(bench.throughput),
        *([figures.ratio(speed_up(first, bench))] if first is not None else []),
        figures.milliseconds(bench.first_call_ms),
        figures.milliseconds(bench.load_ms),
        f"{bench.samples:,}",
    ]


def _facts(records: Mapping[str, BenchRecord]) -> list[tuple[str, str]]:
    by_shapes: dict[str, list[str]] = {}
    for label, bench in records.items():
        shapes = ", ".join(f"{name} {figures.shape(sizes)}" for name, sizes in bench.shapes.items())
        by_shapes.setdefault(shapes, []).append(label)
    unstable = [label for label, bench in records.items() if not bench.stable]
    loads = [bench.load for bench in records.values() if bench.load is not None]
    return [
        *(("timed", shapes if len(by_shapes) == 1 else f"{shapes}: {', '.join(labels)}")
          for shapes, labels in by_shapes.items()),
        ("± is", "half the 95 % confidence interval of the median"),
        *(("stopped", rule) for rule in dict.fromkeys(bench.rule for bench in records.values())),
        ("unstable", f"~ marks medians that did not settle in time: {', '.join(unstable)}" if unstable else ""),
        *(("runs on", f"{label}: {bench.placement}") for label, bench in records.items() if bench.placement),
        *(("parts", f"{label}: {_parts(bench)}") for label, bench in records.items() if bench.parts_ms),
        *(("load", f"other processes took {100 * load.others_busy:.0f} % of the machine")
          for load in loads if load.others_busy and not load.notes),
        *(("note", note) for note in dict.fromkeys(note for load in loads for note in load.notes)),
    ]  # fmt: skip


def _parts(bench: BenchRecord) -> str:
    """Write the mean time of each part, such as ``0: TensorRT (4 nodes) 0.211 ms``."""
    return ", ".join(f"{name} {figures.milliseconds(time)} ms" for name, time in bench.parts_ms.items())
