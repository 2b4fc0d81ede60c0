"""Which nodes can read INT8, and which of their inputs are activations and weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import all_nodes
from enginery.graph.passes.base import constant_value, is_op, only_reader

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "OPERATORS",
    "QUANTISERS",
    "Slot",
    "activation_after",
    "ends_convolution",
    "nothing_to_quantise",
    "quantisable",
    "read_tensors",
    "slots",
]

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Heavy operators, whose inputs are quantised; a sum behind a convolution (a residual connection) is besides."""

QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")

_FUSED = ("Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "PRelu", "Elu")
"""What libraries compute together with the convolution before it."""

_MATRIX = 2
_THREE_BY_THREE = (3, 3)


@dataclass(frozen=True)
class Slot:
    """One input of a node that can be quantised.

    Args:
        index: its place.
        value: what is read there.
        weight: what it always is; None for an activation.
        axis: of a weight's output channels, each of which has a scale; None for one scale.
    """

    index: int
    value: ir.Value
    weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
    axis: int | None = None


def quantisable(model: ir.Model, *, few_depthwise: bool = False) -> tuple[ir.Node, ...]:
    """Return the nodes of the main graph that can read INT8, in their order.

    These are convolutions and matrix products in float32 with an activation to quantise, and sums of two activations
    of one shape behind a convolution.

    Args:
        model: its shapes are known.
        few_depthwise: see `enginery.graph.precision.forms.Form`.
    """
    able = (node for node in model.graph if node.name and (_is_product(node) or _is_residual(node)))
    return tuple(node for node in able if not few_depthwise or not _is_depthwise(node) or _is_small_with_relu(node))


def nothing_to_quantise(model: ir.Model) -> GraphError:
    """Return what to say of a graph in which no node can read INT8: that it has no such operators, or why they cannot.

    Args:
        model: its types are known.
    """
    found = next((node for node in all_nodes(model) if is_op(node, *OPERATORS)), None)
    if found is None:
        message = f"the graph has none of the operators that are quantised ({', '.join(OPERATORS)})"
        return GraphError(message, mend="ask for another precision")
    dtype = found.outputs[0].dtype
    narrow = dtype is not None and dtype.is_floating_point() and not _is_float32(found.outputs[0])
    mend = "export the model in float32" if narrow else "ask for another precision"
    return GraphError(f"nothing in the graph can be quantised: {_why_not(found, model)}", mend=mend)


def slots(node: ir.Node) -> Iterator[Slot]:
    """Yield the inputs of a node that can be quantised; a bias stays as it is."""
    for index in (0, 1):
        value = node.inputs[index]
        if value is None:
            continue
        array = constant_value(value)
        yield Slot(index, value) if array is None else Slot(index, value, array, _channel_axis(node, index, array.ndim))


def read_tensors(model: ir.Model) -> tuple[ir.Value, ...]:
    """Return the activations whose ranges a quantised graph may need: what the nodes read and what they make."""
    found: dict[ir.Value, None] = {}
    for node in quantisable(model):
        found.update(dict.fromkeys(slot.value for slot in slots(node) if slot.weight is None))
        found[activation_after(node.outputs[0])] = None
    return tuple(found)


def activation_after(value: ir.Value) -> ir.Value:
    """Return the tensor after the activation function that alone reads one; the tensor itself where none does."""
    reader = only_reader(value)
    fused = reader is not None and is_op(reader, *_FUSED) and reader.inputs[0] is value
    return reader.outputs[0] if reader is not None and fused else value


def ends_convolution(value: ir.Value) -> bool:
    """Say whether a tensor is what a convolution makes, or the activation function behind it."""
    node = value.producer()
    if node is not None and is_op(node, *_FUSED):
        before = node.inputs[0]
        node = before.producer() if before is not None else None
    return node is not None and is_op(node, "Conv", "ConvTranspose")


def _why_not(node: ir.Node, model: ir.Model) -> str:
    """Say why a heavy operator cannot read INT8."""
    said, dtype = f"{node.op_type} {node.name!r}", node.outputs[0].dtype
    if dtype is not None and not _is_float32(node.outputs[0]):
        name = "float64" if dtype.name == "DOUBLE" else dtype.name.lower()
        return f"{said} computes in {name}, and only what is float32 is quantised"
    if node.graph is not model.graph:
        return f"{said} is in the body of an If, Loop, Scan or function"
    return f"{said} reads no float32 tensor that data could change" if node.name else f"{said} has no name"


def _is_product(node: ir.Node) -> bool:
    if not is_op(node, *OPERATORS) or not _is_float32(node.outputs[0]):
        return False
    found = list(slots(node))
    known = all(slot.weight is not None or _is_float32(slot.value) for slot in found)
    return known and len(found) > 1 and any(slot.weight is None for slot in found)


def _is_residual(node: ir.Node) -> bool:
    """Say whether a node adds two activations of one shape, one of them from a convolution."""
    if not is_op(node, "Add") or any(value is None or constant_value(value) is not None for value in node.inputs):
        return False
    one, other = (value for value in node.inputs if value is not None)
    same = one.shape is not None and one.shape == other.shape and one is not other
    return same and _is_float32(one) and any(ends_convolution(value) for value in (one, other))


def _is_depthwise(node: ir.Node) -> bool:
    """Say whether a node is a convolution each of whose filters sees one channel."""
    group, weight = node.attributes.get("group"), node.inputs[1]
    if not is_op(node, "Conv") or group is None or group.as_int() == 1 or weight is None or weight.shape is None:
        return False
    return weight.shape[1] == 1


def _is_small_with_relu(node: ir.Node) -> bool:
    """Say whether a convolution is of three by three, and a Relu alone reads it."""
    weight, reader = node.inputs[1], only_reader(node.outputs[0])
    small = weight is not None and weight.shape is not None and weight.shape[2:] == _THREE_BY_THREE
    return small and reader is not None and is_op(reader, "Relu")


def _is_float32(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name == "FLOAT"


def _channel_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """Return the axis of a weight that runs over output channels; None where there is no single one."""
    if index == 0:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        group = node.attributes.get("group")
        return 1 if group is None or group.as_int() == 1 else None
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return 1 if rank == _MATRIX else None
