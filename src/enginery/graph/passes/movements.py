"""Where nodes that only move numbers about take them: found by moving counted numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.passes.base import constant_value, is_op

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["UnknownMovementError", "back_to_source", "moved", "scalar_factor"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
Known: TypeAlias = "dict[ir.Value, Array]"


class UnknownMovementError(LookupError):
    """A value does not come from known ones by movements alone."""


def back_to_source(value: ir.Value) -> tuple[ir.Value, list[ir.Node], float]:
    """Follow a tensor back through movements and products with one number.

    Returns:
        The tensor at their start, the movements from there on, and the product of the numbers.
    """
    path: list[ir.Node] = []
    factor = 1.0
    while (node := value.producer()) is not None and not value.is_graph_output():
        scaled = scalar_factor(node)
        if scaled is not None:
            value, number = scaled
            factor *= number
        elif is_op(node, *_DATA_MOVES) and node.inputs[0] is not None:
            path.append(node)
            value = node.inputs[0]
        else:
            break
    return value, path[::-1], factor


def scalar_factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Return the tensor and the number where a node multiplies or divides by one constant number, else None."""
    if not is_op(node, "Mul", "Div"):
        return None
    for data, other in ((0, 1), (1, 0)) if node.op_type == "Mul" else ((0, 1),):
        number, value = constant_value(node.inputs[other]), node.inputs[data]
        if number is None or number.size != 1 or number.dtype.kind != "f" or value is None:
            continue
        if value.shape is None or number.ndim > len(value.shape):
            continue
        factor = float(number.reshape(()))
        if node.op_type == "Div" and factor == 0:
            return None
        return value, factor if node.op_type == "Mul" else 1 / factor
    return None


def moved(value: ir.Value, known: Known) -> Array:
    """Return what a tensor holds where some are known; products with one number are left out.

    Raises:
        UnknownMovementError: it depends on something else.
    """
    if value in known:
        return known[value]
    constant, node = constant_value(value), value.producer()
    if constant is not None:
        return constant
    if node is None or node.domain:
        raise UnknownMovementError(value.name)
    scaled = scalar_factor(node)
    if scaled is not None:
        return moved(scaled[0], known)
    apply = _MOVES.get(node.op_type)
    if apply is None:
        raise UnknownMovementError(value.name)
    inputs = [moved(given, known) for given in node.inputs if given is not None]
    try:
        results = apply(node, inputs)
    except (ValueError, IndexError) as error:
        raise UnknownMovementError(f"{value.name}: {error}") from error
    known.update(zip(node.outputs, results, strict=True))
    return known[value]


def _reshape(node: ir.Node, inputs: list[Array]) -> list[Array]:
    data, shape = inputs[0], [int(size) for size in inputs[1]]
    if not node.attributes.get_int("allowzero", 0):
        shape = [data.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return [data.reshape(shape)]


def _transpose(node: ir.Node, inputs: list[Array]) -> list[Array]:
    order = node.attributes.get_ints("perm", None)
    return [np.transpose(inputs[0], None if order is None else list(order))]


def _axes(node: ir.Node, inputs: list[Array]) -> list[int] | None:
    if len(inputs) > 1:
        return [int(axis) for axis in np.atleast_1d(inputs[1])]
    given = node.attributes.get_ints("axes", None)
    return None if given is None else list(given)


def _squeeze(node: ir.Node, inputs: list[Array]) -> list[Array]:
    axes = _axes(node, inputs)
    return [np.squeeze(inputs[0], None if axes is None else tuple(axes))]


def _unsqueeze(node: ir.Node, inputs: list[Array]) -> list[Array]:
    return [np.expand_dims(inputs[0], tuple(_axes(node, inputs) or ()))]


def _gather(node: ir.Node, inputs: list[Array]) -> list[Array]:
    return [np.take(inputs[0], inputs[1].astype(np.int64), axis=node.attributes.get_int("axis", 0))]


def _slice(node: ir.Node, inputs: list[Array]) -> list[Array]:
    del node
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 else np.arange(len(starts))  # noqa: PLR2004 - places among Slice's inputs
    steps = inputs[4] if len(inputs) > 4 else np.ones(len(starts), np.int64)  # noqa: PLR2004
    if (np.asarray(steps) <= 0).any():
        raise ValueError("steps back")
    cut = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return [data[tuple(cut)]]


def _split(node: ir.Node, inputs: list[Array]) -> list[Array]:
    axis, parts = node.attributes.get_int("axis", 0), len(node.outputs)
    if len(inputs) > 1:
        return np.split(inputs[0], np.cumsum(inputs[1])[:-1], axis)
    return np.split(inputs[0], parts, axis)


def _shape(node: ir.Node, inputs: list[Array]) -> list[Array]:
    whole = np.array(inputs[0].shape, np.int64)
    return [whole[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(whole))]]


def _concat(node: ir.Node, inputs: list[Array]) -> list[Array]:
    return [np.concatenate(inputs, node.attributes.get_int("axis", 0))]


def _same(node: ir.Node, inputs: list[Array]) -> list[Array]:
    del node
    return [inputs[0]]


_DATA_MOVES = ("Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
_MOVES: dict[str, Callable[[ir.Node, list[Array]], list[Array]]] = {
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
