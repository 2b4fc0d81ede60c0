"""A divergence inside the body of an If, a Loop or a Scan: the first of its calls that is off by itself."""

from __future__ import annotations

from itertools import islice

from enginery.errors import EngineryError, OutputError
from enginery.verification.first_divergence import Finding, Prober, Side, locate

__all__ = ["look_inside"]

_CALLS = 4
"""Calls of a body that are looked into; an error that needs more of them adds up over the calls."""


def look_inside(prober: Prober, finding: Finding) -> tuple[str, Prober, Finding] | None:
    """Bisect the body of the node that was found, on what its first calls read in float32.

    Each call is built as a graph of its own, so what is found is no matter of how the backend runs bodies.

    Args:
        prober: of the graph around it.
        finding: what was found in that.

    Returns:
        Which call it is, and what was found in its graph; None where the node has no body, where no call is off by
        itself, or where the two that are compared have different graphs.
    """
    place, graph = finding.behind.record.place, prober.suspect.graph
    names = graph.reading(place) if prober.reference.graph is graph else ()
    if not names or place - finding.before.record.place != 1:
        return None
    try:
        made = [name for name in names if name not in prober.feeds]
        known = {**prober.feeds, **(prober.values(prober.reference, made) if made else {})}
        for where, body, feeds in islice(graph.calls(place, known, prober.go_on), _CALLS):
            suspect, reference = Side(body, prober.suspect.run), Side(body, prober.reference.run)
            inner = Prober(suspect, reference, feeds, go_on=prober.go_on, bound=prober.bound, hear=prober.hear)
            found = locate(inner)
            if found.kind:
                return where, inner, found
    except OutputError:
        raise
    except EngineryError:
        return None  # a body that cannot be built alone shows nothing; the node is known
    return None
