"""Runs of a graph and of the one that was made dynamic from it; what fails becomes a refusal that names a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from enginery.errors import EngineryError, OutputError
from enginery.graph.agree import difference
from enginery.graph.dynamic.facts import Array, Facts
from enginery.graph.dynamic.refusal import Blocker, named_in, refuse
from enginery.graph.dynamic.request import DynamicAxes
from enginery.graph.dynamic.samples import Feeds, stack
from enginery.spec import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Evaluate", "Proof", "Runs", "compare_rows"]

Evaluate: TypeAlias = "Callable[[ir.Model, Mapping[str, Array]], Feeds]"
"""Runs a graph on some inputs and returns the outputs by name."""

_AT_ONCE_BYTES = 1 << 26


@dataclass(frozen=True)
class Proof:
    """What is compared: the original, the changed graph, and what is known of it.

    Args:
        original: the graph with the axis fixed.
        changed: the graph with the axis dynamic.
        group: the axes.
        facts: of `changed`.
        shapes: profiles of the inputs.
        others: sizes of the names that were dynamic before.
    """

    original: ir.Model
    changed: ir.Model
    group: DynamicAxes
    facts: Facts
    shapes: Mapping[str, Shape]
    others: Mapping[str, int]


@dataclass(frozen=True)
class Runs:
    """Runs of both graphs; what fails becomes the refusal that names a node."""

    proof: Proof
    evaluate: Evaluate
    blockers: tuple[Blocker, ...]

    def original(self, feeds: Feeds) -> Feeds:
        """Run the graph as it was; what it raises is the caller's."""
        return self.evaluate(self.proof.original, feeds)

    def changed(self, feeds: Feeds, size: int) -> Feeds:
        """Run the changed graph.

        Raises:
            GraphError: it fails.
        """
        named = _with_names(self.proof.changed)
        try:
            return self.evaluate(named, feeds)
        except OutputError:
            raise
        except EngineryError as error:
            said = str(error.message)
            node = named_in(said, named)
            first = said.strip().split("\n", 1)[0]
            refuse(self.proof.group, [node] if node else self.blockers, f"it does not run at size {size}"
                   + ("" if node else f": {first}"))  # fmt: skip

    def refuse(self, found: str) -> None:
        """Refuse, naming where the axis gets lost."""
        refuse(self.proof.group, self.blockers, found)

    def refuse_mixing(self, samples: Sequence[Feeds], found: str) -> None:
        """Refuse, naming the first node whose output for some rows depends on the others."""
        node = self._first_mixing(samples)
        lost = any(node is not None and node.outputs[0].name == other.node.outputs[0].name for other in self.blockers)
        why = "its output has no axis for the rows" if lost else "its output for one row depends on the other rows"
        blockers = [Blocker.of(node, why, certain=True)] if node is not None else self.blockers
        refuse(self.proof.group, blockers, found)

    def _first_mixing(self, samples: Sequence[Feeds]) -> ir.Node | None:
        """Compare what every node computes for stacked rows with what it computes for them alone."""
        size = self.proof.group.size or 1
        rows = size * min(len(samples), 2)
        stacked = stack(self.proof, samples, rows)
        makers = {value.name: node for node in self.proof.changed.graph for value in node.outputs}
        for names in self._portions():
            try:
                found = self.evaluate(self._showing(self.proof.changed, names), stacked)
                alone = [self.evaluate(self._showing(self.proof.original, names), one) for one in samples[:2]]
            except OutputError:
                raise
            except EngineryError:  # some tensors can be no outputs; the refusal then names where the axis gets lost
                return None
            for name in names:
                if compare_rows(name, found[name], [one[name] for one in alone], rows, size):
                    return makers[name]
        return None

    def _showing(self, model: ir.Model, names: Sequence[str]) -> ir.Model:
        """Return a copy of one of the graphs whose outputs are these tensors."""
        copy = model.clone()
        types = {value.name: value.type for node in self.proof.changed.graph for value in node.outputs}
        values = {value.name: value for node in copy.graph for value in node.outputs}
        copy.graph.outputs.clear()
        for name in names:
            values[name].type = types[name]
            copy.graph.outputs.append(values[name])
        return copy

    def _portions(self) -> Iterator[list[str]]:
        """Yield names of tensors that both graphs have, in their order, a limited number of bytes at a time."""
        both = {value.name for node in self.proof.original.graph for value in node.outputs}
        names: list[str] = []
        total = 0
        for node in self.proof.changed.graph:
            for value in node.outputs:
                fact = self.proof.facts.of(value)
                shape = fact.shapes[1]
                if (
                    value.name in both
                    and value.name
                    and fact.data[0] is None
                    and value.type is not None
                    and shape
                    and None not in shape
                ):
                    names.append(value.name)
                    total += 4 * int(np.prod([dim or 1 for dim in shape]))
                if total > _AT_ONCE_BYTES:
                    yield names
                    names, total = [], 0
        if names:
            yield names


def _with_names(model: ir.Model) -> ir.Model:
    """Return a copy whose nodes all have names, so that a runtime's message can tell which it is about."""
    copy = model.clone()
    for node in copy.graph.all_nodes():
        node.name = node.name or (node.outputs[0].name if node.outputs else None)
    return copy


def compare_rows(name: str, found: Array, parts: Sequence[Array], rows: int, size: int) -> str:
    """Say where stacked rows differ from the original's own; empty where they are the same."""
    first = parts[0]
    if isinstance(first, np.ndarray) and isinstance(found, np.ndarray) and first.ndim == found.ndim:
        for axis, length in enumerate(first.shape):
            if found.shape[axis] * size == length * rows and found.shape != first.shape:
                joined = np.concatenate(parts, axis).take(range(found.shape[axis]), axis)
                return difference([{name: joined}], [{name: found}]) if joined.shape == found.shape else _shapes(
                    name, found, first)  # fmt: skip
        if found.shape == first.shape:
            differ = (difference([{name: part}], [{name: found}]) for part in parts[: -(-rows // size)])
            return next((f"{said}, and it has no axis for the rows" for said in differ if said), "")
    return _shapes(name, found, first)


def _shapes(name: str, found: Array, first: Array) -> str:
    return f"output {name!r} is {list(np.shape(found))} where one call of the original gives {list(np.shape(first))}"
