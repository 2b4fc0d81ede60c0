"""A session against its reference, its labels and itself; with planted failures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from enginery.errors import RunError, UsageError
from enginery.inputs.base import Case
from enginery.inputs.generated import random_case
from enginery.plain import from_json, to_json
from enginery.records import TensorInfo, VerifyRecord
from enginery.spec import Shape, VerifySpec
from enginery.verification.compare import compare
from enginery.verification.constant import constant_outputs

X = TensorInfo("x", "float32", ("batch", 4), Shape.parse("1..4..8x4"))
Y = TensorInfo("y", "float32", ("batch", 3))
WEIGHTS = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


def double(feeds):
    """Compute what the engine should."""
    return {"y": feeds["x"] @ WEIGHTS}


class FakeSession:
    """A session around a function of feeds, which may plant a failure."""

    placement = "test"

    def __init__(self, function=double, inputs=(X,), outputs=(Y,)):
        self.inputs = inputs
        self.outputs = outputs
        self.calls = []
        self._function = function

    def run(self, feeds):
        self.calls.append({name: np.shape(feed) for name, feed in feeds.items()})
        return self._function(feeds)

    def close(self):
        """Hold nothing."""


def ends(inputs=(X,)):
    """Make a case at each end of the profile."""
    return tuple(random_case(inputs, which, seed=0) for which in ("min", "opt", "max"))


def verify(function=double, *, reference=double, cases=None, inputs=(X,), outputs=(Y,), **spec):
    """Compare a fake session with a reference function."""
    cases = ends(inputs) if cases is None else cases
    expected = [reference(case.feeds) for case in cases]
    session = FakeSession(function, inputs, outputs)
    return compare(session, cases, expected, spec=VerifySpec(**spec), reference="numpy", inputs="random, seed 0")


def checks(record):
    """Return what each check says, by its name."""
    return {check.name: (check.passed, check.detail) for check in record.checks}


def test_a_right_engine_passes():
    """Every figure is there, every check that applies passes, and the record survives JSON."""
    record = verify()
    assert record.passed
    assert record.reason == ""
    assert record.error == 0
    assert [(found.name, found.case, found.shape) for found in record.outputs] == [
        ("y", "min", (1, 3)),
        ("y", "opt", (4, 3)),
        ("y", "max", (8, 3)),
    ]
    assert (record.reference, record.inputs, record.max_error) == ("numpy", "random, seed 0", 1e-3)
    assert record.accuracy is None
    found = checks(record)
    assert found["outputs"] == (True, "names and shapes are the reference's: y")
    assert found["finite"] == (True, "no NaN, no Inf")
    assert found["shapes"] == (True, "min (x 1x4); opt (x 4x4); max (x 8x4) ran")
    assert found["data"] == (None, "no recorded data was given")
    assert found["repeat"] == (True, "3 runs of opt agree exactly")
    assert found["rows"][0] is True
    assert found["rows"][1].startswith("4 of the 4 rows of opt agree with the row run alone, to ")
    assert from_json(VerifyRecord, to_json(record)) == record


def test_an_engine_that_is_off_fails():
    """An error above the bound fails, by its size."""
    record = verify(lambda feeds: {"y": double(feeds)["y"] * np.float32(1.01)})
    assert not record.passed
    assert record.error == pytest.approx(1e-2, rel=1e-3)
    assert record.reason == "error 1.00e-02 is above 1.00e-03"
    assert verify(lambda feeds: {"y": double(feeds)["y"] * np.float32(1.01)}, max_error=2e-2).passed


def test_an_engine_that_returns_nan_fails():
    """One NaN is an infinite error, whatever the bound."""

    def broken(feeds):
        outputs = double(feeds)
        outputs["y"][0, 0] = np.nan
        return outputs

    record = verify(broken, max_error=1e9)
    assert not record.passed
    assert record.error == math.inf
    assert checks(record)["finite"] == (
        False,
        "; ".join(f"{case}, output 'y': 1 NaN and 0 Inf, the reference 0 and 0" for case in ("min", "opt", "max")),
    )


def test_nan_of_the_model_itself_is_no_failure():
    """NaN where the reference has it passes; at other places it does not."""

    def at(column):
        def function(feeds):
            outputs = double(feeds)
            outputs["y"][:, column] = np.nan
            return outputs

        return function

    record = verify(at(0), reference=at(0))
    assert record.passed
    assert checks(record)["finite"] == (True, "NaN and Inf only where the reference has them")
    record = verify(at(0), reference=at(1), cases=ends()[:1])
    assert checks(record)["finite"] == (
        False,
        "min, output 'y': 1 NaN and 0 Inf, the reference 1 and 0, at other places",
    )


def test_an_engine_that_leaks_state_fails():
    """Outputs that depend on the calls before are found, even within the error bound."""
    counter = iter(range(1000))
    record = verify(lambda feeds: {"y": double(feeds)["y"] * (1 + 1e-3 * next(counter))}, max_error=0.1)
    passed, detail = checks(record)["repeat"]
    assert not record.passed
    assert passed is False
    assert detail.startswith("3 runs of opt are ")
    assert detail.endswith("apart in output 'y', 1.0e-04 allowed")
    assert record.reason.startswith("repeat: 3 runs of opt")


def test_an_engine_that_remembers_the_last_input_fails():
    """The first of the repeated runs follows another input, so what is carried over shows."""
    last = [0.0]

    def leaking(feeds):
        outputs = {"y": double(feeds)["y"] + np.float32(1e-3 * last[0])}
        last[0] = float(np.abs(feeds["x"]).sum())
        return outputs

    assert checks(verify(leaking, max_error=1.0))["repeat"][0] is False


def test_runs_may_differ_by_rounding():
    """Threads may add up in another order: a tenth of the bound is allowed, and the difference is said."""
    flip = iter([0, 0, 0] + [0, 1e-6, 0] * 100)
    record = verify(lambda feeds: {"y": double(feeds)["y"] * np.float32(1 + next(flip))})
    passed, detail = checks(record)["repeat"]
    assert passed
    assert detail.endswith("apart in output 'y', 1.0e-04 allowed")


def test_a_single_run_cannot_be_repeated():
    """The check says when it was not asked for."""
    assert checks(verify(repeats=1))["repeat"] == (None, "1 runs of the same input were asked for")


def test_a_row_that_differs_in_a_batch_is_named():
    """A row that a batch changes fails, and is named, even if no reference disagrees about single rows."""

    def broken(feeds):
        outputs = double(feeds)
        if len(feeds["x"]) > 3:
            outputs["y"][3] *= 1.5
        return outputs

    record = verify(broken)
    passed, detail = checks(record)["rows"]
    assert passed is False
    assert detail.startswith("row 3 of opt is 5.0e-01 from the row run alone, 1.0e-03 allowed")
    assert not record.passed
    assert record.reason.startswith("error ")


def test_rows_fail_without_a_single_row_to_judge_by():
    """Where no case of one row agrees with the reference, a difference counts against the engine."""

    def mixing(feeds):
        return {"y": double(feeds)["y"] - double(feeds)["y"].mean(axis=0)}

    assert checks(verify(mixing, reference=mixing, cases=ends()[1:]))["rows"][0] is False


def test_a_model_that_mixes_its_rows_is_no_failure():
    """A mean over the batch is the model's own, where the batch and a single row agree with the reference."""

    def mixing(feeds):
        return {"y": double(feeds)["y"] - double(feeds)["y"].mean(axis=0)}

    record = verify(mixing, reference=mixing)
    passed, detail = checks(record)["rows"]
    assert passed is None
    assert detail.endswith("but opt and min agree with the reference, so the model itself mixes its rows")
    assert record.passed


def test_rows_are_spread_over_the_batch():
    """At most the rows asked for are run alone, the first and the last among them."""
    seen = []

    def watching(feeds):
        if len(feeds["x"]) == 1:
            seen.append(feeds["x"][0].tolist())
        return double(feeds)

    cases = ends()[2:]
    assert checks(verify(watching, cases=cases, max_rows=3))["rows"][1].startswith("3 of the 8 rows of max agree")
    assert seen == [cases[0].feeds["x"][row].tolist() for row in (0, 4, 7)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        (
            (TensorInfo("x", "float32", (4, 4)),),
            (Y,),
            "the first axis of input 'x' is 4, not a dynamic axis with a name",
        ),
        (
            (TensorInfo("x", "float32", ("batch", 4), Shape.parse("2..4..8x4")),),
            (Y,),
            "the profile of input 'x' allows no batch of 1: 2..4..8",
        ),
        ((X, TensorInfo("t", "float32", ())), (Y,), "input 't' has no first axis"),
        ((X, TensorInfo("t", "float32", ("n",))), (Y,), "the inputs do not share their first axis: batch, n"),
        ((X,), (TensorInfo("y", "float32", ("rows", 3)),), "no output has batch as its first axis and nowhere else"),
        (
            (X,),
            (TensorInfo("y", "float32", ("batch", "batch")),),
            "no output has batch as its first axis and nowhere else",
        ),
        (
            (TensorInfo("x", "float32", ("batch", "batch")),),
            (Y,),
            "batch is more than the first axis of input 'x'",
        ),
    ],
)
def test_rows_say_why_they_do_not_apply(inputs, outputs, reason):
    """Where rows mean nothing, the check does not apply, and says why."""
    cases = [Case("opt", {info.name: np.ones((4, 4), np.float32) for info in inputs})]
    record = verify(cases=cases, inputs=inputs, outputs=outputs)
    assert checks(record)["rows"] == (None, reason)


def test_outputs_that_have_no_rows_are_not_looked_at():
    """A sum over the batch beside a proper output raises no alarm."""
    total = TensorInfo("total", "float32", (3,))

    def function(feeds):
        return {**double(feeds), "total": double(feeds)["y"].sum(axis=0)}

    record = verify(function, reference=function, outputs=(Y, total))
    assert record.passed
    assert checks(record)["rows"][0] is True


def test_an_engine_that_fails_at_max_is_a_failed_check():
    """An exception of the session becomes a failed check with its message; the other cases are still compared."""

    def failing(feeds):
        if len(feeds["x"]) == 8:
            raise RunError("no memory\nfor 8 rows", mend="use 4")
        return double(feeds)

    record = verify(failing)
    assert not record.passed
    assert record.error == 0
    assert [found.case for found in record.outputs] == ["min", "opt"]
    assert checks(record)["shapes"] == (False, "max (x 8x4): RunError: no memory")
    assert record.reason == "shapes: max (x 8x4): RunError: no memory"


def test_an_engine_that_always_fails():
    """Without a single output the error is infinite, and nothing is claimed."""

    def failing(feeds):
        raise ValueError(str(len(feeds)))

    record = verify(failing)
    assert not record.passed
    assert record.error == math.inf
    found = checks(record)
    assert found["outputs"][0] is None
    assert found["finite"] == (None, "nothing was compared")
    assert found["repeat"] == (None, "no input could be run")
    assert found["rows"] == (None, "no input that ran has more than one row")


@pytest.mark.parametrize(
    ("good_calls", "check", "detail"),
    [
        (3, "repeat", "opt, run again: MemoryError: no message"),
        (6, "rows", "a row of opt, run alone: MemoryError: no message"),
        (8, "rows", "a row of opt, run alone: MemoryError: no message"),
    ],
)
def test_an_engine_that_fails_later_is_a_failed_check(good_calls, check, detail):
    """A run that fails only when repeated, or for a single row, is a failed check as well."""
    count = iter(range(1000))

    def tired(feeds):
        if next(count) >= good_calls:
            raise MemoryError
        return double(feeds)

    record = verify(tired)
    assert checks(record)[check] == (False, detail)
    assert not record.passed


@pytest.mark.parametrize(
    ("function", "detail"),
    [
        (lambda feeds: {"z": double(feeds)["y"]}, "output 'y': the engine has no such output"),
        (lambda feeds: {**double(feeds), "z": np.ones(1)}, "output 'z': the reference has no such output"),
        (lambda feeds: {"y": double(feeds)["y"].T}, "output 'y': its shape is (3, 1), the reference's (1, 3)"),
        (
            lambda feeds: {"y": double(feeds)["y"].astype(int)},
            "output 'y': its dtype is int64, the reference's float32",
        ),
    ],
)
def test_wrong_names_shapes_and_types_fail(function, detail):
    """An output must have the reference's name, shape and kind of element."""
    record = verify(function, max_error=1e9)
    assert not record.passed
    passed, found = checks(record)["outputs"]
    assert passed is False
    assert f"min, {detail}" in found


def test_many_problems_are_counted():
    """A check spells out three problems, and counts the rest."""
    cases = [Case(f"data {at}", {"x": np.ones((1, 4), np.float32)}) for at in range(5)]
    record = verify(lambda feeds: {"y": double(feeds)["y"][0]}, cases=cases)
    assert checks(record)["outputs"][1].endswith("; and 2 more")
    assert checks(record)["data"] == (True, "all 5 recorded inputs ran")


def test_data_at_the_opt_shape_covers_opt():
    """A recorded input may stand for an end of the profile; an end that nothing covers is named."""
    feeds = {"x": np.ones((4, 4), np.float32)}
    assert checks(verify(cases=[Case("data 0", feeds)]))["shapes"] == (True, "opt (x 4x4) ran; no input at min, max")
    odd = Case("data 0", {"x": np.ones((5, 4), np.float32)})
    assert checks(verify(cases=[odd]))["shapes"] == (None, "no input at the min, opt or max shape was given")
    fixed = TensorInfo("x", "float32", (2, 4))
    case = random_case([fixed], "min", seed=0)
    assert checks(verify(cases=[case], inputs=(fixed,)))["shapes"] == (True, "min = opt = max (x 2x4) ran")


def test_data_that_fails_is_named():
    """A recorded input that the session refuses fails the check of the data."""

    def picky(feeds):
        if feeds["x"].max() > 1:
            raise RunError("too large")
        return double(feeds)

    cases = [Case(f"data {at}", {"x": np.full((3, 4), at, np.float32)}) for at in range(3)]
    record = verify(picky, cases=cases)
    assert checks(record)["data"] == (False, "data 2 (x 3x4): RunError: too large")
    assert not record.passed


def test_accuracy_is_counted_over_all_labelled_rows():
    """Top-1 accuracy of engine and reference, over rows of all cases."""
    random = np.random.default_rng(1)
    cases = []
    for at in range(2):
        feeds = {"x": random.standard_normal((4, 4)).astype(np.float32)}
        labels = double(feeds)["y"].argmax(axis=1)
        labels[0] = (labels[0] + 1) % 3
        cases.append(Case(f"data {at}", feeds, labels))
    record = verify(cases=[*cases, *ends()])
    assert (record.accuracy, record.reference_accuracy) == (0.75, 0.75)
    flipped = verify(lambda feeds: {"y": -double(feeds)["y"]}, cases=cases)
    assert flipped.accuracy < 0.5
    assert flipped.reference_accuracy == 0.75
    missing = verify(lambda feeds: {"y": double(feeds)["y"][:1]}, cases=cases)
    assert (missing.accuracy, missing.reference_accuracy) == (0, 0.75)


def test_labels_without_scores_are_said():
    """Where no output can hold scores, there is no accuracy, and a check says so."""
    info = TensorInfo("y", "float32", ("batch",))
    case = Case("opt", {"x": np.ones((4, 4), np.float32)}, np.zeros(4, int))

    def flat(feeds):
        return {"y": double(feeds)["y"][:, 0]}

    record = verify(flat, reference=flat, cases=[case], outputs=(info,))
    assert record.accuracy is None
    assert checks(record)["labels"] == (None, "no float output of shape (rows, classes) to hold 4 labels against")


def test_integer_outputs_have_the_share_that_differs():
    """Outputs that are no floats are held to the bound by the share that differs."""
    info = TensorInfo("y", "int64", ("batch",))

    def best(feeds):
        return {"y": double(feeds)["y"].argmax(axis=1)}

    assert verify(best, reference=best, outputs=(info,)).passed
    record = verify(lambda feeds: {"y": best(feeds)["y"] + 1}, reference=best, outputs=(info,))
    assert record.error == 1


def test_arguments_must_match():
    """Cases, their names and their outputs belong together."""
    session, case = FakeSession(), ends()[0]
    arguments = {"spec": VerifySpec(), "reference": "numpy", "inputs": "none"}
    with pytest.raises(UsageError, match="there are 0 inputs and 0 sets of outputs"):
        compare(session, [], [], **arguments)
    with pytest.raises(UsageError, match="there are 1 inputs and 2 sets of outputs"):
        compare(session, [case], [{}, {}], **arguments)
    with pytest.raises(UsageError, match="2 inputs are called 'min'; give each a name"):
        compare(session, [case, case], [{}, {}], **arguments)


def test_a_model_without_outputs_or_inputs():
    """Nothing to compare is infinitely far from proof."""
    record = verify(lambda feeds: {}, reference=lambda feeds: {}, cases=[Case("opt", {})], inputs=(), outputs=())  # noqa: ARG005
    assert record.error == math.inf
    assert not record.passed


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        (np.zeros((2, 3)), np.zeros((4, 3)), "0.0"),
        (np.full(3, np.nan, np.float32), np.full(2, np.nan, np.float32), "nan"),
        (np.ones(2, np.int64), np.ones(3, np.int64), "1"),
        (np.array(["a", "a"], object), np.array(["a"], object), "a"),
        (np.zeros(2), np.ones(2), None),
        (np.array([0.0, 1.0]), np.zeros(2), None),
        (np.array([np.nan, 1.0]), np.array([np.nan]), None),
        (np.zeros(1), np.zeros(0), None),
        ([np.zeros(2)], [np.zeros(2)], None),
    ],
)
def test_an_output_that_never_varies_is_noted(first, second, shown):
    """An engine that computes nothing would agree with a constant output, so a user is told."""
    notes = list(constant_outputs([{"y": first}, {"y": second}]))
    assert [note.split(" in every ")[0] for note in notes] == (
        [f"output 'y' of the reference is {shown}"] if shown is not None else []
    )


def test_the_record_holds_the_note():
    """Agreement with a constant passes, and the record says how little that means; a varying output has no note."""

    def nothing(feeds):
        return {"y": np.zeros((len(feeds["x"]), 3), np.float32)}

    record = verify(nothing, reference=nothing)
    assert record.passed
    assert record.notes[0].startswith("output 'y' of the reference is 0.0 in every element of every input: to agree")
    assert verify().notes == ()
