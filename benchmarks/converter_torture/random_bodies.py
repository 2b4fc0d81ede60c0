"""Kinds of pieces that hold graphs: If, Loop and Scan, which capture what is around them, and functions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from benchmarks.converter_torture.writer import SHAPE, Kind, Writer

__all__ = ["BODIES"]

_DEEPEST = 2


def _fill(to: Writer) -> None:
    """Write one or two pieces, of any kind that a subgraph may hold, a subgraph among them."""
    for _ in range(to.random.randint(1, 2)):
        kinds: tuple[Kind, ...] = tuple(to.inner)
        if to.depth < _DEEPEST:
            kinds = (*kinds, choice, loop)
        to.known.append(to.random.choice(kinds)(to))


def choice(to: Writer) -> str:
    """An If, whose branches capture; one of them may hand on a constant as it is."""

    def constant(inner: Writer) -> None:
        kinds = (
            lambda: inner.node("Identity", ["w"]),
            lambda: inner.weight(inner.matrix(), place=inner.random.randrange(2)),
        )
        inner.known.append(inner.random.choice(kinds)())

    other = constant if to.random.random() < 0.3 else _fill
    return to.node("If", ["yes"], then_branch=to.body([], 1, _fill), else_branch=to.body([], 1, other))


def _turn(to: Writer) -> list[ValueInfoProto]:
    """Return the inputs of a Loop's body: which turn it is, whether to go on, and the state."""
    return [
        helper.make_tensor_value_info(to.name("i"), TensorProto.INT64, []),
        helper.make_tensor_value_info(to.name("k"), TensorProto.BOOL, []),
        helper.make_tensor_value_info(to.name("s"), TensorProto.FLOAT, SHAPE),
    ]


def loop(to: Writer) -> str:
    """A Loop with one state; what it captures does not change."""
    inputs = _turn(to)
    _, go, state = (info.name for info in inputs)

    def write(inner: Writer) -> None:
        inner.known.append(state)
        going = inner.node("Identity", [go])
        inner.more_outputs.append(helper.make_tensor_value_info(going, TensorProto.BOOL, []))
        _fill(inner)
        inner.known.append(inner.node("Tanh", [inner.known[-1]]))

    body = to.body(inputs, 1, write)
    return to.node("Loop", [to.weight(3, np.int64), to.weight(True, np.bool_), to.pick()], body=body)  # noqa: FBT003


def collecting(to: Writer) -> str:
    """A Loop that also collects what it makes in each turn, which is then added up."""
    inputs = _turn(to)
    at, go, state = (info.name for info in inputs)

    def write(inner: Writer) -> None:
        going = inner.node("Identity", [go])
        inner.more_outputs.append(helper.make_tensor_value_info(going, TensorProto.BOOL, []))
        turn = inner.node("Cast", [at], to=TensorProto.FLOAT)
        inner.known.append(inner.node("Tanh", [inner.node("Add", [state, turn])]))
        inner.known.append(inner.node("Mul", [inner.pick(), inner.known[0]]))

    body = to.body(inputs, 2, write)
    to.node("Loop", [to.weight(3, np.int64), "", to.pick()], 2, body=body)
    collected = to.last_outputs()[1]
    return to.node("ReduceSum", [collected, to.weight([0], np.int64)], keepdims=0)


def scan(to: Writer) -> str:
    """A Scan over the rows of a matrix, with a row as its state."""
    state, row = to.name("s"), to.name("r")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in (state, row)]
    inner = Writer(to.random, to.opset, to.inner, to)
    made = inner.node("Tanh", [inner.node("Add", [state, row])])
    captured = inner.node("ReduceMax", [inner.pick()], keepdims=0)
    out = inner.node("Mul", [made, captured])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in (made, out)]
    body = helper.make_graph(inner.nodes, to.name("body"), inputs, outputs, initializer=inner.tensors)
    to.node("Scan", [to.weight([0.1, 0.2, 0.3, 0.4]), to.pick()], 2, body=body, num_scan_inputs=1)
    return to.last_outputs()[1]


def function(to: Writer) -> str:
    """A call of a function of the model's own."""
    name = to.name("Scaled")
    nodes = [
        helper.make_node("Constant", [], ["scale"], value=helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5])),
        helper.make_node("Mul", ["a", "scale"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["b"]),
    ]
    imports = [helper.make_opsetid("", to.opset)]
    to.root.functions.append(helper.make_function("local", name, ["a"], ["b"], nodes, imports))
    return to.node(name, [to.pick()], domain="local")


BODIES: tuple[Kind, ...] = (choice, loop, collecting, scan, function)
