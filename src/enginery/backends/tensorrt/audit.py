"""Whether the engine that was built computes in the precision that was asked for.

What is tolerated. On TensorRT 8, flags only allow a narrower type: the builder takes a float32 kernel where that is
faster, so single float32 layers are right, and are told. From 10 on the graph is typed, and the builder keeps it. In
both, an engine in which hardly a layer computes as asked is not what was asked for: less than a tenth of those layers
that came from the nodes which should, and could.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from enginery.backends.audit import HARDLY, NARROW, is_narrower
from enginery.backends.tensorrt.inspection import UNREADABLE, count
from enginery.backends.tensorrt.layer_types import is_compute
from enginery.errors import PrecisionMismatchError

if TYPE_CHECKING:
    from enginery.records import LayerRecord
    from enginery.spec import PrecisionPlan

__all__ = ["check"]

_SHOWN = 4
# Layers with weights, where a precision pays; pointwise ones beside them are often float32 for good reasons.
_HEAVY = ("conv", "gemm", "matrix", "matmul", "deconv", "mha", "attention", "myelin", "foreign", "fully")


def check(layers: Sequence[LayerRecord], plan: PrecisionPlan, allowed: Collection[str] = ()) -> tuple[str, ...]:
    """Compare the layers of an engine with what was asked for.

    Args:
        layers: as `enginery.backends.tensorrt.inspection` read them.
        plan: what was asked for.
        allowed: precisions that may stand in for the one asked.

    Returns:
        Notes for the user: what could not be read, and which layers are wider than asked.

    Raises:
        PrecisionMismatchError: hardly a layer computes as asked; names counts and layers.
    """
    if unread := [one.name for one in layers if one.kind == UNREADABLE]:
        return (f"the precision that was built is not known: {unread[0]}",)
    notes = []
    for precision in _asked(plan):
        found = _check_one(layers, plan, precision, allowed)
        notes += [found] if found else []
    return (*notes, *_kept(layers, plan))


def _asked(plan: PrecisionPlan) -> list[str]:
    """Return the narrow precisions of a plan, its own first."""
    named = [precision for precision in plan.nodes.values() if precision in NARROW]
    return list(dict.fromkeys(([plan.precision] if plan.precision in NARROW else []) + sorted(named)))


def _check_one(layers: Sequence[LayerRecord], plan: PrecisionPlan, precision: str, allowed: Collection[str]) -> str:
    """Check the layers that should compute in one precision; return a note."""
    meant = [one for one in layers if _is_meant(one, plan, precision)]
    hidden = [one for one in meant if not one.precision]
    heavy = [one for one in meant if _is_heavy(one)]
    judged = [one for one in heavy if one.precision] or [one for one in meant if one.precision]
    built = [one for one in judged if one.precision in (precision, *allowed) or is_narrower(one.precision, precision)]
    if judged and len(built) < HARDLY * len(judged):
        raise _mismatch(judged, precision)
    if not judged:
        hidden = hidden or [one for one in layers if _hides(one, plan, precision)]
        if not hidden:
            return f"{precision} was asked for, and the engine has no layer that could compute in it"
        regions = _plural(len(hidden), "region")
        return (
            f"{precision} was asked for, and the inspector does not tell what it built in {regions} compiled as a whole"
        )
    others = [one for one in meant if one.precision and one.precision != precision]
    return _told(others, meant, precision)


def _is_meant(one: LayerRecord, plan: PrecisionPlan, precision: str) -> bool:
    """Say whether a layer's nodes all should compute in a precision; a layer of no known node follows the plan."""
    if one.kind == UNREADABLE or not one.kind or not is_compute(one.kind):
        return False
    wanted = {plan.of(node) for node in one.nodes} or {plan.precision}
    if precision == "int8":  # a bias beside a quantised product is added in a wider type
        return "int8" in wanted and _is_heavy(one)
    return wanted == {precision}


def _hides(one: LayerRecord, plan: PrecisionPlan, precision: str) -> bool:
    """Say whether a layer of unknown precision holds a node that should compute in one, among others."""
    untold = bool(one.kind) and is_compute(one.kind) and not one.precision
    return untold and any(plan.of(node) == precision for node in one.nodes)


def _is_heavy(one: LayerRecord) -> bool:
    return any(word in one.kind.lower() for word in _HEAVY)


def _mismatch(judged: Sequence[LayerRecord], precision: str) -> PrecisionMismatchError:
    counts = ", ".join(f"{number} in {word}" for word, number in count(judged).items())
    others = [one for one in judged if one.precision != precision]
    substitutes = ",".join(sorted({one.precision for one in others}))
    return PrecisionMismatchError(
        f"{precision} was asked for, and of {_plural(len(judged), 'layer')} that should compute in it TensorRT built "
        f"{counts}: {_listed(others)}",
        mend=f"compare the shapes and options, or allow it by name: --option allow_precision={substitutes}",
    )


def _told(others: Sequence[LayerRecord], meant: Sequence[LayerRecord], precision: str) -> str:
    if not others:
        return ""
    words = Counter(one.precision for one in others)
    counts = " and ".join(f"{number} in {word}" for word, number in sorted(words.items()))
    return f"of {_plural(len(meant), 'layer')} that may compute in {precision}, {counts}: {_listed(others)}"


def _kept(layers: Sequence[LayerRecord], plan: PrecisionPlan) -> list[str]:
    """Say which layers are narrower than the plan keeps their nodes."""
    kept = {node for node, precision in plan.nodes.items() if precision in ("fp32", "tf32")}
    broken = [one for one in layers if one.precision in NARROW and kept.intersection(one.nodes)]
    if not broken:
        return []
    layers_said = _plural(len(broken), "layer")
    return [f"{layers_said} with nodes that the plan keeps in fp32 read narrower types: {_listed(broken)}"]


def _listed(layers: Sequence[LayerRecord]) -> str:
    """Name some layers, by their first node where that is known."""
    shown = [f"{one.nodes[0] if one.nodes else one.name} ({one.kind}, {one.precision})" for one in layers[:_SHOWN]]
    more = f" and {len(layers) - _SHOWN} more" if len(layers) > _SHOWN else ""
    return ", ".join(shown) + more


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 else "")
