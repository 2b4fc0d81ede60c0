"""Versions of ONNX's file format: which a model needs, and which goes with an opset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import all_graphs, constants

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ir_version_of_opset", "required_ir_version", "with_ir_version"]

_IR_OF_TYPES = {
    "FLOAT8E4M3FN": 9, "FLOAT8E4M3FNUZ": 9, "FLOAT8E5M2": 9, "FLOAT8E5M2FNUZ": 9, "UINT4": 10, "INT4": 10,
    "FLOAT4E2M1": 11, "FLOAT8E8M0": 12, "UINT2": 13, "INT2": 13, "FLOAT6E2M3": 14, "FLOAT6E3M2": 14,
}  # fmt: skip
_IR_OF_FUNCTIONS = 8
_IR_WITHOUT_INPUTS = 4  # before, every initializer had to be an input too


def required_ir_version(model: ir.Model) -> int:
    """Return the lowest IR version that has all that a model uses: its element types and its functions."""
    needed = [_IR_WITHOUT_INPUTS, _IR_OF_FUNCTIONS if model.functions else 0]
    names = {tensor.dtype.name for tensor in constants(model)}
    for graph in all_graphs(model):
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        names.update(value.dtype.name for value in values if value.dtype is not None)
    return max(needed + [_IR_OF_TYPES.get(name, 0) for name in names])


def with_ir_version(model: ir.Model, newest: int) -> ir.Model:
    """Return a copy at an older version of the format.

    Raises:
        GraphError: it uses what came later.
    """
    needed = required_ir_version(model)
    if needed > newest:
        raise GraphError(
            f"the graph needs IR version {needed}, for its element types or functions, and {newest} is the newest read",
            mend="cast to other types, or take another backend",
        )
    copy = model.clone()
    copy.ir_version = newest
    return copy


def ir_version_of_opset(opset: int) -> int:
    """Return the lowest version that goes with a version of ONNX's operator set.

    Example:
        >>> ir_version_of_opset(17)
        8
    """
    from onnx import helper

    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)], ignore_unknown=True))
