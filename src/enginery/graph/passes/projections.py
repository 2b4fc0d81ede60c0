"""Products of a tensor with constant weights, and what they are read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.passes.base import constant_value, is_op, only_reader

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Behind", "Projection", "projection_after", "projection_of"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_RANK = 3
_MATRIX = 2
_MOVES = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Projection:
    """``x W + b`` of a tensor x of rank 3, perhaps transposed before.

    Args:
        source: what is multiplied.
        origin: x: the source, or what it is the transpose of.
        order: how x is transposed to the source; None where it is not.
        weights: W, of shape (rows, columns).
        bias: b; None where there is none.
        node: whose output is the result.
        is_plain: whether it is a MatMul of x itself, and an Add.
    """

    source: ir.Value
    origin: ir.Value
    order: tuple[int, ...] | None
    weights: Array
    bias: Array | None
    node: ir.Node
    is_plain: bool

    @property
    def rows(self) -> int:
        """How wide a row of x is."""
        return int(self.weights.shape[0])

    @property
    def columns(self) -> int:
        """How wide a row of the result is."""
        return int(self.weights.shape[1])

    def counted(self, probe: tuple[int, int]) -> Array | None:
        """Return counted numbers in the shape of x W: known sizes as they are, others from `probe`."""
        shape = self.origin.shape
        if shape is None or len(shape) != _RANK or shape[2] != self.rows:
            return None
        sizes = [size if isinstance(size, int) else other for size, other in zip(tuple(shape)[:2], probe, strict=True)]
        return np.arange(sizes[0] * sizes[1] * self.columns).reshape(*sizes, self.columns)

    def known(self, counted: Array) -> dict[ir.Value, Array]:
        """Return what each tensor around holds where x W holds these numbers."""
        x = np.zeros((*counted.shape[:2], self.rows), np.int8)
        if self.order is None:
            return {self.node.outputs[0]: counted, self.origin: x}
        return {
            self.node.outputs[0]: counted.transpose(self.order),
            self.origin: x,
            self.source: x.transpose(self.order),
        }

    def write(self, tape: Any, columns: slice, source: ir.Value | None = None, *, factor: float = 1.0) -> ir.Value:
        """Write ``x W + b`` times a factor for some of the columns as a MatMul and an Add; return the result."""
        import onnx_ir as ir

        def constant(array: Array) -> ir.Value:
            scaled = array if factor == 1 else (array * factor).astype(array.dtype)
            value: ir.Value = tape.op("Constant", [], {"value": ir.tensor(np.ascontiguousarray(scaled))})
            return value

        given = self.origin if source is None else source
        result: ir.Value = tape.op("MatMul", [given, constant(self.weights[:, columns])])
        if self.bias is None:
            return result
        added: ir.Value = tape.op("Add", [result, constant(self.bias[columns])])
        return added


@dataclass(frozen=True)
class Behind:
    """A projection that a tensor is moved to.

    Args:
        projection: its source comes from the tensor.
        first: the node that reads the tensor.
        result: the projection's result, moved as long as only one node reads it.
        is_straight: whether there is but one Transpose and one Reshape before, and nothing behind.
    """

    projection: Projection
    first: ir.Node
    result: ir.Value
    is_straight: bool


def projection_of(value: ir.Value) -> Iterator[Projection]:
    """Yield the ways to see a tensor as a projection: of what is multiplied, then of what that is the transpose of."""
    found = _projection(value)
    if found is None:
        return
    yield found
    before = found.source.producer()
    if before is None or not is_op(before, "Transpose") or before.inputs[0] is None:
        return
    order = tuple(before.attributes.get_ints("perm", ()))
    if len(order) == _RANK and order[-1] == _RANK - 1:
        yield replace(found, origin=before.inputs[0], order=order, is_plain=False)


def projection_after(value: ir.Value) -> Behind | None:
    """Return the projection that a tensor goes to, by movements that nothing else reads."""
    before, source = _forward(value)
    node = only_reader(source)
    if node is None or not before or not is_op(node, "MatMul", "Gemm"):
        return None
    result = node.outputs[0]
    add = only_reader(result)
    if is_op(node, "MatMul") and add is not None and is_op(add, "Add"):
        result = add.outputs[0]
    found = _projection(result)
    if found is None or found.source is not source:
        return None
    after, end = _forward(result)
    straight = found.is_plain and not after and [node.op_type for node in before] == ["Transpose", "Reshape"]
    if end.is_graph_output():
        return None
    return Behind(found, before[0], end, straight and constant_value(before[1].inputs[1]) is not None)


def _projection(value: ir.Value) -> Projection | None:
    node = value.producer()
    if node is None:
        return None
    if is_op(node, "Gemm"):
        return _gemm(node)
    if is_op(node, "MatMul"):
        return _matmul(node, None, node)
    if not is_op(node, "Add"):
        return None
    for data, other in ((0, 1), (1, 0)):
        bias, given = constant_value(node.inputs[other]), node.inputs[data]
        product = None if given is None else given.producer()
        if bias is not None and bias.ndim == 1 and product is not None and is_op(product, "MatMul"):
            return _matmul(product, bias, node)
    return None


def _matmul(node: ir.Node, bias: Array | None, last: ir.Node) -> Projection | None:
    weights, source = constant_value(node.inputs[1]), node.inputs[0]
    if weights is None or weights.ndim != _MATRIX or source is None:
        return None
    if bias is not None and bias.shape != weights.shape[1:]:
        return None
    return Projection(source, source, None, weights, bias, last, is_plain=True)


def _gemm(node: ir.Node) -> Projection | None:
    attributes, source = node.attributes, node.inputs[0]
    weights = constant_value(node.inputs[1])
    bias = constant_value(node.inputs[2]) if len(node.inputs) > _MATRIX else None
    scaled = attributes.get_float("alpha", 1.0) != 1 or attributes.get_float("beta", 1.0) != 1
    if weights is None or source is None or scaled or attributes.get_int("transA", 0) == 1:
        return None
    weights = weights.T if attributes.get_int("transB", 0) else weights
    if len(node.inputs) > _MATRIX and (bias is None or bias.shape != weights.shape[1:]):
        return None
    return Projection(source, source, None, weights, bias, node, is_plain=False)


def _forward(value: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    """Follow a tensor through movements as long as one node reads it."""
    path: list[ir.Node] = []
    while (node := only_reader(value)) is not None and is_op(node, *_MOVES) and node.inputs[0] is value:
        path.append(node)
        value = node.outputs[0]
    return path, value
