"""How many floating-point operations a node does; a multiply-add counts as two.

Sources of the formulas: convolution and matrix product, the loop nests of ONNX's operator reference
(https://onnx.ai/onnx/operators/) with one multiply-add in the innermost loop; recurrent cells, the equations there
with the gate products only, as Hochreiter and Schmidhuber (1997) and Cho et al. (2014) state them; attention,
Vaswani et al. (2017), equation 1: two matrix products. Softmax and the normalisations count the passes over their
input that their equations need; all else that computes counts one operation for each element of its output, and what
only moves data counts none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["UnknownShapeError", "node_flops"]


class UnknownShapeError(Exception):
    """A dimension that the count needs is not known."""


_MOVES = frozenset(
    {
        "BitCast", "Cast", "CastLike", "CenterCropPad", "Col2Im", "Compress", "Concat", "ConcatFromSequence",
        "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements",
        "GatherND", "Identity", "If", "Loop", "NonZero", "OneHot", "Optional", "OptionalGetElement",
        "OptionalHasElement", "Pad", "Range", "Reshape", "ReverseSequence", "Scan", "Scatter", "ScatterElements",
        "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
        "SequenceLength", "SequenceMap", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "SplitToSequence",
        "Squeeze", "StringConcat", "StringNormalizer", "StringSplit", "TensorScatter", "TfIdfVectorizer", "Tile",
        "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
_PER_INPUT_ELEMENT = {
    "ArgMax": 1, "ArgMin": 1, "GlobalAveragePool": 1, "GlobalLpPool": 2, "GlobalMaxPool": 1, "ReduceL1": 2,
    "ReduceL2": 2, "ReduceLogSum": 1, "ReduceLogSumExp": 2, "ReduceMax": 1, "ReduceMean": 1, "ReduceMin": 1,
    "ReduceProd": 1, "ReduceSum": 1, "ReduceSumSquare": 2, "TopK": 1,
    # maximum, subtraction, exponential, sum, division
    "Softmax": 5, "LogSoftmax": 5,
    # one multiply-add with folded statistics
    "BatchNormalization": 2,
    # mean, difference, square, mean, division, scale, shift; no mean for RMS
    "LayerNormalization": 7, "InstanceNormalization": 7, "GroupNormalization": 7, "RMSNormalization": 4,
    "MeanVarianceNormalization": 5,
}  # fmt: skip
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def node_flops(node: ir.Node) -> int:
    """Return the floating-point operations of one run of a node, its subgraphs not included.

    Raises:
        UnknownShapeError: a shape it depends on is not known, or it is none of ONNX's own operators.
    """
    if node.domain not in _OWN_DOMAINS:
        raise UnknownShapeError(f"the operator {node.domain}.{node.op_type}")
    if node.op_type in _MOVES:
        return 0
    if node.op_type in _PER_INPUT_ELEMENT:
        return _PER_INPUT_ELEMENT[node.op_type] * _size(node.inputs[0])
    if node.op_type in _GATES:
        return _recurrent(node)
    formula = _FORMULAS.get(node.op_type)
    return formula(node) if formula is not None else _size(node.outputs[0])


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None:
        raise UnknownShapeError("a missing input")
    shape = value.shape if value.shape is not None or value.const_value is None else value.const_value.shape
    sizes = [] if shape is None else [dim for dim in shape if isinstance(dim, int)]
    if shape is None or len(sizes) != len(shape):
        raise UnknownShapeError(value.name)
    return tuple(sizes)


def _size(value: ir.Value | None) -> int:
    return math.prod(_shape(value))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _conv(node: ir.Node, weights: int = 1) -> int:
    """Each output element sums (channels / groups) * kernel products; the weights' shape is (out, in / groups, ...)."""
    out = _size(node.outputs[0])
    return 2 * out * math.prod(_shape(node.inputs[weights])[1:]) + _bias(node, out)


def _conv_transpose(node: ir.Node) -> int:
    """Each input element is multiplied into (outputs / groups) * kernel elements."""
    products = _size(node.inputs[0]) * math.prod(_shape(node.inputs[1])[1:])
    return 2 * products + _bias(node, _size(node.outputs[0]))


def _bias(node: ir.Node, out: int) -> int:
    return out if node.op_type in ("Conv", "ConvTranspose", "Gemm") and _input(node, 2) is not None else 0


def _q_conv(node: ir.Node) -> int:
    return _conv(node, weights=3)


def _deform_conv(node: ir.Node) -> int:
    """As a convolution; each value read is interpolated between four (three multiply-adds)."""
    return 4 * _conv(node)


def _matmul(node: ir.Node) -> int:
    return 2 * _size(node.outputs[0]) * _shape(node.inputs[0])[-1]


def _gemm(node: ir.Node) -> int:
    inner = _shape(node.inputs[0])[0 if node.attributes.get_int("transA", 0) else 1]
    out = _size(node.outputs[0])
    return 2 * out * inner + _bias(node, out)


def _pool(node: ir.Node) -> int:
    kernel: tuple[int, ...] = tuple(node.attributes.get_ints("kernel_shape") or ())
    return _size(node.outputs[0]) * math.prod(kernel)


def _local_response(node: ir.Node) -> int:
    """Squares and sums `size` neighbours, then a power and a division."""
    return _size(node.outputs[0]) * (2 * node.attributes.get_int("size", 1) + 3)


def _einsum(node: ir.Node) -> int:
    """One multiply-add for each combination of indices, and one more product for each further operand."""
    terms = node.attributes.get_string("equation", "").replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        shape = _shape(value)
        before, dots, after = term.partition("...")
        spread = len(shape) - len(before) - len(after) if dots else 0
        # The dimensions under an ellipsis are broadcast from the right, so they are counted from there.
        labels = [*before, *(f"...{index}" for index in range(spread, 0, -1)), *after]
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values()) * len(terms)


def _recurrent(node: ir.Node) -> int:
    """Each gate multiplies the input and the state by a matrix, at each step, for each row and direction."""
    first, second, inputs = _shape(node.inputs[0])
    directions, hidden = _shape(node.inputs[2])[0], _shape(node.inputs[2])[-1]
    return 2 * _GATES[node.op_type] * first * second * directions * hidden * (inputs + hidden)


def _attention(node: ir.Node) -> int:
    """Q K^T and the product with V, for each head: 2 * queries * keys * (key width + value width)."""
    query, key, value = (_shape(node.inputs[index]) for index in range(3))
    if len(query) == 3:  # noqa: PLR2004 - heads are folded into the last axis
        heads = node.attributes.get_int("q_num_heads", 1)
        key_heads = node.attributes.get_int("kv_num_heads", 1)
        return 2 * query[0] * query[1] * key[1] * (query[2] + heads * value[2] // key_heads)
    return 2 * query[0] * query[1] * query[2] * key[2] * (query[3] + value[3])


_FORMULAS: dict[str, Callable[[ir.Node], int]] = {
    "Attention": _attention,
    "AveragePool": _pool,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "DeformConv": _deform_conv,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "LRN": _local_response,
    "LpPool": _pool,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MaxPool": _pool,
    "QLinearConv": _q_conv,
    "QLinearMatMul": _matmul,
}
