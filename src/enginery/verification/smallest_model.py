"""The smallest model that still shows a divergence: a window on the graph, moved forward while it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enginery.errors import EngineryError, OutputError
from enginery.verification.first_divergence import Arrays, Finding, Prober

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Smallest", "shrink"]


@dataclass(frozen=True)
class Smallest:
    """A model with what it reads and what float32 makes of that.

    Args:
        place: the cut where it begins.
        model: as the suspect's graph has it, with one output and the sizes of one call.
        feeds: its inputs, as float32 made them.
        expected: its output, as float32 made it.
        error: of that output, built alone.
    """

    place: int
    model: ir.Model
    feeds: Arrays
    expected: Arrays
    error: float


def shrink(prober: Prober, finding: Finding) -> Smallest | None:
    """Return the smallest window before the first bad cut whose output is beyond the bound, by itself.

    A window reads what float32 made, so an error that many nodes add up to needs many of them. First the beginning
    moves back until the divergence shows, in steps that double; then forward again by bisection; then the output is
    made of a single row, where the nodes allow that.

    Returns:
        The window; None where not even the whole graph shows it with one tensor as output.
    """
    tensor, _ = prober.worst(finding)
    places = [place for place in prober.places if place <= finding.before.record.place]
    shown, hidden = _grow(prober, places, tensor)
    if shown is None:
        return None
    low, high = places.index(shown.place), hidden
    while high - low > 1:
        middle = (low + high) // 2
        found = _window(prober, places[middle], tensor)
        if found is not None:
            low, shown = middle, found
        else:
            high = middle
    return _one_row(prober, shown)


def _grow(prober: Prober, places: Sequence[int], tensor: str) -> tuple[Smallest | None, int]:
    """Move the beginning back until the divergence shows; return that window, and the last place where it did not."""
    step, hidden = 0, len(places)
    while True:
        at = max(len(places) - 1 - step, 0)
        found = _window(prober, places[at], tensor)
        if found is not None or at == 0:
            return found, hidden
        hidden, step = at, max(2 * step, 1)


def _window(prober: Prober, place: int, tensor: str) -> Smallest | None:
    """Return the window from a place to a tensor where it shows the divergence."""
    names = prober.suspect.graph.crossing(place)

    def measured() -> Smallest | None:
        recorded = prober.values(prober.reference, (*names, tensor) if tensor not in names else names)
        expected = {tensor: recorded[tensor]}
        model, feeds = prober.window(place, [tensor], recorded)
        return _shown(prober, place, model, feeds, expected)

    prober.hear(f"the smallest model, from place {place}")
    return None if tensor in names else _unless_failing(measured)


def _shown(prober: Prober, place: int, model: ir.Model, feeds: Arrays, expected: Arrays) -> Smallest | None:
    error = prober.error(prober.suspect.run(model, feeds), expected, expected)
    return Smallest(place, model, feeds, expected, error) if error > prober.bound else None


def _one_row(prober: Prober, shown: Smallest) -> Smallest:
    """Return the same window on the first row of every input that has as many as the output, where that shows it."""
    ((tensor, expected),) = shown.expected.items()
    rows = expected.shape[0] if expected.ndim else 0
    if prober.reference.graph is not prober.suspect.graph:
        return shown  # float32 of other nodes made what is expected
    if rows < 2 or not any(array.ndim and len(array) == rows for array in shown.feeds.values()):  # noqa: PLR2004
        return shown
    graph = prober.suspect.graph
    first = {name: _first(array, rows) for name, array in shown.feeds.items()}

    def measured() -> Smallest | None:
        names = [name for name in graph.sizes_crossing(shown.place) if name != tensor]
        whole = prober.go_on(model := graph.part((), names), prober.fed(model, {})) if names else {}
        model = graph.window(shown.place, [tensor], {**prober.feeds, **first}, whole)
        feeds = {name: first[name] for name in (value.name or "" for value in model.graph.inputs)}
        made = prober.go_on(model, feeds)
        if made[tensor].shape[:1] != (1,):
            return None
        return _shown(prober, shown.place, model, feeds, made)

    prober.hear("the smallest model, with one row")
    return _unless_failing(measured) or shown


def _first(array: Any, rows: int) -> Any:
    return array[:1].copy() if array.ndim and len(array) == rows else array


def _unless_failing(measure: Callable[[], Smallest | None]) -> Smallest | None:
    """Return what was measured; None where the window cannot be built or run, and so shows nothing."""
    try:
        return measure()
    except OutputError:
        raise
    except EngineryError:
        return None
