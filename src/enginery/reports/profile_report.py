"""Where a call on a GPU spends its time: its parts, then its slowest layers."""

from __future__ import annotations

from enginery.records import ProfileRecord
from enginery.reports.layout import PLAIN, Column, Style, facts, footnotes, join, table

__all__ = ["profile_text"]

_SHOWN = 20


def profile_text(record: ProfileRecord, style: Style = PLAIN) -> str:
    """Render the parts of a call and its slowest layers."""
    parts = [
        ("asking for kernels", f"{record.enqueue_ms:.4f} ms of the host, without a CUDA graph"),
        ("copies in", f"{record.copy_in_ms:.4f} ms"),
        ("engine", f"{record.device_ms:.4f} ms of the device"),
        ("copies out", f"{record.copy_out_ms:.4f} ms"),
    ]
    columns = (Column("ms", right=True), Column("share", right=True), Column("layer", wraps=True))
    slowest = sorted(record.layers, key=lambda layer: -layer.median_ms)
    total = sum(layer.median_ms for layer in slowest) or 1.0
    rows = [[f"{one.median_ms:.4f}", f"{one.median_ms / total:.1%}", one.name] for one in slowest[:_SHOWN]]
    left = len(slowest) - len(rows)
    notes = [
        f"Medians of {record.runs} calls; layers are timed one by one, so their sum is more than the engine's time."
    ]
    if left:
        notes.append(f"{left} more layers take {sum(one.median_ms for one in slowest[_SHOWN:]) / total:.1%} together.")
    return join(facts(parts, style), table(columns, rows, style) if rows else "", footnotes(notes, style))
