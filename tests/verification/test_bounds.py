"""Bounds besides the largest error are checks: they hold, or say by how much they do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enginery.errors import UnknownNameError, UsageError
from enginery.inputs.base import Case
from enginery.records import OutputRecord
from enginery.spec import VerifySpec
from enginery.verification.accuracy import Accuracy
from enginery.verification.bounds import check_bounds, fall
from enginery.verification.compare import compare

ROW = OutputRecord("y", "opt", "float32", (4, 3), cosine=0.97, top1_agreement=0.75)
RIGHT = Accuracy(rows=200, right=196, reference_right=198)


@pytest.mark.parametrize(
    ("spec", "passed", "detail"),
    [
        (VerifySpec.of(min_cosine=0.96), True, "0.97"),
        (VerifySpec.of(min_cosine=0.98), False, "0.97"),
        (VerifySpec.of(max_drop={"top1": 0.01}), True, "0.01"),
        (VerifySpec.of(max_drop={"top1": 0.005}), False, "0.01"),
        (VerifySpec.of(max_drop={"agreement": 0.2}), False, "0.25"),
        (VerifySpec.of(max_drop={"cosine": 0.05}), True, "0.03"),
    ],
)
def test_each_bound(spec, passed, detail):
    """Each kind of bound is held against its own figure."""
    (check,) = check_bounds([ROW], RIGHT, spec)
    assert check.passed is passed
    assert detail in check.detail


def test_a_figure_that_is_missing_holds_no_bound():
    """Without labels nothing says that accuracy did not fall; a cosine that is NaN is none."""
    (check,) = check_bounds([ROW], Accuracy(), VerifySpec.of(max_drop={"top1": 1.0}))
    assert check.passed is False
    assert "labels" in check.detail
    broken = OutputRecord("y", "opt", "float32", (4, 3), cosine=math.nan)
    (check,) = check_bounds([ROW, broken], RIGHT, VerifySpec.of(min_cosine=-1.0))
    assert check.passed is False


class Engine:
    """Gives the second class where the reference gives the first, in one row of four."""

    inputs = ()
    outputs = ()
    placement = "here"

    def run(self, feeds, outputs=None):
        del outputs
        scores = np.eye(3, dtype=np.float32)[feeds["x"]]
        scores[0] = [0, 1, 0]
        return {"y": scores}

    def close(self):
        pass


def test_they_decide_in_a_comparison():
    """A bound that is broken is the reason why an engine does not pass, though its error has no bound."""
    labels = np.array([0, 1, 2, 0])
    case = Case("data 0", {"x": labels}, labels)
    expected = [{"y": np.eye(3, dtype=np.float32)[labels]}]
    said = {"reference": "numpy", "inputs": "four rows"}
    strict = compare(Engine(), [case], expected, spec=VerifySpec.of(max_drop={"top1": 0.1}), **said)
    assert not strict.passed
    assert strict.reason == "drop of top1 at most 0.1: it fell by 0.25"
    assert compare(Engine(), [case], expected, spec=VerifySpec.of(max_drop={"top1": 0.25}), **said).passed


class Slips(Engine):
    """Gives another class than the reference in the first row of the first batch alone."""

    def run(self, feeds, outputs=None):
        scores = np.eye(3, dtype=np.float32)[feeds["x"]]
        if feeds["x"][0] == 0:
            scores = super().run(feeds, outputs)["y"]
        return {"y": scores}


@pytest.mark.parametrize(("bound", "passed"), [(0.009, False), (0.01, True), (0.06, True)])
def test_agreement_is_a_share_of_all_rows_of_the_data(bound, passed):
    """One row of a hundred is a hundredth, in batches of eight too, and rows at the ends do not count again."""
    labels = np.array([0] + [1, 2] * 50)[:100]
    batches = [labels[start : start + 8] for start in range(0, 100, 8)]
    cases = [Case(f"data {at}", {"x": rows}) for at, rows in enumerate(batches)]
    cases.append(Case("min", {"x": labels[:1]}))
    expected = [{"y": np.eye(3, dtype=np.float32)[case.feeds["x"]]} for case in cases]
    spec = VerifySpec.of(max_drop={"agreement": bound})
    record = compare(Slips(), cases, expected, spec=spec, reference="numpy", inputs="a hundred rows")
    (check,) = [check for check in record.checks if check.name.startswith("drop of agreement")]
    assert (check.passed, check.detail) == (passed, "it fell by 0.01")
    assert [output.top1_agreement for output in record.outputs][:2] == [0.875, 1.0]


def test_agreement_is_that_of_the_worst_output_and_of_random_rows_where_there_are_no_others():
    """Rows of one output do not make up for those of another."""
    ends = [
        OutputRecord(name, case, "float32", (rows, 3), top1_agreement=share)
        for name, case, rows, share in [("a", "min", 1, 0.0), ("a", "max", 9, 1.0), ("b", "max", 90, 1.0)]
    ]
    assert fall("agreement", ends, Accuracy()) == pytest.approx(0.1)
    assert fall("agreement", [], Accuracy()) is None


def test_what_is_asked_is_checked():
    """A metric that there is not, a share beyond 1, and no bound at all are refused."""
    with pytest.raises(UnknownNameError, match="top1"):
        VerifySpec.of(max_drop={"top": 0.1})
    with pytest.raises(UsageError, match="from 0 to 1"):
        VerifySpec.of(max_drop={"top1": 5.0})
    with pytest.raises(UsageError, match="from -1 to 1"):
        VerifySpec.of(min_cosine=98.0)
    with pytest.raises(UsageError, match="no bound"):
        VerifySpec(max_error=math.inf)
