"""A graph cut in parts for two backends: the largest pieces that the main one takes, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from enginery.graph.base import Part, Partition
from enginery.graph.parts.dependence import Dependence, reads, shape_operands, study
from enginery.graph.parts.extract import check_hand_over, extract, working_copy
from enginery.graph.parts.order import components, levels, predecessors

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MIN_NODES", "partition"]

MIN_NODES = 4
"""A piece of fewer nodes is not worth a hand-over, unless it holds one of the operators that take long."""

_LONG = frozenset({
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul",
    "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN",
})  # fmt: skip


def partition(model: ir.Model, supported: Callable[[ir.Node], bool], min_nodes: int = MIN_NODES) -> Partition:
    """Cut a graph into the fewest parts that alternate between two backends, and as many nodes as can be in the main.

    Parts alternate, and no order of parts of one kind each has fewer of them; every part is convex: no path leaves
    it and comes back. With ``min_nodes=1`` every supported node is in a part of the main backend, but for those
    that could not get what they need from another part:

    - a node whose output's size is computed (Reshape's shape) by a node of the rest;
    - a node that reads a tensor from the rest whose size depends on data, as behind NonZero: no profile holds it;
    - a node that hands over a sequence or an optional.

    Arithmetic on shapes is repeated in each part of the main backend that needs it, rather than handed over. A node
    with subgraphs (If, Loop, Scan) stays whole; what these capture becomes an input of its part.

    Args:
        model: the graph; it is not changed, and its weights are shared.
        supported: whether the main backend takes a node of the main graph. Nodes have names then, if need be new
            ones; Constant nodes are initializers.
        min_nodes: a connected piece of fewer nodes goes to the rest, unless it holds a convolution, a matrix product
            or another operator that takes long: handing over costs more than it saves. Giving a piece away never
            makes more parts.

    Returns:
        The parts; none for a graph without nodes.

    Raises:
        GraphError: the element type or the rank of a tensor at a cut is not known; the message names it.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) {a = Relu(x) y = Erf(a)}'
        >>> found = partition(ir.from_onnx_text(text), lambda node: node.op_type != "Erf", min_nodes=1)
        >>> [(part.main, part.inputs, part.outputs) for part in found.parts]
        [(True, ('x',), ('a',)), (False, ('a',), ('y',))]
    """
    work, reason = working_copy(model)
    plan = _Plan(work.graph, supported)
    plan.settle(min_nodes)
    return Partition(tuple(_parts(work, plan, reason)), {node.name or "": why for node, why in plan.moved.items()})


class _Plan:
    """Which nodes are the main backend's, while that is settled."""

    def __init__(self, graph: ir.Graph, supported: Callable[[ir.Node], bool]) -> None:
        self._reads = {node: reads(node) for node in graph}
        self.before = predecessors(self._reads)
        self.takes = {node: bool(supported(node)) for node in graph}
        self.main = dict(self.takes)
        self.moved: dict[ir.Node, str] = {}
        self.level = levels(self.before, self.main)
        self._dependence: Dependence = study(graph)
        self._copied: dict[ir.Value, tuple[ir.Node, ...] | None] = {}
        self._choosy = [node for node in graph if self.main[node] and self._may_be_misplaced(node)]

    def settle(self, min_nodes: int) -> None:
        """Give nodes to the rest until each that is left can have what it reads, and is worth its hand-overs."""
        while moved := self._misplaced() or self._islands(min_nodes):
            self.moved.update(moved)
            self.main.update(dict.fromkeys(moved, False))
            self.level = levels(self.before, self.main)

    def steps(self) -> list[list[ir.Node]]:
        """Return the nodes of each step, in the order of the graph."""
        found: list[list[ir.Node]] = [[] for _ in range(max(self.level.values(), default=-1) + 1)]
        for node, level in self.level.items():
            found[level].append(node)
        return found

    def copies(self, value: ir.Value) -> tuple[ir.Node, ...] | None:
        """Return the arithmetic on shapes that makes a value, where the main backend can repeat it; None where not."""
        if value not in self._copied:
            self._copied[value] = self._find_copies(value)
        return self._copied[value]

    def _find_copies(self, value: ir.Value) -> tuple[ir.Node, ...] | None:
        maker = value.producer()
        if maker is None or value not in self._dependence.sized_by_inputs or not self.takes[maker]:
            return None
        found: dict[ir.Node, None] = {}
        for read in () if maker.op_type in ("Shape", "Size") else self._reads[maker]:
            if read.producer() is not None:
                others = self.copies(read)
                if others is None:
                    return None
                found.update(dict.fromkeys(others))
        return (*found, maker)

    def _misplaced(self) -> dict[ir.Node, str]:
        """Return the nodes of the main backend that cannot have what they read where they are, with why."""
        found = {node: self._trouble(node) for node in self._choosy if self.main[node]}
        return {node: why for node, why in found.items() if why}

    def _may_be_misplaced(self, node: ir.Node) -> bool:
        """Say whether a node can be in trouble wherever the cuts are; most cannot, and are not looked at again."""
        import onnx_ir as ir

        return (
            any(value.type is not None and not isinstance(value.type, ir.TensorType) for value in self._around(node))
            or not self._dependence.sized_by_data.isdisjoint(self._reads[node])
            or any(not value.is_initializer() for value in shape_operands(node))
        )

    def _around(self, node: ir.Node) -> tuple[ir.Value, ...]:
        return (*self._reads[node], *node.outputs)

    def _trouble(self, node: ir.Node) -> str:
        import onnx_ir as ir

        for value in self._around(node):
            if value.type is not None and not isinstance(value.type, ir.TensorType) and self._is_cut(value, node):
                return f"{value.name!r} is no tensor, and is handed over"
        for value in self._reads[node]:
            if value in self._dependence.sized_by_data and self._is_from_outside(value, node):
                return f"the size of {value.name!r}, which is handed over, depends on data"
        for operand in shape_operands(node):
            if (root := self._outer_root(operand, node)) is not None:
                return f"the size of what it makes depends on {root.name!r}, which is handed over"
        return ""

    def _is_from_outside(self, value: ir.Value, node: ir.Node) -> bool:
        maker = value.producer()
        return maker is not None and self.level[maker] != self.level[node]

    def _is_cut(self, value: ir.Value, node: ir.Node) -> bool:
        """Say whether a value that a node reads or makes goes to another step, or comes from or to the caller."""
        if value.producer() is not node:
            return value.is_graph_input() or self._is_from_outside(value, node)
        readers = {reader for reader, others in self.before.items() if node in others and value in self._reads[reader]}
        return value.is_graph_output() or any(self.level[reader] != self.level[node] for reader in readers)

    def _outer_root(self, value: ir.Value, node: ir.Node) -> ir.Value | None:
        """Return what comes from another step and decides the contents of a value; None where nothing does."""
        seen: set[ir.Value] = set()
        left = [value]
        while left:
            one = left.pop()
            if one in seen or (self._dependence.is_fixed(one) and self.copies(one) is not None):
                continue
            seen.add(one)
            maker = one.producer()
            if maker is None:
                continue
            if self.level[maker] != self.level[node]:
                return one
            if maker.op_type not in ("Shape", "Size"):
                left.extend(self._reads[maker])
        return None

    def _islands(self, min_nodes: int) -> dict[ir.Node, str]:
        """Return the pieces of the first step with any that are not worth their hand-overs; empty where all are."""
        if all(self.main.values()):
            return {}
        for nodes in self.steps():
            pieces = components(nodes, self.before) if nodes and self.main[nodes[0]] else ()
            small = [piece for piece in pieces if len(piece) < min_nodes and not any(map(_takes_long, piece))]
            if small:
                return {node: _why_small(len(piece)) for piece in small for node in piece}
        return {}


def _why_small(count: int) -> str:
    said = "one node by itself is" if count == 1 else f"{count} nodes by themselves are"
    return f"{said} not worth handing over"


def _takes_long(node: ir.Node) -> bool:
    return node.op_type in _LONG


def _parts(work: ir.Model, plan: _Plan, reason: str) -> list[Part]:
    """Make the models, the last one first: what it reads, others have to make."""
    steps = plan.steps()
    needed = dict.fromkeys(work.graph.outputs)
    cuts = []
    for at in range(len(steps) - 1, -1, -1):
        nodes = steps[at]
        outputs = [value for node in nodes for value in node.outputs if value in needed]
        main = bool(nodes) and plan.main[nodes[0]]
        kept, cut = _close(outputs, set(nodes), plan, main=main)
        needed.update(dict.fromkeys(cut))
        if outputs:
            cuts.append((main, [node for node in nodes if node in kept], cut, outputs))
    found = []
    for at, (main, own, cut, outputs) in enumerate(reversed(cuts)):
        inputs = list(_in_order(work.graph, cut))
        for value in (*inputs, *outputs):
            if value.producer() is not None:
                check_hand_over(value, reason)
        names = tuple(node.name or "" for node in own)
        model = extract(
            work,
            f"{work.graph.name or 'graph'}_{at}",
            [value.name or "" for value in inputs],
            [value.name or "" for value in outputs],
        )
        found.append(Part(model, main, names))
    return found


def _close(
    outputs: list[ir.Value], own: set[ir.Node], plan: _Plan, *, main: bool
) -> tuple[set[ir.Node], dict[ir.Value, None]]:
    """Go back from a part's outputs to the nodes of its own that make them, past those it repeats, to what it reads."""
    kept: set[ir.Node] = set()
    copies: set[ir.Node] = set()
    cut: dict[ir.Value, None] = {}
    left = list(outputs)
    while left:
        value = left.pop()
        maker = value.producer()
        if maker is None:
            if value.is_graph_input():
                cut[value] = None
        elif maker in kept or maker in copies:
            continue
        elif maker in own:
            kept.add(maker)
            left.extend(reads(maker))
        elif main and plan.copies(value) is not None:
            copies.add(maker)
            left.extend(reads(maker))
        else:
            cut[value] = None
    return kept, cut


def _in_order(graph: ir.Graph, values: Mapping[ir.Value, None]) -> Iterator[ir.Value]:
    """Yield some values in the order of the graph: its inputs first."""
    yield from (value for value in graph.inputs if value in values)
    yield from (value for node in graph for value in node.outputs if value in values)
