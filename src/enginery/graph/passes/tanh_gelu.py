"""Write GELU by tanh in place of the error function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, only_reader, put_in_place
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.movements import scalar_factor
from enginery.graph.passes.remove_unused import RemoveUnused

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TanhGelu"]

_TOLERANCE = 1e-3
_CUBE = 0.044715


class TanhGelu(Pass):
    """Write ``x (1 + erf(x / sqrt 2)) / 2`` as ``x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2``.

    The second is Hendrycks' and Gimpel's approximation of the first ("Gaussian Error Linear Units", 2016, section 2).
    They differ by 4.7e-4 at most, as float16 numbers next to each other do from 0.5 on. It is not the same function,
    so it is none of the passes that every graph gets; TensorRT 8 fuses it into the matrix product before it, and makes
    a kernel of its own of the other.
    """

    name = "GELU by tanh"

    def requires(self, model: ir.Model) -> bool:
        """There must be an error function."""
        return any(is_op(node, "Erf") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Rewrite each whose parts are all found."""
        FoldConstants().apply(model)  # an opset conversion leaves its constants to be computed
        changed = False
        for node in list(model.graph.all_nodes()):
            found = _gelu(node) if is_op(node, "Erf") and node.graph is not None else None
            if found is not None:
                _rewrite(*found)
                changed = True
        RemoveUnused().apply(model)
        return changed


def _gelu(erf: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return x and the node that ends the formula, in whatever order its products are."""
    source = None if erf.inputs[0] is None else erf.inputs[0].producer()
    scaled = None if source is None else scalar_factor(source)
    if scaled is None or not math.isclose(scaled[1], math.sqrt(0.5), rel_tol=_TOLERANCE):
        return None
    x, one = scaled[0], only_reader(erf.outputs[0])
    if one is None or x.shape is None or not _adds_one(one, erf.outputs[0], len(x.shape)):
        return None
    value, number, times_x = one.outputs[0], 1.0, 0
    while True:
        product = only_reader(value)
        factor = None if product is None else _factor(product, value, x)
        if product is None or factor is None:
            return None
        value, number, times_x = product.outputs[0], number * factor[0], times_x + factor[1]
        if times_x and number != 1.0:
            return (x, product) if (number, times_x) == (0.5, 1) else None


def _factor(node: ir.Node, value: ir.Value, x: ir.Value) -> tuple[float, int] | None:
    """Return the number, and how often x, that a node multiplies a value with; None where it does something else."""
    scaled = scalar_factor(node)
    if scaled is not None and scaled[0] is value:
        return scaled[1], 0
    other = next((operand for operand in node.inputs if operand is not value), None)
    if other is None or not is_op(node, "Mul"):
        return None
    producer = other.producer()
    half = None if producer is None else scalar_factor(producer)
    if other is x:
        return 1.0, 1
    return (half[1], 1) if half is not None and half[0] is x else None


def _adds_one(node: ir.Node, value: ir.Value, rank: int) -> bool:
    """Say whether a node adds a single one to a value; ones of a larger shape would give the sum that shape."""
    others = [constant_value(operand) for operand in node.inputs if operand is not value]
    one = others[0] if is_op(node, "Add", "Sum") and len(others) == 1 else None
    return one is not None and one.size == 1 and one.ndim <= rank and bool(one.item() == 1)


def _rewrite(x: ir.Value, last: ir.Node) -> None:
    """Put the other formula where the first one ended; TensorRT knows it in this very order."""
    import onnx_ir as ir

    if x.dtype is None:
        return
    tape, dtype = ir.tape.Tape(), x.dtype.numpy()

    def number(value: float) -> ir.Value:
        made: ir.Value = tape.op("Constant", [], {"value": ir.tensor(np.array(value, dtype))})
        return made

    cube = tape.op("Mul", [number(_CUBE), tape.op("Pow", [x, number(3.0)])])
    inside = tape.op("Mul", [number(math.sqrt(2 / math.pi)), tape.op("Add", [x, cube])])
    share = tape.op("Mul", [number(0.5), tape.op("Add", [tape.op("Tanh", [inside]), number(1.0)])])
    made = tape.op("Mul", [x, share])
    put_in_place(last, tape, made)
