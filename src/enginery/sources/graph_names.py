"""Names in a graph that PyTorch's exporters wrote: dynamic axes, module paths, weights."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from enginery.errors import ExportError
from enginery.sources.base import Array

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_dynamic", "check_sizes", "drop_stacks", "name_outputs", "rename_clashes", "strip_wrapper"]

_WRAPPED = "module"
_PRIVATE = ("pkg.torch.onnx.stack_trace", "pkg.torch.onnx.fx_node")
_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_NAMESPACE = "namespace"

Axes = Mapping[str, Mapping[int, str]]
Call = tuple[Mapping[str, Array], Mapping[str, Array]]


def check_dynamic(graph: ir.Model, axes: Axes) -> tuple[str, ...]:
    """See that the inputs are all there, and that every axis asked to be dynamic is.

    Returns:
        What a user should know: names that the model made one, because it needs equal sizes there.

    Raises:
        ExportError: an axis became a constant, or has no name.
    """
    inputs = {value.name: value for value in graph.graph.inputs}
    notes = []
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
            if found.value != wanted:
                notes.append(f"input {name!r}, axis {axis}: the model needs {wanted} to equal {found.value}")
    return tuple(notes)


def check_sizes(
    graph: ir.Model, outputs: Mapping[str, Array], at: str, blame: Callable[[str, int], str] = lambda *_: ""
) -> None:
    """Compare the constant sizes of a graph's outputs with what the model gave: a baked-in size shows there.

    Args:
        graph: as exported.
        outputs: of the model.
        at: the sizes of the inputs, in words.
        blame: returns the user's line that made an axis of an output constant.

    Raises:
        ExportError: an output that varies has a constant size in the graph.
    """
    for value in graph.graph.outputs:
        right = outputs[value.name or ""].shape
        if value.shape is None:
            continue
        for axis, (size, own) in enumerate(zip(right, value.shape, strict=True)):
            if isinstance(own, int) and own != size:
                line = blame(value.name or "", axis)
                raise ExportError(
                    f"output {value.name!r}, axis {axis} became the constant {own}, the module gives {size} at {at}"
                    + (f" (at {line})" if line else "")
                )


def name_outputs(graph: ir.Model, axes: Axes, one: Call, other: Call) -> None:
    """Name the output axes whose sizes differ between two calls, after the input axis of the same sizes.

    Args:
        graph: changed in place.
        axes: names of the inputs' dynamic axes.
        one: the inputs and outputs of a call.
        other: those of a call at other sizes.
    """
    import onnx_ir as ir

    known: dict[tuple[int, int], dict[int, str]] = {}
    for name, dynamic in axes.items():
        for axis, symbol in dynamic.items():
            sizes = (one[0][name].shape[axis], other[0][name].shape[axis])
            known.setdefault(sizes, {}).setdefault(axis, symbol)
    for value in graph.graph.outputs:
        name = value.name or ""
        pairs = list(zip(one[1][name].shape, other[1][name].shape, strict=True))
        value.shape = ir.Shape(
            [a if a == b else _nearest(known.get((a, b), {}), axis, name) for axis, (a, b) in enumerate(pairs)]
        )


def _nearest(symbols: Mapping[int, str], axis: int, output: str) -> str:
    """Choose among axes that change alike the one at the same place."""
    return symbols.get(axis) or next(iter(symbols.values()), f"{output}_dim{axis}")


def strip_wrapper(graph: ir.Model) -> None:
    """Take the wrapper out of module paths, and of the names of nodes, values and weights.

    Args:
        graph: changed in place.
    """
    for node in graph.graph.all_nodes():
        properties = node.metadata_props
        node.name = _without_step(node.name or "")
        for value in node.outputs:
            value.name = _without_step(value.name or "") or value.name
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


def drop_stacks(graph: ir.Model) -> None:
    """Take out what the exporter says of each node's lines: it is bulky, and full of the machine's own paths.

    Args:
        graph: changed in place.
    """
    for node in graph.graph.all_nodes():
        for key in _PRIVATE:
            node.metadata_props.pop(key, None)


def rename_clashes(graph: ir.Model) -> None:
    """Give inner values that have the name of an input or output another one: exporters do not look.

    Args:
        graph: changed in place.
    """
    public = {*graph.graph.inputs, *graph.graph.outputs}
    names = {value.name for value in public}
    inner = [value for node in graph.graph.all_nodes() for value in node.outputs if value not in public]
    taken = names | {value.name for value in inner} | set(graph.graph.initializers)
    for value in [*inner, *graph.graph.initializers.values()]:
        if value.name in names and value not in public:
            name = next(
                f"{value.name}_{place}" for place in range(1, len(taken) + 2) if f"{value.name}_{place}" not in taken
            )
            taken.add(name)
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


def _without_step(name: str) -> str:
    """Drop the wrapper's step from a name with slashes, as the older exporter writes them.

    Example:
        >>> _without_step("/module/layer1/layer1.0/Conv"), _without_step("/Conv"), _without_step("node_1")
        ('/layer1/layer1.0/Conv', '/Conv', 'node_1')
    """
    return name.removeprefix(f"/{_WRAPPED}") if name.startswith(f"/{_WRAPPED}/") else name
