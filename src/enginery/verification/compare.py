"""A session's outputs against its source's, against the labels of the data, and against themselves."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from enginery.errors import UsageError
from enginery.inputs.base import Case
from enginery.records import CheckRecord, OutputRecord, VerifyRecord
from enginery.spec import VerifySpec
from enginery.verification.accuracy import Accuracy
from enginery.verification.bounds import check_bounds
from enginery.verification.consistency import check_data, check_repeat, check_shapes, first_line, listed
from enginery.verification.constant import constant_outputs
from enginery.verification.metrics import measure_all
from enginery.verification.rows import check_rows

if TYPE_CHECKING:
    from enginery.backends.base import Session

__all__ = ["compare"]


def compare(
    session: Session,
    cases: Sequence[Case],
    expected: Sequence[Mapping[str, Any]],
    *,
    spec: VerifySpec,
    reference: str,
    inputs: str,
) -> VerifyRecord:
    """Run every case, and hold the outputs against the reference's, the labels, and the engine's own.

    A session that raises is a failed check, never an exception. The checks:

    - ``outputs``: names, shapes and kinds of element are the reference's
    - ``finite``: NaN and infinities stand where the reference has them, and nowhere else
    - ``shapes``: the cases at min, opt and max ran
    - ``data``: the other cases ran
    - ``repeat``: the same input gives the same outputs again
    - ``rows``: a row of a batch gives the same outputs alone
    - ``labels``: only where there are labels and no output that they could be held against
    - ``cosine``, ``drop of ...``: only where such a bound was given

    An output that is the same everywhere is noted: an engine that computes nothing might agree with it.

    Besides the cases and the reference's outputs, memory holds the outputs of two calls at a time.

    Args:
        session: the opened engine; it stays open.
        cases: what to run, each of another name; those at the ends of the profile are called ``min``, ``opt``, ``max``.
        expected: the reference's outputs for each case.
        spec: the bound, and how often and how much to repeat.
        reference: where `expected` comes from, in words.
        inputs: what `cases` are, in words.

    Raises:
        UsageError: there is no case, two have one name, or there is not one set of outputs for each.
    """
    begin = time.perf_counter()
    _check_arguments(cases, expected)
    ran = _Ran()
    for case, wanted in zip(cases, expected, strict=True):
        ran.run(session, case, wanted)
    good = [case for case in cases if case.name not in ran.failed]
    checks = [
        _check_outputs(ran),
        _check_finite(ran.records),
        check_shapes(session.inputs, cases, ran.failed),
        check_data(cases, ran.failed),
        check_repeat(session, good, spec),
        check_rows(session, good, spec, ran.errors),
    ]
    if ran.accuracy.unscored:
        detail = f"no float output of shape (rows, classes) to hold {ran.accuracy.unscored} labels against"
        checks.append(CheckRecord("labels", None, detail))
    checks += check_bounds(ran.records, ran.accuracy, spec)
    error = max((record.error for record in ran.records), default=math.inf)
    return VerifyRecord(
        reference=reference,
        inputs=inputs,
        outputs=tuple(ran.records),
        checks=tuple(checks),
        error=error,
        max_error=spec.max_error,
        passed=error <= spec.max_error and all(check.passed is not False for check in checks),
        accuracy=ran.accuracy.engine,
        reference_accuracy=ran.accuracy.reference,
        seconds=time.perf_counter() - begin,
        notes=tuple(constant_outputs(expected)),
    )


@dataclass
class _Ran:
    """What came of running the cases.

    Args:
        records: one for each output of each case that ran.
        problems: outputs that cannot be compared, and why.
        failed: what was raised, by the name of the case.
        errors: the worst error of each case that ran, by its name.
    """

    records: list[OutputRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    accuracy: Accuracy = field(default_factory=Accuracy)

    def run(self, session: Session, case: Case, expected: Mapping[str, Any]) -> None:
        try:
            actual = session.run(case.feeds)
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            self.failed[case.name] = first_line(error)
            return
        differences = measure_all(actual, expected, case=case.name)
        self.records.extend(difference.record for difference in differences)
        self.problems.extend(
            f"{case.name}, output {difference.record.name!r}: {difference.reason}"
            for difference in differences
            if difference.reason
        )
        self.problems.extend(
            f"{case.name}, output {name!r}: the reference has no such output" for name in actual if name not in expected
        )
        self.errors[case.name] = max((difference.record.error for difference in differences), default=0.0)
        if case.labels is not None:
            self.accuracy.add(case.labels, actual, expected)


def _check_arguments(cases: Sequence[Case], expected: Sequence[Mapping[str, Any]]) -> None:
    if not cases or len(cases) != len(expected):
        raise UsageError(
            f"there are {len(cases)} inputs and {len(expected)} sets of outputs to compare",
            mend="give at least one input, and the reference's outputs for each",
        )
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} inputs are called {name!r}", mend="give each a name of its own")


def _check_outputs(ran: _Ran) -> CheckRecord:
    if ran.problems:
        return CheckRecord("outputs", passed=False, detail=listed(ran.problems))
    if not ran.records:
        return CheckRecord("outputs", None, "nothing was compared: no input could be run, or there are no outputs")
    names = list(dict.fromkeys(record.name for record in ran.records))
    return CheckRecord("outputs", passed=True, detail=f"names and shapes are the reference's: {', '.join(names)}")


def _check_finite(records: Sequence[OutputRecord]) -> CheckRecord:
    if not records:
        return CheckRecord("finite", None, "nothing was compared")
    special = [record for record in records if record.nan or record.inf or record.reference_nan or record.reference_inf]
    wrong = [
        f"{record.case}, output {record.name!r}: {record.nan} NaN and {record.inf} Inf, "
        f"the reference {record.reference_nan} and {record.reference_inf}"
        + ("" if _counts_differ(record) else ", at other places")
        for record in special
        if record.max_abs == math.inf
    ]
    if wrong:
        return CheckRecord("finite", passed=False, detail=listed(wrong))
    detail = "NaN and Inf only where the reference has them" if special else "no NaN, no Inf"
    return CheckRecord("finite", passed=True, detail=detail)


def _counts_differ(record: OutputRecord) -> bool:
    return (record.nan, record.inf) != (record.reference_nan, record.reference_inf)
