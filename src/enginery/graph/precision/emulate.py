"""A plan's rounding in a float32 graph: what a library gives that really stores float16 or bfloat16 between nodes.

ONNX Runtime has few float16 kernels on the CPU, and casts what lies between others away: nothing is rounded there, and
nothing overflows. Here every tensor that a plan makes narrow is rounded by a pair of casts, which it keeps. Sums inside
one node stay float32, as the accumulators of most hardware are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import is_op
from enginery.graph.precision.cast import apply_plan
from enginery.graph.precision.names import Names
from enginery.graph.precision.slots import HOLDERS

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import PrecisionPlan

__all__ = ["emulate"]

_NARROW = ("FLOAT16", "BFLOAT16")


def emulate(model: ir.Model, plan: PrecisionPlan) -> ir.Model:
    """Return a float32 graph that computes what a plan gives, rounding included; see `enginery.graph.base.emulate`.

    Example:
        >>> import onnx_ir as ir
        >>> from enginery.spec import PrecisionPlan
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {a = Exp(x) y = Neg(a)}'
        >>> [node.op_type for node in emulate(ir.from_onnx_text(text), PrecisionPlan("fp16")).graph]
        ['Cast', 'Cast', 'Exp', 'Cast', 'Cast', 'Neg', 'Cast', 'Cast', 'Cast']
    """
    typed = apply_plan(model, plan)
    if typed is model:
        return model
    names = Names(typed)
    _keep_ends(typed, names)
    for graph in typed.graphs():
        for value in graph.initializers.values():
            _widen_weight(value)
    for graph in typed.graphs():
        if graph is not typed.graph:
            for value in graph.inputs:
                _widen_type(value)
    for node in list(all_nodes(typed)):
        _widen_node(node, names)
    return typed


def _keep_ends(typed: ir.Model, names: Names) -> None:
    """Let inputs and outputs of the whole that are narrow themselves stay so: a cast stands between."""
    import onnx_ir as ir

    for value in typed.graph.inputs:
        if _is_narrow(value):
            cast = _cast(value, ir.DataType.FLOAT, names)
            value.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, value)
            typed.graph.insert_before(typed.graph[0], cast)
    for at, value in enumerate(typed.graph.outputs):
        node = value.producer()
        if _is_narrow(value) and node is not None:
            cast = _cast(value, value.dtype, names)  # type: ignore[arg-type]
            node.append(cast)
            value.name, cast.outputs[0].name = names.free(f"{value.name}_wide"), value.name
            typed.graph.outputs[at] = cast.outputs[0]
            cast.metadata_props["enginery.end"] = "yes"


def _widen_weight(value: ir.Value) -> None:
    """Hold a weight that was rounded as float32 again; a large one is made so each time it is read."""
    import onnx_ir as ir

    tensor = value.const_value
    if tensor is None or not _is_narrow(value):
        return

    def widened() -> ir.TensorProtocol:
        return ir.Tensor(tensor.numpy().astype(np.float32), name=value.name)

    value.const_value = ir.LazyTensor(widened, ir.DataType.FLOAT, tensor.shape, name=value.name)  # type: ignore[arg-type]
    _widen_type(value)


def _widen_node(node: ir.Node, names: Names) -> None:
    import onnx_ir as ir

    if node.metadata_props.pop("enginery.end", None) is not None:
        return
    for name in ("value", "to"):
        attribute = node.attributes.get(name)
        if attribute is None or is_op(node, "Cast") or attribute.type != ir.AttributeType.TENSOR:
            continue
        tensor = attribute.as_tensor()
        if tensor.dtype.name in _NARROW:
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name))
    for value in node.outputs:
        if not _is_narrow(value):
            continue
        if is_op(node, *HOLDERS, "Constant", "ConstantOfShape"):
            _widen_type(value)  # rounded already, in the bodies or as a constant
        else:
            _round(node, value, names)


def _round(node: ir.Node, value: ir.Value, names: Names) -> None:
    """Let readers of a narrow tensor read it as float32, rounded."""
    import onnx_ir as ir

    dtype = value.dtype
    assert dtype is not None  # noqa: S101 - it is narrow
    made = is_op(node, "Cast")  # a cast to the type is the first of the pair
    rounding = node if made else _cast(value, dtype, names)
    back = _cast(rounding.outputs[0], ir.DataType.FLOAT, names)
    value.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
    if not made:
        _widen_type(value)
        rounding.replace_input_with(0, value)
        node.append(rounding)
    back.replace_input_with(0, rounding.outputs[0])
    rounding.append(back)


def _cast(value: ir.Value, dtype: ir.DataType, names: Names) -> ir.Node:
    import onnx_ir as ir

    name = names.free(f"{value.name}_{'rounded' if dtype.name in _NARROW else 'back'}")
    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)], name=name)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, ir.TensorType(dtype), value.shape
    return node


def _widen_type(value: ir.Value) -> None:
    import onnx_ir as ir

    if _is_narrow(value):
        value.type = ir.TensorType(ir.DataType.FLOAT)


def _is_narrow(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in _NARROW
