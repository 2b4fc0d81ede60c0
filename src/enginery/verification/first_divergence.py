"""Where an engine first leaves its reference: bisection over the cuts of its graph.

At each cut, an engine is built of what stands before it, whose outputs are the few tensors that cross; a cut is good
where none of them is beyond the bound, or where what is beyond it is forgotten before it reaches an output (a mask of
-3e38 that became -65504). Between the last good cut and the first bad one stands the node that is looked for.

Outputs that are marked change what a backend may fuse. So a finding is confirmed at a second cut, where both what the
node reads and what it makes are outputs, and by the node alone, on exact inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from enginery.errors import EngineryError, OutputError
from enginery.records import CutRecord, NodeRecord, OutputRecord
from enginery.verification.metrics import measure_all

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["Arrays", "Cuttable", "Finding", "Prober", "Run", "Side", "locate"]

Arrays: TypeAlias = "dict[str, np.ndarray[Any, Any]]"
Run: TypeAlias = "Callable[[ir.Model, Arrays], Arrays]"
"""Builds a model and runs it once on inputs by name; raises `EngineryError` where that cannot be done."""

_TIMES = 4.0
"""A node amplifies where the error behind it is so many times the error before it."""

_POINTS = 6
"""Cuts that are measured besides, to show how an error grows."""


class Cuttable(Protocol):
    """A graph that can be cut; see `enginery.graph.cuts.Cuts`."""

    places: tuple[int, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors that its nodes make."""
        ...

    def crossing(self, place: int) -> tuple[str, ...]:
        """Name the tensors that cross a place."""
        ...

    def sizes_crossing(self, place: int) -> tuple[str, ...]:
        """Name the sizes that cross a place."""
        ...

    def part(self, inputs: Iterable[str], outputs: Sequence[str]) -> ir.Model:
        """Return the model that makes some tensors of others."""
        ...

    def window(self, place: int, outputs: Sequence[str], given: Arrays, sizes: Arrays) -> ir.Model:
        """Return the model that makes tensors of what crosses a place, with the sizes of one call."""
        ...

    def describe(self, start: int, stop: int, outputs: Iterable[str] = ()) -> tuple[NodeRecord, ...]:
        """Describe the nodes between two places."""
        ...

    def reading(self, place: int) -> tuple[str, ...]:
        """Name what the last node before a place reads, where it has a body."""
        ...

    def calls(self, place: int, known: Arrays, run: Run) -> Iterator[tuple[str, Cuttable, Arrays]]:
        """Yield the calls of the body of the last node before a place: in words, its graph, and what it reads."""
        ...


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: a graph, and what runs parts of it. Tensors of one name are one tensor."""

    graph: Cuttable
    run: Run


@dataclass(frozen=True)
class Measured:
    """What crossed one cut, on both sides.

    Args:
        record: the figures.
        actual, expected: arrays by name.
        bad: names of those beyond the bound.
    """

    record: CutRecord
    actual: Arrays = field(default_factory=dict)
    expected: Arrays = field(default_factory=dict)
    bad: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What bisection found.

    Args:
        before: the last good cut.
        behind: the first bad one after it; the outputs themselves where the engine was good up to them.
        cuts: all that were measured, in the order of the graph.
        own_error, inherited_error, confirmed: see `enginery.records.DivergenceRecord`.
    """

    before: Measured
    behind: Measured
    cuts: tuple[CutRecord, ...]
    kind: str = ""
    own_error: float | None = None
    inherited_error: float | None = None
    confirmed: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the outputs of an engine that was built again leave the bound at all."""
        return not self.behind.record.good

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of what the nodes made that is beyond the bound; what crossed both cuts is not theirs."""
        own = tuple(name for name in self.behind.bad if name not in self.before.expected)
        return own or self.behind.bad


class Prober:
    """Measures cuts, and parts between them, on one set of inputs.

    Args:
        suspect: what is looked into.
        reference: what it is compared with.
        feeds: the inputs of the graph.
        go_on: runs models in float32, to see what becomes of a tensor.
        bound: the largest error of a tensor.
        hear: told what comes, before each build.
    """

    def __init__(
        self, suspect: Side, reference: Side, feeds: Arrays, *, go_on: Run, bound: float, hear: Callable[[str], None]
    ) -> None:
        self.suspect, self.reference, self.go_on = suspect, reference, go_on
        self.feeds, self.bound, self.hear = feeds, bound, hear
        known = reference.graph.names
        self._harmless: set[str] = set()  # what is not worth telling of a cut where something else is off
        self.places = tuple(at for at in suspect.graph.places if known.issuperset(suspect.graph.crossing(at)))

    def measure(self, place: int) -> Measured:
        """Compare what crosses a place; a failure to build or run is in the record."""
        graph = self.suspect.graph
        names, last = graph.crossing(place), graph.describe(max(place - 1, 0), place)
        blank = CutRecord(place, last[0].name if last else "", last[0].operator if last else "", len(names))
        if not names:
            return Measured(blank)
        self.hear(f"cut behind {blank.node} ({blank.operator})")
        try:
            expected, actual = self.values(self.reference, names), self.values(self.suspect, names)
        except OutputError:
            raise
        except EngineryError as error:
            return Measured(replace(blank, failure=error.message, good=False, error=math.inf))
        return self._judged(blank, actual, expected)

    def values(self, side: Side, names: Sequence[str]) -> Arrays:
        """Return tensors of one side, by a model that ends with them."""
        return side.run(model := side.graph.part((), names), self.fed(model, {}))

    def fed(self, model: ir.Model, given: Mapping[str, Any]) -> Arrays:
        """Return what a model reads, of given tensors and of the graph's inputs."""
        return {name: {**self.feeds, **given}[name] for name in (value.name or "" for value in model.graph.inputs)}

    def window(self, place: int, outputs: Sequence[str], given: Mapping[str, Any]) -> tuple[ir.Model, Arrays]:
        """Return the suspect's nodes from a place to some tensors as a model, and what it reads."""
        graph = self.suspect.graph
        names = [name for name in graph.sizes_crossing(place) if name not in outputs]
        sizes = self.go_on(model := graph.part((), names), self.fed(model, {})) if names else {}
        found = graph.window(place, outputs, {**self.feeds, **given}, sizes)
        return found, self.fed(found, given)

    def error(self, actual: Mapping[str, Any], expected: Mapping[str, Any], names: Iterable[str]) -> float:
        """Return the worst error of some tensors."""
        wanted = {name: expected[name] for name in names}
        return max((_error(found.record) for found in measure_all(actual, wanted)), default=0.0)

    def worst(self, finding: Finding) -> tuple[str, float]:
        """Name the tensor that is the furthest off, of those that the nodes of a finding made, with its error."""
        behind = finding.behind
        errors = {name: self.error(behind.actual, behind.expected, [name]) for name in finding.tensors}
        name = max(errors, key=errors.__getitem__)
        return name, errors[name]

    def before(self, finding: Finding) -> float:
        """Return the worst error of what the nodes of a finding read, of what crosses the good cut."""
        crossing = finding.before.expected
        made = [name for name in finding.tensors if name not in crossing]
        read = self.suspect.graph.part(crossing, made).graph.inputs if made else ()
        names = [value.name or "" for value in read]
        return self.error(finding.before.actual, crossing, [name for name in names if name in crossing])

    def inherited(self, measured: Measured, names: Sequence[str], expected: Arrays) -> float:
        """Return the error of tensors where float32 goes on from what the suspect made before a cut."""
        given = {name: _as(array, measured.expected[name]) for name, array in measured.actual.items()}
        model = self.reference.graph.part(given, names)
        return self.error(self.go_on(model, self.fed(model, given)), expected, names)

    def _judged(self, blank: CutRecord, actual: Arrays, expected: Arrays) -> Measured:
        found = [difference.record for difference in measure_all(actual, expected)]
        worst = max([one for one in found if one.name not in self._harmless] or found, key=_error)
        bad = tuple(record.name for record in found if not _error(record) <= self.bound)
        record = replace(
            blank, tensor=worst.name, error=_error(worst), max_abs=worst.max_abs, nan=worst.nan, inf=worst.inf,
            reference_nan=worst.reference_nan, reference_inf=worst.reference_inf, good=not bad,
        )  # fmt: skip
        measured = Measured(record, actual, expected, bad)
        if bad and blank.place < self.places[-1]:
            harm = self._harm(measured)
            good = harm is not None and harm <= self.bound
            self._harmless.update(bad if good else ())
            measured = replace(measured, record=replace(record, harm=harm, good=good))
        return measured

    def _harm(self, measured: Measured) -> float | None:
        """Return the error of the outputs where only what is beyond the bound is the suspect's; None if unknown."""
        outputs = self.suspect.graph.crossing(self.places[-1])
        now = [name for name in measured.bad if name in outputs]
        later = [name for name in outputs if name not in measured.expected]
        worst = self.error(measured.actual, measured.expected, now)
        if later and worst <= self.bound:
            only = {name: measured.actual[name] for name in measured.bad}
            mixed = replace(measured, actual={**measured.expected, **only})
            try:
                worst = max(worst, self.inherited(mixed, later, self.values(self.reference, later)))
            except OutputError:
                raise
            except EngineryError:  # what float32 cannot go on with does harm
                return None
        return worst


def locate(prober: Prober) -> Finding:
    """Find the last good cut and the first bad one after it, and tell what kind of divergence stands between.

    Every good cut has a bad one behind it, so there always is such a pair; where errors come and go there may be
    several, and the one that is found explains the outputs. A cut that cannot be built is passed over.
    """
    seen = {place: prober.measure(place) for place in (prober.places[0], prober.places[-1])}
    low, high = prober.places[0], prober.places[-1]
    if seen[high].record.good or seen[high].record.failure:
        return Finding(seen[low], seen[high], _ordered(seen))
    while (place := _middle(prober.places, low, high, seen)) is not None:
        seen[place] = prober.measure(place)
        if not seen[place].record.failure:
            low, high = (place, high) if seen[place].record.good else (low, place)
    finding = _examined(prober, Finding(seen[low], seen[high], _ordered(seen)))
    if finding.kind == "gradual":
        for place in _spread(prober.places, seen):
            seen[place] = prober.measure(place)
        finding = replace(finding, cuts=_ordered(seen))
    return finding


def _middle(places: Sequence[int], low: int, high: int, seen: Mapping[int, Measured]) -> int | None:
    """Return the place nearest to the middle of two that was not tried."""
    between = [place for place in places if low < place < high and place not in seen]
    return min(between, key=lambda place: abs(place - (low + high) / 2), default=None)


def _spread(places: Sequence[int], seen: Mapping[int, Measured]) -> list[int]:
    last = len(places) - 1
    evenly = {places[last * at // (_POINTS + 1)] for at in range(1, _POINTS + 1)}
    return sorted(evenly - set(seen))


def _ordered(seen: Mapping[int, Measured]) -> tuple[CutRecord, ...]:
    return tuple(seen[place].record for place in sorted(seen))


def _examined(prober: Prober, finding: Finding) -> Finding:
    """Build the nodes alone, let float32 go on from what was made before them, and cut a second time."""
    notes: list[str] = []
    before, tensors, expected = finding.before, finding.tensors, finding.behind.expected
    prober.hear("the nodes alone, on exact inputs")
    own = _tried(lambda: _own(prober, finding), "the nodes cannot be built alone", notes)
    inherited = None
    if before.actual:
        said = "float32 cannot go on from there"
        inherited = _tried(lambda: prober.inherited(before, tensors, expected), said, notes)
    prober.hear("a second cut, before and behind the nodes")
    confirmed = _tried(lambda: _confirm(prober, finding), "no second cut can be built", notes)
    worst = prober.error(finding.behind.actual, expected, tensors)
    kind = "gradual"
    if own is not None and own > prober.bound:
        kind = "jump"
    elif (inherited or 0.0) > prober.bound and worst >= _TIMES * prober.before(finding):
        kind = "amplified"
    elif confirmed is False:
        kind = "fused"
    return replace(
        finding, kind=kind, own_error=own, inherited_error=inherited, confirmed=confirmed, notes=tuple(notes)
    )


def _own(prober: Prober, finding: Finding) -> float:
    model, feeds = prober.window(finding.before.record.place, finding.tensors, finding.before.expected)
    return prober.error(prober.suspect.run(model, feeds), finding.behind.expected, finding.tensors)


def _confirm(prober: Prober, finding: Finding) -> bool:
    both = tuple(dict.fromkeys((*finding.before.expected, *finding.tensors)))
    found = prober.values(prober.suspect, both)
    return prober.error(found, finding.behind.expected, finding.tensors) > prober.bound


def _tried(measure: Callable[[], Any], said: str, notes: list[str]) -> Any:
    """Return what was measured; None with a note where a part could not be built or run."""
    try:
        return measure()
    except OutputError:
        raise
    except EngineryError as error:
        notes.append(f"{said}: {error.message}")
        return None


def _error(record: OutputRecord) -> float:
    return math.inf if math.isnan(record.error) else record.error


def _as(array: Any, like: Any) -> Any:
    return array.astype(like.dtype) if array.dtype != like.dtype else array
