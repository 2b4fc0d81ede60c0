"""What a session can be asked without a reference: does it run at every size, and does it repeat itself?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from enginery.errors import InputError
from enginery.inputs.base import Case, Which, resolve_shapes
from enginery.records import CheckRecord, TensorInfo
from enginery.spec import VerifySpec, show_sizes
from enginery.verification.metrics import measure_all

if TYPE_CHECKING:
    from enginery.backends.base import Session

__all__ = ["check_data", "check_repeat", "check_shapes", "feed_shape", "first_line", "listed", "preferred"]

_REPEAT_SHARE = 0.1
"""Share of the error bound by which runs of the same input may differ: threads may add up in another order."""

_REPEAT_CEILING = 1e-4
"""The same, for generous bounds."""

_SHOWN = 3
"""Problems that one check spells out; the rest are counted."""

_LINE_CHARACTERS = 300


def check_shapes(inputs: Sequence[TensorInfo], cases: Sequence[Case], failed: Mapping[str, str]) -> CheckRecord:
    """Check that the cases at the ends of the profile, and at the size it is tuned for, ran.

    A case stands for an end by its name, or by having its shapes: data at the opt shape do for ``opt``.

    Args:
        inputs: the engine's, with profiles.
        cases: all that were tried.
        failed: what went wrong, by the name of the case.
    """
    covered = {which: _covering(inputs, cases, which) for which in get_args(Which)}
    found = {which: case for which, case in covered.items() if case is not None}
    if not found:
        return CheckRecord("shapes", None, "no input at the min, opt or max shape was given")
    wrong = [f"{which} ({_shown(case)}): {failed[case.name]}" for which, case in found.items() if case.name in failed]
    if wrong:
        return CheckRecord("shapes", passed=False, detail=listed(wrong))
    by_shape: dict[str, list[str]] = {}
    for which, case in found.items():
        by_shape.setdefault(_shown(case), []).append(which)
    detail = "; ".join(f"{' = '.join(ends)} ({shape})" for shape, ends in by_shape.items()) + " ran"
    absent = [which for which in covered if which not in found]
    return CheckRecord("shapes", passed=True, detail=detail + (f"; no input at {', '.join(absent)}" if absent else ""))


def check_data(cases: Sequence[Case], failed: Mapping[str, str]) -> CheckRecord:
    """Check that the cases which stand for no end of the profile ran; there is nothing to say where there are none."""
    others = [case for case in cases if case.name not in get_args(Which)]
    wrong = [f"{case.name} ({_shown(case)}): {failed[case.name]}" for case in others if case.name in failed]
    if wrong:
        return CheckRecord("data", passed=False, detail=listed(wrong))
    if not others:
        return CheckRecord("data", None, "no recorded data was given")
    return CheckRecord("data", passed=True, detail=f"all {len(others)} recorded inputs ran")


def check_repeat(session: Session, cases: Sequence[Case], spec: VerifySpec) -> CheckRecord:
    """Check that runs of the same input agree: exactly, or within a tenth of the error bound and 1e-4.

    The caller has just run the last of `cases`, so the first run here tends to follow another input: an engine that
    carries something over shows.

    Args:
        session: the opened engine.
        cases: those that it can run.
        spec: `repeats` says how many runs, `max_error` the bound.
    """
    if spec.repeats < 2:  # noqa: PLR2004 - it takes two to agree
        return CheckRecord("repeat", None, f"{spec.repeats} runs of the same input were asked for")
    case = preferred(cases)
    if case is None:
        return CheckRecord("repeat", None, "no input could be run")
    allowed = min(_REPEAT_SHARE * spec.max_error, _REPEAT_CEILING)
    try:
        first = session.run(case.feeds)
        differences = [
            difference
            for _ in range(spec.repeats - 1)
            for difference in measure_all(session.run(case.feeds), first, case=case.name)
        ]
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        return CheckRecord("repeat", passed=False, detail=f"{case.name}, run again: {first_line(error)}")
    worst = max(differences, key=lambda difference: difference.record.error, default=None)
    runs = f"{spec.repeats} runs of {case.name}"
    if worst is None or worst.record.error == 0:
        return CheckRecord("repeat", passed=True, detail=f"{runs} agree exactly")
    name, error_found = worst.record.name, worst.record.error
    apart = worst.reason or f"{error_found:.1e} apart in output {name!r}, {allowed:.1e} allowed"
    return CheckRecord("repeat", passed=error_found <= allowed, detail=f"{runs} are {apart}")


def listed(problems: Sequence[str]) -> str:
    """Join the first few problems, and count the rest."""
    rest = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def first_line(error: Exception) -> str:
    """Say in one line what was raised."""
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text[:_LINE_CHARACTERS]}"


def feed_shape(feed: Any) -> tuple[int, ...]:
    """Return the shape of a feed; a sequence of arrays has its length."""
    return (len(feed),) if isinstance(feed, list | tuple) else np.shape(feed)


def preferred(cases: Sequence[Case]) -> Case | None:
    """Return the case at the opt shape, else the first."""
    return next((case for case in cases if case.name == "opt"), next(iter(cases), None))


def _covering(inputs: Sequence[TensorInfo], cases: Sequence[Case], which: Which) -> Case | None:
    named = next((case for case in cases if case.name == which), None)
    if named is not None:
        return named
    try:
        shapes: dict[str, Any] = dict(resolve_shapes(inputs, which))
    except InputError:  # an input of unknown rank: then only the name tells
        return None
    return next((case for case in cases if {name: np.shape(feed) for name, feed in case.feeds.items()} == shapes), None)


def _shown(case: Case) -> str:
    shapes = (f"{name} {show_sizes(feed_shape(feed))}" for name, feed in case.feeds.items())
    return ", ".join(shapes) or "no inputs"
