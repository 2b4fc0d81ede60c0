"""Names in a graph that PyTorch's exporters wrote: dynamic axes, module paths, weights."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING

from enginery.errors import ExportError
from enginery.sources.base import Array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_dynamic", "name_outputs", "strip_wrapper"]

_WRAPPED = "module"
_PRIVATE = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")
_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_NAMESPACE = "namespace"

Axes = Mapping[str, Mapping[int, str]]
Call = tuple[Mapping[str, Array], Mapping[str, Array]]


def check_dynamic(graph: ir.Model, axes: Axes) -> None:
    """See that the inputs are all there, and that every axis asked to be dynamic is.

    Raises:
        ExportError: an axis became a constant, or has no name.
    """
    inputs = {value.name: value for value in graph.graph.inputs}
    for name, dynamic in axes.items():
        if name not in inputs:
            raise ExportError(f"the graph has no input {name!r}")
        shape = inputs[name].shape
        for axis, wanted in dynamic.items():
            found = None if shape is None else shape[axis]
            if isinstance(found, int):
                raise ExportError(f"input {name!r}, axis {axis} ({wanted}) became the constant {found}")
            if found is None or not found.value:
                raise ExportError(f"input {name!r}, axis {axis} ({wanted}) lost its name")


def name_outputs(graph: ir.Model, axes: Axes, one: Call, other: Call) -> None:
    """Name the output axes whose sizes differ between two calls, after the input axis of the same sizes.

    Args:
        graph: changed in place.
        axes: names of the inputs' dynamic axes.
        one: the inputs and outputs of a call.
        other: those of a call at other sizes.
    """
    import onnx_ir as ir

    known: dict[tuple[int, int], str] = {}
    for name, dynamic in axes.items():
        for axis, symbol in dynamic.items():
            known.setdefault((one[0][name].shape[axis], other[0][name].shape[axis]), symbol)
    for value in graph.graph.outputs:
        name = value.name or ""
        pairs = list(zip(one[1][name].shape, other[1][name].shape, strict=True))
        value.shape = ir.Shape(
            [a if a == b else known.get((a, b), f"{name}_dim{axis}") for axis, (a, b) in enumerate(pairs)]
        )


def strip_wrapper(graph: ir.Model) -> None:
    """Take the wrapper out of module paths and weights' names, and the exporting machine's file paths out of all.

    Args:
        graph: changed in place.
    """
    for node in graph.graph.all_nodes():
        properties = node.metadata_props
        for key in _PRIVATE:
            properties.pop(key, None)
        if _SCOPES in properties:
            scopes = ast.literal_eval(properties[_SCOPES])
            properties[_SCOPES] = repr([_without(scope) for scope in scopes[1:]])
        if _CLASSES in properties:
            properties[_CLASSES] = repr(ast.literal_eval(properties[_CLASSES])[1:])
        if _NAMESPACE in properties:
            properties[_NAMESPACE] = "/".join(_without(part) for part in properties[_NAMESPACE].split("/")[1:])
    taken = {value.name for value in graph.graph.inputs} | {
        value.name for node in graph.graph.all_nodes() for value in node.outputs
    }
    for value in list(graph.graph.initializers.values()):
        name = _without(value.name or "")
        if name != value.name and name not in taken and name not in graph.graph.initializers:
            value.name = name


def _without(scope: str) -> str:
    """Drop the wrapper's step from a dotted path.

    Example:
        >>> [_without(scope) for scope in ("module", "module.layer1.0", "module: ResNet", "relu")]
        ['', 'layer1.0', ': ResNet', 'relu']
    """
    if scope == _WRAPPED:
        return ""
    if scope.startswith((f"{_WRAPPED}.", f"{_WRAPPED}:")):
        return scope[len(_WRAPPED) :].removeprefix(".")
    return scope
