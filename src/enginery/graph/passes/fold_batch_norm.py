"""Fold batch normalisation into the weights of the convolution or matrix product before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, replace_node
from enginery.graph.weights import drop_pages

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FoldBatchNorm"]

Array = np.ndarray[Any, np.dtype[Any]]
_EPSILON = 1e-5
_NEEDED_INPUTS = 5
_OPSET = 7


class FoldBatchNorm(Pass):
    """Fold ``BatchNormalization(Conv(x))`` into the convolution, likewise ConvTranspose and Gemm.

    With ``s = scale / sqrt(variance + epsilon)``, the weights of output channel c become ``s[c] * w[c]`` and its bias
    ``s[c] * (bias[c] - mean[c]) + shift[c]`` (Ioffe and Szegedy 2015, "Batch Normalization", section 3.1). It is
    computed in float64, so that it rounds once.
    """

    name = "fold batch normalisation"

    def requires(self, model: ir.Model) -> bool:
        """There must be one, of opset 7 or later: before, an attribute said whether it trains."""
        return model.opset_imports.get("", 0) >= _OPSET and any(
            is_op(node, "BatchNormalization") for node in all_nodes(model)
        )

    def apply(self, model: ir.Model) -> bool:
        """Fold each whose weights are constants that nobody else reads."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if is_op(node, "BatchNormalization") and node.graph is not None:
                changed |= _fold(node)
        return changed


@dataclass(frozen=True)
class _Affine:
    """What the normalisation does to each channel: ``scale * x + shift``."""

    scale: Array
    shift: Array


def _fold(node: ir.Node) -> bool:
    affine, before = _affine(node), node.inputs[0].producer() if node.inputs[0] is not None else None
    if affine is None or before is None or before.graph is not node.graph or not is_op(before, *_SCALED):
        return False
    source = before.outputs[0]
    weights = constant_value(before.inputs[1])
    bias = constant_value(before.inputs[2]) if _has_bias(before) else np.zeros(1)
    if weights is None or bias is None or len(source.uses()) != 1 or source.is_graph_output():
        return False
    if bias.size != 1 and bias.shape[-1:] != (bias.size,):
        return False  # a Gemm may add another number to every row
    scaled = _SCALED[before.op_type](before, weights.astype(np.float64), affine.scale)
    beta = before.attributes.get_float("beta", 1.0) if before.op_type == "Gemm" else 1.0
    moved = beta * bias.astype(np.float64).reshape(-1) * affine.scale + affine.shift
    if scaled is None or not replace_node(node, source):
        return False
    before.attributes.pop("beta", None)
    old = before.inputs[1].const_value if before.inputs[1] is not None else None
    _set_constant(before, 1, scaled.astype(weights.dtype), "weight")
    _set_constant(before, 2, moved.astype(weights.dtype), "bias")
    drop_pages([old] if old is not None else [])
    return True


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None  # noqa: PLR2004 - x, weights, bias


def _affine(node: ir.Node) -> _Affine | None:
    """Read the normalisation's constants; None where it trains, has more outputs, or they vary."""
    if node.attributes.get_int("training_mode", 0) or len(node.inputs) < _NEEDED_INPUTS:
        return None
    if sum(1 for value in node.outputs if value.name) > 1 or node.attributes.get_int("spatial", 1) != 1:
        return None
    found = [constant_value(value) for value in node.inputs[1:_NEEDED_INPUTS]]
    if any(value is None for value in found):
        return None
    scale, shift, mean, variance = (value.astype(np.float64) for value in found if value is not None)
    scale = scale / np.sqrt(variance + node.attributes.get_float("epsilon", _EPSILON))
    return _Affine(scale, shift - mean * scale)


def _scale_conv(node: ir.Node, weights: Array, scale: Array) -> Array | None:
    del node
    return weights * scale.reshape(-1, *[1] * (weights.ndim - 1))


def _scale_conv_transpose(node: ir.Node, weights: Array, scale: Array) -> Array | None:
    """Scale weights of shape (inputs, outputs / groups, ...), whose groups share the first axis."""
    groups = node.attributes.get_int("group", 1)
    split = weights.reshape(groups, -1, *weights.shape[1:])
    split = split * scale.reshape(groups, 1, weights.shape[1], *[1] * (weights.ndim - 2))
    scaled: Array = split.reshape(weights.shape)
    return scaled


def _scale_gemm(node: ir.Node, weights: Array, scale: Array) -> Array | None:
    return weights * (scale[:, None] if node.attributes.get_int("transB", 0) else scale[None, :])


_SCALED = {"Conv": _scale_conv, "ConvTranspose": _scale_conv_transpose, "Gemm": _scale_gemm}


def _set_constant(node: ir.Node, index: int, array: Array, role: str) -> None:
    """Give a node its own constant input; the name of one that only this node read is kept."""
    import onnx_ir as ir

    graph = _owner(node)
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.Tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    name = _free_name(graph, f"{node.outputs[0].name}.{role}")
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _owner(node: ir.Node) -> ir.Graph:
    import onnx_ir as ir

    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"node {node.name!r} belongs to no graph")
    return node.graph


def _free_name(graph: ir.Graph, wanted: str) -> str:
    taken = set(graph.initializers) | {value.name for node in graph for value in node.outputs}
    taken |= {value.name for value in graph.inputs}
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name
