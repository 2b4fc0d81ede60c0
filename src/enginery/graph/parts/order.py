"""In which order the nodes of two kinds run in the fewest steps, each of one kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["components", "levels", "predecessors"]


def predecessors(reads: Mapping[ir.Node, tuple[ir.Value, ...]]) -> dict[ir.Node, tuple[ir.Node, ...]]:
    """Return for each node those that make what it and its subgraphs read.

    Args:
        reads: what each node reads, the nodes in order.
    """
    found = {}
    for node, values in reads.items():
        makers = (value.producer() for value in values)
        found[node] = tuple(dict.fromkeys(maker for maker in makers if maker is not None))
    return found


def levels(before: Mapping[ir.Node, tuple[ir.Node, ...]], main: Mapping[ir.Node, bool]) -> dict[ir.Node, int]:
    """Give each node the step it runs in: the earliest one, in the fewest steps that alternate between the kinds.

    A node's step is the number of times that the kind changes along the path to it on which it changes most. No order
    has fewer steps, since along that path each change needs a new one; and a step is convex, since along any path
    steps never go down.

    Args:
        before: each node, in order, with its predecessors.
        main: whether a node is of the one kind, rather than the other.

    Example:
        >>> import onnx_ir as ir
        >>> a = ir.node("Relu", [ir.val("x")]); b = ir.node("Erf", a.outputs); c = ir.node("Relu", b.outputs)
        >>> list(levels({a: (), b: (a,), c: (b,)}, {a: True, b: False, c: True}).values())
        [0, 1, 2]
    """
    found = [_levels(before, main, first=first) for first in (True, False)]
    return min(found, key=lambda one: max(one.values(), default=0))


def _levels(
    before: Mapping[ir.Node, tuple[ir.Node, ...]], main: Mapping[ir.Node, bool], *, first: bool
) -> dict[ir.Node, int]:
    found: dict[ir.Node, int] = {}
    for node, others in before.items():
        kind = main[node]
        found[node] = max((found[other] + (main[other] != kind) for other in others), default=0)
        found[node] = max(found[node], int(kind != first))
    return found


def components(nodes: Iterable[ir.Node], before: Mapping[ir.Node, tuple[ir.Node, ...]]) -> Iterator[list[ir.Node]]:
    """Yield the connected pieces of a set of nodes, each in the order given."""
    chosen = dict.fromkeys(nodes)
    leader = {node: node for node in chosen}

    def find(node: ir.Node) -> ir.Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for node in chosen:
        for other in before[node]:
            if other in chosen:
                leader[find(node)] = find(other)
    pieces: dict[ir.Node, list[ir.Node]] = {}
    for node in chosen:
        pieces.setdefault(find(node), []).append(node)
    yield from pieces.values()
