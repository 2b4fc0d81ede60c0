"""The gallery's table: one line an entry, footnotes for every failure, and the count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.gallery.result import STATUSES, Result, share_passed
from enginery.reports.layout import PLAIN, Column, Style, footnotes, join, table

__all__ = ["gallery_text", "summary"]

_COLUMNS = (
    Column("model"),
    Column("family", rank=3),
    Column("source", rank=1),
    Column("backend"),
    Column("exporter", rank=2),
    Column("nodes", right=True, rank=4),
    Column("named", right=True, rank=6),
    Column("export s", right=True, rank=5),
    Column("simplify s", right=True, rank=5),
    Column("build s", right=True, rank=5),
    Column("MiB", right=True, rank=6),
    Column("shapes", rank=7),
    Column("error", right=True),
    Column("result"),
)
_REASON_CHARACTERS = 400
_EXPORTERS = {"torch.onnx.export (dynamo)": "dynamo", "torch.onnx.export (TorchScript)": "tracing"}


def gallery_text(results: Sequence[Result], style: Style = PLAIN) -> str:
    """Render the table; a number in brackets after a result leads to its reason below.

    Example:
        >>> print(gallery_text([Result("tiny", "cnn", "torch", "onnxruntime", "passed", error=2e-7)], Style(60)))
        model  backend        error  result
        ───────────────────────────────────
        tiny   onnxruntime  2.0e-07  passed
        (left out at this width: family, source, exporter, nodes,
        named, export s, simplify s, build s, MiB, shapes)
        <BLANKLINE>
        onnxruntime: 1 of 1 passed (100.0 %)
    """
    notes: list[str] = []
    rows = [_row(result, notes) for result in results]
    return join(table(_COLUMNS, rows, style), footnotes(notes, style), summary(results))


def summary(results: Sequence[Result]) -> str:
    """Say for each backend how many passed, failed, were expected to fail, and were skipped."""
    lines = []
    for backend in dict.fromkeys(result.backend for result in results):
        own = [result for result in results if result.backend == backend]
        counts = Counter(result.status for result in own)
        run = len(own) - counts["skipped"]
        others = [f"{counts[status]} {status}" for status in STATUSES if status != "passed" and counts[status]]
        text = f"{backend}: {counts['passed']} of {run} passed ({100 * share_passed(own):.1f} %)"
        lines.append(", ".join([text, *others]))
    return "\n".join(lines)


def _row(result: Result, notes: list[str]) -> list[str]:
    mark = ""
    if result.reason:
        stage = "" if result.status in ("passed", "skipped") else f"{result.stage}: "
        text = f"{result.name}: {stage}{_cut(result.reason)}"
        if text not in notes:
            notes.append(text)
        mark = f" [{notes.index(text) + 1}]"
    return [
        result.name,
        result.family,
        result.source,
        result.backend,
        _EXPORTERS.get(result.exporter, result.exporter) or "-",
        _nodes(result),
        _whole(result.nodes_with_module),
        _seconds(result.export_s),
        _seconds(result.simplify_s),
        _seconds(result.build_s),
        "-" if result.peak_memory_bytes is None else f"{result.peak_memory_bytes / 2**20:.0f}",
        " | ".join(result.shapes) or "-",
        "-" if result.error is None else f"{result.error:.1e}",
        result.status + mark,
    ]


def _nodes(result: Result) -> str:
    if result.nodes is None:
        return "-"
    return f"{result.nodes} → {_whole(result.nodes_simplified)}"


def _whole(number: int | None) -> str:
    return "-" if number is None else str(number)


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def _cut(text: str) -> str:
    return text if len(text) <= _REASON_CHARACTERS else text[:_REASON_CHARACTERS].rstrip() + " ..."
