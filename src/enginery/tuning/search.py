"""The lowest plan that holds the bounds: raise what harms most until they hold, then lower again what need not stay.

What is tried first is simulated, which is cheap. The plan that comes out is built by the backend itself, whose outputs
decide: where they miss a bound more is raised, and what they can do without is lowered again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from enginery.records import NodeSensitivityRecord, SearchStepRecord, SensitivityRecord
from enginery.spec import PrecisionPlan

__all__ = ["Found", "Limits", "Outcome", "Trial", "search_plan", "why_kept"]


@dataclass(frozen=True)
class Outcome:
    """What became of one plan.

    Args:
        holds: whether the bounds held.
        reason: why not.
        error, cosine: of the outputs; None where there were none.
        p50_ms: median, where it was timed.
        again: whether it was known already.
    """

    holds: bool
    reason: str
    error: float | None
    cosine: float | None
    seconds: float
    p50_ms: float | None = None
    again: bool = False


Trial: TypeAlias = Callable[[PrecisionPlan], Outcome]
"""Tries a plan, and says whether the bounds hold."""


@dataclass(frozen=True)
class Limits:
    """How long a search goes on at the most.

    Args:
        simulated: how many plans are rounded in a float32 graph.
        built: how many are built by the backend itself.
        seconds: after which nothing more is tried.
    """

    simulated: int = 96
    built: int = 24
    seconds: float = 600.0


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        kept: the nodes that stay higher; None where no plan held the bounds.
        plan: that holds the bounds; None where none did.
        steps: all that was tried.
        unfinished: whether it ended because plans or time ran out.
        slow: of the kept, those that are no faster lower.
        reasons: of each node that is kept for the bounds.
    """

    kept: tuple[str, ...] | None
    plan: PrecisionPlan | None
    steps: tuple[SearchStepRecord, ...]
    unfinished: bool = False
    slow: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def search_plan(
    ranking: SensitivityRecord,
    simulate: Trial | None,
    build: Trial | None,
    *,
    limits: Limits | None = None,
    base: PrecisionPlan | None = None,
) -> Found:
    """Find a plan that keeps as few nodes higher as the bounds allow.

    Args:
        ranking: the nodes that could be lower, and which of them matter most.
        simulate: tries a plan cheaply; None where only the backend can say.
        build: builds and verifies a plan on the real backend; None to simulate only.
        limits: how long to go on.
        base: the lowest plan, where it does not give every node the ranking's precision: nodes that are kept lose
            what it says of them.
    """
    search = _Search(ranking, limits or Limits(), base)
    kept: tuple[str, ...] | None = ()
    if simulate is not None:
        search.simulated = True
        tries = _Tries(search, "simulated", simulate, search.limits.simulated)
        kept = search.settle(tries, ())
    if build is not None and kept is not None:
        tries = _Tries(search, "built", build, search.limits.built)
        kept = search.settle(tries, kept)
    plan = None if kept is None else search.plan(kept)
    return Found(kept, plan, tuple(search.steps), search.unfinished, reasons=search.reasons(kept or ()))


def why_kept(row: NodeSensitivityRecord, without: str = "") -> str:
    """Say in a few words why a node is kept higher.

    Args:
        row: what is known of the node.
        without: what came of lowering it alone from a plan that held the bounds; empty where that was not tried.
    """
    if row.dangers:
        return row.dangers[0].text
    if without:
        return f"lower as well: {without}"
    if row.error is not None:
        return f"{row.group} alone lower gives an error of {row.error:.1e}"
    return "the bounds do not hold without it"


@dataclass
class _Search:
    """The order of raising, and the steps so far."""

    ranking: SensitivityRecord
    limits: Limits
    base: PrecisionPlan | None
    steps: list[SearchStepRecord] = field(default_factory=list)
    unfinished: bool = False
    simulated: bool = False
    without: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows: Mapping[str, NodeSensitivityRecord] = {row.name: row for row in self.ranking.nodes}
        self.deadline = time.monotonic() + self.limits.seconds

    def plan(self, kept: Sequence[str]) -> PrecisionPlan:
        """Return the plan that keeps some nodes."""
        if self.base is None:
            return PrecisionPlan(self.ranking.precision, dict.fromkeys(kept, "fp32"), self.reasons(kept))
        gone = set(kept)
        nodes = {name: precision for name, precision in self.base.nodes.items() if name not in gone}
        return PrecisionPlan(self.base.precision, nodes, {n: why for n, why in self.base.reasons.items() if n in nodes})

    def reasons(self, kept: Sequence[str]) -> dict[str, str]:
        """Say of each kept node why it is."""
        return {name: why_kept(self.rows[name], self.without.get(name, "")) for name in kept}

    def levels(self, kept: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Return ever larger sets of nodes to keep, with what each adds, from `kept` to all."""
        found: list[tuple[str, tuple[str, ...]]] = []
        held = dict.fromkeys(kept)
        for severity in ("certain", "likely"):
            names = [row.name for row in self.ranking.nodes if row.dangers and row.dangers[0].severity == severity]
            if new := [name for name in names if name not in held]:
                held |= dict.fromkeys(new)
                found.append((f"raise {_nodes(len(new))} in {severity} danger", tuple(held)))
        for group in self.ranking.groups:
            if new := [name for name in group.nodes if name not in held]:
                held |= dict.fromkeys(new)
                found.append((f"raise {group.name} ({_nodes(len(new))})", tuple(held)))
        if new := [name for name in self.rows if name not in held]:
            found.append((f"raise all others ({_nodes(len(new))})", (*held, *new)))
        return found

    def settle(self, tries: _Tries, kept: tuple[str, ...]) -> tuple[str, ...] | None:
        """Raise nodes until the bounds hold, then lower those again that need not stay."""
        begin = f"keep {_nodes(len(kept))}" if kept else f"all in {self.ranking.precision}"
        if not tries(kept, begin):
            raised = self._raise(tries, kept)
            if raised is None:
                return None
            kept = raised
        return self._lower(tries, kept)

    def _free(self, tries: _Tries, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Return what may be lowered: all in a simulation; of a build, not what is sure to be lost elsewhere.

        A library may happen to keep a value that its type cannot hold, as ONNX Runtime does between nodes that it has
        no float16 kernel for. The next version may not, and a plan goes from backend to backend.
        """
        if tries.what == "simulated" or not self.simulated:
            return kept
        lost = {row.name for row in self.ranking.nodes if row.dangers and row.dangers[0].severity == "certain"}
        return tuple(name for name in kept if name not in lost)

    def _raise(self, tries: _Tries, kept: tuple[str, ...]) -> tuple[str, ...] | None:
        """Go up in steps that double until the bounds hold, then halve back to the first level that does."""
        levels = self.levels(kept)
        low, step, high = -1, 1, None
        while high is None:
            at = min(low + step, len(levels) - 1)
            if at <= low or not tries.more():
                return None
            if tries(levels[at][1], levels[at][0]):
                high = at
            else:
                low, step = at, step * 2
        while high - low > 1 and tries.more():
            middle = (low + high) // 2
            if tries(levels[middle][1], f"lower back to: {levels[middle][0]}"):
                high = middle
            else:
                low = middle
        return levels[high][1]

    def _lower(self, tries: _Tries, kept: tuple[str, ...]) -> tuple[str, ...]:
        """Lower halves, then quarters, and in the end single nodes, wherever the bounds go on to hold."""
        free = self._free(tries, kept)
        size = max(len(free) // 2, 1)
        while free and tries.more():
            before = kept
            for part in [free[at : at + size] for at in range(0, len(free), size)]:
                rest = tuple(name for name in kept if name not in set(part))
                if tries.more() and tries(rest, f"lower again {_shown(part)}"):
                    kept = rest
                elif len(part) == 1 and frozenset(rest) in tries.reasons:
                    self.without[part[0]] = tries.reasons[frozenset(rest)]
            # A build is dear: what a simulation has found to need all of its nodes is not tried one by one.
            if size == 1 or (tries.what == "built" and self.simulated and kept == before):
                break
            free, size = tuple(name for name in free if name in set(kept)), max(size // 2, 1)
        return kept


@dataclass
class _Tries:
    """Tries plans of one kind, and writes every step down."""

    search: _Search
    what: str
    trial: Trial
    left: int
    known: dict[frozenset[str], bool] = field(default_factory=dict)
    reasons: dict[frozenset[str], str] = field(default_factory=dict)

    def more(self) -> bool:
        """Say whether another plan may be tried."""
        if self.left > 0 and time.monotonic() < self.search.deadline:
            return True
        self.search.unfinished = True
        return False

    def __call__(self, kept: Sequence[str], action: str) -> bool:
        key = frozenset(kept)
        if key in self.known:
            return self.known[key]
        self.left -= 1
        outcome = self.trial(self.search.plan(kept))
        self.known[key], self.reasons[key] = outcome.holds, outcome.reason
        self.search.steps.append(
            SearchStepRecord(
                self.what, action, len(key), outcome.holds, outcome.reason, outcome.error, outcome.cosine,
                outcome.seconds, outcome.p50_ms, outcome.again,
            )
        )  # fmt: skip
        return outcome.holds


def _shown(names: Sequence[str]) -> str:
    return repr(names[0]) if len(names) == 1 else f"{_nodes(len(names))} from {names[0]!r} on"


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"
