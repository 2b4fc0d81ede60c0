"""Compute at once what depends on constants only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery import optional
from enginery.graph.passes.base import Pass, constant_value, is_op, is_random, quiet

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FoldConstants"]

_INPUT_LIMIT = 1 << 16
_OUTPUT_LIMIT = 1 << 16
_FILL_LIMIT = 1 << 10
_TRANSPOSED_BYTES = 1 << 28


class FoldConstants(Pass):
    """Replace nodes of constant inputs by their values, as long as these are small: a graph must not blow up.

    Reading and writing are onnxscript's; it also follows shapes through ``Shape``, ``Gather`` and ``Concat``.
    """

    name = "fold constants"

    def apply(self, model: ir.Model) -> bool:
        """Fold until nothing changes; the shapes that the graph's inputs and outputs declare stay as they are."""
        optimizer = optional.require("onnxscript.optimizer", extra="", why="to fold constants")
        declared = [(value, value.shape, value.type) for value in (*model.graph.inputs, *model.graph.outputs)]
        places = list(model.graph.outputs)
        with quiet():
            result = optimizer.fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_INPUT_LIMIT,
                output_size_limit=_OUTPUT_LIMIT,
                should_fold=_Rule().should_fold,
            )
        for value, shape, kind in declared:
            value.shape, value.type = shape, kind
        for now, before in zip(model.graph.outputs, places, strict=True):
            now.shape, now.type = before.shape, before.type
        _lay_out(model)
        return bool(result.modified)


def _lay_out(model: ir.Model) -> None:
    """Write folded transposes out in memory: a view in another order cannot be hashed or mapped."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if (
                isinstance(tensor, ir.Tensor)
                and isinstance(tensor.raw, np.ndarray)
                and not tensor.raw.flags.c_contiguous
            ):
                value.const_value = ir.Tensor(np.ascontiguousarray(tensor.raw), dtype=tensor.dtype, name=value.name)


class _Rule:
    """Which nodes to fold: small fills, large transposes while the budget lasts, else what the library decides."""

    def __init__(self) -> None:
        self.left_bytes = _TRANSPOSED_BYTES

    def should_fold(self, node: ir.Node) -> bool | None:
        """Answer yes, no, or None for the library's own rule, which always folds a transposed weight."""
        if is_random(node):
            return False  # one draw would stand for all
        if is_op(node, "ConstantOfShape"):
            sizes = constant_value(node.inputs[0])
            return sizes is not None and int(sizes.prod()) <= _FILL_LIMIT
        source = node.inputs[0] if node.inputs else None
        if is_op(node, "Transpose") and source is not None and source.const_value is not None:
            self.left_bytes -= source.const_value.nbytes
            return None if self.left_bytes >= 0 else False
        return None
