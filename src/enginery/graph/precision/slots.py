"""Which inputs and outputs of a node may take another floating-point type, by ONNX's own schemas."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from enginery.graph.opset.schemas import schema_at

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CASTS", "HOLDERS", "MOVEMENT", "SOURCES", "castable_slots", "has_type", "is_float32", "reads_any_type"]

HOLDERS = ("If", "Loop", "Scan")
"""Operators whose subgraphs pass tensors in and out; their types are those of their subgraphs."""

CASTS = ("Cast",)

SOURCES = ("Constant", "ConstantOfShape")
"""Operators that make tensors of constants, whose type is that of an attribute."""

MOVEMENT = frozenset({
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that hand values on as they are: of their first input, or of all."""

_SCORES, _MASK = 3, 3  # the places of an Attention's output of scores, and of its input that masks
_ANY_TYPE = frozenset({"Cast", "Shape", "Size"})
# Their output's type is that of an attribute, or they name float32 by default.
_TYPED_BY_ATTRIBUTE = frozenset({
    "Bernoulli", "BitCast", "BlackmanWindow", "CastLike", "EyeLike", "HammingWindow", "HannWindow", "MelWeightMatrix",
    "Multinomial", "Optional", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "SequenceEmpty",
})  # fmt: skip
# Type variables that stay float32 beside a castable one: coordinates, a stash of statistics, a ratio, a depth.
_FIXED = {"Dropout": ("T1",), "LayerNormalization": ("U",), "OneHot": ("T2",), "Resize": ("T2",)}


def reads_any_type(node: ir.Node) -> bool:
    """Say whether a node does the same whatever the floating-point type of its input."""
    return not node.domain and node.op_type in _ANY_TYPE


def castable_slots(node: ir.Node, version: int, dtype: ir.DataType) -> tuple[frozenset[int], frozenset[int]]:
    """Return the places of the float32 inputs and outputs of a node that may become `dtype`; empty for none.

    Args:
        node: of ONNX's own operators; any other has no such places.
        version: of the operator set.
        dtype: the type to take.
    """
    nothing: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    if node.domain or node.op_type in (*_TYPED_BY_ATTRIBUTE, *HOLDERS, *CASTS, *SOURCES):
        return nothing
    schema = schema_at(node.op_type, version)
    variables = _variables(node.op_type, version, dtype.name.lower())
    if schema is None or not variables or _accumulates(node) or _is_odd(node, dtype) or not _types_known(node):
        return nothing
    return (
        frozenset(_places(node.inputs, schema.inputs, variables)),
        frozenset(_places(node.outputs, schema.outputs, variables)),
    )


def _accumulates(node: ir.Node) -> bool:
    """Say whether a node adds up into places of a tensor, which few kernels do in a narrow type, and none well."""
    reduction = node.attributes.get("reduction")
    return node.op_type.startswith("Scatter") and reduction is not None and reduction.as_string() != "none"


def _is_odd(node: ir.Node, dtype: ir.DataType) -> bool:
    """Say whether it is an Attention that ONNX defines for float32 alone, whatever its schema allows.

    Its fourth output may hold the lowest value of the type in masked places; and where a mask is given beside
    `is_causal`, ONNX's definition of it adds float32 to bfloat16, which no runtime loads that follows the definition.
    """
    if node.op_type != "Attention":
        return False
    shown = len(node.outputs) > _SCORES and bool(
        node.outputs[_SCORES].uses() or node.outputs[_SCORES].is_graph_output()
    )
    causal, mask = node.attributes.get("is_causal"), node.inputs[_MASK] if len(node.inputs) > _MASK else None
    both = causal is not None and causal.as_int() == 1 and is_float32(mask)
    return shown or (both and dtype.name == "BFLOAT16")


@functools.cache
def _variables(op: str, version: int, dtype: str) -> frozenset[str]:
    """Return the type variables of an operator that allow both float32 and `dtype`."""
    schema = schema_at(op, version)
    constraints: Any = () if schema is None else schema.type_constraints
    return frozenset(
        one.type_param_str
        for one in constraints
        if {f"tensor({dtype})", "tensor(float)"} <= set(one.allowed_type_strs)
        and one.type_param_str not in _FIXED.get(op, ())
    )


def _places(values: Any, formals: Any, variables: frozenset[str]) -> list[int]:
    if not formals:
        return []
    return [
        at
        for at, value in enumerate(values)
        if is_float32(value) and formals[min(at, len(formals) - 1)].type_str in variables
    ]


def is_float32(value: ir.Value | None) -> bool:
    """Say whether a value is a tensor of float32."""
    import onnx_ir as ir

    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT


def _types_known(node: ir.Node) -> bool:
    """Say whether every value of a node that anyone uses is a tensor of a known type.

    What nobody knows cannot be cast; sequences keep the type that they were declared with.
    """
    read = [value for value in node.inputs if value is not None]
    made = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    return all(has_type(value) for value in (*read, *made))


def has_type(value: ir.Value) -> bool:
    """Say whether a value is a tensor whose element type is known."""
    import onnx_ir as ir

    return isinstance(value.type, ir.TensorType) and value.dtype not in (None, ir.DataType.UNDEFINED)
