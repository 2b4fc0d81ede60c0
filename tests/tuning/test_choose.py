"""The choice is a function of records: objective, bounds, ties, and a reason in words for every row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enginery.errors import NoCandidateError
from enginery.records import BenchRecord, BuildRecord, CandidateRecord, CheckRecord, VerifyRecord
from enginery.spec import OptimizeSpec
from enginery.tuning.choose import choose


def bench(p50_ms, half=0.01):
    """Make a record with this median and half this interval."""
    return BenchRecord(
        shapes={"x": (8, 4)}, batch=8, samples=100, min_ms=p50_ms, p50_ms=p50_ms, p90_ms=p50_ms, p95_ms=p50_ms,
        p99_ms=p50_ms, mean_ms=p50_ms, ci_low_ms=p50_ms - half, ci_high_ms=p50_ms + half, throughput=8000 / p50_ms,
        stable=True, rule="", turns_ms=(p50_ms,), first_call_ms=None, load_ms=None, placement="CPU",
    )  # fmt: skip


def verified(error=1e-7, checks=()):
    """Make a verification with this error, held against 1e-3."""
    passed = error <= 1e-3 and all(check.passed is not False for check in checks)
    return VerifyRecord("reference", "random", (), tuple(checks), error, 1e-3, passed)


def row(label, p50_ms=1.0, *, error=1e-7, size=1000, role="candidate", half=0.01, **fields):
    """Make a good candidate, but for what is said."""
    built = BuildRecord("null", "0", "fp32", {}, {}, 1.0, size)
    return CandidateRecord(
        label, role, "null", "here", "fp32", {}, fields.pop("status", "timed"), fields.pop("reason", ""),
        **{"build": built, "verify": verified(error), "bench": bench(p50_ms, half), **fields},
    )  # fmt: skip


def decide(*rows, **spec):
    """Choose; return status and reason of each row by label, and the label chosen."""
    records, chosen = choose(rows, OptimizeSpec(**spec))
    assert [record.label for record in records] == [one.label for one in rows]
    return {record.label: (record.status, record.reason) for record in records}, chosen


def test_the_lowest_median_wins():
    """By default the fastest is chosen, and the others say by how much they are slower."""
    told, chosen = decide(row("a", 1.31), row("b", 1.0), row("c", 2.0))
    assert chosen == "b"
    assert told == {
        "a": ("accepted", "1.31x slower than b"),
        "b": ("chosen", "lowest p50 of 3 acceptable candidates"),
        "c": ("accepted", "2.00x slower than b"),
    }


def test_too_inaccurate_is_rejected_with_both_figures():
    """The fastest is of no use where its error is above the bound."""
    told, chosen = decide(row("fast", 0.1, error=5.1e-3), row("right", 1.0))
    assert chosen == "right"
    assert told["fast"] == ("rejected", "error 5.10e-03 is above 1.00e-03")
    assert told["right"] == ("chosen", "the only acceptable candidate")


def test_a_failed_check_is_rejected():
    """Self-consistency counts like accuracy."""
    shaky = row("shaky", 0.1, verify=verified(checks=[CheckRecord("repeat", passed=False, detail="run 2 differs")]))
    told, _ = decide(shaky, row("right"))
    assert told["shaky"] == ("rejected", "repeat: run 2 differs")


def test_too_slow_is_rejected():
    """A latency bound rejects, also where the objective is another."""
    told, chosen = decide(row("small", 9.5, size=10), row("big", 1.0), objective="size", max_latency_ms=2.0)
    assert chosen == "big"
    assert told["small"] == ("rejected", "p50 9.5 ms is above 2 ms")


def test_all_bounds_that_are_broken_are_told():
    """A row outside two bounds says both."""
    told, _ = decide(row("bad", 9.5, error=0.5), row("good"), max_latency_ms=2.0)
    assert told["bad"][1] == "error 5.00e-01 is above 1.00e-03; p50 9.5 ms is above 2 ms"


def test_overlapping_intervals_are_no_difference():
    """The lower median is preferred, and both rows say how little it means."""
    tie = "not significantly different: the confidence intervals of the medians overlap"
    told, chosen = decide(row("a", 1.015), row("b", 1.0), row("c", 1.5))
    assert chosen == "b"
    assert told["a"] == ("accepted", f"1.5 % slower than b, {tie}")
    assert told["b"] == ("chosen", f"lowest p50 of 3 acceptable candidates; a: {tie}")
    assert told["c"] == ("accepted", "1.50x slower than b")


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_less_than_one_percent_is_no_gap(objective):
    """Of candidates as good as the best, the one listed first is chosen, and the reasons say by how little."""
    told, chosen = decide(row("plain", 1.004, half=0.001), row("@old", 1.0, half=0.001), objective=objective)
    assert chosen == "plain"
    assert told["plain"] == ("chosen", "as good as @old (0.4 % slower), and plainer")
    assert told["@old"][0] == "accepted"


def test_what_is_close_in_throughput_is_measured_by_it():
    """A lower median beside a lower throughput, as of one with many slow calls, is not as good."""
    uneven = replace(bench(1.0), throughput=4000.0)
    told, chosen = decide(row("uneven", bench=uneven), row("even", 1.1), objective="throughput")
    assert chosen == "even"
    assert told["uneven"][1].startswith("0.55x the throughput of even")


def test_throughput_counts_rows():
    """The most rows for each second."""
    told, chosen = decide(row("a", 2.0), row("b", 1.0), objective="throughput")
    assert chosen == "b"
    assert told["a"] == ("accepted", "0.50x the throughput of b")
    assert told["b"] == ("chosen", "highest throughput of 2 acceptable candidates")


def test_size_counts_bytes_and_then_the_median():
    """The smallest files; of equals, the faster."""
    told, chosen = decide(row("a", 1.0, size=300), row("b", 3.0, size=200), row("c", 2.0, size=200), objective="size")
    assert chosen == "c"
    assert told["a"] == ("accepted", "1.50x as large as c")
    assert told["b"] == ("accepted", "1.50x slower than c")
    assert told["c"] == ("chosen", "smallest of 3 acceptable candidates")


def test_baselines_and_failures_keep_what_they_have():
    """A baseline is never chosen, however fast, and a failed row keeps its reason."""
    plain = row("onnxruntime, plain", 0.1, role="baseline")
    broken = row("broken", status="failed", reason="crashed: died", build=None, verify=None, bench=None)
    told, chosen = decide(plain, broken, row("good"))
    assert chosen == "good"
    assert told["onnxruntime, plain"] == ("timed", "")
    assert told["broken"] == ("failed", "crashed: died")


def test_unverified_and_untimed_are_rejected():
    """Nothing is chosen on trust."""
    told, _ = decide(row("a", verify=None), row("b", bench=None), row("good"))
    assert told["a"] == ("rejected", "it was not verified")
    assert told["b"] == ("rejected", "it was not timed")


def test_none_acceptable_lists_every_reason():
    """When all fail or are rejected, the error is the whole list."""
    broken = row("broken", status="failed", reason="crashed: died", build=None, verify=None, bench=None)
    with pytest.raises(NoCandidateError) as caught:
        decide(broken, row("rough", error=0.5), row("plain", role="baseline"))
    assert caught.value.message == (
        "none of 2 candidates is acceptable:\n  broken: crashed: died\n  rough: error 5.00e-01 is above 1.00e-03"
    )
    assert "larger error" in caught.value.mend


def test_only_failures_point_to_the_doctor():
    """Where nothing was merely rejected, the mend is to repair what failed."""
    broken = row("broken", status="failed", reason="it is not here", build=None, verify=None, bench=None)
    with pytest.raises(NoCandidateError) as caught:
        decide(broken)
    assert "enginery doctor" in caught.value.mend


def test_no_candidate_at_all():
    """A table of baselines has nothing to choose from."""
    with pytest.raises(NoCandidateError, match="there is no candidate"):
        decide(row("plain", role="baseline"))
