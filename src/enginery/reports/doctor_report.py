"""What is here, what is missing, and the line that mends it."""

from __future__ import annotations

from enginery.records import DoctorRecord, DoctorRow
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, footnotes, join, paragraph, table
from enginery.reports.optimize_report import machine_line

__all__ = ["doctor_text"]


def doctor_text(record: DoctorRecord, style: Style = PLAIN) -> str:
    """Render what was found: a row for each thing looked for, then the exact commands that mend what is not right."""
    shown = [
        [row.group if at == 0 or record.rows[at - 1].group != row.group else "", row.name,
         row.version or figures.NOTHING, row.status.upper() if row.status == "broken" else row.status, row.why]
        for at, row in enumerate(record.rows)
    ]  # fmt: skip
    columns = [Column(""), Column("what"), Column("version"), Column("status"), Column("", wraps=True)]
    machine = facts([("machine", machine_line(record.machine)), ("Enginery", record.machine.enginery)], style)
    return join(machine, table(columns, shown, style), _mends(record.rows, style), _verdict(record.rows))


def _mends(rows: tuple[DoctorRow, ...], style: Style) -> str:
    mended: dict[str, list[str]] = {}
    for row in rows:
        if row.mend:
            mended.setdefault(row.mend, []).append(f"{row.group} {row.name}")
    if not mended:
        return ""
    notes = [f"{', '.join(dict.fromkeys(names))}:\n{mend}" for mend, names in mended.items()]
    return (
        paragraph("To mend it (what is only missing is optional, and may stay so):", style)
        + "\n"
        + footnotes(notes, style)
    )


def _verdict(rows: tuple[DoctorRow, ...]) -> str:
    broken = [row.name for row in rows if row.status == "broken"]
    return f"broken: {', '.join(broken)}" if broken else "Nothing is broken."
