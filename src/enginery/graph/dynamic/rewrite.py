"""Axes that a graph has fixed, made dynamic: what has the old size written into it is mended, and the result proved."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import all_graphs
from enginery.graph.dynamic.edit import Blocked, Editor
from enginery.graph.dynamic.facts import PROBES, Array, Fact, Facts
from enginery.graph.dynamic.mends import MENDS
from enginery.graph.dynamic.proof import prove
from enginery.graph.dynamic.refusal import Blocker, place_of, refuse
from enginery.graph.dynamic.request import DynamicAxes, read_dynamic
from enginery.graph.dynamic.runs import Evaluate, Proof
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.inline_functions import InlineFunctions
from enginery.graph.passes.sort_nodes import SortNodes
from enginery.graph.shapes import rename_symbols
from enginery.spec import Shape, as_shapes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_dynamic"]

_UNSIZED = 4
_MOST_SHOWN = 4
_READS_SHAPE = frozenset({"Shape", "Size"})


def make_dynamic(
    model: ir.Model,
    texts: Sequence[str],
    *,
    shapes: Mapping[str, Shape | str] | None = None,
    evaluate: Evaluate | None = None,
    examples: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a copy of a graph in which the axes asked for may have any size, and notes on what was changed.

    Operators that have the old size written into them are mended (`enginery.graph.dynamic.mends`): a Reshape's sizes,
    the end of a Slice, a constant that repeats one row for each sample, and more. With `evaluate`, the result is
    proved: it computes what the original does at the original size; along a first axis of every input, other sizes
    give each row what the original gives for it; along other axes it runs at two other sizes and the outputs' shapes
    are those that were inferred.

    Args:
        model: the graph; it is not changed, and shares its weights with the result.
        texts: each as ``NAME`` (the first axis of every input) or ``NAME=INPUT:AXIS,INPUT:AXIS``.
        shapes: profiles of the inputs; sizes are tried within them.
        evaluate: runs a graph on some inputs; None for no proof.
        examples: real inputs, used for the proof where they have the original size.

    Raises:
        UsageError: a text cannot be read, or does not fit the inputs.
        UnknownNameError: a text names no input.
        GraphError: the graph does not allow it; the message names the nodes, and what is fixed in them.

    Example:
        >>> import onnx_ir as ir
        >>> graph = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
        ... flat (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] sizes = {1, 6}> { y = Reshape(x, sizes) }''')
        >>> found, notes = make_dynamic(graph, ["batch"])
        >>> str(found.graph.outputs[0].shape), notes[0]
        ('[batch,6]', "'batch' is now dynamic: axis 0 of input 'x', which was 1")
    """
    groups, profiles = read_dynamic(model, texts), as_shapes(shapes)
    notes: list[str] = []
    current = model
    for group in groups:
        renamed = rename_symbols(current, dict.fromkeys(group.renamed, group.name))
        if group.size is None:
            current = _named(renamed, group)
            notes.append(f"{group.name!r} was dynamic already" + _before(group))
            continue
        current, said = _changed(renamed, group, profiles, evaluate, examples)
        notes += said
    return current, tuple(notes)


def _changed(
    model: ir.Model,
    group: DynamicAxes,
    shapes: Mapping[str, Shape],
    evaluate: Evaluate | None,
    examples: Mapping[str, Array] | None,
) -> tuple[ir.Model, list[str]]:
    """Make one name's axes dynamic; where a Reshape can be read in two ways, the second is tried after the first."""
    first = _Change(model, group, shapes)
    try:
        return _proved(first, evaluate, examples)
    except GraphError:
        if not first.had_choice:
            raise
        with contextlib.suppress(GraphError):  # the first reading is the likelier one, so its reasons are shown
            return _proved(_Change(model, group, shapes, keep_in_place=False), evaluate, examples)
        raise


def _proved(
    change: _Change, evaluate: Evaluate | None, examples: Mapping[str, Array] | None
) -> tuple[ir.Model, list[str]]:
    """Make one change and prove it; return the graph, what was done and what was proved."""
    change.apply()
    proof = Proof(change.original, change.model, change.group, change.facts, change.shapes, change.others)
    proved = prove(proof, evaluate, examples, change.blockers)
    return change.model, [*change.notes(), proved]


def _before(group: DynamicAxes) -> str:
    return f", as {', '.join(repr(name) for name in group.renamed)}" if group.renamed else ""


def _named(model: ir.Model, group: DynamicAxes) -> ir.Model:
    """Return a copy whose dynamic axes have the name."""
    copy = model.clone()
    _write_inputs(copy, group)
    return copy


def _write_inputs(model: ir.Model, group: DynamicAxes) -> None:
    import onnx_ir as ir

    for value in model.graph.inputs:
        here = {axis.index for axis in group.axes if axis.tensor == value.name}
        if here and value.shape is not None:
            value.shape = ir.Shape([group.name if i in here else dim for i, dim in enumerate(value.shape)])


@dataclass
class _Change:
    """One name's axes being made dynamic: the copy, what is known of it, what was mended, what stands in the way."""

    original: ir.Model
    group: DynamicAxes
    shapes: Mapping[str, Shape]
    keep_in_place: bool = True
    had_choice: bool = False
    mended: list[str] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = self.original.clone()
        for one in (InlineFunctions(), SortNodes()):
            if one.requires(self.model):
                one.apply(self.model)
        infer_shapes(self.model)
        self.others = _other_sizes(self.model, self.shapes)
        _write_inputs(self.model, self.group)
        self.facts = Facts(self.model, self._probes())

    def apply(self) -> None:
        """Mend node by node in their order, and write down the shapes that follow.

        Raises:
            GraphError: some nodes cannot be mended.
        """
        first = self.group.axes[0]
        edit = Editor(self.model, self.facts, self.group.name, first, keep_in_place=self.keep_in_place)
        for node in list(self.model.graph):
            self._step(node, edit)
        self.had_choice = edit.had_choice
        if any(blocker.certain for blocker in self.blockers):
            refuse(self.group, [blocker for blocker in self.blockers if blocker.certain])
        self._write_shapes()

    def notes(self) -> list[str]:
        """Say what was changed."""
        axes = ", ".join(str(axis) for axis in self.group.axes)
        shown = "; ".join(self.mended[:_MOST_SHOWN])
        more = len(self.mended) - _MOST_SHOWN
        nodes = f"{len(self.mended)} node{'s' if len(self.mended) != 1 else ''} mended"
        listed = f"{nodes}: {shown}" + (f"; and {more} more" if more > 0 else "")
        return [f"{self.group.name!r} is now dynamic: {axes}, which was {self.group.size}",
                listed if self.mended else "no node had the size written into it"]  # fmt: skip

    def _probes(self) -> list[dict[str, int]]:
        size = self.group.size or 1
        probes = [{**self.others, self.group.name: size * times} for times in range(1, PROBES + 1)]
        if self.others:
            probes.append({**{name: 2 * other for name, other in self.others.items()}, self.group.name: size})
        return probes

    def _step(self, node: ir.Node, edit: Editor) -> None:
        """Mend one node where it needs it, and find what becomes of its outputs."""
        mend = MENDS.get(node.op_type) if not node.domain else None
        if mend is not None and self.facts.moves(node):
            try:
                said = mend(node, edit)
            except Blocked as error:
                self.blockers.append(Blocker.of(node, str(error), certain=True))
                said = ""
            if said:
                self.mended.append(f"{place_of(node)}: {said}")
        problem = self.facts.learn(node)
        if node.outputs and node.outputs[0] in edit.outer:
            self.facts.set_outer(node.outputs[0], edit.outer[node.outputs[0]])
        blocked = bool(self.blockers) and self.blockers[-1].node is node
        if problem and not blocked:
            self.blockers.append(Blocker.of(node, f"at another size, {problem}", certain=True))
        elif not blocked and self._lost(node):
            self.blockers.append(Blocker.of(node, "its output does not follow", certain=False))

    def _lost(self, node: ir.Node) -> bool:
        """Say whether a node reads what follows the axis, and nothing that it writes does."""
        reads = any(value is not None and self.facts.of(value).varying() for value in node.inputs)
        writes = (self.facts.of(value) for value in node.outputs)
        return reads and node.op_type not in _READS_SHAPE and all(fact.known and not fact.moves for fact in writes)

    def _write_shapes(self) -> None:
        """Write what is known of every tensor's shape, and forget what is not known any more."""
        import onnx_ir as ir

        for node in self.model.graph:
            for value in node.outputs:
                value.shape = self._shape(self.facts.of(value), value.shape)
        main = self.model.graph
        for graph in all_graphs(self.model):
            if graph is not main:
                for value in (v for node in graph for v in node.outputs):
                    value.shape = None
                for value in graph.outputs:
                    value.shape = None
        for value in main.outputs:
            if value.shape is None and self.facts.of(value).shapes[0] is not None:
                value.shape = ir.Shape([None] * len(self.facts.of(value).shapes[0] or ()))

    def _shape(self, fact: Fact, before: ir.Shape | None) -> ir.Shape | None:
        import onnx_ir as ir

        first = fact.shapes[0]
        if first is None or any(shape is None or len(shape) != len(first) for shape in fact.shapes):
            return None
        old = list(before) if before is not None and len(before) == len(first) else [None] * len(first)
        return ir.Shape([self._dim(fact.dim(axis), old[axis]) for axis in range(len(first))])

    def _dim(self, dim: Sequence[int | None], before: int | ir.SymbolicDim | None) -> int | str | None:
        """Return a size, a name, a multiple of the new name, or None for what is computed otherwise."""
        if None not in dim and len(set(dim)) == 1:
            return dim[0]
        own = [probe[self.group.name] for probe in self.facts.probes]
        if None not in dim:
            times, rest = divmod(dim[0] or 0, own[0])
            if not rest and all((size or 0) == times * at for size, at in zip(dim, own, strict=True)):
                return self.group.name if times == 1 else f"{times}*{self.group.name}"
        still = len(set(dim[:PROBES])) == 1
        return before.value if still and before is not None and not isinstance(before, int) else None


def _other_sizes(model: ir.Model, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return a size for every symbolic name that the inputs have: that of its profile, else a small one."""
    sizes: dict[str, int] = {}
    for value in model.graph.inputs:
        profile = shapes.get(value.name or "")
        for index, dim in enumerate(value.shape or ()):
            if isinstance(dim, int) or not dim.value:
                continue
            given = profile.dims[index].opt if profile is not None and index < len(profile.dims) else None
            sizes[dim.value] = given or sizes.get(dim.value, _UNSIZED)
    return sizes
