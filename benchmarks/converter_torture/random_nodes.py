"""The kinds of pieces that random graphs are made of; each adds nodes and returns the name of a 4 by 4 float matrix."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from benchmarks.converter_torture.random_bodies import BODIES
from benchmarks.converter_torture.writer import Kind, Writer

__all__ = ["INNER_KINDS", "KINDS"]

_FLOATS = (TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_LEAST = float(np.finfo(np.float32).min)
_DANGERS = (7e4, -1e5, 1e38, _LEAST, 65504.0, 65519.0, 1e-12, 3e-8, 1e-6, 1e-40, 0.0, np.inf)


def unary(to: Writer) -> str:
    """One input, one output."""
    ops = ("Relu", "Neg", "Tanh", "Identity", "Sigmoid", "Softmax", "Transpose", "Erf", "Abs", "HardSigmoid", "Elu")
    return to.node(to.random.choice(ops), [to.pick()])


def binary(to: Writer) -> str:
    """Two inputs, or three."""
    op = to.random.choice(("Add", "Mul", "Sub", "Max", "MatMul", "Gemm", "Sum", "Where", "PRelu"))
    inputs = [to.pick(), to.pick()]
    if op == "Where":
        inputs = [to.node("Less", inputs), to.pick(), to.pick()]
    return to.node(op, inputs)


def weighted(to: Writer) -> str:
    """A product with weights, or with weights that others read too."""
    weight = "w" if to.random.random() < 0.5 else to.weight(to.matrix())
    return to.node("MatMul", [to.pick(), weight])


def danger(to: Writer) -> str:
    """A constant that a narrow type cannot hold, or hardly."""
    value = to.random.choice(_DANGERS)
    return to.node(to.random.choice(("Min", "Max")), [to.pick(), to.weight(value)])


def masked(to: Writer) -> str:
    """Attention's mask: 1 - mask times the smallest float32, added to scores, and a softmax."""
    mask = to.node("Cast", [to.weight(np.tril(np.ones((4, 4))), np.int64)], to=TensorProto.FLOAT)
    away = to.node("Mul", [to.node("Sub", [to.weight(1.0), mask]), to.weight(_LEAST)])
    return to.node("Softmax", [to.node("Add", [to.pick(), away])], axis=-1)


def masked_where(to: Writer) -> str:
    """Attention's mask by a choice."""
    mask = to.weight(np.tril(np.ones((4, 4))), np.bool_)
    least = to.random.choice((_LEAST, -np.inf))
    return to.node("Softmax", [to.node("Where", [mask, to.pick(), to.weight(least)])], axis=-1)


def cast_pair(to: Writer) -> str:
    """To another floating-point type and back."""
    narrow = to.node("Cast", [to.pick()], to=to.random.choice(_FLOATS))
    return to.node("Cast", [narrow], to=TensorProto.FLOAT)


def cast_island(to: Writer) -> str:
    """Some work in another floating-point type."""
    dtype = to.random.choice((TensorProto.FLOAT16, TensorProto.DOUBLE))
    other = to.node("Cast", ["h" if dtype == TensorProto.FLOAT16 else "y"], to=dtype)
    narrow = to.node("Cast", [to.pick()], to=dtype)
    return to.node("Cast", [to.node("Add", [narrow, other])], to=TensorProto.FLOAT)


def cast_like(to: Writer) -> str:
    """A cast whose type is another tensor's."""
    if to.opset < 15:
        return cast_pair(to)
    return to.node("CastLike", [to.random.choice(("y", "h")), to.pick()])


def whole(to: Writer) -> str:
    """Through whole numbers, which must not change."""
    floor = to.node("Cast", [to.node("Mul", [to.weight(np.arange(16).reshape(4, 4)), to.weight(129.0)])], to=7)
    return to.node("Mul", [to.node("Cast", [floor], to=1), to.node("Mul", [to.pick(), to.weight(1e-3)])])


def gathered(to: Writer) -> str:
    """Rows of weights by index."""
    rows = to.node("Gather", ["w", "ids"]) if to.random.random() < 0.5 else to.node("Gather", [to.pick(), "ids"])
    return to.node("Add", [rows, to.pick()])


def clipped(to: Writer) -> str:
    """An optional input that is left out."""
    low, high = to.weight(to.random.choice((-1.0, _LEAST))), to.weight(to.random.choice((1.0, 1e-5)))
    return to.node("Clip", to.random.choice([[to.pick(), "", high], [to.pick(), low], [to.pick(), low, high]]))


def padded(to: Writer) -> str:
    """Padding, with a value or without, and a slice."""
    pads = to.weight([0, 1, 0, 1], np.int64)
    inputs = [to.pick(), pads] + ([to.weight(_LEAST)] if to.random.random() < 0.5 else [])
    wide = to.node("Pad", inputs)
    return to.node("Slice", [wide, to.weight([1], np.int64), to.weight([5], np.int64), to.weight([1], np.int64)])


def resized(to: Writer) -> str:
    """Up and down again, by scales and by sizes, with inputs left out."""
    picture = to.node("Unsqueeze", [to.pick(), to.weight([0, 1], np.int64)])
    scales = to.weight([1.0, 1.0, 2.0, 2.0])
    region = to.random.choice(("", to.weight([], np.float32)))
    large = to.node("Resize", [picture, region, scales], mode=to.random.choice(("nearest", "linear")))
    sizes = to.weight([1, 1, 4, 4], np.int64)
    return to.node("Squeeze", [to.node("Resize", [large, "", "", sizes]), to.weight([0, 1], np.int64)])


def topped(to: Writer) -> str:
    """The largest of each row, in order; where they were is an output of the graph too."""
    values = to.node("TopK", [to.pick(), to.weight([4], np.int64)], 2)
    return to.node("Add", [values, to.node("Cast", [to.last_outputs()[1]], to=1)])


def ranged(to: Writer) -> str:
    """Numbers one after another."""
    numbers = to.node("Range", [to.weight(0.0), to.weight(4.0), to.weight(1.0)])
    return to.node("Mul", [to.pick(), numbers])


def sized(to: Writer) -> str:
    """A division by a size."""
    size = to.node("Cast", [to.node("Size", [to.pick()])], to=TensorProto.FLOAT)
    return to.node("Div", [to.pick(), size])


def filled(to: Writer) -> str:
    """A fill of a tensor's size."""
    from onnx import numpy_helper  # noqa: PLC0415 - for this alone

    value = numpy_helper.from_array(np.asarray([to.random.choice((0.5, 7e4, _LEAST))], np.float32))
    fill = to.node("ConstantOfShape", [to.node("Shape", [to.pick()])], value=value)
    return to.node("Min", [fill, to.pick()])


def normalised(to: Writer) -> str:
    """A normalisation, whole or taken apart, with a tiny epsilon."""
    row = to.weight([1.0, 0.5, 2.0, 0.25])
    if to.opset >= 17 and to.random.random() < 0.5:
        return to.node("LayerNormalization", [to.pick(), row], epsilon=1e-12)
    centred = to.node("Sub", [to.pick(), to.weight(0.25)])
    square = to.node("Pow", [centred, to.weight(2.0)])
    mean = to.node("ReduceSum", [square, to.weight([1], np.int64)], keepdims=1)
    return to.node("Div", [centred, to.node("Sqrt", [to.node("Add", [mean, to.weight(1e-12)])])])


def convolved(to: Writer) -> str:
    """A convolution and a batch normalisation of a picture."""
    kernel = to.weight(to.matrix()[:3, :3].reshape(1, 1, 3, 3))
    made = to.node("Conv", [_picture(to), kernel], pads=[1, 1, 1, 1])
    one = [to.weight([value]) for value in (1.0, 0.1, 0.2, 1.5)]
    made = to.node("BatchNormalization", [made, *one])
    return to.node("Squeeze", [made, to.weight([0, 1], np.int64)])


def quantised(to: Writer) -> str:
    """Through eight bits and back."""
    scale, zero = to.weight(to.random.choice((0.05, 1e-7, 0.011))), to.weight(0, np.int8)
    return to.node("DequantizeLinear", [to.node("QuantizeLinear", [to.pick(), scale, zero]), scale, zero])


def in_sequence(to: Writer) -> str:
    """Into a sequence and out of it."""
    made = to.node("SequenceConstruct", [to.pick(), to.pick()])
    return to.node("SequenceAt", [made, to.weight(to.random.randrange(2), np.int64)])


def chosen(to: Writer) -> str:
    """Indices of what is kept of boxes, as a count."""
    boxes = to.node("Unsqueeze", [to.node("Abs", [to.pick()]), to.weight([0], np.int64)])
    scores = to.node("Unsqueeze", [to.weight([[0.9, 0.8, 0.3, 0.1]]), to.weight([0], np.int64)])
    limits = [to.weight([3], np.int64), to.weight([0.5]), to.weight([0.2])]
    kept = to.node("NonMaxSuppression", [boxes, scores, *limits])
    none = to.node("Mul", [to.node("Cast", [to.node("Size", [kept])], to=1), to.weight(0.0)])
    return to.node("Add", [to.pick(), none])


def scattered(to: Writer) -> str:
    """Values put, or added, to places."""
    places = to.node("Unsqueeze", ["ids", to.weight([0], np.int64)])
    values = to.weight([[1.0, 2.0, 3.0, 4.0]])
    if to.opset >= 16 and to.random.random() < 0.5:
        return to.node("ScatterElements", [to.pick(), places, values], reduction="add")
    return to.node("ScatterElements", [to.pick(), places, values])


def _picture(to: Writer) -> str:
    return to.node("Reshape", [to.pick(), to.weight([1, 1, 4, 4], np.int64)])


INNER_KINDS: tuple[Kind, ...] = (
    unary, binary, weighted, danger, masked, masked_where, cast_pair, cast_island, cast_like, clipped, resized,
    topped, sized, filled, normalised, convolved, quantised, gathered,
)  # fmt: skip
KINDS: tuple[Kind, ...] = (*INNER_KINDS, whole, padded, ranged, in_sequence, chosen, scattered, *BODIES, *BODIES)
