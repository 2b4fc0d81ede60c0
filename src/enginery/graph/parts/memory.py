"""How much memory the tensors between nodes take, where the inputs have given sizes: an estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from enginery.graph.parts.dependence import reads
from enginery.graph.parts.extract import working_copy
from enginery.graph.parts.sizes import sizes_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["activation_bytes"]


def activation_bytes(model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> int | None:
    """Return the most bytes that tensors take at one time, each from its making to its last reading.

    Nodes run in the graph's order, in its own element types, inputs and outputs included; tensors inside subgraphs do
    not count. A backend that fuses nodes takes less, one that keeps kernels' scratch memory takes more.

    Args:
        model: the graph; it is not changed.
        sizes: of the inputs whose sizes may vary.

    Returns:
        None where a size is not known, or a text's is not.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) {a = Relu(x) y = Neg(a)}'
        >>> activation_bytes(ir.from_onnx_text(text), {"x": [100]})
        800
    """
    work, _ = working_copy(model)
    graph = work.graph
    made = [value.name for node in graph for value in node.outputs if value.name]
    found = sizes_of(work, made, sizes)
    found.update({value.name or "": _own(value, sizes) for value in graph.inputs})
    ends: dict[ir.Value, int] = dict.fromkeys(graph.outputs, len(graph))
    for at, node in enumerate(graph):
        for value in reads(node):
            ends[value] = max(ends.get(value, 0), at)
    live = [(value, -1) for value in graph.inputs] + [
        (value, at) for at, node in enumerate(graph) for value in node.outputs if value.name
    ]
    change = [0] * (len(graph) + 2)
    for value, begin in live:
        size = found.get(value.name or "")
        if value.dtype is None or value.dtype.is_string() or size is None:
            return None
        count = math.ceil(math.prod(size) * value.dtype.itemsize)
        change[begin + 1] += count
        if ends.get(value, begin) < len(graph):
            change[max(ends.get(value, begin), begin) + 2] -= count
    peak = now = 0
    for step in change:
        now += step
        peak = max(peak, now)
    return peak


def _own(value: ir.Value, sizes: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    if (given := sizes.get(value.name or "")) is not None:
        return tuple(given)
    dims = tuple(dim for dim in value.shape or () if isinstance(dim, int))
    return dims if value.shape is not None and len(dims) == len(value.shape) else None
