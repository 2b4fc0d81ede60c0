"""What the rules of an opset's conversion read of a node, and write into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from enginery.graph.opset.schemas import attribute_value
from enginery.graph.passes.base import constant_value

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "CannotConvertError",
    "allow_values",
    "constant_input",
    "constant_ints",
    "drop_attribute",
    "fixed_dim",
    "free_name",
    "rank_of",
    "set_attribute",
    "set_constant",
    "trim_inputs",
]


class CannotConvertError(Exception):
    """Why a node cannot be brought to another opset; `enginery.graph.opset.convert` names the node."""


def allow_values(node: ir.Node, name: str, default: str, known: Sequence[str], since: int) -> None:
    """Refuse an attribute's value that the older operator does not know."""
    value = attribute_value(node, name, default)
    if value not in known:
        raise CannotConvertError(f"{name}={value} came with opset {since}")


def drop_attribute(node: ir.Node, name: str, default: Any, since: int) -> None:
    """Remove an attribute that the older operator does not have; it must have its default."""
    value = attribute_value(node, name, default)
    if value != default:
        raise CannotConvertError(f"{name}={value} came with opset {since}")
    node.attributes.pop(name, None)


def constant_input(node: ir.Node, index: int, what: str) -> np.ndarray[Any, Any] | None:
    """Return a constant input; None where it is left out."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    found = constant_value(value)
    if found is None:
        raise CannotConvertError(f"its {what} ({value.name!r}) are computed at run time, and no constant")
    return found


def constant_ints(node: ir.Node, index: int, what: str) -> list[int] | None:
    """Return a constant input as integers; None where it is left out."""
    found = constant_input(node, index, what)
    return None if found is None else [int(number) for number in found.reshape(-1)]


def rank_of(node: ir.Node) -> int:
    """Return the number of dimensions of a node's first input."""
    shape = node.inputs[0].shape if node.inputs and node.inputs[0] is not None else None
    if shape is None:
        raise CannotConvertError("the rank of its input is not known")
    return len(shape)


def fixed_dim(node: ir.Node, index: int, axis: int) -> int:
    """Return the size of one axis of an input."""
    value = node.inputs[index]
    size = value.shape[axis] if value is not None and value.shape is not None else None
    if not isinstance(size, int):
        raise CannotConvertError(f"the size of its axis {axis} is not fixed")
    return size


def free_name(name: str, taken: set[str]) -> str:
    """Return a name, or where it is taken the name with the first free number, and take it."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def set_attribute(node: ir.Node, name: str, value: Any) -> None:
    """Give a node an attribute; its type follows from the value."""
    import onnx_ir as ir

    node.attributes[name] = ir.convenience.convert_attribute(name, value)


def set_constant(node: ir.Node, index: int, array: np.ndarray[Any, Any], what: str) -> None:
    """Give a node a constant for an input, from a Constant node right before it."""
    import onnx_ir as ir

    name = f"{node.outputs[0].name}/{what}"
    made = ir.Node("", "Constant", [], [ir.AttrTensor("value", ir.Tensor(array, name=name))], name=name)
    made.outputs[0].name = name
    made.outputs[0].type, made.outputs[0].shape = (
        ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        ir.Shape(array.shape),
    )
    made.metadata_props.update(node.metadata_props)
    assert node.graph is not None  # noqa: S101 - it was found in one
    node.graph.insert_before(node, made)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, made.outputs[0])


def trim_inputs(node: ir.Node) -> None:
    """Forget optional inputs at the end that are left out."""
    count = len(node.inputs)
    while count and node.inputs[count - 1] is None:
        count -= 1
    node.resize_inputs(count)
