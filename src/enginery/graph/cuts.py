"""A graph cut between two of its nodes: what crosses a cut, and the models that stand before, behind and between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from enginery.graph.base import module_path, subgraphs
from enginery.graph.bodies import calls, has_body
from enginery.graph.infer import infer_shapes
from enginery.graph.parts.dependence import reads, shape_operands, study
from enginery.graph.parts.extract import extract, working_copy
from enginery.records import NodeRecord

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.graph.bodies import Run

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

__all__ = ["Cuts"]


class Cuts:
    """The places where a graph can be cut in two, in the order of its nodes.

    Place 0 stands before the first node, place n behind the n-th. A tensor crosses a place where a node before it
    makes the tensor and a node behind it, or the caller, reads it. Sizes that follow from the sizes of the inputs
    alone do not count: whatever stands behind a cut computes them again.

    Args:
        model: the graph; it is not changed, and shares its weights.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {a = Neg(x) b = Abs(x)'
        >>> cuts = Cuts(ir.from_onnx_text(text + " y = Add(a, b)}"))
        >>> cuts.places, cuts.crossing(1), cuts.crossing(2)
        ((0, 1, 2, 3), ('a',), ('a', 'b'))
    """

    def __init__(self, model: ir.Model) -> None:
        self._work, _ = working_copy(model)
        graph = self._work.graph
        self.nodes = tuple(graph)
        self._values = {value.name or "": value for node in self.nodes for value in node.outputs if value.name}
        self._inputs = {value.name or "": value for value in graph.inputs}
        self._sizes = study(graph).sized_by_inputs
        self._made = {value: at for at, node in enumerate(self.nodes) for value in node.outputs}
        self._read = {value: at for at, node in enumerate(self.nodes) for value in reads(node)}
        self._read |= dict.fromkeys(graph.outputs, len(self.nodes))
        self.places = tuple(at for at in range(len(self.nodes) + 1) if all(map(_is_tensor, self._crossing(at))))

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors that its nodes make."""
        return frozenset(self._values)

    def crossing(self, place: int) -> tuple[str, ...]:
        """Name the tensors that cross a place; behind the last node, these are the outputs."""
        return tuple(value.name or "" for value in self._crossing(place))

    def sizes_crossing(self, place: int) -> tuple[str, ...]:
        """Name the sizes that cross a place, and what else says shapes to a node behind it."""
        shapes = {value for node in self.nodes[place:] for value in shape_operands(node)}
        found = [v for v in self._made if self._crosses(v, place) and (v in self._sizes or v in shapes)]
        return tuple(value.name or "" for value in found if _is_tensor(value))

    def part(self, inputs: Iterable[str], outputs: Sequence[str]) -> ir.Model:
        """Return the model that makes some tensors of others; it reads the graph's inputs where it needs them.

        Args:
            inputs: names of tensors that are given; those that are not needed are left out.
            outputs: names of tensors to make, none of them among the inputs.
        """
        given, needed = set(inputs), dict[str, None]()
        waiting, seen = [self._values[name] for name in outputs], set[Any]()
        while waiting:
            value = waiting.pop()
            name, maker = value.name or "", value.producer()
            if name in given or name in self._inputs:
                needed[name] = None
            elif maker is not None and maker not in seen:
                seen.add(maker)
                waiting.extend(reads(maker))
        ordered = [name for name in (*self._inputs, *self._values) if name in needed]
        return extract(self._work, self._work.graph.name or "graph", ordered, outputs)

    def window(
        self, place: int, outputs: Sequence[str], given: Mapping[str, Array], sizes: Mapping[str, Array]
    ) -> ir.Model:
        """Return the model that makes tensors of what crosses a place, with the sizes of one call.

        Args:
            place: where it begins.
            outputs: names of tensors to make.
            given: what crosses the place, and the inputs of the graph, in that call. An array of another element type
                than the graph's is cast inside, so that the model takes and gives what was recorded.
            sizes: the sizes that cross, which become constants.
        """
        model = self.part([*self.crossing(place), *sizes], outputs)
        graph = model.graph
        for value in list(graph.inputs):
            name = value.name or ""
            if name in sizes and name not in self._inputs:
                _make_constant(graph, value, sizes[name])
            else:
                _fix_input(graph, value, given[name])
        for node in graph:
            for value in node.outputs:
                value.shape = None
        infer_shapes(model)
        return model

    def describe(self, start: int, stop: int, outputs: Iterable[str] = ()) -> tuple[NodeRecord, ...]:
        """Describe the nodes between two places; with `outputs`, only those that these tensors need."""
        wanted = {self._values[name] for name in outputs}
        found = []
        for node in reversed(self.nodes[start:stop]):
            if not wanted or not wanted.isdisjoint(node.outputs):
                wanted.update(reads(node) if wanted else ())
                found.append(_record(node))
        return tuple(reversed(found))

    def reading(self, place: int) -> tuple[str, ...]:
        """Name the tensors, but for weights, that the last node before a place reads; none where it has no body."""
        node = self.nodes[place - 1]
        names = (value.name or "" for value in reads(node) if not value.is_initializer())
        return tuple(names) if has_body(node) else ()

    def calls(self, place: int, known: Mapping[str, Array], run: Run) -> Iterator[tuple[str, Cuts, Arrays]]:
        """Yield the calls of the body of the last node before a place; see `enginery.graph.bodies.calls`."""
        for where, model, feeds in calls(self.nodes[place - 1], self._work, known, run):
            yield where, Cuts(model), feeds

    def _crossing(self, place: int) -> list[ir.Value]:
        return [v for v in self._made if self._crosses(v, place) and (v not in self._sizes or v.is_graph_output())]

    def _crosses(self, value: ir.Value, place: int) -> bool:
        return self._made[value] < place <= self._read.get(value, -1)


def _record(node: ir.Node) -> NodeRecord:
    inner = tuple(inner.name or inner.op_type for graph in subgraphs(node) for inner in graph)
    return NodeRecord(node.name or "", node.op_type, node.domain, module_path(node), inner)


def _is_tensor(value: ir.Value) -> bool:
    import onnx_ir as ir

    return bool(value.name) and isinstance(value.type, ir.TensorType)


def _make_constant(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    import onnx_ir as ir

    graph.inputs.remove(value)
    value.const_value = ir.tensor(array, name=value.name)
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)


def _fix_input(graph: ir.Graph, value: ir.Value, array: Array) -> None:
    """Give an input the sizes of an array, and its element type by a Cast where that is another one."""
    import onnx_ir as ir

    value.shape = ir.Shape(array.shape)
    dtype = ir.DataType.from_numpy(array.dtype)
    if value.dtype in (None, dtype):
        return
    cast = ir.node("Cast", [value], {"to": value.dtype}, name=f"{value.name}/cast")
    cast.outputs[0].type = value.type
    cast.outputs[0].name = f"{value.name}/typed"
    for use in list(value.uses()):
        if use.node is not cast:
            use.node.replace_input_with(use.idx, cast.outputs[0])
    graph.insert_before(graph[0], cast)
    value.type = ir.TensorType(dtype)
