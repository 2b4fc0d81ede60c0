"""What the rows say: counts for each converter, what only others pass, and what Enginery does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.converter_torture.judge import STAGES
from benchmarks.converter_torture.work import Row

__all__ = ["markdown", "passes", "summary"]

OURS = "enginery"


def passes(row: Row, stage: str) -> bool:
    """Say whether a graph passes a stage.

    ``explained`` is close, or off for a known reason. Of Enginery, the reason must stand in a plan: the one that its
    search finds, which says why it keeps each of its nodes in float32, must be close. Of the others, that they told of
    weights which the type cannot hold, or that the type's rounding alone is as far off, is enough.
    """
    if stage == "explained":
        keys = ("planned",) if row["converter"] == OURS else ("told", "rounding")
        return "close" in row["passed"] or ("runs" in row["passed"] and any(row.get(key) for key in keys))
    if stage == "all":
        return set(STAGES) <= set(row["passed"])
    return stage in row["passed"]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Sum up one set in one precision."""
    judged = [row for row in rows if not row.get("invalid")]
    by_converter = defaultdict(list)
    for row in judged:
        by_converter[row["converter"]].append(row)
    return {
        "graphs": len(by_converter[OURS]),
        "invalid_originals": sorted({row["name"] for row in rows if row.get("invalid")}),
        "ran": dict(Counter(row.get("ran", "") for row in by_converter[OURS])),
        "counts": {
            converter: {stage: sum(passes(row, stage) for row in found) for stage in (*STAGES, "explained", "all")}
            for converter, found in by_converter.items()
        },
        "only_others_pass": _only_others(by_converter),
        "not_all": [row for row in by_converter[OURS] if not passes(row, "all")],
        "reasons_of_others": {
            converter: _reasons(found) for converter, found in by_converter.items() if converter != OURS
        },
    }


def _only_others(rows: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """List the graphs and stages that another converter passes and Enginery does not."""
    ours = {row["name"]: row for row in rows[OURS]}
    return [
        {"name": row["name"], "converter": converter, "stage": stage, "reason": ours[row["name"]]["reason"]}
        for converter, found in rows.items()
        if converter != OURS
        for row in found
        for stage in (*STAGES, "all")
        if passes(row, stage) and not passes(ours[row["name"]], stage)
    ]


def _reasons(rows: Iterable[Row]) -> dict[str, Any]:
    """Count reasons by how they begin, with one graph for each."""
    found: dict[str, Any] = {}
    for row in rows:
        if row.get("reason"):
            about = " ".join("…" if any(c in word for c in "'\"0123456789") else word for word in row["reason"].split())
            entry = found.setdefault(about[:90], {"count": 0, "example": row["name"], "reason": row["reason"]})
            entry["count"] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]["count"])[:12])


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table for the documentation, a line for each set, precision and converter."""
    lines = [
        "| graphs | to | converter | converted | valid | loads | close | or explained | all of it |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, precisions in results.items():
        for precision, found in precisions.items():
            for converter, counts in found["counts"].items():
                shown = " | ".join(
                    str(counts[stage]) for stage in ("converted", "valid", "loads", "close", "explained", "all")
                )
                lines.append(f"| {name} ({found['graphs']}) | {precision} | {converter} | {shown} |")
    return "\n".join(lines)
