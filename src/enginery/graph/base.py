"""What other stages need to know of a graph: its tensors and its identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from enginery.records import TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["tensor_info", "tensor_infos", "type_name"]

_NUMPY_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def tensor_info(value: ir.Value) -> TensorInfo:
    """Describe one value of a graph; a dimension without a name is ``?``, a type without elements ``unknown``."""
    shape = value.shape
    dims = None if shape is None else tuple(_dim(dim) for dim in shape)
    return TensorInfo(value.name or "", type_name(value.type), dims)


def type_name(kind: ir.TypeProtocol | None) -> str:
    """Name a type: ``float32``, or ``sequence(float32)`` and ``optional(...)`` for what is no tensor.

    Example:
        >>> import onnx_ir as ir
        >>> type_name(ir.SequenceType(ir.TensorType(ir.DataType.FLOAT)))
        'sequence(float32)'
    """
    import onnx_ir as ir

    if isinstance(kind, ir.SequenceType):
        return f"sequence({type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({type_name(kind.elem_type)})"
    if kind is None:
        return "unknown"
    return _NUMPY_NAMES.get(kind.dtype.name, kind.dtype.name.lower())


def tensor_infos(values: Iterable[ir.Value]) -> tuple[TensorInfo, ...]:
    """Describe several values in their order."""
    return tuple(tensor_info(value) for value in values)


def _dim(dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return dim.value if isinstance(dim.value, str) and dim.value else "?"
