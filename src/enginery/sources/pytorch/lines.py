"""Which line of the user's code made a size constant, from what PyTorch's exporter writes about each node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.sources.blame import line_of_stack

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["STACK_KEY", "baked_line"]

STACK_KEY = "pkg.torch.onnx.stack_trace"


def baked_line(graph: ir.Model, output: str, axis: int) -> str:
    """Return the line that made an output's axis constant, or an empty text where nothing tells.

    It is that of the nearest node, on the way back from the output, that reads a tensor of varying size and writes one
    whose size on that axis is a constant.

    Args:
        graph: with the exporter's stack traces in it.
        output: name of the output.
        axis: the axis that should vary.
    """
    constant = next((value for value in graph.graph.outputs if value.name == output), None)
    waiting = [constant] if constant is not None else []
    seen: set[str] = set()
    size = constant.shape[axis] if constant is not None and constant.shape is not None else None
    while waiting:
        value = waiting.pop(0)
        node = value.producer()
        if node is None or (value.name or "") in seen:
            continue
        seen.add(value.name or "")
        dims = {one: list(one.shape) for one in node.inputs if one is not None and one.shape is not None}
        held = [one for one, sizes in dims.items() if one.producer() is not None and size in sizes]
        varying = [one for one, sizes in dims.items() if any(not isinstance(dim, int) for dim in sizes)]
        if varying and not held and (line := line_of_stack(node.metadata_props.get(STACK_KEY, ""))):
            return line
        waiting.extend(held or [one for one in node.inputs if one is not None])
    return ""
