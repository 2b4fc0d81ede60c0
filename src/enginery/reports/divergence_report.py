"""Where an engine first leaves its reference."""

from __future__ import annotations

from enginery.records import CutRecord, DivergenceRecord, SmallestRecord
from enginery.reports import figures
from enginery.reports.layout import PLAIN, Column, Style, facts, join, paragraph, table

__all__ = ["divergence_text"]

_KINDS = {
    "jump": "first node that diverges",
    "amplified": "first node that enlarges an error beyond the bound",
    "gradual": "node where an error that grows passes the bound",
    "fused": "first node that diverges, where it is fused",
}
_NAME = 44


def divergence_text(record: DivergenceRecord, style: Style = PLAIN) -> str:
    """Render what bisection found: the node, the error along the graph, and the smallest model that shows it."""
    begin = f"{_KINDS[record.kind]}: " if record.found else "no node was found: "
    smallest = _smallest(record.smallest) if record.smallest is not None else []
    told = facts(
        [("second cut", _confirmed(record)), *smallest,
         ("took", f"{figures.duration(record.seconds)}, {figures.plural(record.builds, 'build')}"),
         *(("note", note) for note in record.notes)],
        style,
    )  # fmt: skip
    profiles = [_profile(record, style)]
    if record.inside is not None:
        profiles += [f"in {record.call}:", _profile(record.inside, style)]
    return join(paragraph(begin + record.said, style, indent="  ", first=""), *profiles, told)


def _profile(record: DivergenceRecord, style: Style) -> str:
    """Render the error at every cut that was measured, in the order of the graph."""
    columns = [
        Column("nodes", right=True),
        Column("cut behind"),
        Column("operator"),
        Column("tensor", wraps=True, rank=2),
        Column("max abs", right=True, rank=1),
        Column("error", right=True),
        Column(""),
    ]
    first = record.nodes[-1].name if record.nodes else ""
    marked = [at for at, cut in enumerate(record.cuts) if first and cut.node == first]
    return table(columns, [_row(cut) for cut in record.cuts if cut.place], style, marked=[at - 1 for at in marked])


def _row(cut: CutRecord) -> list[str]:
    return [
        str(cut.place),
        cut.node if len(cut.node) <= _NAME else f"...{cut.node[3 - _NAME :]}",
        cut.operator,
        cut.tensor,
        figures.error(cut.max_abs),
        figures.NOTHING if cut.failure else figures.error(cut.error),
        _judged(cut),
    ]


def _judged(cut: CutRecord) -> str:
    if cut.failure:
        return "not built"
    if cut.harm is not None and cut.good:
        return f"harmless: it moves the outputs by {figures.error(cut.harm)}"
    special = [f"{count} {word}" for count, word in ((cut.nan, "NaN"), (cut.inf, "Inf")) if count]
    return "good" if cut.good else " ".join(["beyond", *special])


def _confirmed(record: DivergenceRecord) -> str:
    if not record.found:
        return ""
    return {True: "shows it too", False: "does not show it", None: "could not be built"}[record.confirmed]


def _smallest(smallest: SmallestRecord) -> list[tuple[str, str]]:
    operators = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in smallest.operators.items())
    what = f"{figures.plural(smallest.nodes, 'node')} ({operators}), error {figures.error(smallest.error)}"
    return [("smallest model", f"{smallest.folder}: {what}"), ("shown by", smallest.commands)]
