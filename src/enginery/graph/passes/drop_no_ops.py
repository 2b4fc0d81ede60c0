"""Remove nodes that hand their input on as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from enginery.graph.passes.base import Pass, constant_value, is_op, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DropNoOps"]


class DropNoOps(Pass):
    """Remove casts to the type that is there, transposes and reshapes to the layout that is there, and the like.

    Two transposes in a row become one, or none; of two reshapes in a row the first goes where it does not matter.
    """

    name = "drop no-ops"

    def apply(self, model: ir.Model) -> bool:
        """Remove what does nothing, then merge pairs, until nothing changes."""
        changed = False
        while _sweep(model):
            changed = True
        return changed


def _sweep(model: ir.Model) -> bool:
    changed = False
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.inputs else None
        if node.graph is None or source is None or node.domain:
            continue
        test = _TESTS.get(node.op_type)
        if test is not None and test(node, source):
            changed |= replace_node(node, source)
        elif node.op_type == "Transpose":
            changed |= _merge_transposes(node, source)
        elif node.op_type == "Reshape":
            changed |= _merge_reshapes(node, source)
    return changed


def _same_type(node: ir.Node, source: ir.Value) -> bool:
    return source.dtype is not None and source.dtype.value == node.attributes.get_int("to", 0)


def _keeps_order(node: ir.Node, source: ir.Value) -> bool:
    del source
    order = _permutation(node)
    return order is not None and order == tuple(range(len(order)))


def _same_static_shape(node: ir.Node, source: ir.Value) -> bool:
    """Say whether the shape asked for is the one that is there, all of it known."""
    asked = constant_value(node.inputs[1] if len(node.inputs) > 1 else None)
    if asked is None or source.shape is None or not source.shape.is_static():
        return False
    return tuple(int(size) for size in asked) == tuple(source.shape)


def _one_input(node: ir.Node, source: ir.Value) -> bool:
    del source
    return len(node.inputs) == 1


_TESTS: dict[str, Callable[[ir.Node, ir.Value], bool]] = {
    "Cast": _same_type,
    "Concat": _one_input,
    "Expand": _same_static_shape,
    "Max": _one_input,
    "Mean": _one_input,
    "Min": _one_input,
    "Reshape": _same_static_shape,
    "Sum": _one_input,
    "Transpose": _keeps_order,
}


def _permutation(node: ir.Node) -> tuple[int, ...] | None:
    attribute = node.attributes.get("perm")
    return None if attribute is None or attribute.is_ref() else tuple(attribute.as_ints())


def _merge_transposes(node: ir.Node, source: ir.Value) -> bool:
    import onnx_ir as ir

    first = source.producer()
    if first is None or not is_op(first, "Transpose") or first.graph is not node.graph or first.inputs[0] is None:
        return False
    inner, outer = _permutation(first), _permutation(node)
    if inner is None or outer is None:
        return False
    node.attributes["perm"] = ir.AttrInt64s("perm", [inner[axis] for axis in outer])
    node.replace_input_with(0, first.inputs[0])
    _remove_if_unread(first)
    return True


def _merge_reshapes(node: ir.Node, source: ir.Value) -> bool:
    """Read past a first reshape where the second says every size but one by itself; a 0 would copy a size."""
    first = source.producer()
    asked = constant_value(node.inputs[1] if len(node.inputs) > 1 else None)
    if first is None or not is_op(first, "Reshape") or first.graph is not node.graph or first.inputs[0] is None:
        return False
    if asked is None or (asked == 0).any():
        return False
    node.replace_input_with(0, first.inputs[0])
    _remove_if_unread(first)
    return True


def _remove_if_unread(node: ir.Node) -> None:
    output = node.outputs[0]
    if node.graph is not None and not output.uses() and not output.is_graph_output():
        node.graph.remove(node, safe=True)
