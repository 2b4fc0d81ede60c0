"""Does each row of a batch give the same outputs when it is run alone?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from enginery.inputs.base import Case, dim_name
from enginery.records import CheckRecord, TensorInfo
from enginery.spec import VerifySpec
from enginery.verification.consistency import feed_shape, first_line, preferred
from enginery.verification.metrics import measure_all

if TYPE_CHECKING:
    from enginery.backends.base import Session

__all__ = ["check_rows"]


def check_rows(session: Session, cases: Sequence[Case], spec: VerifySpec, errors: Mapping[str, float]) -> CheckRecord:
    """Check that a row of a batch gives the same outputs when it is run alone, within the error bound.

    It applies where all inputs share a dynamic first axis that may be 1, and looks only at outputs with that axis
    first. A model may mix its rows by design (a mean over the batch, one quantisation scale for it): where the engine
    agrees with the reference both for the batch and for a single row, a difference is the model's own, and no failure.

    Args:
        session: the opened engine.
        cases: those that it can run.
        spec: `max_rows` says how many rows, spread evenly, `max_error` the bound.
        errors: how far each case's outputs were from the reference's, by its name.
    """
    plan = _plan(session, cases, spec)
    if isinstance(plan, str):
        return CheckRecord("rows", None, plan)
    case = plan.case
    try:
        row, error = _worst_row(session, plan)
    except Exception as raised:  # noqa: BLE001 - a backend may raise anything
        return CheckRecord("rows", passed=False, detail=f"a row of {case.name}, run alone: {first_line(raised)}")
    if error <= spec.max_error:
        said = f"{len(plan.rows)} of the {_rows(case)} rows of {case.name} agree with the row run alone, to {error:.1e}"
        return CheckRecord("rows", passed=True, detail=said)
    apart = f"row {row} of {case.name} is {error:.1e} from the row run alone, {spec.max_error:.1e} allowed"
    return _judge(apart, [case, *(other for other in cases if _rows(other) == 1)], spec, errors)


@dataclass(frozen=True)
class _Plan:
    """What to compare: rows of a case, in outputs that have a row for each."""

    case: Case
    outputs: tuple[str, ...]
    rows: tuple[int, ...]


def _plan(session: Session, cases: Sequence[Case], spec: VerifySpec) -> _Plan | str:
    """Choose a case with several rows, or say why the check does not apply."""
    batch, reason = _batch_axis(session.inputs)
    if batch is None:
        return reason
    outputs = tuple(info.name for info in session.outputs if _has_rows(info, batch))
    if not outputs:
        return f"no output has {batch} as its first axis and nowhere else"
    case = preferred([case for case in cases if _rows(case) > 1])
    if case is None:
        return "no input that ran has more than one row"
    if spec.max_rows < 1:
        return f"{spec.max_rows} rows were asked for"
    spread = np.linspace(0, _rows(case) - 1, min(spec.max_rows, _rows(case)))
    return _Plan(case, outputs, tuple(spread.round().astype(int).tolist()))


def _judge(apart: str, compared: Sequence[Case], spec: VerifySpec, errors: Mapping[str, float]) -> CheckRecord:
    """Tell an engine that mixes rows from a model that does, by the batch and the single rows that have a reference."""
    if len(compared) > 1 and all(errors[case.name] <= spec.max_error for case in compared):
        names = " and ".join(case.name for case in compared[:2])
        detail = f"{apart}; but {names} agree with the reference, so the model itself mixes its rows"
        return CheckRecord("rows", None, detail)
    return CheckRecord("rows", passed=False, detail=apart)


def _batch_axis(inputs: Sequence[TensorInfo]) -> tuple[str | None, str]:
    """Return the name of the first axis that all inputs share, or None and the reason why there is none."""
    names: set[str] = set()
    for info in inputs:
        dims = info.profile.dims if info.profile is not None else info.shape
        if not dims:
            return None, f"input {info.name!r} has no first axis"
        name = dim_name(info, 0)
        if name is None:
            return None, f"the first axis of input {info.name!r} is {dims[0]}, not a dynamic axis with a name"
        if any(dim_name(info, axis) == name for axis in range(1, len(dims))):
            return None, f"{name} is more than the first axis of input {info.name!r}"
        if info.profile is not None and 1 not in info.profile.dims[0]:
            return None, f"the profile of input {info.name!r} allows no {name} of 1: {info.profile.dims[0]}"
        names.add(name)
    if len(names) != 1:
        return None, f"the inputs do not share their first axis: {', '.join(sorted(names)) or 'there are none'}"
    return names.pop(), ""


def _has_rows(info: TensorInfo, batch: str) -> bool:
    return info.shape is not None and info.shape[:1] == (batch,) and batch not in info.shape[1:]


def _rows(case: Case) -> int:
    shapes = [feed_shape(feed) for feed in case.feeds.values()]
    return shapes[0][0] if shapes and shapes[0] else 0


def _worst_row(session: Session, plan: _Plan) -> tuple[int, float]:
    """Run rows alone, and return the one furthest from its place in the batch, with its error."""
    batch = session.run(plan.case.feeds)
    worst = (plan.rows[0], 0.0)
    for row in plan.rows:
        part = slice(row, row + 1)
        alone = session.run({name: feed[part] for name, feed in plan.case.feeds.items()})
        rows = {name: batch[name][part] for name in plan.outputs}
        for difference in measure_all(rows, {name: alone[name] for name in plan.outputs}):
            if difference.record.error > worst[1]:
                worst = (row, difference.record.error)
    return worst
