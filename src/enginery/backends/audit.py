"""Whether what a backend built computes in the precision that was asked for; TensorRT has an audit of its own.

What is judged by is here for both: an engine in which hardly an operator computes as asked is not what was asked for,
less than a tenth of those that should. Only those that multiply matrices are judged, where there are any: there a
precision pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from enginery.backends.precision import Ran, count_ran
from enginery.errors import PrecisionMismatchError
from enginery.spec import QUANTISED, PrecisionPlan

__all__ = ["HARDLY", "NARROW", "check_ran", "is_narrower"]

HARDLY = 0.1
NARROW = ("fp16", "bf16", "int8", "fp8")
_SHOWN = 4
_NEVER_NARROWED = "fp64"


def check_ran(
    label: str,
    ran: Sequence[Ran],
    plan: PrecisionPlan,
    allowed: Collection[str] = (),
    why: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Compare how the operators of an engine compute with what was asked for.

    Args:
        label: what messages call the backend.
        ran: as it was read back.
        plan: what was asked for.
        allowed: precisions that may stand in for those asked.
        why: why the backend may have built something else, by the precision asked for.

    Returns:
        Notes for the user: which operators compute wider than asked.

    Raises:
        PrecisionMismatchError: hardly an operator computes as asked; names counts and operators.
    """
    notes = []
    for word in (word for word in plan.words if word in NARROW):
        reason = f" ({why[word]})" if why and word in why else ""
        meant = [one for one in ran if one.asked == word or (one.ran == _NEVER_NARROWED and plan.precision == word)]
        judged = [one for one in meant if one.heavy] or meant
        built = [one for one in judged if one.ran in (word, *allowed) or is_narrower(one.ran, word)]
        if judged and len(built) < HARDLY * len(judged):
            raise _mismatch(label, judged, word, reason)
        others = [one for one in meant if one.ran != word and not is_narrower(one.ran, word)]
        if not meant and all(one.ran != word for one in ran):
            notes.append(f"{word} was asked for, and {label} has no operator that could compute in it")
        elif others:
            counts = " and ".join(f"{number} in {kind}" for kind, number in count_ran(others).items())
            of = f"of {_plural(len(meant))} that should compute in {word}, {label} runs {counts}"
            notes.append(f"{of}: {_listed(others)}{reason}")
    return tuple(notes)


def is_narrower(built: str, asked: str) -> bool:
    """Say whether an operator or a layer is quantised where the rest of its graph was asked to be fp16 or bf16."""
    return built in QUANTISED and asked in ("fp16", "bf16")


def _mismatch(label: str, judged: Sequence[Ran], word: str, why: str) -> PrecisionMismatchError:
    counts = ", ".join(f"{number} in {kind}" for kind, number in count_ran(judged).items())
    others = sorted({one.ran for one in judged if one.ran != word})
    mend = f"ask for {others[0]}, or allow it by name: --option allow_precision={','.join(others)}"
    if _NEVER_NARROWED in others:
        why = ""
        mend = "float64 stays what it is: make the model float32 before, or ask for fp32, which leaves it alone"
    return PrecisionMismatchError(
        f"{word} was asked for, and of {_plural(len(judged))} that should compute in it {label} runs {counts}: "
        f"{_listed(judged)}{why}",
        mend=mend,
    )


def _listed(ran: Sequence[Ran]) -> str:
    kinds = Counter(one.operator for one in ran).most_common()
    shown = ", ".join(f"{kind} ({number})" for kind, number in kinds[:_SHOWN])
    return f"{shown} and {len(kinds) - _SHOWN} more kinds" if len(kinds) > _SHOWN else shown


def _plural(number: int) -> str:
    return f"{number} operator{'s' if number != 1 else ''}"
