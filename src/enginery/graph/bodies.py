"""The bodies of If, Loop and Scan as models of their own, with what one call of them reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from enginery.graph.parts.dependence import captured, made_in, nested_graphs
from enginery.graph.passes.base import is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]
    Run: TypeAlias = "Callable[[ir.Model, Arrays], Arrays]"

__all__ = ["calls", "has_body"]


def has_body(node: ir.Node) -> bool:
    """Say whether a node has a body whose calls can be told."""
    return is_op(node, "If", "Loop", "Scan")


def calls(
    node: ir.Node, whole: ir.Model, known: Mapping[str, Array], run: Run
) -> Iterator[tuple[str, ir.Model, Arrays]]:
    """Yield the calls of a node's body, one after another, as far as the caller goes on.

    Args:
        node: an If, a Loop or a Scan of the main graph.
        whole: the model that it is in.
        known: what it reads, and what its body reads from around it, by name; weights need not be there.
        run: computes a model, to get from one call to the next.

    Yields:
        Which call it is in words, the body as a model with the sizes of that call, and what it reads.
    """
    read = [_array(value, known) for value in node.inputs]
    around = {value.name or "": known[value.name or ""] for value in captured(node) if value.name in known}
    if node.op_type == "If":
        branch = "then_branch" if read[0].reshape(-1)[0] else "else_branch"
        yield branch, _model(node.attributes[branch].as_graph(), whole, around), around
        return
    body = node.attributes["body"].as_graph()
    names = [value.name or "" for value in body.inputs]
    steps = _loop(read, names) if node.op_type == "Loop" else _scan(node, read, names)
    made: list[Array] | None = None
    at = 0
    while (given := steps(at, made)) is not None:
        feeds = {**given, **around}
        model = _model(body, whole, feeds)
        yield f"iteration {at}", model, feeds
        found = run(model, feeds)
        made = [found[value.name or ""] for value in model.graph.outputs]
        at += 1


def _loop(read: list[Any], names: list[str]) -> Callable[[int, list[Any] | None], dict[str, Any] | None]:
    """Return what each iteration of a Loop reads: its number, the condition and what is carried."""
    import numpy as np

    most = None if read[0] is None else int(read[0].reshape(-1)[0])
    begin = [np.array(True) if read[1] is None else read[1], *read[2:]]  # noqa: FBT003 - the condition's value

    def step(at: int, made: list[Any] | None) -> dict[str, Any] | None:
        carried = begin if made is None else made[: len(begin)]
        if (most is not None and at >= most) or not carried[0].reshape(-1)[0]:
            return None
        return dict(zip(names, [np.array(at, np.int64), *carried], strict=True))

    return step


def _scan(node: ir.Node, read: list[Any], names: list[str]) -> Callable[[int, list[Any] | None], dict[str, Any] | None]:
    """Return what each iteration of a Scan reads: its states, and a slice of each sequence."""
    count = node.attributes["num_scan_inputs"].as_int()
    states, sequences = read[: len(read) - count], read[len(read) - count :]
    axes, backward = (_numbers(node, f"scan_input_{word}", count) for word in ("axes", "directions"))

    def step(at: int, made: list[Any] | None) -> dict[str, Any] | None:
        if at >= sequences[0].shape[axes[0]]:
            return None
        slices = [
            sequence.take(sequence.shape[axis] - 1 - at if back else at, axis=axis)
            for sequence, axis, back in zip(sequences, axes, backward, strict=True)
        ]
        return dict(zip(names, [*(states if made is None else made[: len(states)]), *slices], strict=True))

    return step


def _numbers(node: ir.Node, name: str, count: int) -> tuple[int, ...]:
    given = node.attributes.get(name)
    return tuple(given.as_ints()) if given is not None else (0,) * count


def _array(value: ir.Value | None, known: Mapping[str, Array]) -> Any:
    if value is None:
        return None
    if value.const_value is not None and value.is_initializer():
        return value.const_value.numpy()
    return known[value.name or ""]


def _model(body: ir.Graph, whole: ir.Model, given: Mapping[str, Array]) -> ir.Model:
    """Return a body as a model: what it reads from around it becomes inputs, and weights its own."""
    import onnx_ir as ir

    graph = body.clone(allow_outer_scope_values=True)
    graphs = [graph, *(inner for node in graph for inner in nested_graphs(node))]
    own = {value for one in graphs for value in made_in(one)}
    taken: dict[ir.Value, ir.Value] = {}
    for one in graphs:
        for node in one:
            for at, value in enumerate(node.inputs):
                if value is not None and value not in own:
                    node.replace_input_with(at, taken.setdefault(value, _copy(value)))
        for at, value in enumerate(one.outputs):
            if value not in own:
                one.outputs[at] = taken.setdefault(value, _copy(value))
    _make_outputs(graph)
    for value in taken.values():
        if value.const_value is not None:
            graph.register_initializer(value)
        else:
            graph.inputs.append(value)
    for value in graph.inputs:
        array = given[value.name or ""]
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.opset_imports.update(whole.opset_imports)
    functions = [function.clone() for function in whole.functions.values()]
    return ir.Model(graph, ir_version=whole.ir_version, functions=functions)


def _copy(value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    const = value.const_value if value.is_initializer() else None
    return ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=const)


def _make_outputs(graph: ir.Graph) -> None:
    """Let a node make each output that is only handed on: a model's input is no output of an engine."""
    import onnx_ir as ir

    for at, value in enumerate(graph.outputs):
        if value.producer() is None:
            node = ir.node("Identity", [value], name=f"{value.name}/output")
            node.outputs[0].name, node.outputs[0].type = f"{value.name}/output", value.type
            graph.append(node)
            graph.outputs[at] = node.outputs[0]
