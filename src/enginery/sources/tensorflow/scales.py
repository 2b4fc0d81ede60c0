"""A convolution or matrix product, and the constants that its output is multiplied by and that are added, as one node.

TensorFlow computes batch normalisation as such a multiplication and addition, and folds it into the weights where it
has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.sources.tensorflow.lazy import lazy_tensor, type_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

__all__ = ["fold_scales"]

_WITH_BIAS = 3

Array = np.ndarray[Any, Any]


def fold_scales(model: ir.Model) -> None:
    """Fold constants of one number for each channel into the weights before them, which nobody else may read.

    Args:
        model: changed in place; the changed weights are computed when they are looked at.
    """
    for node in list(model.graph):
        if node.op_type not in ("Mul", "Add") or node.domain != "" or len(node.inputs) != 2:  # noqa: PLR2004
            continue
        for place, other in ((0, 1), (1, 0)):
            before, constant = node.inputs[place], node.inputs[other]
            if before is not None and constant is not None and _is_inner(before) and _is_constant(constant):
                product = before.producer()
                if product is not None and _FOLDS.get((product.op_type, node.op_type), _keep)(product, constant):
                    _leave_out(node, product)
                    break


def _is_inner(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.const_value is not None


def _is_own(value: ir.Value | None) -> bool:
    return value is not None and _is_constant(value) and _is_inner(value)


def _keep(product: ir.Node, constant: ir.Value) -> bool:
    del product, constant
    return False


def _scale_convolution(product: ir.Node, constant: ir.Value) -> bool:
    kernel, channels = product.inputs[1], _channels(product, constant)
    bias = product.inputs[2] if len(product.inputs) == _WITH_BIAS else None
    if channels is None or not _is_own(kernel) or (bias is not None and not _is_own(bias)):
        return False
    assert kernel is not None and kernel.const_value is not None  # noqa: S101, PT018 - just seen
    column = channels.reshape(-1, *[1] * (len(kernel.const_value.shape) - 1))
    _set(kernel, _times(kernel.const_value, column))
    if bias is not None and bias.const_value is not None:
        _set(bias, _times(bias.const_value, channels))
    return True


def _shift_convolution(product: ir.Node, constant: ir.Value) -> bool:
    import onnx_ir as ir

    channels = _channels(product, constant)
    bias = product.inputs[2] if len(product.inputs) == _WITH_BIAS else None
    if channels is None or (bias is not None and not _is_own(bias)):
        return False
    if bias is not None and bias.const_value is not None:
        _set(bias, _plus(bias.const_value, channels))
        return True
    graph = product.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101 - it stands in the main graph
    tensor = ir.Tensor(channels, name=f"{product.outputs[0].name}/bias")
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=type_of(tensor), const_value=tensor)
    graph.register_initializer(value)
    product.resize_inputs(_WITH_BIAS)
    product.replace_input_with(2, value)
    return True


def _scale_product(product: ir.Node, constant: ir.Value) -> bool:
    kernel = product.inputs[1]
    assert constant.const_value is not None  # noqa: S101 - seen by the caller
    if not _is_own(kernel) or kernel is None or kernel.const_value is None:
        return False
    shape = kernel.const_value.shape.numpy()
    sizes = constant.const_value.shape.numpy()
    if len(shape) != 2 or not sizes or sizes[-1] != shape[-1] or constant.const_value.size != shape[-1]:  # noqa: PLR2004
        return False
    _set(kernel, _times(kernel.const_value, constant.const_value.numpy().reshape(-1)))
    return True


_FOLDS: dict[tuple[str, str], Callable[[ir.Node, ir.Value], bool]] = {
    ("Conv", "Mul"): _scale_convolution,
    ("Conv", "Add"): _shift_convolution,
    ("MatMul", "Mul"): _scale_product,
}


def _channels(product: ir.Node, constant: ir.Value) -> Array | None:
    """Return one number for each output channel; None where the constant has another shape."""
    kernel, tensor = product.inputs[1], constant.const_value
    if kernel is None or kernel.shape is None or tensor is None:
        return None
    channels, rank = kernel.shape[0], len(kernel.shape)
    sizes = (1,) * (rank - len(tensor.shape)) + tuple(tensor.shape.numpy())
    if sizes != (1, channels, *[1] * (rank - 2)):
        return None
    array: Array = tensor.numpy().reshape(-1)
    return array


def _times(tensor: ir.TensorProtocol, factor: Array) -> Callable[[], Array]:
    return lambda: tensor.numpy() * factor


def _plus(tensor: ir.TensorProtocol, summand: Array) -> Callable[[], Array]:
    return lambda: tensor.numpy() + summand


def _set(value: ir.Value, read: Callable[[], Array]) -> None:
    value.const_value = lazy_tensor(value.name, read)


def _leave_out(node: ir.Node, product: ir.Node) -> None:
    """Let the product write what the node wrote, under its name."""
    graph = node.graph
    old, new = node.outputs[0], product.outputs[0]
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.shape, new.type = old.shape, old.type
    assert graph is not None  # noqa: S101 - it stands in the main graph
    graph.remove(node, safe=True)
    new.name = name
