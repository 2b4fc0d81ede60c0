"""Narrow types emulated: each tensor of float16 or bfloat16 becomes float32 that was rounded.

ONNX Runtime has few kernels of them on the CPU: it casts what lies between nodes away, so that nothing is rounded and
nothing overflows there, or refuses the graph. Here a node computes in float32 and its result is rounded by a pair of
casts, as hardware does that has the type; it is what a converter wrote that is emulated, whoever wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["emulate", "round_all"]

_NARROW = ("FLOAT16", "BFLOAT16")
_ROUNDED_ALREADY = ("If", "Loop", "Scan", "Constant", "Identity")
_SAY_TYPE = ("to", "dtype", "output_dtype", "stash_type")


def emulate(model: ir.Model) -> ir.Model:
    """Return a graph that holds float32 wherever the given one is narrow, rounded after each node.

    Inputs and outputs of the model keep their types.
    """
    import onnx_ir as ir  # noqa: PLC0415 - for this alone

    copy = model.clone()
    nodes = list(ir.traversal.RecursiveGraphIterator(copy.graph))
    for value in copy.graph.inputs:
        _widen_input(value, copy.graph)
    for graph in copy.graphs():
        for value in (*(graph.inputs if graph is not copy.graph else ()), *graph.initializers.values()):
            if value.const_value is not None and _is_narrow(value):
                value.const_value = _wide(value.const_value)
            _widen(value)
    for node in nodes:
        for value in node.outputs:
            if _is_narrow(value):
                _round(node, value, copy.graph)
        _retype(node)
    copy.graph.sort()  # some converters leave that out
    return copy


def round_all(model: ir.Model, dtype: ir.DataType) -> ir.Model:
    """Return a float32 graph in which every weight and every tensor between nodes is rounded to a type."""
    import ml_dtypes  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    largest = float(ml_dtypes.finfo(dtype.numpy()).max)
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
                array = np.clip(value.const_value.numpy(), -largest, largest).astype(dtype.numpy()).astype(np.float32)
                value.const_value = ir.Tensor(array, name=value.name)
    for node in list(ir.traversal.RecursiveGraphIterator(copy.graph)):
        for value in node.outputs:
            is_end = value.is_graph_output() and value.graph is copy.graph
            if value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType) and not is_end:
                value.dtype = dtype
                _round(node, value, copy.graph)
    return copy


def _is_narrow(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name in _NARROW


def _widen(value: ir.Value) -> None:
    """Call a narrow tensor, or a sequence of such, one of float32."""
    import onnx_ir as ir  # noqa: PLC0415

    if _is_narrow(value):
        value.dtype = ir.DataType.FLOAT


def _wide(tensor: ir.TensorProtocol) -> ir.Tensor:
    import numpy as np  # noqa: PLC0415
    import onnx_ir as ir  # noqa: PLC0415

    return ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_input(value: ir.Value, graph: ir.Graph) -> None:
    import onnx_ir as ir  # noqa: PLC0415

    if _is_narrow(value) and not isinstance(value.type, ir.SequenceType) and len(graph):
        cast = _cast(value, ir.DataType.FLOAT, "wide")
        value.replace_all_uses_with(cast.outputs[0])
        cast.replace_input_with(0, value)
        graph.insert_before(graph[0], cast)


def _retype(node: ir.Node) -> None:
    """Let a node that names a narrow type in an attribute name float32."""
    import onnx_ir as ir  # noqa: PLC0415

    narrow = [ir.DataType[name] for name in _NARROW]
    for given in list(node.attributes.values()):
        if given.name in _SAY_TYPE and given.value in narrow:
            node.attributes[given.name] = ir.AttrInt64(given.name, ir.DataType.FLOAT)
        elif given.type == ir.AttributeType.TENSOR and given.as_tensor().dtype in narrow:
            node.attributes[given.name] = ir.AttrTensor(given.name, _wide(given.as_tensor()))


def _round(node: ir.Node, value: ir.Value, main: ir.Graph) -> None:
    """Put a pair of casts behind a tensor, which rounds it; what comes out takes its place and its name."""
    import onnx_ir as ir  # noqa: PLC0415

    dtype = value.dtype
    is_end = value.is_graph_output() and value.graph is main
    _widen(value)
    if isinstance(value.type, ir.SequenceType) or (node.op_type in _ROUNDED_ALREADY and not is_end):
        return
    down = _cast(value, dtype, "narrow")  # type: ignore[arg-type]
    back = _cast(down.outputs[0], ir.DataType.FLOAT, "back")
    last = down.outputs[0] if is_end else back.outputs[0]
    ends = [(graph, at) for graph in [value.graph] if graph for at, one in enumerate(graph.outputs) if one is value]
    for graph, at in ends:
        graph.outputs[at] = last
    value.replace_all_uses_with(back.outputs[0])
    down.replace_input_with(0, value)
    back.replace_input_with(0, down.outputs[0])
    node.append([down, back])
    last.name, value.name = value.name, f"{value.name}_exact"


def _cast(value: ir.Value, dtype: ir.DataType, word: str) -> ir.Node:
    import onnx_ir as ir  # noqa: PLC0415

    node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", dtype.value)])
    output = node.outputs[0]
    output.name, output.type, output.shape = f"{value.name}_{word}", ir.TensorType(dtype), value.shape
    return node
