"""In the framework's process: a traced function as one graph, its large weights as inputs beside it.

tf2onnx copies a graph and its constants at every step. So it never sees the large ones: each becomes an input, and
`enginery.sources.tensorflow.weights` puts it into the ONNX graph afterwards.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Frozen", "LargeWeight", "allow_inlining", "freeze"]

_LARGE_BYTES = 1 << 14
_KEEPS_CALLS = ("_XlaMustCompile", "_noinline")
_READS = {"ReadVariableOp": "Identity", "ResourceGather": "GatherV2", "ResourceGatherNd": "GatherNd"}
_PLAIN = frozenset(
    {"AddV2", "BatchMatMulV2", "BiasAdd", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Einsum", "MatMul", "Mul"}
)
_CONTROLS = frozenset({"Case", "Enter", "If", "StatelessCase", "StatelessIf", "StatelessWhile", "Switch", "While"})


@dataclass(frozen=True)
class LargeWeight:
    """A weight outside of the graph: what it is called, and what reads its values; nobody holds these."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Frozen:
    """A graph without variables.

    Args:
        graph: TensorFlow's ``GraphDef``.
        inputs: names of the inputs' tensors, in order.
        outputs: the same of the outputs.
        weights: the large weights by the names of their tensors, which are inputs as well.
    """

    graph: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, LargeWeight]


def freeze(function: Any) -> Frozen:
    """Inline all calls, turn small variables into constants and large ones into inputs.

    A variable that goes into a loop or a branch becomes a constant whatever its size.

    Args:
        function: TensorFlow's concrete function.
    """
    from tensorflow.python.framework import convert_to_constants as library

    captured = {inner.op.name for inner in function.graph.internal_captures}
    large, inlined = _large(function), _inline(function)
    readers, kinds = _readers(inlined), {node.name: node.attr["dtype"].type for node in inlined.node}
    apart = {name: large[name] for name in large if _is_plain(kinds[name], readers.get(name, set()))}
    graph, _ = library._replace_variables_by_constants(_collect(function, inlined, apart))  # noqa: SLF001
    _make_inputs(graph, apart)
    apart |= _take_constants(graph)
    _widen_summands(graph)
    return Frozen(
        graph,
        tuple(tensor.name for tensor in function.inputs if tensor.op.name not in captured),
        tuple(tensor.name for tensor in function.outputs),
        {f"{name}:0": weight for name, weight in apart.items()},
    )


def allow_inlining(graph: Any) -> None:
    """Take the marks off functions that keep them from being inlined: ONNX has no calls into compiled code."""
    inner = [node for function in graph.library.function for node in function.node_def]
    for item in (*graph.node, *inner, *graph.library.function):
        for mark in _KEEPS_CALLS:
            item.attr.pop(mark, None)


def _inline(function: Any) -> Any:
    """Return the function's graph with every call replaced by what it calls."""
    import tensorflow as tf
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow.python.framework import convert_to_constants as library
    from tensorflow.python.grappler import tf_optimizer

    graph = library.disable_lower_using_switch_merge(function.graph.as_graph_def())
    allow_inlining(graph)
    for inner in graph.library.function:
        inner.attr.pop("api_implements", None)  # another version of it for a GPU, which keeps it from being inlined
    message = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=tf.Graph())
    ends = meta_graph_pb2.CollectionDef()
    ends.node_list.value.extend(tensor.name for tensor in (*function.inputs, *function.outputs))
    message.collection_def["train_op"].CopyFrom(ends)
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1  # small graphs too
    config.graph_options.rewrite_options.optimizers.append("function")
    inlined = tf_optimizer.OptimizeGraph(config, message)
    _follow_variables(inlined)
    return inlined


def _follow_variables(graph: Any) -> None:
    """Let nodes read variables themselves, and not through the identities that stand for a call's arguments."""
    kind = _resource()
    through = {
        node.name: _source(node.input[0])
        for node in graph.node
        if node.op == "Identity" and node.attr["T"].type == kind and _source(node.input[0]) == node.input[0]
    }
    kept = [node for node in graph.node if node.name not in through]
    for node in kept:
        for place, text in enumerate(node.input):
            source, mark = _source(text), "^" if text.startswith("^") else ""
            if source in through:
                while source in through:
                    source = through[source]
                node.input[place] = mark + source
    copies = [type(node).FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _collect(function: Any, graph: Any, kept: Iterable[str]) -> Any:
    """Read the values of what a function captured, other than those to be kept apart."""
    from tensorflow.python.framework import convert_to_constants as library

    class Data(library._FunctionConverterDataInEager):  # type: ignore[misc]  # noqa: SLF001
        """What the library makes of a function, of a graph that is inlined already."""

        def __init__(self) -> None:
            self._func = function
            library._ConverterData.__init__(self, graph, variable_names_denylist=frozenset(kept))  # noqa: SLF001
            self._build_tensor_data()

    return Data()


def _large(function: Any) -> dict[str, LargeWeight]:
    """Return what the function captured and is large, by the name of the node that stands for it."""
    found = {}
    variables = {id(variable.handle): variable for variable in function.graph.variables}
    for outer, inner in zip(function.captured_inputs, function.graph.internal_captures, strict=True):
        holder = variables.get(id(outer), outer)
        dtype = holder.dtype
        if not (dtype.is_floating or dtype.is_integer) or not holder.shape.is_fully_defined():
            continue
        shape = tuple(holder.shape.as_list())
        if math.prod(shape) * dtype.size > _LARGE_BYTES:
            name = holder.name.partition(":")[0] if id(outer) in variables else inner.op.name
            found[inner.op.name] = LargeWeight(name, shape, holder.numpy)
    return found


def _readers(graph: Any) -> dict[str, set[str]]:
    """Return the operators that read what each node gives."""
    found: dict[str, set[str]] = {}
    for node in graph.node:
        for text in node.input:
            if not text.startswith("^"):
                found.setdefault(_source(text), set()).add(node.op)
    return found


def _source(text: str) -> str:
    return text.lstrip("^").partition(":")[0]


def _is_plain(kind: int, readers: set[str]) -> bool:
    """Say whether a captured variable is only read, and a captured tensor goes into no loop, branch or call."""
    if kind == _resource():
        return readers <= set(_READS)
    return not readers & _CONTROLS and not any("Call" in operator for operator in readers)


def _resource() -> int:
    import tensorflow as tf

    return int(tf.resource.as_datatype_enum)


def _make_inputs(graph: Any, weights: Mapping[str, LargeWeight]) -> None:
    """Let inputs that stand for variables stand for their values."""
    kinds = {}
    for node in list(graph.node):
        if node.op not in _READS or _source(node.input[0]) not in weights:
            continue
        kinds[_source(node.input[0])] = node.attr["dtype"].type
        _read_value(graph, node)
    for node in graph.node:
        if node.name in weights:
            kind = kinds.get(node.name, node.attr["dtype"].type)
            _make_placeholder(node, kind, weights[node.name].shape)


def _read_value(graph: Any, node: Any) -> None:
    """Turn what reads a variable into what reads a tensor."""
    attributes = {key: type(value)() for key, value in node.attr.items()}
    for key, value in attributes.items():
        value.CopyFrom(node.attr[key])
    inputs, operator = list(node.input), node.op
    node.op = _READS[operator]
    for key in list(node.attr):
        del node.attr[key]
    if operator == "ReadVariableOp":
        node.attr["T"].CopyFrom(attributes["dtype"])
        return
    node.attr["Tparams"].CopyFrom(attributes["dtype"])
    node.attr["Tindices"].CopyFrom(attributes["Tindices"])
    if operator == "ResourceGather":
        axis = attributes["batch_dims"].i if "batch_dims" in attributes else 0
        node.attr["batch_dims"].i = axis
        node.attr["Taxis"].CopyFrom(attributes["Tindices"])
        node.input[:] = [*inputs[:2], _add_number(graph, f"{node.name}/axis", axis, attributes["Tindices"].type)]
        node.input.extend(inputs[2:])


def _add_number(graph: Any, name: str, number: int, kind: int) -> str:
    import tensorflow as tf

    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = kind
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(number, tf.as_dtype(kind)))
    return name


def _make_placeholder(node: Any, kind: int, shape: tuple[int, ...]) -> None:
    for key in list(node.attr):
        del node.attr[key]
    node.op = "Placeholder"
    del node.input[:]
    node.attr["dtype"].type = kind
    node.attr["shape"].shape.SetInParent()
    for size in shape:
        node.attr["shape"].shape.dim.add(size=size)


def _take_constants(graph: Any) -> dict[str, LargeWeight]:
    """Turn large constants into inputs, where all that reads them takes any tensor; return their values."""
    import tensorflow as tf

    found, readers = {}, _readers(graph)
    for node in graph.node:
        if node.op != "Const" or node.attr["value"].tensor.ByteSize() <= _LARGE_BYTES:
            continue
        operators = readers.get(node.name)
        if not operators or not operators <= _PLAIN:
            continue
        array, kind = tf.make_ndarray(node.attr["value"].tensor), node.attr["dtype"].type
        found[node.name] = LargeWeight(node.name, array.shape, functools.partial(np.asarray, array))
        _make_placeholder(node, kind, array.shape)
    return found


def _widen_summands(graph: Any) -> None:
    """Give a number that is added to a tensor one axis: tf2onnx moves no transposes past those without one.

    It raises where such a number follows a convolution, and then leaves the whole optimisation out.
    """
    import tensorflow as tf

    with tf.Graph().as_default() as inferred:
        tf.import_graph_def(graph, name="")
    numbers = {node.name: node for node in graph.node if node.op == "Const" and not _sizes(node)}
    for node in list(graph.node):
        if node.op not in ("Add", "AddV2") or not inferred.get_tensor_by_name(f"{node.name}:0").shape.rank:
            continue
        for place, text in enumerate(node.input[:2]):
            if text in numbers and not text.startswith("^"):
                wide = graph.node.add()
                wide.CopyFrom(numbers[text])
                wide.name = f"{node.name}/number_{place}"
                wide.attr["value"].tensor.tensor_shape.dim.add(size=1)
                node.input[place] = wide.name


def _sizes(node: Any) -> list[int]:
    return [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim]
