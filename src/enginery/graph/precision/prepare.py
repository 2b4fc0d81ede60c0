"""What a graph needs before its types can be changed: one form for what has several, and every type known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import all_nodes, convert_opset
from enginery.graph.passes.base import is_op, quiet
from enginery.graph.precision.types_of_bodies import infer_types

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["prepared"]

_OPSET_OF_BFLOAT16 = 22  # Conv and its like take it since then
_OPSET_OF_HALF_SCALES = 19  # QuantizeLinear takes float16 since then


def prepared(model: ir.Model, asked: set[str], *, convert: bool = True) -> ir.Model:
    """Return a copy without functions, at an opset that has the types, with every tensor's type inferred.

    Args:
        model: not changed.
        asked: element types that tensors shall take, such as ``FLOAT16``.
        convert: whether its nodes are brought to that opset; else it only says so, which is enough to decide on types.

    Raises:
        GraphError: the opset has no way up, or types do not follow.
    """
    from onnx_ir.passes.common import InlinePass

    copy, version = model.clone(), model.opset_imports.get("", 1)
    if copy.functions:
        with quiet():
            copy = InlinePass()(copy).model
    needed = version
    if "BFLOAT16" in asked:
        needed = max(needed, _OPSET_OF_BFLOAT16)
    if any(is_op(node, "QuantizeLinear", "DequantizeLinear") for node in all_nodes(copy)):
        needed = max(needed, _OPSET_OF_HALF_SCALES)
    if needed != version and convert:
        copy = convert_opset(copy, needed)
    if problem := infer_types(copy):
        mend = "check the graph with onnx.checker, or export it again"
        raise GraphError(f"the types of the graph's tensors cannot be inferred: {problem}", mend=mend)
    for node in all_nodes(copy):
        if is_op(node, "CastLike"):
            _say_type(node)
    copy.opset_imports[""] = needed
    return copy


def _say_type(node: ir.Node) -> None:
    """Turn CastLike into Cast where the type is known: a reader of a tensor that counts for its type alone goes."""
    import onnx_ir as ir

    like = node.inputs[1]
    if like is None or like.dtype in (None, ir.DataType.UNDEFINED):
        return
    node.op_type = "Cast"
    node.replace_input_with(1, None)
    node.resize_inputs(1)
    node.attributes["to"] = ir.AttrInt64("to", like.dtype.value)
