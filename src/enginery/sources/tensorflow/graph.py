"""What tf2onnx wrote, put in order: names, open sizes, layouts; and what is no ONNX in it, found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from enginery.errors import ExportError
from enginery.graph.base import LAYOUT, all_graphs, all_nodes
from enginery.sources.graph_names import rename_clashes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_operators", "name_nodes", "name_values", "note_layouts", "open_sizes"]

_DOMAINS = ("", "ai.onnx.ml")
_CALL = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NUMBERED = re.compile(r"_\d+$")
_MADE_UP = "unk__"
_TO_CHANNELS_FIRST = [0, 3, 1, 2]
_RANK_OF_PICTURES = 4
_SAME_LAYOUT = frozenset(
    {"Add", "Cast", "Clip", "Concat", "Div", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Pad", "Sub", "Sqrt"}
)
_MOST_SHOWN = 3


def check_operators(graph: ir.Model) -> None:
    """See that every operator is one of ONNX's own: tf2onnx writes those that it does not know as they are.

    Args:
        graph: operator sets that no node uses are dropped from it.

    Raises:
        ExportError: one is not; the message names it and a node.
    """
    from onnx import defs

    used: set[str] = set()
    foreign: dict[str, list[str]] = {}
    for node in all_nodes(graph):
        used.add(node.domain)
        version = graph.opset_imports.get(node.domain, 1)
        if node.domain not in _DOMAINS or not defs.has(node.op_type, version, node.domain):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            foreign.setdefault(name, []).append(_CALL.sub("", node.name or "?"))
    if foreign:
        shown = "; ".join(f"{name} (such as {nodes[0]})" for name, nodes in sorted(foreign.items())[:_MOST_SHOWN])
        more = f" and {len(foreign) - _MOST_SHOWN} more" if len(foreign) > _MOST_SHOWN else ""
        raise ExportError(f"there is no ONNX for {shown}{more}")
    for domain in set(graph.opset_imports) - used - {""}:
        del graph.opset_imports[domain]


def name_values(
    graph: ir.Model, inputs: Mapping[str, str] | Sequence[str], outputs: Mapping[str, str] | Sequence[str]
) -> None:
    """Give inputs and outputs the model's own names, in the model's own order.

    Args:
        graph: changed in place.
        inputs: the right name of each name in the file, in the right order; or the names alone, where the file has
            that order.
        outputs: the same.

    Raises:
        ExportError: one is missing, or there are others.
    """
    for kind, values, names in (("input", graph.graph.inputs, inputs), ("output", graph.graph.outputs, outputs)):
        found = [value.name or "" for value in values]
        if len(names) != len(found):
            raise ExportError(f"it wrote {len(found)} {kind}s ({', '.join(found)}), the model has {len(names)}")
        right = names if isinstance(names, Mapping) else dict(zip(found, names, strict=True))
        if set(found) != set(right):
            raise ExportError(f"its {kind}s are not the model's: {', '.join(sorted(set(found) ^ set(right)))}")
        by_name = {value.name or "": value for value in values}
        values.clear()
        values.extend(by_name[written] for written in right)
        for written, name in right.items():
            by_name[written].name = name
    rename_clashes(graph)


def open_sizes(graph: ir.Model, shapes: Mapping[str, Sequence[int | str]]) -> None:
    """Write the sizes and names of the inputs' axes, and forget the names that tf2onnx made up (``unk__12``).

    Args:
        graph: changed in place.
        shapes: the size, or the name where it is open, of each axis of each input.
    """
    import onnx_ir as ir

    for one in all_graphs(graph):
        for node in one:
            for value in node.outputs:
                if value.shape is not None:
                    value.shape = ir.Shape([_known(dim) for dim in value.shape])
    for value in graph.graph.inputs:
        value.shape = ir.Shape(list(shapes[value.name or ""]))


def _known(dim: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(dim, int):
        return dim
    return None if dim.value is None or str(dim.value).startswith(_MADE_UP) else str(dim.value)


def name_nodes(graph: ir.Model, layers: Iterable[str]) -> None:
    """Leave in each node's name the path of its Keras layers: ``resnet50/conv1_conv/convolution``.

    TensorFlow puts the calls that were inlined before it, and Keras appends ``_1`` to the scopes of a traced model.

    Args:
        graph: changed in place.
        layers: names of the layers; empty where they are not known.
    """
    known = frozenset(layers)
    nodes = [node for node in all_nodes(graph) if node.name]
    for node in nodes:
        node.name = _CALL.sub("", node.name or "")
    scopes = {tuple((node.name or "").split("/")[:2]) for node in nodes if (node.name or "").count("/") > 1}
    traced = bool(scopes) and all(_NUMBERED.search(part) for scope in scopes for part in scope)
    named = []
    for node in nodes:
        *path, last = (node.name or "").split("/")
        named.append("/".join([*(_layer(part, known, numbered=traced) for part in path), last]))
    taken: set[str] = set()
    for node, name in zip(nodes, named, strict=True):  # a name that two nodes have is refused by ONNX Runtime
        free, number = name, 1
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        taken.add(free)
        node.name = free


def _layer(part: str, known: frozenset[str], *, numbered: bool) -> str:
    """Return a layer's own name.

    Example:
        >>> _layer("conv1_conv_1", frozenset({"conv1_conv"}), numbered=False)
        'conv1_conv'
        >>> _layer("dense_1", frozenset(), numbered=False), _layer("dense_1_1", frozenset(), numbered=True)
        ('dense_1', 'dense_1')
        >>> _layer("relu_1", frozenset({"relu", "relu_1"}), numbered=True)  # the traced scope of the layer relu
        'relu'
    """
    bare = _NUMBERED.sub("", part)
    if not known:
        return bare if numbered else part
    return bare if bare in known and (numbered or part not in known) else part


def note_layouts(graph: ir.Model) -> None:
    """Note ``NHWC`` at each input of four axes whose last one is moved to the front of a picture for a convolution.

    Args:
        graph: the inputs' metadata is changed in place.
    """
    for value in graph.graph.inputs:
        if value.shape is not None and len(value.shape) == _RANK_OF_PICTURES and any(_moved(value)):
            value.metadata_props[LAYOUT] = "NHWC"


def _moved(value: ir.Value) -> Iterator[bool]:
    """Yield whether each node that gets the values, still in their layout, takes them as pictures."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        seen.add(one)
        for node, _ in one.uses():
            if node.op_type in _SAME_LAYOUT:
                waiting.extend(output for output in node.outputs if output not in seen)
            elif node.op_type == "Transpose":
                perm = node.attributes.get("perm")
                yield perm is not None and list(perm.as_ints()) == _TO_CHANNELS_FIRST
            elif node.op_type == "Reshape" and value.shape is not None and value.shape[-1] == 1:
                # One channel is moved by a reshape.
                yield any(after.op_type == "Conv" for after, _ in node.outputs[0].uses())
