"""Remove Dropout, which does nothing at inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DropDropout"]

_RATIO_IS_INPUT = 12
_TRAINS_BY_TYPE = 7


class DropDropout(Pass):
    """Remove Dropout nodes that pass their input through and whose mask nobody reads.

    Before opset 7 an attribute says whether it is a test; from 12 on an input says whether it trains.
    """

    name = "drop dropout"

    def requires(self, model: ir.Model) -> bool:
        """There must be one."""
        return any(is_op(node, "Dropout") for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Remove each that is idle."""
        changed, version = False, model.opset_imports.get("", 0)
        for node in list(model.graph.all_nodes()):
            source = node.inputs[0] if node.inputs else None
            if is_op(node, "Dropout") and source is not None and _idle(node, version):
                changed |= replace_node(node, source)
        return changed


def _idle(node: ir.Node, version: int) -> bool:
    if version < _TRAINS_BY_TYPE:
        return node.attributes.get_int("is_test", 0) == 1
    if version < _RATIO_IS_INPUT or len(node.inputs) <= 2 or node.inputs[2] is None:  # noqa: PLR2004 - the third
        return True
    training = constant_value(node.inputs[2])
    return training is not None and not bool(training.any())
