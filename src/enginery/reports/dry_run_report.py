"""What would become of a build."""

from __future__ import annotations

from enginery.records import DryRunRecord, FindingRecord
from enginery.reports import figures
from enginery.reports.engine_report import parts_table
from enginery.reports.layout import PLAIN, Column, Style, facts, join, paragraph, table

__all__ = ["dry_run_text"]

_SAID = {"refused": "will not build", "moved": "goes elsewhere", "unsure": "may not build", "note": "note"}


def dry_run_text(record: DryRunRecord, style: Style = PLAIN) -> str:
    """Render a dry run: the answer first, then what was found, the parts, and the memory."""
    said = facts(
        [
            ("dry run", record.source),
            ("backend", f"{record.backend} {record.backend_version}, {record.precision}"),
            ("result", _result(record)),
            ("graph", f"{figures.plural(record.nodes, 'node')}, weights {figures.byte_size(record.weights_bytes)}"),
            ("activations", _activations(record)),
        ],
        style,
    )
    parts = parts_table(record.parts, style)
    heading = paragraph("in parts, as --option partition=auto would build it:", style) if parts else ""
    return join(said, _findings(record.findings, style), "\n".join(filter(None, (heading, parts))))


def _result(record: DryRunRecord) -> str:
    refused = len({finding.text for finding in record.findings if finding.severity == "refused"})
    if refused:
        return f"it will not build: {figures.plural(refused, 'reason')}"
    moved = sum(finding.severity == "moved" for finding in record.findings)
    if moved:
        return f"it builds in {figures.plural(len(record.parts), 'part')}, as far as can be told without a build"
    return "it builds, as far as can be told without a build"


def _activations(record: DryRunRecord) -> str:
    if record.activation_bytes is None:
        return "not known: sizes are open, depend on data, or are those of texts"
    return f"{figures.byte_size(record.activation_bytes)} at the max sizes, estimated in the graph's own types"


def _findings(findings: tuple[FindingRecord, ...], style: Style) -> str:
    if not findings:
        return ""
    columns = [Column("finding"), Column("what", wraps=True), Column("what to do", wraps=True)]
    rows = dict.fromkeys((_SAID[one.severity], one.text, one.mend) for one in findings)  # one text may name many nodes
    return table(columns, [list(row) for row in rows], style)
