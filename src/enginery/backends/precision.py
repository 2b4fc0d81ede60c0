"""In which precision the operators of a graph compute, counted: what a backend's build read back from its own graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["count_precisions"]

_OF_TYPE = {
    "FLOAT": "fp32", "DOUBLE": "fp64", "FLOAT16": "fp16", "BFLOAT16": "bf16", "FLOAT8E4M3FN": "fp8",
    "FLOAT8E5M2": "fp8", "FLOAT8E4M3FNUZ": "fp8", "FLOAT8E5M2FNUZ": "fp8",
}  # fmt: skip
_MOVEMENT = frozenset({
    "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "DequantizeLinear", "Expand",
    "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "If", "Loop", "Pad", "QuantizeLinear",
    "ReorderInput", "ReorderOutput", "Reshape", "Scan", "ScatterElements", "ScatterND", "Shape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_INTEGER = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul")


def count_precisions(model: ir.Model) -> dict[str, int]:
    """Count the operators that compute in each precision; those that only move or relabel data are left out.

    An operator computes in the element type of its first floating-point input. Types that the file does not state
    (ONNX Runtime writes none for what its optimiser made) follow from the inputs, in the order of the nodes.

    Returns:
        Precision to number of operators, such as ``{"fp32": 53}``; an operator on integers alone is not counted,
        one of the quantised operators is ``int8``.
    """
    import onnx_ir as ir

    found: Counter[str] = Counter()
    types: dict[ir.Value, str] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        inputs = [types.get(value) or _stated(value) for value in node.inputs if value is not None]
        stated = [_stated(value) for value in node.outputs]
        floating = next((name for name in (*inputs, *stated) if name in _OF_TYPE), None)
        for value in node.outputs:
            types[value] = _stated(value) or _cast_to(node) or floating or ""
        if node.op_type.startswith(_INTEGER):
            found["int8"] += 1
        elif floating is not None and node.op_type not in _MOVEMENT:
            found[_OF_TYPE[floating]] += 1
    return dict(sorted(found.items()))


def _stated(value: ir.Value) -> str:
    return value.dtype.name if value.dtype is not None else ""


def _cast_to(node: ir.Node) -> str:
    import onnx_ir as ir

    target = node.attributes.get("to")
    return ir.DataType(target.as_int()).name if node.op_type == "Cast" and target is not None else ""
