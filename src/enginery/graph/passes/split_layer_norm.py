"""Write layer normalisation as means, differences and a quotient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, is_op, put_in_place

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SplitLayerNorm"]

_EPSILON = 1e-5
_FIRST_OPSET, _LAST_OPSET = 17, 17  # ReduceMean has its axes as an attribute until 17


class SplitLayerNorm(Pass):
    """Write ``LayerNormalization(x)`` over the last axis as ``(x - mean(x)) / sqrt(variance + epsilon) * s + b``.

    It computes the same (Ba, Kiros and Hinton 2016, "Layer Normalization", equation 4), and is for readers that fuse
    this and not the operator; it is none of the passes that every graph gets.
    """

    name = "split layer normalisation"

    def requires(self, model: ir.Model) -> bool:
        """There must be one, in an opset that has both forms."""
        opset = model.opset_imports.get("", 0)
        return _FIRST_OPSET <= opset <= _LAST_OPSET and any(_fits(node) for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Split each that normalises the last axis and gives nothing but the result."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if _fits(node) and node.graph is not None:
                _split(node)
                changed = True
        return changed

    def ensures(self, model: ir.Model) -> str:
        """None that fits is left."""
        left = [str(node.name) for node in model.graph.all_nodes() if _fits(node)]
        return f"layer normalisations are left: {', '.join(left)}" if left else ""


def _fits(node: ir.Node) -> bool:
    if not is_op(node, "LayerNormalization") or not all(node.inputs[:2]):
        return False
    value = node.outputs[0]
    if any(other.uses() or other.is_graph_output() for other in node.outputs[1:]) or value.dtype is None:
        return False
    axis = node.attributes.get_int("axis", -1)
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _split(node: ir.Node) -> None:
    import onnx_ir as ir

    value = node.outputs[0]
    if value.dtype is None:
        return
    tape = ir.tape.Tape()

    def constant(number: float) -> ir.Value:
        array = np.array(number, np.float32)
        made: ir.Value = tape.op("Constant", [], {"value": ir.tensor(array, dtype=value.dtype)})
        return made

    epsilon = constant(node.attributes.get_float("epsilon", _EPSILON))
    centred = tape.op("Sub", [node.inputs[0], tape.op("ReduceMean", [node.inputs[0]], {"axes": [-1]})])
    variance = tape.op("ReduceMean", [tape.op("Pow", [centred, constant(2.0)])], {"axes": [-1]})
    made = tape.op("Div", [centred, tape.op("Sqrt", [tape.op("Add", [variance, epsilon])])])
    made = tape.op("Mul", [made, node.inputs[1]])
    if len(node.inputs) > 2 and node.inputs[2] is not None:  # noqa: PLR2004 - the third is the shift
        made = tape.op("Add", [made, node.inputs[2]])
    put_in_place(node, tape, made)
