"""What is in a graph: operators, parameters, bytes and floating-point operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from enginery.graph.base import all_graphs, all_nodes, constants, tensor_infos
from enginery.graph.flops import UnknownShapeError, node_flops
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.inline_functions import InlineFunctions
from enginery.graph.shapes import apply_shapes
from enginery.records import GraphRecord, TensorInfo
from enginery.spec import Shape, as_shapes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["count_flops", "summarise"]

_NOT_PARAMETERS = ("INT64", "BOOL", "STRING")
"""Element types of sizes, axes and texts rather than weights."""


def summarise(model: ir.Model, shapes: Mapping[str, Shape | str] | None = None) -> GraphRecord:
    """Summarise a graph; it is not changed.

    Nodes and operators count those of subgraphs and functions, each body once. Parameters are the elements of all
    constant tensors but 64-bit integers, booleans and texts, which are sizes and axes.

    Args:
        model: the graph.
        shapes: the profile of each dynamic input; floating-point operations are counted at its `opt` sizes.

    Raises:
        UnknownNameError: a shape names no input.
        GraphError: a shape does not fit its input.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, ["n", 3])
        >>> node = ir.node("Relu", [x])
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> record = summarise(ir.Model(graph, ir_version=10), {"x": Shape.parse("1..8x3")})
        >>> record.dynamic_dims, record.operators, record.flops
        (('n',), {'Relu': 1}, 24)
    """
    weights = [tensor for tensor in constants(model) if tensor.dtype.name not in _NOT_PARAMETERS]
    operators = Counter(_operator(node) for node in all_nodes(model))
    inputs = tensor_infos(model.graph.inputs)
    return GraphRecord(
        name=model.graph.name or "",
        inputs=inputs,
        outputs=tensor_infos(model.graph.outputs),
        nodes=operators.total(),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(math.prod(tensor.shape.numpy()) for tensor in weights),
        parameter_bytes=sum(tensor.nbytes for tensor in weights),
        flops=count_flops(model, shapes or {}),
        opsets={domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        ir_version=model.ir_version or 0,
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        dynamic_dims=_dynamic_dims(inputs),
        functions=len(model.functions),
        subgraphs=sum(1 for _ in all_graphs(model)) - 1 - len(model.functions),
    )


def count_flops(model: ir.Model, shapes: Mapping[str, Shape | str]) -> int | None:
    """Count the floating-point operations of one call at the `opt` sizes; None where shapes are unknown.

    Bodies of If, Loop and Scan are counted once, calls of functions as often as they occur.
    """
    copy = apply_shapes(model, {name: Shape.fixed(shape.at("opt")) for name, shape in as_shapes(shapes).items()})
    if any(value.shape is None or not value.shape.is_static() for value in copy.graph.inputs):
        return None
    InlineFunctions().apply(copy)
    infer_shapes(copy)
    counted = _count(copy)
    if counted is None:
        # With every input fixed, sizes computed in the graph are constants; folded, they tell the shapes they make.
        FoldConstants().apply(copy)
        infer_shapes(copy)
        counted = _count(copy)
    return counted


def _count(model: ir.Model) -> int | None:
    try:
        return sum(node_flops(node) for node in all_nodes(model))
    except UnknownShapeError:
        return None


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _dynamic_dims(inputs: Iterable[TensorInfo]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dim for info in inputs for dim in info.shape or () if isinstance(dim, str)))
