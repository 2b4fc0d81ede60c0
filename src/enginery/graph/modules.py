"""The module of the source that each node came from, as a dotted path kept in the node's metadata."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MODULE_KEY", "inherit_modules", "module_parts", "note_modules"]

MODULE_KEY = "enginery.module"
"""Key of a node's metadata; its value is a path such as ``layer3.0.conv2``."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_REWRITTEN = "pkg.onnxscript.rewriter.rule_name"
_CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")
_PARAMETER = re.compile(r"(.+)\.(weight|bias|running_mean|running_var|in_proj_weight|in_proj_bias)")


def note_modules(model: ir.Model) -> int:
    """Write into each node's metadata the module that it came from, where anything tells.

    What is there already stays. Else the metadata that ``torch.onnx.export`` writes is read; then the node's own name,
    where an exporter puts the path between slashes (``/layer3/layer3.0/conv2/Conv``, ``resnet50/conv1_conv/Conv2D``);
    then the name of a weight that it reads (``layer3.0.conv2.weight``).

    Args:
        model: changed in place.

    Returns:
        How many nodes say where they came from, those of subgraphs and functions among them.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, [3])
        >>> node = ir.node("Relu", [x], name="/block/block.1/Relu")
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> note_modules(ir.Model(graph, ir_version=10)), node.metadata_props["enginery.module"]
        (1, 'block.1')
    """
    known = 0
    for node in all_nodes(model):
        if path := module_parts(node):
            node.metadata_props[MODULE_KEY] = ".".join(path)
            known += 1
    return known


def inherit_modules(before: ir.Model, after: ir.Model) -> None:
    """Give a node that took the place of others the path of the one whose output it keeps.

    Args:
        before: the graph as it was.
        after: the graph with nodes replaced; changed in place.
    """
    paths = {
        value.name: node.metadata_props[MODULE_KEY]
        for node in all_nodes(before)
        if MODULE_KEY in node.metadata_props
        for value in node.outputs
        if value.name
    }
    for node in all_nodes(after):
        found = next((paths[value.name] for value in node.outputs if value.name in paths), None)
        if found is not None:
            node.metadata_props.setdefault(MODULE_KEY, found)


def module_parts(node: ir.Node) -> tuple[str, ...]:
    """Return the modules that a node came from, outermost first; empty where nothing tells."""
    if noted := node.metadata_props.get(MODULE_KEY):
        return tuple(noted.split("."))
    # Torch's exporter folds a batch norm into the convolution before it, and leaves it the batch norm's place.
    if "BatchNorm" in node.metadata_props.get(_REWRITTEN, "") and (path := _of_weight(node)):
        return path
    scopes = _metadata_scopes(node)
    if scopes is None:
        scopes = _name_scopes(node.name or "")
    return _joined(scopes) or _of_weight(node)


def _joined(scopes: Sequence[str]) -> tuple[str, ...]:
    """Turn enclosing modules, each with its full path or its own name only, into the steps of one path."""
    path: list[str] = []
    outer = ""
    for scope in scopes:
        path += (scope.removeprefix(f"{outer}.") if outer else scope).split(".")
        outer = scope
    return tuple(path)


def _metadata_scopes(node: ir.Node) -> list[str] | None:
    """Read the list of dotted module names; the first is the model itself, the last the operation."""
    text = node.metadata_props.get(_SCOPES)
    if not text:
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    # Checks that the exporter adds belong to no module, and say so with a name of their own.
    scopes = [scope for scope in found if isinstance(scope, str)] if isinstance(found, list) else []
    return [scope for scope in scopes[:-1] if scope and not scope.startswith("_empty_nn_module_stack")]


def _name_scopes(name: str) -> list[str]:
    """Cut a node's name at its slashes; the last part is the operator, and TensorFlow's calls are no modules."""
    parts = [part for part in name.split("/")[:-1] if part]
    return [part for part in parts if _CALL.fullmatch(part) is None]


def _of_weight(node: ir.Node) -> tuple[str, ...]:
    for value in node.inputs:
        if value is not None and value.is_initializer() and (match := _PARAMETER.fullmatch(value.name or "")):
            return tuple(match[1].split("."))
    return ()
