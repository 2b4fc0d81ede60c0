"""Random graphs over 4 by 4 matrices: what a converter of element types can trip over, put together by chance.

`random_nodes` holds the kinds of nodes; here they become a graph. What is drawn comes from a `random.Random` alone, so
a seed gives the same graph each time, and hypothesis can hand in one of its own and shrink what fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.converter_torture.random_nodes import INNER_KINDS, KINDS
from benchmarks.converter_torture.writer import SHAPE, Writer

__all__ = ["random_feeds", "random_model"]

_OPSETS = (13, 15, 17, 18, 20, 22)
_LOCAL = "local"


def random_model(random: Random, most: int = 10) -> onnx.ModelProto:
    """Return a valid model of one to `most` random pieces, with names, documentation and metadata to be kept.

    Example:
        >>> len(random_model(Random(1)).graph.output) > 0
        True
    """
    opset = random.choice(_OPSETS)
    writer = Writer(random, opset, INNER_KINDS)
    writer.known = ["x", writer.shared("w")]
    made = []
    for _ in range(random.randint(1, most)):
        made.append(random.choice(KINDS)(writer))
        writer.known.append(made[-1])
    outputs = random.sample(made, random.randint(1, min(3, len(made))))
    outputs = list(dict.fromkeys((*outputs, made[-1])))
    read = {name for node in _all_nodes(writer.nodes) for name in node.input}
    inputs = [one for one in _inputs() if one.name == "x" or one.name in read]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in outputs]
    graph = helper.make_graph(writer.nodes, "random", inputs, values + writer.more_outputs, initializer=writer.tensors)
    imports = [helper.make_opsetid("", opset)]
    functions = list(writer.functions)
    if functions:
        imports.append(helper.make_opsetid(_LOCAL, 1))
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    helper.set_model_props(model, {"made_by": "the torture"})
    return model


def random_feeds(model: onnx.ModelProto, seed: int) -> Mapping[str, Any]:
    """Return inputs for the model of a seed."""
    generator = np.random.default_rng(seed)
    feeds = {
        "x": generator.standard_normal((4, 4)).astype(np.float32),
        "y": generator.standard_normal((4, 4)),
        "h": generator.standard_normal((4, 4)).astype(np.float16),
        "ids": generator.integers(0, 4, (4,)),
        "yes": np.asarray(seed % 2 == 0),
    }
    return {one.name: feeds[one.name] for one in model.graph.input}


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all_nodes(attribute.g.node)


def _inputs() -> list[onnx.ValueInfoProto]:
    """Return inputs of several types, the first of a size that is not known beforehand."""
    return [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4]),
        helper.make_tensor_value_info("y", TensorProto.DOUBLE, SHAPE),
        helper.make_tensor_value_info("h", TensorProto.FLOAT16, SHAPE),
        helper.make_tensor_value_info("ids", TensorProto.INT64, [4]),
        helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
    ]
