"""Names for nodes: a precision plan, a constraint on a layer and a list of layers all speak of nodes by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["name_nodes"]


def name_nodes(model: ir.Model) -> None:
    """Give each node a name that no other has, in place; names that are there once stay.

    A node without a name is called after the first tensor it makes, and so always the same. Of several that share a
    name, the first keeps it.

    Example:
        >>> import onnx_ir as ir
        >>> model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) {y = Neg(x)}')
        >>> name_nodes(model)
        >>> model.graph[0].name
        'y'
    """
    nodes = list(all_nodes(model))
    counts = Counter(node.name for node in nodes)
    if "" not in counts and None not in counts and len(counts) == len(nodes):
        return
    taken: set[str] = set()
    own = {name for name in counts if name}
    for node in nodes:
        if node.name and node.name not in taken:
            taken.add(node.name)
            continue
        base = node.name or next((value.name for value in node.outputs if value.name), None) or node.op_type
        found, number = base, 1
        while found in taken or found in own:
            number += 1
            found = f"{base}_{number}"
        node.name = found
        taken.add(found)
