"""What came of one entry, ready for JSON, and the rules by which it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["STATUSES", "Result", "judge", "share_passed"]

STATUSES = ("passed", "expected", "failed", "skipped")
"""`expected` is a failure whose cause is known and written down; it counts against the share all the same."""


@dataclass(frozen=True)
class Result:
    """One entry on one backend.

    Args:
        status: one of `STATUSES`.
        reason: why it failed, or what to know of a pass, in one line.
        stage: what was going on when it failed: ``make``, ``export``, ``build``, ``verify`` or ``vary``.
        exporter: the one whose graph was taken.
        attempts: exporters tried before, and why each was not used.
        nodes, nodes_simplified: of the graph, before and after simplification.
        nodes_with_module: how many say which module of the source they came from.
        export_s, simplify_s, build_s, verify_s: wall time of each stage.
        peak_memory_bytes: the largest of any process of this entry.
        error: the largest relative L2 (of other types, the largest share that differs) of any output.
        shapes: the shapes of the inputs it was verified at.
        built: precisions that it was built in ahead of time, for a machine that is not this one.
        error_name: class of the error that ended it; empty where none did.
        mend: what that error said to do.
        varies: the smallest relative change of any output between two random inputs; None where it was not asked.
    """

    name: str
    family: str
    source: str
    backend: str
    status: str = "failed"
    reason: str = ""
    stage: str = ""
    exporter: str = ""
    attempts: tuple[str, ...] = ()
    opset: int | None = None
    nodes: int | None = None
    nodes_simplified: int | None = None
    nodes_with_module: int | None = None
    export_s: float | None = None
    simplify_s: float | None = None
    build_s: float | None = None
    verify_s: float | None = None
    peak_memory_bytes: int | None = None
    error: float | None = None
    shapes: tuple[str, ...] = ()
    varies: float | None = None
    built: tuple[str, ...] = ()
    error_name: str = ""
    mend: str = ""


def judge(result: Result, *, known: str) -> Result:
    """Weigh a result against what was known of the entry before.

    Args:
        result: ``passed`` or ``failed``, as it came out.
        known: why the entry was expected to fail; empty where it was not.

    Returns:
        The result: a known failure is ``expected`` and has its explanation; a known failure that passes says so.
    """
    if not known:
        return result
    if result.status == "passed":
        return replace(result, reason=f"passes now, so it is no known failure any more: {known}")
    if result.status == "failed":
        return replace(result, status="expected", reason=f"{known} ({result.stage}: {result.reason})")
    return result


def share_passed(results: Iterable[Result]) -> float:
    """Return the share of what was run that passed; skipped entries do not count, expected failures count as failed."""
    counts = Counter(result.status for result in results)
    run = sum(counts[status] for status in STATUSES if status != "skipped")
    return counts["passed"] / run if run else 0.0
