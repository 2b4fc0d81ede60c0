"""Remove sums with nothing but zeros, products with nothing but ones, and choices that are always the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DropNeutralOperands"]

Scalar: TypeAlias = "np.generic[Any]"

_NEUTRAL: dict[str, tuple[float, tuple[int, ...]]] = {
    "Add": (0, (0, 1)), "And": (1, (0, 1)), "Div": (1, (1,)), "Mul": (1, (0, 1)), "Or": (0, (0, 1)), "Sub": (0, (1,)),
}  # fmt: skip
"""The number that changes nothing, and at which places it may stand."""
_CHOICES = 3
_DEPTH = 16
_MOST = 1 << 20
"""Elements of a constant that are compared with one another."""


class DropNeutralOperands(Pass):
    """Remove an operand whose elements all have the value that changes nothing.

    Exporters write a mask that masks nothing, spread to a size that is known at run time alone, so no constant is
    there to fold: ``Where(Expand(True, sizes), 0, -inf)`` is 0 wherever one looks. Attention without it is another,
    faster kernel. A sum stays where the operand may give its result more elements, and with a weight of zeros.
    """

    name = "drop neutral operands"

    def requires(self, model: ir.Model) -> bool:
        """There must be a node of these kinds."""
        return any(is_op(node, *_NEUTRAL, "Where") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Let the readers of each such node read what it hands on."""
        changed = False
        for node in list(model.graph.all_nodes()):
            kept = None if node.graph is None else _kept(node)
            if kept is not None and _same_shape(kept, node.outputs[0]):
                changed |= replace_node(node, kept)
        return changed


def _kept(node: ir.Node) -> ir.Value | None:
    """Return the operand that a node hands on as it is, but for its shape; None where it changes it."""
    if is_op(node, "Where") and len(node.inputs) == _CHOICES:
        chosen = _uniform(node.inputs[0])
        return None if chosen is None else node.inputs[1 if chosen else 2]
    if not is_op(node, *_NEUTRAL) or len(node.inputs) != 2:  # noqa: PLR2004 - all of them have two
        return None
    neutral, places = _NEUTRAL[node.op_type]
    for place in places:
        found = None if _is_weight(node.inputs[place]) else _uniform(node.inputs[place])
        if found is not None and found == neutral:
            return node.inputs[1 - place]
    return None


def _is_weight(value: ir.Value | None) -> bool:
    """Say whether a tensor is held as an array: refitted, a bias of zeros may become another."""
    array = constant_value(value)
    return array is not None and array.size > 1


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Say whether two shapes are known to be the same, sizes that are open by their names."""
    if one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    return all(_same_size(a, b) for a, b in zip(one.shape, other.shape, strict=True))


def _same_size(one: int | ir.SymbolicDim, other: int | ir.SymbolicDim) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return one.value is not None and one.value == other.value


def _uniform(value: ir.Value | None, depth: int = _DEPTH) -> Scalar | None:
    """Return the one number that all elements of a tensor are; None where they differ or nothing tells."""
    if value is None or depth == 0:
        return None
    array, node = constant_value(value), value.producer()
    if array is not None:
        return _only_element(array)
    rule = None if node is None or node.domain else _RULES.get(node.op_type)
    return None if rule is None or node is None else rule(node, depth - 1)


def _of_first(node: ir.Node, depth: int) -> Scalar | None:
    return _uniform(node.inputs[0], depth)


def _of_choice(node: ir.Node, depth: int) -> Scalar | None:
    chosen = _uniform(node.inputs[0], depth)
    return None if chosen is None else _uniform(node.inputs[1 if chosen else 2], depth)


def _of_fill(node: ir.Node, _: int) -> Scalar | None:
    held = node.attributes.get("value")
    return np.float32(0) if held is None else _only_element(held.as_tensor().numpy())


def _of_not(node: ir.Node, depth: int) -> Scalar | None:
    found = _uniform(node.inputs[0], depth)
    return None if found is None else np.logical_not(found)


def _of_cast(node: ir.Node, depth: int) -> Scalar | None:
    found, dtype = _uniform(node.inputs[0], depth), node.outputs[0].dtype
    return None if found is None or dtype is None else found.astype(dtype.numpy())


_RULES: dict[str, Callable[[ir.Node, int], Scalar | None]] = {
    **dict.fromkeys(
        ("Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"), _of_first
    ),
    "Cast": _of_cast, "ConstantOfShape": _of_fill, "Not": _of_not, "Where": _of_choice,
}  # fmt: skip
"""How an operator's result follows from operands whose elements are all the same."""


def _only_element(array: np.ndarray[Any, np.dtype[Any]]) -> Scalar | None:
    if not 0 < array.size <= _MOST or array.dtype.kind not in "biuf":
        return None
    first: Scalar = array.reshape(-1)[0]
    return first if bool((array == first).all()) else None
