"""What each tensor of a graph would be if an axis of its inputs had other sizes: shapes and small values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.base import subgraphs
from enginery.graph.passes.base import constant_value, is_op, is_random

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["PROBES", "Array", "Dims", "Fact", "Facts", "varies"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Dims: TypeAlias = tuple["int | None", ...]

PROBES = 3
"""At how many sizes the axis that is made dynamic is looked at."""

_MOST_ELEMENTS = 4096


@dataclass(frozen=True)
class Fact:
    """What is known of one tensor at every probe.

    Args:
        shapes: at each probe; None where even the rank is unknown.
        data: the values at each probe, where they follow from constants and shapes alone and are few.
        outer: how many rows stand before the varying part of its varying axis: 5 where 5 and the batch were merged
            into one axis in this order.
    """

    shapes: tuple[Dims | None, ...]
    data: tuple[Array | None, ...]
    outer: int = 1

    @property
    def known(self) -> bool:
        """Whether every size is known at every probe."""
        return all(shape is not None and None not in shape for shape in self.shapes)

    @property
    def moves(self) -> bool:
        """Whether the shape, or what is known of the values, varies between the probes."""
        first = self.data[0]
        differ = first is not None and any(other is not None and not _same(first, other) for other in self.data)
        return differ or any(shape != self.shapes[0] for shape in self.shapes)

    @property
    def rank(self) -> int:
        """How many axes it has; 0 where that is unknown."""
        return len(self.shapes[0]) if self.shapes[0] is not None else 0

    def dim(self, axis: int) -> tuple[int | None, ...]:
        """Return the size of one axis at every probe; None where it is unknown."""
        return tuple(shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
                     for shape in self.shapes)  # fmt: skip

    def varying(self) -> list[int]:
        """Return the axes whose sizes are known and differ between the probes of the axis that is made dynamic."""
        return [axis for axis in range(self.rank) if varies(self.dim(axis))]


def varies(dim: Sequence[int | None]) -> bool:
    """Say whether a dimension, given at every probe, follows the axis that is made dynamic.

    Example:
        >>> varies((2, 4, 6, 2)), varies((2, 2, 2, 4)), varies((2, None, 6))
        (True, False, False)
    """
    own = dim[:PROBES]
    return None not in own and len(set(own)) > 1


class Facts:
    """Shapes and small values of a graph's tensors, learned node by node, at several sizes of its symbolic axes.

    Args:
        model: its inputs' shapes are integers or symbolic names; the nodes are not looked at yet.
        probes: a size for each symbolic name. The first `PROBES` differ in the one name that is made dynamic, and
            begin with the size that was fixed; one may follow in which all others differ.
    """

    def __init__(self, model: ir.Model, probes: Sequence[Mapping[str, int]]) -> None:
        self.probes = tuple(probes)
        self._model = model
        self._computed: dict[ir.Value, Array | None] = {}
        self._facts: dict[ir.Value, Fact] = {}
        self._types: dict[ir.Value, int] = {}
        for value in model.graph.inputs:
            self._facts[value] = Fact(tuple(_sized(value.shape, probe) for probe in self.probes), self._nothing)

    @property
    def _nothing(self) -> tuple[None, ...]:
        return (None,) * len(self.probes)

    def of(self, value: ir.Value) -> Fact:
        """Return what is known of a value; a constant is looked at when it is asked for."""
        if value not in self._facts:
            self._facts[value] = self._constant(value)
        return self._facts[value]

    def moves(self, node: ir.Node) -> bool:
        """Say whether anything that a node reads varies between the probes."""
        return any(self.of(value).moves for value in _read_by(node))

    def set_outer(self, value: ir.Value, outer: int) -> None:
        """Note how many rows stand before the varying part of a value's varying axis."""
        fact = self.of(value)
        self._facts[value] = Fact(fact.shapes, fact.data, outer)

    def learn(self, node: ir.Node) -> str:
        """Find what a node makes of its inputs at every probe.

        Returns:
            Why ONNX's shape inference refuses the node at another size than the first; empty where it does not.
        """
        shapes: list[list[Dims | None]] = []
        data: list[list[Array | None]] = []
        problem = ""
        self._computed = {}
        for number in range(len(self.probes)):
            found, said = self._infer(node, number)
            problem = problem or (said if number else "")
            shapes.append(found)
            data.append(self._compute(node, number, found))
        outer = next((self.of(v).outer for v in node.inputs if v is not None and self.of(v).varying()), 1)
        for index, value in enumerate(node.outputs):
            at = tuple(values[index] if index < len(values) else None for values in data)
            here = tuple(a.shape if a is not None else row[index] for a, row in zip(at, shapes, strict=True))
            self._facts[value] = Fact(here, at, outer)
        return problem

    def _constant(self, value: ir.Value) -> Fact:
        tensor = value.const_value
        array = constant_value(value) if tensor is None or tensor.size <= _MOST_ELEMENTS else None
        shape = array.shape if array is not None else tuple(tensor.shape.numpy()) if tensor is not None else None
        small = array if array is not None and array.size <= _MOST_ELEMENTS else None
        return Fact((shape,) * len(self.probes), (small,) * len(self.probes))

    def _infer(self, node: ir.Node, number: int) -> tuple[list[Dims | None], str]:
        """Infer the shapes of a node's outputs at one probe, and say why that is impossible."""
        import onnx
        import onnx_ir as ir

        unknown: list[Dims | None] = [None] * len(node.outputs)
        version = self._model.opset_imports.get(node.domain, 1)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
        except onnx.defs.SchemaError:
            return self._like_first(node, number), ""
        read = {value.name or "": value for value in _read_by(node)}
        types = {name: self._type(value, number) for name, value in read.items()}
        arrays = {name: at for name, value in read.items() if (at := self.of(value).data[number]) is not None}
        tensors = {name: onnx.numpy_helper.from_array(at) for name, at in arrays.items() if at.dtype.kind in "biuf"}
        imports = [onnx.helper.make_opsetid(domain, at) for domain, at in self._model.opset_imports.items()]
        try:
            found = onnx.shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, tensors, None, imports)
        except Exception as error:  # noqa: BLE001 - the C++ code raises several kinds; the reason is returned
            return unknown, str(error).strip().rpartition("\n")[2]
        if not found:
            return self._like_first(node, number), ""
        for value in node.outputs:
            if value.name in found and found[value.name].HasField("tensor_type"):
                self._types[value] = found[value.name].tensor_type.elem_type
                value.type = value.type or ir.TensorType(ir.DataType(self._types[value]))
        return [_dims(found[value.name]) if value.name in found else None for value in node.outputs], ""

    def _like_first(self, node: ir.Node, number: int) -> list[Dims | None]:
        """Take an operator without shape inference to keep the shape, where it did so in the graph as it was."""
        first = node.inputs[0] if node.inputs else None
        before = _sized(first.shape, {}) if first is not None else None
        fact = self.of(first) if first is not None else None
        return [
            fact.shapes[number] if fact is not None and before and _sized(value.shape, {}) == before else None
            for value in node.outputs
        ]

    def _type(self, value: ir.Value, number: int) -> onnx.TypeProto:
        import onnx
        import onnx_ir as ir

        if value.type is not None and not isinstance(value.type, ir.TensorType | ir.SparseTensorType):
            return ir.serde.serialize_type(value.type)
        element = self._types.get(value, 0) or int(value.dtype or 0)
        if not element and value.const_value is not None:
            element = int(value.const_value.dtype)
        shape = self.of(value).shapes[number]
        return onnx.helper.make_tensor_type_proto(element, shape)

    def _compute(self, node: ir.Node, number: int, shapes: Sequence[Dims | None]) -> list[Array | None]:
        """Compute a node's outputs where all that it reads is known, and little comes out."""
        if is_op(node, "Shape", "Size"):
            return [self._shape_of(node, number)]
        if is_op(node, "Constant"):
            array = constant_value(node.outputs[0])
            return [array if array is not None and array.size <= _MOST_ELEMENTS else None]
        if node.domain or is_random(node) or not _small(shapes) or subgraphs(node):
            return []
        feeds = {value.name or "": self.of(value).data[number] for value in node.inputs if value is not None}
        given = {name: array for name, array in feeds.items() if array is not None}
        if len(given) < len(feeds):
            return []
        if number and all(_same(given[v.name or ""], self.of(v).data[0]) for v in node.inputs if v is not None):
            return [self._computed.get(value) for value in node.outputs]
        found = self._run(node, given)
        if not number:
            self._computed = dict(zip(node.outputs, found, strict=True))
        return found

    def _run(self, node: ir.Node, feeds: Mapping[str, Array]) -> list[Array | None]:
        import onnx_ir as ir
        from onnx.reference import ReferenceEvaluator

        try:
            evaluator = ReferenceEvaluator(ir.to_proto(node), opsets=dict(self._model.opset_imports))
            with np.errstate(all="ignore"):
                found = evaluator.run(None, dict(feeds))
        except Exception:  # noqa: BLE001 - what cannot be computed is not known, and nothing else depends on it
            return [None] * len(node.outputs)
        return [np.asarray(a) if isinstance(a, np.ndarray | np.generic) else None for a in found]

    def _shape_of(self, node: ir.Node, number: int) -> Array | None:
        source = node.inputs[0]
        shape = self.of(source).shapes[number] if source is not None else None
        if shape is None:
            return None
        part = shape[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))]
        sizes = [dim for dim in part if dim is not None]
        if len(sizes) < len(part):
            return None
        return np.array(math.prod(sizes) if node.op_type == "Size" else sizes, np.int64)


def _read_by(node: ir.Node) -> list[ir.Value]:
    """Return what a node reads, what its subgraphs take from outside included."""
    read = [value for value in node.inputs if value is not None]
    for graph in subgraphs(node):
        inside = {*graph.inputs, *graph.initializers.values()}
        inside |= {value for other in graph.all_nodes() for value in other.outputs}
        inside |= {value for other in graph.all_nodes() for g in subgraphs(other)
                   for value in (*g.inputs, *g.initializers.values())}  # fmt: skip
        read += [v for other in graph.all_nodes() for v in other.inputs if v is not None and v not in inside]
        read += [value for value in graph.outputs if value not in inside]
    return list(dict.fromkeys(read))


def _sized(shape: ir.Shape | None, probe: Mapping[str, int]) -> Dims | None:
    if shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else probe.get(dim.value or "") for dim in shape)


def _dims(kind: onnx.TypeProto) -> Dims | None:
    tensor = kind.tensor_type
    if not kind.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)


def _small(shapes: Sequence[Dims | None]) -> bool:
    sizes = [[dim for dim in shape if dim is not None] for shape in shapes if shape is not None]
    return all(math.prod(size) <= _MOST_ELEMENTS for size in sizes)


def _same(one: Array, other: Array | None) -> bool:
    return other is not None and one.shape == other.shape and one.dtype == other.dtype and bool(np.all(one == other))
