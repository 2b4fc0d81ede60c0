"""What has the old size of an axis written into it: the mend of each operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from enginery.graph.dynamic.edit import Editor
from enginery.graph.dynamic.gathers import mend_gather, mend_gather_nd
from enginery.graph.dynamic.operands import (
    mend_along,
    mend_concat,
    mend_gemm,
    mend_matmul,
    mend_operands,
    mend_recurrent,
)
from enginery.graph.dynamic.reshape import mend_reshape
from enginery.graph.dynamic.sizes import mend_expand, mend_resize, mend_slice, mend_squeeze

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MENDS", "Mend"]

Mend = Callable[["ir.Node", Editor], str]
"""Changes one node so that it follows the axis; returns what was done, empty for nothing. Raises `Blocked`."""

_BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Where", "Sum", "Mean", "Max", "Min", "And", "Or", "Xor",
    "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip

MENDS: dict[str, Mend] = {
    **dict.fromkeys(_BROADCAST, mend_operands),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), mend_recurrent),
    **dict.fromkeys(("GatherElements", "ScatterElements", "Scatter"), mend_along),
    "MatMul": mend_matmul,
    "Gemm": mend_gemm,
    "Gather": mend_gather,
    "GatherND": mend_gather_nd,
    "Concat": mend_concat,
    "Reshape": mend_reshape,
    "Expand": mend_expand,
    "Slice": mend_slice,
    "Resize": mend_resize,
    "Squeeze": mend_squeeze,
}
"""The mend of each operator of ONNX's own that may have the size of an axis written into it."""
