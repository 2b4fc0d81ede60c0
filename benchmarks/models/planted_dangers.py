"""Small networks of a hundred nodes and more, each with one place that float16 cannot bear, and inputs that show it.

Sixteen residual blocks of a matrix product, a bias, a Relu and a second product do nothing that float16 minds. In the
middle stands what a network of that kind may hold: an energy of 1e5, a mask of the smallest float32, a layer
normalisation in parts on large inputs, an epsilon of 1e-12, a weight of 7e4, a sum over a million numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["DANGERS", "planted"]

WIDTH, ROWS, BLOCKS = 64, 24, 16
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass
class Net:
    """A graph that grows node by node; every node has a name with the module it belongs to."""

    seed: int
    nodes: list[ir.Node] = field(default_factory=list)
    weights: list[ir.Value] = field(default_factory=list)
    inputs: list[ir.Value] = field(default_factory=list)
    module: str = ""

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def weight(self, array: Any) -> ir.Value:
        """Add a constant."""
        tensor = ir.tensor(np.asarray(array), name=f"{self.module}.weight{len(self.weights)}")
        self.weights.append(
            ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        )
        return self.weights[-1]

    def matrix(self, rows: int, columns: int, gain: float = 1.0) -> ir.Value:
        """Add a matrix that keeps the size of what it multiplies."""
        return self.weight((gain * self.random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32))

    def number(self, value: float) -> ir.Value:
        """Add one number."""
        return self.weight(np.array(value, np.float32))

    def add(self, operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Add a node; return its output."""
        name = f"/{self.module.replace('.', '/')}/{operator}_{len(self.nodes)}"
        node = ir.node(operator, list(inputs), attributes, name=name)
        node.metadata_props["enginery.module"] = self.module
        node.outputs[0].name = f"{name}_out"
        self.nodes.append(node)
        return node.outputs[0]

    def block(self, number: int, x: ir.Value) -> ir.Value:
        """Add a residual block: seven nodes."""
        self.module = f"blocks.{number}"
        h = self.add("MatMul", x, self.matrix(WIDTH, 2 * WIDTH))
        h = self.add("Relu", self.add("Add", h, self.weight(np.full(2 * WIDTH, 0.1, np.float32))))
        h = self.add("Add", self.add("MatMul", h, self.matrix(2 * WIDTH, WIDTH, 0.3)), self.number(0.01))
        return self.add("Mul", self.add("Add", x, h), self.number(0.96))


def activation(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """An energy of some 1e5 that is turned round and scaled back."""
    del feeds
    high = net.add("Mul", x, net.number(5e4))
    turned = net.add("Transpose", high, perm=[1, 0])
    low = net.add("Mul", turned, net.number(2e-5))
    return net.add("Transpose", low, perm=[1, 0])


def mask(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """Attention with a bias by distance, and a mask of the smallest float32; one row has nothing to look at."""
    rows = x.shape
    del rows
    tokens = ir.Value(name="tokens", shape=ir.Shape([ROWS, ROWS]), type=ir.TensorType(ir.DataType.FLOAT))
    net.inputs.append(tokens)
    feeds["tokens"] = np.tril(np.ones((ROWS, ROWS), np.float32))
    feeds["tokens"][3] = 0
    away = np.abs(np.subtract.outer(np.arange(ROWS), np.arange(ROWS))).astype(np.float32)
    query, key = (net.add("MatMul", x, net.matrix(WIDTH, WIDTH)) for _ in range(2))
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[1, 0]))
    scores = net.add("Add", net.add("Mul", scores, net.number(WIDTH**-0.5)), net.weight(-2 * away))
    hidden = net.add("Mul", net.add("Sub", net.number(1.0), tokens), net.number(float(np.finfo(np.float32).min)))
    scores = net.add("Softmax", net.add("Add", scores, hidden), axis=-1)
    return net.add("Add", x, net.add("MatMul", scores, net.add("MatMul", x, net.matrix(WIDTH, WIDTH))))


def layer_norm(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """A layer normalisation in parts on inputs of some hundreds: their squares exceed 65504."""
    del feeds
    large = net.add("Mul", x, net.number(400.0))
    return normalise(net, large, 1e-5)


def normalise(net: Net, x: ir.Value, epsilon: float) -> ir.Value:
    """Add a layer normalisation in parts, as exporters write it."""
    axes = net.weight(np.array([-1], np.int64))
    centred = net.add("Sub", x, net.add("ReduceMean", x, axes))
    squares = net.add("ReduceMean", net.add("Pow", centred, net.number(2.0)), axes)
    return net.add("Div", centred, net.add("Sqrt", net.add("Add", squares, net.number(epsilon))))


def epsilon(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """A layer normalisation whose epsilon float16 takes for 0; one row is padding, the same number everywhere."""
    own = ir.Value(name="kept", shape=ir.Shape([ROWS, 1]), type=ir.TensorType(ir.DataType.FLOAT))
    net.inputs.append(own)
    feeds["kept"] = np.ones((ROWS, 1), np.float32)
    feeds["kept"][5] = 0
    return normalise(net, net.add("Mul", x, own), 1e-12)


def weight(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """A matrix with one weight of 7e4, for a feature that is small."""
    del feeds
    matrix = np.eye(WIDTH, dtype=np.float32)
    matrix[7, 7] = 7e4
    small = np.ones(WIDTH, np.float32)
    small[7] = 1e-3
    back = np.ones(WIDTH, np.float32)
    back[7] = 0.2
    x = net.add("MatMul", net.add("Mul", x, net.weight(small)), net.weight(matrix))
    return net.add("Mul", x, net.weight(back))


def accumulation(net: Net, x: ir.Value, feeds: Arrays) -> ir.Value:
    """A mean over a million numbers, as a sum and a product."""
    del feeds
    columns = 1_000_000 // ROWS + 1
    wide = net.add("Relu", net.add("MatMul", x, net.matrix(WIDTH, columns, 2.0)))
    total = net.add("ReduceSum", wide, net.weight(np.array([0, 1], np.int64)))
    mean = net.add("Mul", total, net.number(1 / (ROWS * columns)))
    return net.add("Add", x, mean)


DANGERS: Mapping[str, Callable[[Net, ir.Value, Arrays], ir.Value]] = {
    "activation of 1e5": activation,
    "softmax mask of finfo.min": mask,
    "layer norm in parts": layer_norm,
    "epsilon of 1e-12": epsilon,
    "weight of 7e4": weight,
    "sum over 1e6 elements": accumulation,
}
"""What is planted, by name: adds its nodes to a network, and its inputs to the feeds."""


def planted(name: str, seed: int = 0) -> tuple[ir.Model, Arrays]:
    """Return a network with one danger in its middle, and inputs that show it.

    Args:
        name: of `DANGERS`.
        seed: of weights and inputs.
    """
    net = Net(seed)
    first = ir.Value(name="x", shape=ir.Shape([ROWS, WIDTH]), type=ir.TensorType(ir.DataType.FLOAT))
    net.inputs.append(first)
    feeds: Arrays = {"x": net.random.standard_normal((ROWS, WIDTH)).astype(np.float32)}
    x = first
    for number in range(BLOCKS):
        if number == BLOCKS // 2:
            net.module = "danger"
            x = DANGERS[name](net, x, feeds)
        x = net.block(number, x)
    x.name, x.type, x.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([ROWS, WIDTH])
    graph = ir.Graph(net.inputs, [x], nodes=net.nodes, initializers=net.weights, opset_imports={"": 18}, name="planted")
    return ir.Model(graph, ir_version=10), feeds
