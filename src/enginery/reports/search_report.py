"""How a model bears a narrower type, and how a plan between two precisions was found."""

from __future__ import annotations

from enginery.records import NodeSensitivityRecord, SearchRecord, SearchStepRecord, SensitivityRecord
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, join, paragraph, table

__all__ = ["search_text", "sensitivity_text"]

_MOST_ROWS = 20
_MOST_GROUPS = 12


def sensitivity_text(record: SensitivityRecord, style: Style = PLAIN) -> str:
    """Render how nodes bear a type: the endangered ones first, then the groups that harm the outputs most.

    Args:
        record: what was found.
        style: width and colour.
    """
    low = record.precision
    head = f"all {figures.plural(record.lowered, 'node')} in {low}: error {figures.error(record.error)}"
    endangered = [row for row in record.nodes if row.dangers]
    return join(
        head,
        _dangers(endangered, style) if endangered else f"no value that was seen is in danger in {low}",
        _groups(record, style),
        facts(
            [("inputs", record.inputs),
             ("graph", f"{record.total} nodes, of which {record.lowered} compute lower in {low}"),
             ("watched", f"{figures.plural(record.watched, 'tensor')} in {figures.plural(record.runs, 'run')}"),
             ("took", figures.duration(record.seconds)), *(("note", note) for note in record.notes)],
            style,
        ),
    )  # fmt: skip


def search_text(record: SearchRecord, style: Style = PLAIN, *, steps: bool = True) -> str:
    """Render a search in one paragraph, its steps, and the nodes that are kept.

    Args:
        record: what was found.
        style: width and colour.
        steps: whether to list the steps.
    """
    columns = [
        Column("", right=True),
        Column("step"),
        Column("plan", wraps=True),
        Column("kept", right=True),
        Column("error", right=True),
        Column("cosine", right=True, rank=2),
        Column("holds"),
    ]
    rows = [_step(number, step) for number, step in enumerate(record.steps, 1)]
    kept = [[name, record.kept[name], record.reasons.get(name, "")] for name in record.kept]
    took = f"{figures.plural(len(record.steps), 'step')} in {figures.duration(record.seconds)}"
    return join(
        paragraph(f"{record.label}: {record.words}; {took}", style),
        table(columns, rows, style) if rows and steps else "",
        _short(table([Column("kept node"), Column("in"), Column("because", wraps=True)], kept[:_MOST_ROWS], style),
               len(kept) - _MOST_ROWS, "node") if kept else "",
    )  # fmt: skip


def _dangers(rows: list[NodeSensitivityRecord], style: Style) -> str:
    columns = [
        Column("node", wraps=True),
        Column("module", wraps=True, rank=2),
        Column("operator", rank=3),
        Column("danger"),
        Column("what", wraps=True),
        Column("error alone", right=True, rank=1),
    ]
    cells = [
        [row.name, row.module, row.operator, row.dangers[0].severity, row.dangers[0].text, figures.error(row.error)]
        for row in rows[:_MOST_ROWS]
    ]
    return _short(table(columns, cells, style), len(rows) - _MOST_ROWS, "endangered node")


def _groups(record: SensitivityRecord, style: Style) -> str:
    if not record.groups:
        return ""
    columns = [Column("alone lower", wraps=True), Column("nodes", right=True), Column("error", right=True),
               Column("cosine", right=True)]  # fmt: skip
    cells = [
        [group.name, str(len(group.nodes)), figures.error(group.error), _cosine(group.cosine)]
        for group in record.groups[:_MOST_GROUPS]
    ]
    return _short(table(columns, cells, style), len(record.groups) - _MOST_GROUPS, "group")


def _step(number: int, step: SearchStepRecord) -> list[str]:
    return [
        str(number),
        f"{step.what}, known" if step.again else step.what,
        step.action,
        str(step.kept),
        figures.error(step.error),
        _cosine(step.cosine),
        "yes" if step.holds else "no",
    ]


def _cosine(value: float | None) -> str:
    return figures.NOTHING if value is None else f"{value:.7g}"


def _short(drawn: str, rest: int, noun: str) -> str:
    return f"{drawn}\n(and {figures.plural(rest, noun)} more in the record)" if rest > 0 else drawn
