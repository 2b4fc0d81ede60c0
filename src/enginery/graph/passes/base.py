"""What a pass is: one change to a graph that does not change what the graph computes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from enginery.streams import still_loggers

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "Pass",
    "constant_value",
    "is_op",
    "is_random",
    "only_reader",
    "put_in_place",
    "quiet",
    "replace_node",
    "run_library_pass",
]

_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


class Pass(Protocol):
    """One change to a graph. `enginery.graph.simplify` hands it a copy and checks what comes back.

    A pass keeps names and metadata of the nodes it keeps. It may set an initializer's tensor to another one, and
    never writes into a tensor's memory, which copies of the graph share.
    """

    name: str
    """What it does, in the imperative, as the record shows it."""

    def requires(self, model: ir.Model) -> bool:
        """Say whether there may be anything for it to do; where there is not, it is not run."""
        del model
        return True

    def apply(self, model: ir.Model) -> bool:
        """Change `model` in place, and say whether anything changed."""
        ...

    def ensures(self, model: ir.Model) -> str:
        """Say what it promised and did not keep; empty where all is well."""
        del model
        return ""


def is_op(node: ir.Node, *names: str) -> bool:
    """Say whether a node is one of ONNX's own operators of these names."""
    return node.op_type in names and not node.domain


def is_random(node: ir.Node) -> bool:
    """Say whether a node draws random numbers, so that two runs differ."""
    if is_op(node, "Dropout") and len(node.inputs) > 2:  # noqa: PLR2004 - the third says whether it trains
        training = constant_value(node.inputs[2])
        return node.inputs[2] is not None and (training is None or bool(training.any()))
    return is_op(node, *_RANDOM)


def constant_value(value: ir.Value | None) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return what a value always is, from an initializer or a Constant node; None where it may vary."""
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None
    node = value.producer()
    held = node.attributes.get("value") if node is not None and is_op(node, "Constant") else None
    name = held.as_tensor().name if held is not None and not held.is_ref() else None
    tensor = ir.convenience.get_const_tensor(value)
    if held is not None and tensor is not None:
        tensor.name = name  # onnx_ir names it after the value, though copies of the graph share it
    return None if tensor is None else tensor.numpy()


def replace_node(node: ir.Node, value: ir.Value) -> bool:
    """Let the readers of a node's first output read `value` instead, and remove the node.

    A graph's output keeps its name, its type and its shape. Returns False, and changes nothing, where the output is
    the graph's and `value` cannot take its name: an input, an initializer, or an output itself.
    """
    import onnx_ir as ir

    output, graph = node.outputs[0], node.graph
    if graph is None or any(other.uses() or other.is_graph_output() for other in node.outputs[1:]):
        return False
    if output.is_graph_output():
        producer = value.producer()
        if producer is None or producer.graph is not graph or value.is_graph_output():
            return False
        shape, kind, name = output.shape, output.type, output.name
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        value.name, value.shape, value.type = name, shape, kind
        return True
    ir.convenience.replace_all_uses_with(output, value)
    graph.remove(node, safe=True)
    return True


def only_reader(value: ir.Value) -> ir.Node | None:
    """Return the node that alone reads a value; None where there is another, or the value is an output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def put_in_place(node: ir.Node, tape: ir.tape.Tape, made: ir.Value) -> None:
    """Put the nodes of a tape where a node stands, whose first output they make anew, and remove the node.

    They are parts of the module that the node came from, and have names below its own; `made` takes the output's name.
    """
    import onnx_ir as ir

    value, graph = node.outputs[0], node.graph
    if graph is None:
        return
    for number, part in enumerate(tape.nodes):
        part.metadata_props.update(node.metadata_props)
        part.name = f"{node.name}.{number}" if node.name else None
    graph.insert_before(node, list(tape.nodes))
    made.type, made.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, made, replace_graph_outputs=True)
    kept = value.name
    graph.remove(node, safe=True)
    made.name = kept


def run_library_pass(library_pass: ir.passes.PassBase, model: ir.Model) -> bool:
    """Run a pass of onnx_ir in place, and say whether anything changed."""
    with quiet():
        return library_pass(model).modified


def quiet() -> AbstractContextManager[None]:
    """Keep the libraries' own warnings, which tell of what they leave alone, from the user."""
    return still_loggers("onnx_ir", "onnxscript")
