"""Writes random nodes into a graph or a subgraph of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SHAPE", "Kind", "Writer"]

SHAPE = (4, 4)


class Writer:
    """Holds the nodes of one graph as they are drawn.

    Args:
        random: all choices come from it.
        opset: of the graph.
        inner: the kinds of nodes that a subgraph may hold.
        outer: the writer of the graph around a subgraph.
    """

    def __init__(self, random: Random, opset: int, inner: Sequence[Kind], outer: Writer | None = None) -> None:
        self.random, self.opset, self.inner, self.outer = random, opset, inner, outer
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.known: list[str] = []
        self.more_outputs: list[onnx.ValueInfoProto] = []
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.root: Writer = self if outer is None else outer.root
        self.functions: list[onnx.FunctionProto] = []
        self.count = 0

    def name(self, stem: str = "v") -> str:
        """Return a name that nothing has yet."""
        self.root.count += 1
        return f"{stem}{self.root.count}"

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Add a node; return the name of its first output. Some nodes have no name, and most some metadata."""
        made = [self.name() for _ in range(outputs)]
        name = "" if self.random.random() < 0.2 else f"{op.lower()}_{made[0]}"
        node = helper.make_node(op, inputs, made, name=name, **attributes)
        if name:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', 'part', '{name}']")
        self.nodes.append(node)
        return made[0]

    def last_outputs(self) -> list[str]:
        """Return the names of all outputs of the node that was added last."""
        return list(self.nodes[-1].output)

    def pick(self) -> str:
        """Return a matrix that is known here: of this graph, or captured from one around it."""
        writers = [self]
        while writers[-1].outer is not None:
            writers.append(writers[-1].outer)
        return self.random.choice([name for writer in writers for name in writer.known])

    def weight(self, array: Any, dtype: Any = np.float32, place: int | None = None) -> str:
        """Return a constant: a Constant node's (place 0), an initializer of this graph (1), or of the outermost (2)."""
        array, place = np.asarray(array, dtype), self.random.randrange(3) if place is None else place
        if place == 0:
            return self.node("Constant", [], value=numpy_helper.from_array(array))
        owner = self if place == 1 else self.root
        owner.tensors.append(numpy_helper.from_array(array, self.name("w")))
        return owner.tensors[-1].name

    def shared(self, name: str) -> str:
        """Add a matrix of weights that all may read; return its name."""
        self.tensors.append(numpy_helper.from_array(self.matrix(), name))
        return name

    def matrix(self, scale: float = 0.5) -> np.ndarray[Any, Any]:
        """Return a matrix of random weights."""
        generator = np.random.default_rng(self.random.randrange(1 << 16))
        return (generator.standard_normal(SHAPE) * scale).astype(np.float32)

    def body(self, inputs: Sequence[onnx.ValueInfoProto], states: int, write: Callable[[Writer], None]) -> Any:
        """Return a subgraph: `write` fills a writer, whose last `states` known matrices are the outputs."""
        inner = Writer(self.random, self.opset, self.inner, self)
        write(inner)
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in inner.known[-states:]]
        outputs = [*inner.more_outputs, *ends]
        return helper.make_graph(inner.nodes, self.name("body"), inputs, outputs, initializer=inner.tensors)


Kind = Callable[[Writer], str]
