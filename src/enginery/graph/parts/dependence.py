"""What a tensor's contents and its size depend on: on data, or only on the sizes of the graph's inputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.graph.base import subgraphs
from enginery.graph.passes.base import is_op, is_random

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Dependence", "captured", "made_in", "nested_graphs", "reads", "shape_operands", "study"]

_SIZED_BY_DATA = ("Compress", "NonMaxSuppression", "NonZero", "StringSplit", "TfIdfVectorizer", "Unique")
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_SHAPE_OPERANDS: dict[str, tuple[int, ...]] = {
    "AffineGrid": (1,), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Col2Im": (1, 2), "ConstantOfShape": (0,),
    "DFT": (1,), "Expand": (1,), "HammingWindow": (0,), "HannWindow": (0,), "MaxUnpool": (2,), "OneHot": (1,),
    "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "Squeeze": (1,), "STFT": (1, 3), "Tile": (1,), "TopK": (1,), "Unsqueeze": (1,), "Upsample": (1,),
    **{f"Reduce{name}": (1,) for name in _REDUCTIONS},
}  # fmt: skip
_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Dependence:
    """What is known of the values of a graph.

    Args:
        sized_by_inputs: values whose contents follow from constants and from the sizes of the inputs alone, such as
            what `Shape` and arithmetic on it make.
        sized_by_data: values whose size depends on what the inputs hold, such as what `NonZero` makes.
    """

    sized_by_inputs: frozenset[ir.Value]
    sized_by_data: frozenset[ir.Value]

    def is_fixed(self, value: ir.Value | None) -> bool:
        """Say whether a value is missing, a constant, or follows from the sizes of the inputs."""
        return value is None or value.is_initializer() or value in self.sized_by_inputs


def reads(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return every value that a node reads, each once: its inputs, and what its subgraphs capture."""
    return tuple(dict.fromkeys((*(value for value in node.inputs if value is not None), *captured(node))))


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values from around a node that its subgraphs read."""
    graphs = list(nested_graphs(node))
    if not graphs:
        return
    own = {value for graph in graphs for value in made_in(graph)}
    for graph in graphs:
        read = (value for inner in graph for value in inner.inputs)
        yield from (value for value in (*read, *graph.outputs) if value is not None and value not in own)


def shape_operands(node: ir.Node) -> tuple[ir.Value, ...]:
    """Return the inputs of a node whose contents decide the size of what it makes, such as Reshape's second."""
    places = _SHAPE_OPERANDS.get(node.op_type, ()) if not node.domain else ()
    found = (node.inputs[at] for at in places if at < len(node.inputs))
    return tuple(value for value in found if value is not None)


def study(graph: ir.Graph) -> Dependence:
    """Find out for every value of a graph whose nodes are in order and whose shapes were inferred.

    In doubt, such as for an operator that is not ONNX's own and whose output has a size that no input names, the size
    is taken to depend on data.
    """
    symbols = {
        name
        for value in graph.inputs
        for dim in value.shape or ()
        if not isinstance(dim, int) and dim.value
        for name in _SYMBOL.findall(dim.value)
    }
    known: set[ir.Value] = set()
    by_data: set[ir.Value] = set()
    for node in graph:
        if _follows_from_sizes(node, known, by_data):
            known.update(node.outputs)
        by_data.update(
            value for value in node.outputs if not _is_named(value, symbols) and _sized_by_data(node, known, by_data)
        )
    return Dependence(frozenset(known), frozenset(by_data))


def _follows_from_sizes(node: ir.Node, known: set[ir.Value], by_data: set[ir.Value]) -> bool:
    if is_op(node, "Shape", "Size"):
        return node.inputs[0] not in by_data
    if node.domain or is_random(node) or subgraphs(node):
        return False
    return all(value is None or value.is_initializer() or value in known for value in node.inputs)


def _sized_by_data(node: ir.Node, known: set[ir.Value], by_data: set[ir.Value]) -> bool:
    if all(value in known for value in node.outputs):
        return False
    if is_op(node, *_SIZED_BY_DATA) or subgraphs(node):
        return True
    if node.domain:  # where not even the rank is known, a cut says so
        return any(value.shape is not None for value in node.outputs)
    if any(not (value.is_initializer() or value in known) for value in shape_operands(node)):
        return True
    return any(value in by_data for value in node.inputs if value is not None)


def _is_named(value: ir.Value, symbols: set[str]) -> bool:
    """Say whether every dimension is a number, or made of names that the inputs give sizes to."""
    if value.shape is None:
        return False
    return all(
        isinstance(dim, int) or bool(dim.value and symbols.issuperset(_SYMBOL.findall(dim.value)))
        for dim in value.shape
    )


def nested_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs in a node's attributes, and those in their nodes."""
    for graph in subgraphs(node):
        yield graph
        for inner in graph:
            yield from nested_graphs(inner)


def made_in(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values that a graph has of its own, those of its nodes' bodies left out."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
