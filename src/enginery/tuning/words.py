"""What was found, in one paragraph: which precision, which nodes are kept higher and why, how fast, how far off."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from enginery.records import CandidateRecord, NodeSensitivityRecord, SearchRecord, SensitivityRecord
from enginery.spec import QUANTISED, PrecisionPlan

__all__ = ["chosen_words", "kept_words"]

_SHOWN = 3
_NUMBER = re.compile(r"(?<![A-Za-z])\d+(?![A-Za-z])")
_KINDS = {
    "overflow": "values exceed {limit}",
    "weight": "weights exceed {limit}",
    "mask": "masks exceed {limit}",
    "vanishing": "values become 0",
    "subnormal": "values keep few digits",
    "accumulation": "sums are long",
    "": "harm the outputs most",
}
_LIMITS = {"fp16": "65504", "bf16": "3.39e38"}


def chosen_words(rows: Sequence[CandidateRecord], chosen: str, searches: Sequence[SearchRecord]) -> str:
    """Say in one paragraph what was chosen.

    Args:
        rows: every candidate and baseline.
        chosen: label of the chosen one.
        searches: that ended with a plan, some of them perhaps with the chosen one's.
    """
    row = next(row for row in rows if row.label == chosen)
    search = next((one for one in searches if chosen in one.found), None)
    said = search.words if search is not None else f"{_precision(row)} on {row.backend}"
    figures = []
    baseline = next(
        (one for one in rows if one.role == "baseline" and one.backend == "onnxruntime" and one.bench), None
    )
    if baseline is not None and baseline.bench is not None and row.bench is not None:
        figures.append(f"{baseline.bench.p50_ms / row.bench.p50_ms:.2f}x as fast as plain ONNX Runtime")
    if row.verify is not None and row.verify.cosine is not None:
        figures.append(f"cosine {row.verify.cosine:.7g}")
    if row.verify is not None and row.verify.accuracy is not None and row.verify.reference_accuracy is not None:
        figures.append(f"top-1 {row.verify.accuracy:.2%} of {row.verify.reference_accuracy:.2%}")
    if row.verify is not None:
        figures.append(f"error {row.verify.error:.1e}")
    return "; ".join([said, ", ".join(figures)])


def kept_words(plan: PrecisionPlan, kept: Sequence[str], ranking: SensitivityRecord, slow: Collection[str] = ()) -> str:
    """Say which nodes a plan keeps higher, and why, modules of one kind together; `slow` ones are no faster lower.

    Example:
        >>> row = NodeSensitivityRecord("a", "Softmax", "encoder.layer.0.attention", "a", None, (), 0.1)
        >>> ranking = SensitivityRecord("fp16", 1.0, 9, 9, (row,), (), 0, 1, "", 0.0)
        >>> kept_words(PrecisionPlan("fp16", {"a": "fp32"}), ["a"], ranking)
        'FP16 except 1 node kept in FP32 (encoder.layer.0.attention Softmax: harm the outputs most)'
    """
    low = ranking.precision.upper()
    quantised = ranking.precision in QUANTISED
    if quantised and plan.precision != "fp32":
        low = f"{low} over {plan.precision.upper()}"
    if not kept:
        return f"{low} throughout"
    rows = {row.name: row for row in ranking.nodes}
    high = plan.precision.upper() if quantised else "FP32"
    count = f"{len(kept)} of {ranking.lowered}" if quantised else f"{len(kept)}"
    count += " node" if len(kept) == 1 and not quantised else " nodes"
    return f"{low} except {count} kept in {high} ({_where(kept, rows, ranking.precision, slow)})"


def _where(
    kept: Sequence[str], rows: Mapping[str, NodeSensitivityRecord], precision: str, slow: Collection[str]
) -> str:
    """Put nodes of one kind together: the same module but for its numbers, the same operator, the same reason."""
    places: dict[tuple[str, str], list[NodeSensitivityRecord]] = {}
    for name in (name for name in kept if name not in slow):
        row = rows[name]
        kind = row.dangers[0].kind if row.dangers else ""
        places.setdefault((_NUMBER.sub("*", row.module or row.name), kind), []).append(row)
    said = [
        f"{_named(pattern, found)} {_operators(found)}: {_KINDS[kind].format(limit=_LIMITS.get(precision, ''))}"
        for (pattern, kind), found in sorted(places.items(), key=lambda item: -len(item[1]))
    ]
    if idle := [name for name in kept if name in slow]:
        said.append(f"{len(idle)} no faster lower")
    rest = len(said) - _SHOWN
    return "; ".join(said[:_SHOWN]) + (f"; and {rest} more places" if rest > 0 else "")


def _named(pattern: str, found: Sequence[NodeSensitivityRecord]) -> str:
    """Write the one place that it is, or the pattern of several."""
    modules = {row.module or row.name for row in found}
    return next(iter(modules)) if len(modules) == 1 else pattern


def _operators(found: Sequence[NodeSensitivityRecord]) -> str:
    names = list(dict.fromkeys(row.operator for row in found))
    return "/".join(names[:_SHOWN]) + ("/..." if len(names) > _SHOWN else "")


def _precision(row: CandidateRecord) -> str:
    return row.precision.upper() if row.plan is None else f"{row.precision.upper()} by a plan"
