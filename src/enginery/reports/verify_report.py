"""How an engine's outputs compare with its source's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from enginery.records import CheckRecord, OutputRecord, VerifyRecord
from enginery.reports import figures
from enginery.reports.divergence_report import divergence_text
from enginery.reports.layout import PLAIN, Column, Style, facts, join, paragraph, table

__all__ = ["verify_text"]

_COLUMNS = (
    Column("output", wraps=True),
    Column("case"),
    Column("shape"),
    Column("max abs", right=True),
    Column("mean abs", right=True, rank=4),
    Column("rel L2", right=True),
    Column("cosine", right=True, rank=2),
    Column("SNR dB", right=True, rank=3),
    Column("top-1", right=True, rank=1),
    Column("differ", right=True),
    Column("NaN/Inf", right=True, rank=1),
)
_OPTIONAL = ("rel L2", "cosine", "SNR dB", "max abs", "mean abs", "top-1", "differ", "NaN/Inf")
_RECORDED = "data "
_MARKS = {True: "passed", False: "FAILED", None: "-"}


def verify_text(record: VerifyRecord, style: Style = PLAIN) -> str:
    """Render a comparison: a row for each output of each case, then the checks that need no reference."""
    rows = [_row(output) for output in _folded(record.outputs)]
    shown = [
        at for at, column in enumerate(_COLUMNS)
        if column.title not in _OPTIONAL or any(row[at] != figures.NOTHING for row in rows)
    ]  # fmt: skip
    outputs = table([_COLUMNS[at] for at in shown], [[row[at] for at in shown] for row in rows], style)
    found = divergence_text(record.divergence, style) if record.divergence is not None else ""
    checks = _checks(record.checks, style)
    return join(outputs if rows else "", checks, _facts(record, style), found, _verdict(record, style))


def _folded(outputs: tuple[OutputRecord, ...]) -> list[OutputRecord]:
    """Make one row of the recorded batches of an output, with the worst of each figure; other cases stay."""
    batches: dict[str, list[OutputRecord]] = {}
    rows: list[OutputRecord | str] = []
    for output in outputs:
        if not output.case.startswith(_RECORDED):
            rows.append(output)
            continue
        if output.name not in batches:
            rows.append(output.name)
        batches.setdefault(output.name, []).append(output)
    return [_worst(batches[row]) if isinstance(row, str) else row for row in rows]


def _worst(batches: list[OutputRecord]) -> OutputRecord:
    if len(batches) == 1:
        return batches[0]
    return replace(
        batches[0],
        case=f"data, worst of {len(batches)}",
        max_abs=_most(one.max_abs for one in batches),
        mean_abs=_most(one.mean_abs for one in batches),
        relative_l2=_most(one.relative_l2 for one in batches),
        cosine=_least(one.cosine for one in batches),
        snr_db=_least(one.snr_db for one in batches),
        top1_agreement=_least(one.top1_agreement for one in batches),
        mismatch=_most(one.mismatch for one in batches),
        nan=sum(one.nan for one in batches),
        inf=sum(one.inf for one in batches),
        reference_nan=sum(one.reference_nan for one in batches),
        reference_inf=sum(one.reference_inf for one in batches),
    )


def _most(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return math.nan if any(map(math.isnan, told)) else max(told, default=None)


def _least(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return math.nan if any(map(math.isnan, told)) else min(told, default=None)


def _row(output: OutputRecord) -> list[str]:
    return [
        output.name,
        output.case,
        figures.shape(output.shape),
        figures.error(output.max_abs),
        figures.error(output.mean_abs),
        figures.error(output.relative_l2),
        figures.NOTHING if output.cosine is None else f"{output.cosine:.7f}",
        _decibel(output.snr_db),
        figures.percent(output.top1_agreement),
        figures.percent(output.mismatch),
        _specials(output),
    ]


def _decibel(value: float | None) -> str:
    if value is None:
        return figures.NOTHING
    return "equal" if value == math.inf else f"{value:.1f}"


def _specials(output: OutputRecord) -> str:
    """Write the counts of NaN and Inf, beside the reference's where these are not the same."""
    own, reference = (output.nan, output.inf), (output.reference_nan, output.reference_inf)
    if not any(own + reference):
        return figures.NOTHING
    said = f"{own[0]}/{own[1]}"
    return said if own == reference else f"{said} (ref {reference[0]}/{reference[1]})"


def _checks(checks: tuple[CheckRecord, ...], style: Style) -> str:
    columns = [Column("check"), Column("result"), Column("detail", wraps=True)]
    return (
        table(columns, [[check.name, _MARKS[check.passed], check.detail] for check in checks], style) if checks else ""
    )


def _facts(record: VerifyRecord, style: Style) -> str:
    accuracy = ""
    if record.accuracy is not None:
        accuracy = f"{figures.percent(record.accuracy)}; of the reference {figures.percent(record.reference_accuracy)}"
    return facts(
        [("reference", record.reference), ("inputs", record.inputs), ("accuracy", accuracy),
         ("took", figures.duration(record.seconds)), *(("note", note) for note in record.notes)],
        style,
    )  # fmt: skip


def _verdict(record: VerifyRecord, style: Style) -> str:
    if record.passed:
        bound = "" if record.max_error == math.inf else f", at most {figures.error(record.max_error)}"
        return f"passed: error {figures.error(record.error)}{bound}"
    return paragraph(f"FAILED: {record.reason}", style, indent="  ", first="")
