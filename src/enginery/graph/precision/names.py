"""Names that a graph does not have yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Names"]


class Names:
    """Hands out names that no node and no tensor of a model has; each once.

    Example:
        >>> import onnx_ir as ir
        >>> model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) {y = Neg(x)}')
        >>> names = Names(model)
        >>> names.free("y"), names.free("y")
        ('y_2', 'y_3')
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken = {name for graph in model.graphs() for name in graph.initializers}
        self._taken |= {value.name or "" for graph in model.graphs() for value in graph.inputs}
        for node in all_nodes(model):
            self._taken |= {node.name or "", *(value.name or "" for value in node.outputs)}

    def free(self, name: str) -> str:
        """Return the name, or where it is taken, the name with the first free number."""
        found, number = name, 1
        while found in self._taken:
            number += 1
            found = f"{name}_{number}"
        self._taken.add(found)
        return found
