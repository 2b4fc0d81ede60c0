"""Which candidate is chosen, and why not the others: a function of records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from enginery.errors import NoCandidateError
from enginery.records import BenchRecord, CandidateRecord
from enginery.spec import OptimizeSpec

__all__ = ["choose", "refusal"]

_NO_GAP = 0.01
_MULTIPLE = 1.1
_TIED = "not significantly different: the confidence intervals of the medians overlap"


def choose(records: Sequence[CandidateRecord], spec: OptimizeSpec) -> tuple[tuple[CandidateRecord, ...], str]:
    """Give every candidate its status and reason, and name the chosen one.

    A candidate is acceptable where it was built, verified and timed, passed its verification and is within
    ``max_latency_ms``. Of these the objective decides: the lowest median (``latency``), the most rows for each second
    (``throughput``), or the smallest files (``size``; of equals, the lower median). A gap of less than 1 % is no
    gap: of those so close to the best, the one that is listed first is chosen, which is the plainest, in this
    environment. Where the 95 % confidence intervals of two medians overlap, the reasons say so.

    Args:
        records: rows as `enginery.tuning.race` leaves them; failed ones and baselines keep what they have.
        spec: the objective and its bounds.

    Returns:
        The rows in their order, and the label of the chosen one.

    Raises:
        NoCandidateError: none is acceptable; the message lists every reason.
    """
    judged = [_judge(row, spec) for row in records]
    ranked = sorted((row for row in judged if row.status == "accepted"), key=lambda row: _score(row, spec.objective))
    if not ranked:
        raise _nothing_left(judged)
    best = _plainest(ranked, judged, spec.objective)
    ranked = [best, *(row for row in ranked if row is not best)]
    reasons = {best.label: _why_chosen(best, ranked, spec.objective)}
    reasons |= {row.label: _why_not(row, best, spec.objective) for row in ranked[1:]}
    final = [replace(row, reason=reasons.get(row.label, row.reason)) for row in judged]
    return tuple(replace(row, status="chosen") if row.label == best.label else row for row in final), best.label


def refusal(row: CandidateRecord, spec: OptimizeSpec) -> str:
    """Say why a candidate that did not fail is not acceptable; empty where it is."""
    if row.verify is None or row.bench is None or row.build is None:
        return "it was not verified" if row.verify is None else "it was not timed"
    reasons = [] if row.verify.passed else [row.verify.reason]
    if spec.max_latency_ms is not None and row.bench.p50_ms > spec.max_latency_ms:
        reasons.append(f"p50 {row.bench.p50_ms:.4g} ms is above {spec.max_latency_ms:.4g} ms")
    return "; ".join(reasons)


def _judge(row: CandidateRecord, spec: OptimizeSpec) -> CandidateRecord:
    if row.role != "candidate" or row.status == "failed":
        return row
    reason = refusal(row, spec)
    return replace(row, status="rejected" if reason else "accepted", reason=reason)


def _score(row: CandidateRecord, objective: str) -> tuple[float, float]:
    bench = _bench(row)
    first = {"latency": bench.p50_ms, "throughput": -bench.throughput, "size": float(_size(row))}[objective]
    return first, bench.p50_ms


def _plainest(ranked: Sequence[CandidateRecord], listed: Sequence[CandidateRecord], objective: str) -> CandidateRecord:
    """Return the best, or the first listed of those that are as good as the best."""
    if objective == "size":
        return ranked[0]
    best = _bench(ranked[0])
    if objective == "throughput":
        close = [row for row in ranked if _bench(row).throughput * (1 + _NO_GAP) >= best.throughput]
    else:
        close = [row for row in ranked if _bench(row).p50_ms <= best.p50_ms * (1 + _NO_GAP)]
    return next(row for row in listed if row in close)


def _why_chosen(best: CandidateRecord, ranked: Sequence[CandidateRecord], objective: str) -> str:
    what = {"latency": "lowest p50", "throughput": "highest throughput", "size": "smallest"}[objective]
    if len(ranked) == 1:
        return "the only acceptable candidate"
    tied = [row.label for row in ranked[1:] if objective != "size" and _overlap(_bench(row), _bench(best))]
    first = min(ranked, key=lambda row: _score(row, objective))
    said = f"{what} of {len(ranked)} acceptable candidates"
    if first is not best:
        said = f"as good as {first.label} ({_slower(best, first)}), and plainer"
    return f"{said}; {', '.join(tied)}: {_TIED}" if tied else said


def _why_not(row: CandidateRecord, best: CandidateRecord, objective: str) -> str:
    if objective == "size" and _size(row) != _size(best):
        return f"{_size(row) / max(_size(best), 1):.2f}x as large as {best.label}"
    own, others = _bench(row), _bench(best)
    tied = f", {_TIED}" if _overlap(own, others) else ""
    if objective == "throughput":
        return f"{own.throughput / others.throughput:.2f}x the throughput of {best.label}{tied}"
    return f"{_slower(row, best)} than {best.label}{tied}"


def _slower(row: CandidateRecord, other: CandidateRecord) -> str:
    """Say how much slower a row is: in percent where the gap is small, as a multiple where it is not."""
    ratio = _bench(row).p50_ms / _bench(other).p50_ms
    if ratio >= _MULTIPLE:
        return f"{ratio:.2f}x slower"
    return f"{100 * abs(ratio - 1):.1f} % {'slower' if ratio >= 1 else 'faster'}"


def _overlap(one: BenchRecord, other: BenchRecord) -> bool:
    return one.ci_low_ms <= other.ci_high_ms and other.ci_low_ms <= one.ci_high_ms


def _nothing_left(judged: Sequence[CandidateRecord]) -> NoCandidateError:
    rows = [row for row in judged if row.role == "candidate"]
    alike = {row.reason: [one.label for one in rows if one.reason == row.reason] for row in rows}
    listed = "".join(f"\n  {', '.join(labels)}: {reason}" for reason, labels in alike.items())
    if not rows:
        return NoCandidateError("there is no candidate", mend="install or name a backend; `enginery doctor` lists them")
    mend = "mend what failed, or ask for precision best, which tries all; `enginery doctor` lists what is here"
    if any(row.status == "rejected" for row in rows):
        mend = "allow a larger error or latency, or another precision"
    said = f"none of {len(rows)} candidates is acceptable" if len(rows) > 1 else "the only candidate is not acceptable"
    return NoCandidateError(f"{said}:{listed}", mend=mend)


def _bench(row: CandidateRecord) -> BenchRecord:
    assert row.bench is not None  # noqa: S101 - accepted rows are timed
    return row.bench


def _size(row: CandidateRecord) -> int:
    assert row.build is not None  # noqa: S101 - accepted rows are built
    return row.build.size_bytes
