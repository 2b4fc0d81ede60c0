"""In which precision the operators of a graph compute, read back from what a backend's build made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Ran", "computes", "count_precisions", "count_ran", "own_name", "read_ran"]

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
_HEAVY = ("Conv", "Gemm", "MatMul", "Attention", "LSTM", "GRU", "RNN")
_CAST_AWAY = ("InsertedPrecisionFreeCast_", "InsertedCast_")
"""How ONNX Runtime names a tensor that was fp16, where it has no such kernel and takes float32 instead."""


@dataclass(frozen=True)
class Ran:
    """How one operator of a built graph computes.

    Args:
        name: the backend's; empty where it gives none.
        operator: its kind.
        asked: the precision that the graph says, or the plan.
        ran: the precision that it computes in.
        outputs: names of what it makes, as the graph that was handed over had them.
    """

    name: str
    operator: str
    asked: str
    ran: str
    outputs: tuple[str, ...] = ()

    @property
    def heavy(self) -> bool:
        """Whether it multiplies matrices, where a narrow precision pays."""
        return any(word in self.operator for word in _HEAVY)


def computes(operator: str) -> bool:
    """Say whether an operator computes; the others only move or relabel data."""
    return operator not in _MOVEMENT


def read_ran(model: ir.Model) -> tuple[Ran, ...]:
    """Say of each operator in which precision it computes, and in which it was asked to.

    Operators that only move or relabel data are left out, and so are those on integers alone. An operator computes in
    the element type of its first floating-point input. Types that the file does not state (ONNX Runtime writes none
    for what its optimiser made) follow from the inputs, in the order of the nodes. It was asked for something else
    where ONNX Runtime cast fp16 tensors away around it, or where it reads what is dequantised.
    """
    import onnx_ir as ir

    found: list[Ran] = []
    types: dict[ir.Value, str] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        inputs = [types.get(value) or _stated(value) for value in node.inputs if value is not None]
        stated = [_stated(value) for value in node.outputs]
        floating = next((name for name in (*inputs, *stated) if name in _OF_TYPE), None)
        for value in node.outputs:
            types[value] = _stated(value) or _cast_to(node) or floating or ""
        ran = "int8" if node.op_type.startswith(_INTEGER) else _OF_TYPE[floating] if floating is not None else ""
        if ran and computes(node.op_type):
            outputs = tuple(own_name(value.name or "") for value in node.outputs)
            found.append(Ran(node.name or "", node.op_type, _asked(node, ran), ran, outputs))
    return tuple(found)


def count_ran(found: Iterable[Ran]) -> dict[str, int]:
    """Count the operators that compute in each precision.

    Example:
        >>> count_ran([Ran("a", "Conv", "fp16", "fp32"), Ran("b", "Relu", "fp32", "fp32")])
        {'fp32': 2}
    """
    return dict(sorted(Counter(one.ran for one in found).items()))


def count_precisions(model: ir.Model) -> dict[str, int]:
    """Count the operators of a graph that compute in each precision; see `read_ran`.

    Returns:
        Precision to number of operators, such as ``{"fp32": 53}``; one of the quantised operators is ``int8``.
    """
    return count_ran(read_ran(model))


def _asked(node: ir.Node, ran: str) -> str:
    """Return what an operator was asked to compute in: what it makes tells, for what it reads others made."""
    first = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if first is not None and first.op_type == "Cast" and first.inputs[0] is not None:
        first = first.inputs[0].producer()
    if ran != "int8" and first is not None and first.op_type == "DequantizeLinear":
        return "int8"
    names = [node.name, *(value.name for value in node.outputs)]
    return "fp16" if ran == "fp32" and any((name or "").startswith(_CAST_AWAY) for name in names) else ran


def own_name(tensor: str) -> str:
    """Return what a tensor was called in the graph that was handed over."""
    for prefix in _CAST_AWAY:
        tensor = tensor.removeprefix(prefix)
    return tensor


def _stated(value: ir.Value) -> str:
    return value.dtype.name if value.dtype is not None else ""


def _cast_to(node: ir.Node) -> str:
    import onnx_ir as ir

    target = node.attributes.get("to")
    return ir.DataType(target.as_int()).name if node.op_type == "Cast" and target is not None else ""
