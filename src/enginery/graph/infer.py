"""Shape inference by ONNX, for models of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import skeleton

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["infer_shapes"]


def infer_shapes(model: ir.Model) -> str:
    """Write the types and shapes that ONNX can infer into the values of a model, in place.

    A shape that is there is kept or made more precise; inputs and initializers are not touched. An operator that
    ONNX does not know is passed over.

    Returns:
        Why nothing could be inferred; empty where it worked.
    """
    import onnx
    import onnx_ir as ir

    try:
        inferred = ir.from_proto(onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True))
    except Exception as error:  # noqa: BLE001 - the C++ code raises several kinds; the reason is returned
        return str(error)
    for graph, other in zip(model.graphs(), inferred.graphs(), strict=True):
        found = ir.convenience.create_value_mapping(other)
        for node in graph:
            for value in node.outputs:
                if value.name and value.name in found:
                    _take(value, found[value.name])
    return ""


def _take(value: ir.Value, found: ir.Value) -> None:
    import onnx_ir as ir

    if found.shape is not None:
        value.shape = ir.Shape([_known(dim) for dim in found.shape])
    if found.type is not None:
        value.type = found.type


def _known(dim: int | ir.SymbolicDim) -> int | str | None:
    """Forget a name that the inference itself made up."""
    if isinstance(dim, int):
        return dim
    return None if dim.value is None or dim.value.startswith("unk__") else dim.value
