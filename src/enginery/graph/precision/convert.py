"""Weights in another floating-point type, converted when they are written, so that none is held twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.dtypes import numpy_dtype
from enginery.graph.weights import drop_pages

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["Loss", "cast_array", "cast_tensor", "loss_of", "range_of"]

_EAGER_BYTES = 1 << 16
_CHUNK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Loss:
    """What a tensor loses in a narrower type.

    Args:
        clamped: how many finite values are beyond the type's range.
        largest: the largest of them, without its sign.
        vanished: how many values other than 0 become 0.
        subnormal: how many become subnormal: they keep few digits, and some hardware takes them for 0.
    """

    clamped: int = 0
    largest: float = 0.0
    vanished: int = 0
    subnormal: int = 0


def cast_array(array: Array, dtype: ir.DataType) -> Array:
    """Round to a narrower type; finite values beyond its range become the largest finite one, infinities stay.

    Example:
        >>> import onnx_ir as ir
        >>> cast_array(np.array([1e5, -np.inf], np.float32), ir.DataType.FLOAT16).tolist()
        [65504.0, -inf]
    """
    limit = range_of(dtype)[0]
    cast: Array = np.empty(array.shape, numpy_dtype(dtype.name.lower()))
    flat = cast.reshape(-1)
    for begin, piece in _pieces(array):
        if not np.abs(piece).max() <= limit:  # beyond, infinite or no number
            piece = np.where(np.isinf(piece), piece, np.clip(piece, -limit, limit))  # noqa: PLW2901 - of this turn
        flat[begin : begin + piece.size] = piece
    return cast


def cast_tensor(tensor: ir.TensorProtocol, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    """Return a tensor in another type; a large one is converted each time it is asked for, and not kept."""
    import onnx_ir as ir

    def converted() -> ir.TensorProtocol:
        cast = ir.Tensor(cast_array(tensor.numpy(), dtype), dtype=dtype, name=name)
        drop_pages([tensor])
        return cast

    if tensor.nbytes <= _EAGER_BYTES:
        return converted()
    return ir.LazyTensor(
        converted, dtype, ir.Shape(tensor.shape.numpy()), name=name, doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )  # fmt: skip


def loss_of(tensor: ir.TensorProtocol, dtype: ir.DataType) -> Loss:
    """Look at every value of a tensor, a piece at a time."""
    limit, normal, smallest = range_of(dtype)
    clamped = vanished = subnormal = 0
    largest = 0.0
    for _, piece in _pieces(tensor.numpy()):
        size = np.abs(piece)
        if not size.max() <= limit:  # beyond, infinite or no number
            beyond = size[(size > limit) & np.isfinite(size)]
            clamped += beyond.size
            largest = max(largest, float(beyond.max(initial=0.0)))
        low = size[size < normal]
        gone = int(np.count_nonzero(low)) - int(np.count_nonzero(low > smallest / 2))
        vanished += gone
        subnormal += int(np.count_nonzero(low)) - gone
    drop_pages([tensor])
    return Loss(clamped, largest, vanished, subnormal)


def _pieces(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield an array in pieces that a processor's cache holds, each with where it begins."""
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _CHUNK_ELEMENTS):
        yield begin, flat[begin : begin + _CHUNK_ELEMENTS]


def range_of(dtype: ir.DataType) -> tuple[float, float, float]:
    """Return the largest finite value of a type, the smallest normal one, and the smallest of all."""
    import ml_dtypes

    look_up: Any = ml_dtypes.finfo  # it has no types
    info = look_up(numpy_dtype(dtype.name.lower()))
    return float(info.max), float(info.smallest_normal), float(info.smallest_subnormal)
