"""How large tensors are when the inputs have given sizes: by inference with the real numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from enginery.graph.infer import infer_shapes
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.inline_functions import InlineFunctions
from enginery.graph.passes.remove_unused import RemoveUnused
from enginery.graph.shapes import apply_shapes
from enginery.spec import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["sizes_of", "with_outputs"]


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of a graph whose outputs are the values of these names, and nothing that only others need.

    Raises:
        KeyError: the main graph has no such value.
    """
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    RemoveUnused().apply(copy)
    return copy


def sizes_of(
    model: ir.Model, names: Sequence[str], sizes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...] | None]:
    """Return the sizes of tensors of a graph, where its inputs have the sizes given.

    Args:
        model: the graph; it is not changed.
        names: of the tensors.
        sizes: of the inputs whose sizes may vary.

    Returns:
        For each tensor its sizes; None where they cannot be inferred, as behind an operator that ONNX does not know.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[m] y) {a = Concat<axis=0>(x, x)'
        >>> sizes_of(ir.from_onnx_text(text + " y = Relu(a)}"), ["a"], {"x": [3]})
        {'a': (6,)}
    """
    copy = apply_shapes(with_outputs(model, names), {name: Shape.fixed(one) for name, one in sizes.items()})
    InlineFunctions().apply(copy)
    infer_shapes(copy)
    found = _sizes(copy)
    if None in found:
        # With every input fixed, sizes computed in the graph are constants; folded, they tell the shapes they make.
        FoldConstants().apply(copy)
        infer_shapes(copy)
        found = _sizes(copy)
    return dict(zip(names, found, strict=True))


def _sizes(model: ir.Model) -> list[tuple[int, ...] | None]:
    found = []
    for value in model.graph.outputs:
        shape = value.const_value.shape if value.shape is None and value.const_value is not None else value.shape
        numbers = tuple(dim for dim in shape or () if isinstance(dim, int))
        found.append(numbers if shape is not None and len(numbers) == len(shape) else None)
    return found
