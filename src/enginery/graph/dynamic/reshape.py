"""A Reshape whose sizes were written down: where the axis that varies went, and sizes that follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.dynamic.edit import Blocked, Editor
from enginery.graph.dynamic.facts import PROBES, Array, Fact

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["mend_reshape"]


@dataclass(frozen=True)
class _Place:
    """Where one varying axis of the input went.

    Args:
        axis: of the input.
        place: of the output.
        outer: how many rows stand before the varying part within the output's axis.
    """

    axis: int
    place: int
    outer: int


def mend_reshape(node: ir.Node, edit: Editor) -> str:
    """Let the sizes of a Reshape follow the axis: 0 where it stays in place, else -1, else computed.

    The elements keep their order, so the number of them before the varying part says which output axis it is in. Of
    several, one that keeps it apart is taken, else not the last, which holds features, and else one that leaves it in
    its place; the numbers are compared later.

    Raises:
        Blocked: no output axis can hold it, or the sizes cannot be written.
    """
    source, target = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if source is None or target is None:
        return ""
    fact, sizes = edit.facts.of(source), edit.facts.of(target)
    written = sizes.data[0]
    if not fact.known or written is None:
        return ""
    keeps_zero = bool(node.attributes.get_int("allowzero", 0))
    made = [_resolve(at, shape, keeps_zero=keeps_zero) for at, shape in zip(sizes.data, fact.shapes, strict=True)]
    follows = any(at is None or not np.array_equal(written, at) for at in sizes.data[1:PROBES])
    if made[0] is None or (follows and None not in made):
        return ""
    places = [_place(fact, axis, edit, made[0], written.tolist()) for axis in fact.varying()]
    wanted = _wanted(fact, made[0], places)
    said = ""
    if made[:PROBES] != wanted:
        still = [all(at is not None and at[i] == size for at in sizes.data) for i, size in enumerate(written)]
        new = _Sizes(node, edit, fact, written.tolist(), still, made, wanted, places, keeps_zero)
        shown = new.shown()
        node.replace_input_with(1, new.written(target))
        said = f"sizes {written.tolist()} are now {shown}"
    edit.outer[node.outputs[0]] = places[0].outer if len(places) == 1 else 1
    return said


def _resolve(target: Array | None, shape: Sequence[int | None] | None, *, keeps_zero: bool) -> list[int] | None:
    """Return the sizes that a Reshape makes of a shape; None where it cannot."""
    if target is None or shape is None:
        return None
    given = [size or 0 for size in shape]
    found = [int(size) for size in target]
    if not keeps_zero:
        found = [given[i] if size == 0 and i < len(given) else size for i, size in enumerate(found)]
    rest = math.prod(size for size in found if size != -1)
    total = math.prod(given)
    if -1 in found:
        if rest == 0 or total % rest:
            return None
        found[found.index(-1)] = total // rest
    return found if math.prod(found) == total else None


def _place(fact: Fact, axis: int, edit: Editor, made: list[int], written: Sequence[int]) -> _Place:
    """Find the output axis that holds a varying axis of the input."""
    before = [size or 0 for size in fact.shapes[0] or ()]
    own = fact.dim(axis)
    ratio = edit.ratio(own[:PROBES])
    outer = fact.outer if before[axis] % fact.outer == 0 else 1
    unit = edit.sizes[0] if ratio is not None and before[axis] // outer % edit.sizes[0] == 0 else before[axis] // outer
    passed = math.prod(before[:axis]) * outer
    found = []
    for place, size in enumerate(made):
        front = math.prod(made[:place])
        if front and passed % front == 0 and size and size % (passed // front * unit) == 0:
            stays = place == axis and made[:place] == before[:axis]
            merged = size // unit
            last, moved = merged > 1 and place == len(made) - 1, stays != edit.keep_in_place
            order = (merged > 1, last, moved if merged > 1 else not stays, merged, written[place] != -1)
            found.append((order, place, passed // front))
    if not found:
        shown = f"{before} to {made}"
        raise Blocked(f"it reshapes {shown}, where axis {axis} does not stay whole")
    order, place, inner = min(found)
    edit.had_choice |= len(found) > 1 and order[0]
    return _Place(axis, place, inner)


def _wanted(fact: Fact, made: list[int], places: Sequence[_Place]) -> list[list[int]]:
    """Return the output's sizes at every probe of the axis."""
    wanted = []
    for number in range(PROBES):
        sizes = [Fraction(size) for size in made]
        for one in places:
            dim = fact.dim(one.axis)
            sizes[one.place] *= Fraction(dim[number] or 0, dim[0] or 1)
        wanted.append([int(size) for size in sizes])
    return wanted


@dataclass(frozen=True)
class _Sizes:
    """Writes the sizes of one Reshape anew.

    Args:
        node: the Reshape.
        edit: makes the changes.
        fact: of what is reshaped.
        old: the sizes at the first probe.
        still: which of them are constant.
        made: the output's sizes at every probe as they are; None where they cannot be.
        wanted: the output's sizes at the probes of the axis as they should be.
        places: where the varying axes went.
        keeps_zero: whether 0 means 0, and not the input's own size.
    """

    node: ir.Node
    edit: Editor
    fact: Fact
    old: list[int]
    still: list[bool]
    made: list[list[int] | None]
    wanted: list[list[int]]
    places: list[_Place]
    keeps_zero: bool

    def entries(self) -> list[int | Fraction | None]:
        """Return each size: a number, a multiple of the dynamic axis, or None for what is computed already."""
        new: list[int | Fraction | None] = [
            size if still else None for size, still in zip(self.old, self.still, strict=True)
        ]
        copied = {one.place for one in self.places if self._copies(one)}
        for place in copied:
            new[place] = 0
        rest = sorted({one.place for one in self.places} - copied)
        if -1 in new and rest and (free := new.index(-1)) not in rest and self._fixed(free):
            new[free] = self.wanted[0][free]
        for place in rest:
            if new[place] != -1 and not (new[place] == 0 and not self.keeps_zero):
                new[place] = -1 if -1 not in new else self._ratio(place)
        return new

    def written(self, target: ir.Value) -> ir.Value:
        """Return the new sizes as a constant, or as what computes them from an input and the old ones."""
        entries = self.entries()
        numbers = [entry for entry in entries if isinstance(entry, int)]
        if len(numbers) == len(entries):
            return self.edit.constant(self.node, np.array(numbers, np.int64), "sizes")
        parts = [self._part(place, entry, target) for place, entry in enumerate(entries)]
        return self.edit.insert(self.node, "Concat", parts, "sizes", axis=0)

    def shown(self) -> str:
        """Show the new sizes in a text."""
        return f"[{', '.join(self._shown(entry) for entry in self.entries())}]"

    def _shown(self, entry: int | Fraction | None) -> str:
        if isinstance(entry, int) or entry is None:
            return "?" if entry is None else str(entry)
        return self.edit.name if entry == 1 else f"{entry}*{self.edit.name}"

    def _part(self, place: int, entry: int | Fraction | None, target: ir.Value) -> ir.Value:
        if isinstance(entry, int):
            return self.edit.constant(self.node, np.array([entry], np.int64), "size")
        if entry is not None:
            return self.edit.size(self.node, entry)
        index = self.edit.constant(self.node, np.array([place]), "place")
        return self.edit.insert(self.node, "Gather", [target, index], "old_size", axis=0)

    def _copies(self, one: _Place) -> bool:
        """Say whether an output axis is the input's axis at the same place."""
        alone = sum(1 for other in self.places if other.place == one.place) == 1
        same = self.wanted[0][one.place] == self.fact.dim(one.axis)[0]
        return one.place == one.axis and alone and same and not self.keeps_zero

    def _fixed(self, place: int) -> bool:
        """Say whether a size that was left open comes out the same whatever other axes are."""
        first = self.made[0] or []
        return all(at is not None and at[place] == first[place] for at in self.made[PROBES:])

    def _ratio(self, place: int) -> Fraction:
        ratio = self.edit.ratio([sizes[place] for sizes in self.wanted])
        if ratio is None:
            raise Blocked(f"two of its sizes {self.old} would have to be computed")
        return ratio
