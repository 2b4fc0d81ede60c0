"""The changes that `enginery.graph.dynamic.mends` makes: new constants and nodes, and sizes taken from an input."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.graph.dynamic.facts import Array, Facts
from enginery.graph.dynamic.request import Axis
from enginery.graph.passes.base import constant_value, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Blocked", "Editor", "input_of"]


class Blocked(Exception):  # noqa: N818 - not an error of the user's; it becomes one with all others
    """A node cannot be mended; the text says what is fixed in it."""


class Editor:
    """Changes a graph around one node, and keeps the facts of what it adds.

    Args:
        model: changed in place.
        facts: of all that stands before the node.
        name: of the axis that is made dynamic.
        axis: one of the inputs' axes of that name.
        keep_in_place: whether a Reshape that may merge the axis with what stands before it or behind it is taken to
            leave it where it was; `had_choice` tells whether there was one.
    """

    def __init__(self, model: ir.Model, facts: Facts, name: str, axis: Axis, *, keep_in_place: bool = True) -> None:
        self.facts = facts
        self.name = name
        self.sizes = tuple(probe[name] for probe in facts.probes)
        self.opset = model.opset_imports.get("", 0)
        self._graph = model.graph
        self._axis = axis
        self.outer: dict[ir.Value, int] = {}
        self.keep_in_place = keep_in_place
        self.had_choice = False
        self._size: ir.Value | None = None
        self._taken = {v.name for node in model.graph.all_nodes() for v in node.outputs} | set(model.graph.initializers)
        self._taken |= {value.name for value in model.graph.inputs}

    def constant(self, node: ir.Node, array: Array, role: str) -> ir.Value:
        """Add a constant beside a node."""
        import onnx_ir as ir

        name = self._free(f"{node.name or node.outputs[0].name}.{role}")
        tensor = ir.Tensor(np.asarray(array, order="C"), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def insert(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], role: str, **attributes: Any
    ) -> ir.Value:
        """Add a node before another one, and return its output."""
        import onnx_ir as ir

        name = self._free(f"{node.name or node.outputs[0].name}.{role}")
        new = ir.node(op, inputs, attributes=attributes or None, name=name)
        new.outputs[0].name = name
        self._graph.insert_before(node, new)
        self.facts.learn(new)
        return new.outputs[0]

    def ratio(self, dim: Sequence[int | None]) -> Fraction | None:
        """Return how often the new size goes into a dimension, at each probe that is given; None where that differs."""
        sizes = [size for size in dim if size is not None]
        ratios = {Fraction(size, own) for size, own in zip(sizes, self.sizes, strict=False)}
        return next(iter(ratios)) if len(sizes) == len(dim) and len(ratios) == 1 else None

    def size(self, node: ir.Node, ratio: Fraction = Fraction(1)) -> ir.Value:
        """Return the new size of an input's axis, times `ratio`, as one int64 of shape [1]."""
        if self._size is None:
            first = next(iter(self._graph))
            value = next(value for value in self._graph.inputs if value.name == self._axis.tensor)
            shape = self.insert(first, "Shape", [value], f"{self.name}_shape")
            index = self.constant(first, np.array([self._axis.index]), f"{self.name}_axis")
            self._size = self.insert(first, "Gather", [shape, index], f"{self.name}_size", axis=0)
        return self.scale(node, self._size, ratio)

    def scale(self, node: ir.Node, size: ir.Value, ratio: Fraction) -> ir.Value:
        """Multiply a size by a whole number, or divide it without remainder."""
        for op, number in (("Mul", ratio.numerator), ("Div", ratio.denominator)):
            if number != 1:
                factor = self.constant(node, np.array([number]), "factor")
                size = self.insert(node, op, [size, factor], "scaled_size")
        return size

    def stretch(self, node: ir.Node, index: int, axis: int, dim: Sequence[int | None]) -> str:
        """Let an input of a node have another size along an axis: all that it holds there is one thing, or counts.

        Args:
            node: what reads it.
            index: the place of the input.
            axis: the axis.
            dim: the sizes it shall have at the probes.

        Returns:
            What was done.

        Raises:
            Blocked: it holds different things along the axis.
        """
        value = input_of(node, index)
        ratio = self.ratio(dim)
        if ratio is None:
            raise Blocked(f"its input {value.name!r} has axis {axis} fixed at {self.facts.of(value).dim(axis)[0]}")
        if said := self.count_on(node, index, axis, dim):
            return said
        thin = self.thin(node, index, axis)
        rank = self.facts.of(thin).rank
        one, size = self.constant(node, np.array([1]), "one"), self.size(node, ratio)
        target = self.insert(node, "Concat", [size if a == axis else one for a in range(rank)], "sizes", axis=0)
        node.replace_input_with(index, self.insert(node, "Expand", [thin, target], "stretched"))
        return f"{value.name!r} is repeated along axis {axis}"

    def count_on(self, node: ir.Node, index: int, axis: int, dim: Sequence[int | None]) -> str:
        """Let an input that counts 0, 1, 2... along an axis, or looks such numbers up, count to its new size.

        Returns:
            What was done; empty where the input is of another kind.
        """
        value = input_of(node, index)
        counted = self._count_on(node, value, axis) if self.ratio(dim) == 1 else None
        if counted is None:
            return ""
        node.replace_input_with(index, counted)
        return f"{value.name!r} counts on along axis {axis}"

    def thin(self, node: ir.Node, index: int, axis: int) -> ir.Value:
        """Return one slice of an input of a node along an axis, where all are equal.

        Raises:
            Blocked: they differ, or nothing says that they do not.
        """
        value = input_of(node, index)
        fact = self.facts.of(value)
        if fact.dim(axis)[0] == 1:
            return value
        array = self._array(value)
        if array is not None:
            if not np.array_equal(array, np.broadcast_to(array.take([0], axis), array.shape)):
                shown = list(fact.shapes[0] or ())
                raise Blocked(f"its constant input {value.name!r} {shown} holds different values along axis {axis}")
            return self.constant(node, array.take([0], axis), "one_of_all")
        found = self._one_of_all(node, value, axis)
        if found is None:
            raise Blocked(f"its input {value.name!r} has axis {axis} fixed at {fact.dim(axis)[0]}")
        return found

    def _one_of_all(self, node: ir.Node, value: ir.Value, axis: int) -> ir.Value | None:
        """Return one slice of what repeats it, or looks up what repeats; None where nothing says so."""
        if self._repeats(value, axis):
            return self.pick(node, value, 0, axis)
        found = self._looked_up(value, axis)
        if found is None:
            return None
        producer, indices, inner = found
        array = self._array(indices)
        if array is not None and np.array_equal(array, np.broadcast_to(array.take([0], inner), array.shape)):
            return self._again(node, producer, 1, self.constant(node, array.take([0], inner), "one_of_all"))
        return self._again(node, producer, 1, self._one_of_all(node, indices, inner))

    def pick(self, node: ir.Node, value: ir.Value, place: int, axis: int) -> ir.Value:
        """Take one slice of a value along an axis, which stays."""
        return self.insert(node, "Gather", [value, self.constant(node, np.array([place]), "place")], "slice", axis=axis)

    def _looked_up(self, value: ir.Value, axis: int) -> tuple[ir.Node, ir.Value, int] | None:
        """Return the Gather that a value comes from, its indices, and which axis of these the value's axis is."""
        producer = value.producer()
        if producer is None or not is_op(producer, "Gather") or producer.attributes.get_int("axis", 0) < 0:
            return None
        indices, inner = input_of(producer, 1), axis - producer.attributes.get_int("axis", 0)
        return (producer, indices, inner) if 0 <= inner < self.facts.of(indices).rank else None

    def counted(self, node: ir.Node, ratio: Fraction = Fraction(1)) -> ir.Value:
        """Return the numbers from 0 to below the new size times `ratio`."""
        zero, step = (self.constant(node, np.array(number, np.int64), "number") for number in (0, 1))
        scalar = self.constant(node, np.array([], np.int64), "scalar")
        limit = self.insert(node, "Reshape", [self.size(node, ratio), scalar], "limit")
        return self.insert(node, "Range", [zero, limit, step], "counted")

    def _array(self, value: ir.Value) -> Array | None:
        """Return what a value always is, whatever the probes are."""
        constant = constant_value(value)
        if constant is not None:
            return constant
        fact = self.facts.of(value)
        return None if fact.moves else fact.data[0]

    def _repeats(self, value: ir.Value, axis: int) -> bool:
        """Say whether an operator made a value by repeating one slice along an axis."""
        producer = value.producer()
        if producer is None or not is_op(producer, "Expand", "Tile", "ConstantOfShape"):
            return False
        source = input_of(producer, 0)
        if producer.op_type == "ConstantOfShape":
            return True
        before, after = self.facts.of(source).shapes[0], self.facts.of(value).shapes[0]
        if before is None or after is None:
            return False
        return len(before) < len(after) - axis or before[axis - len(after)] == 1

    def _count_on(self, node: ir.Node, value: ir.Value, axis: int) -> ir.Value | None:
        """Return what counts further where a value counts 0, 1, 2... along an axis, or looks such numbers up."""
        array = self._array(value)
        if array is not None and array.dtype.kind in "iu":
            return self._range(node, array, axis)
        producer = value.producer()
        if producer is None:
            return None
        if is_op(producer, "Cast", "Identity"):
            return self._again(node, producer, 0, self._count_on(node, input_of(producer, 0), axis))
        if found := self._looked_up(value, axis):
            return self._again(node, producer, 1, self._count_on(node, found[1], found[2]))
        return None

    def _again(self, node: ir.Node, producer: ir.Node, index: int, value: ir.Value | None) -> ir.Value | None:
        """Repeat a node with another input."""
        if value is None:
            return None
        inputs = [value if place == index else old for place, old in enumerate(producer.inputs)]
        attributes = {name: attribute.value for name, attribute in producer.attributes.items()}
        return self.insert(node, producer.op_type, inputs, "counting_on", **attributes)

    def _range(self, node: ir.Node, array: Array, axis: int) -> ir.Value | None:
        size = array.shape[axis]
        if size != array.size or size < 2:  # noqa: PLR2004 - one number counts nothing
            return None
        flat = array.reshape(-1)
        if not np.array_equal(flat, np.arange(size, dtype=array.dtype) + flat[0]):
            return None
        counted = self.counted(node)
        if flat[0]:
            counted = self.insert(
                node, "Add", [counted, self.constant(node, flat[:1].astype(np.int64), "start")], "sum"
            )
        if array.dtype != np.int64:
            import onnx_ir as ir

            counted = self.insert(node, "Cast", [counted], "cast", to=int(ir.DataType.from_numpy(array.dtype)))
        shape = np.where(np.arange(array.ndim) == axis, -1, 1)
        return self.insert(node, "Reshape", [counted, self.constant(node, shape, "shape")], "counted_on")

    def _free(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


def input_of(node: ir.Node, index: int) -> ir.Value:
    """Return an input that a node must have.

    Raises:
        Blocked: it is left out.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Blocked(f"its input {index} is left out")
    return value
