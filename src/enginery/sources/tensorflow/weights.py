"""Large weights, put into a graph that was converted without them; nobody holds their values before they are written.

A framework lays weights out in its own way, so the converter puts transposes and reshapes on them. What depends on
weights alone is computed here, one weight at a time, while the file is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.sources.tensorflow.freeze import LargeWeight
from enginery.sources.tensorflow.lazy import lazy_tensor, type_of
from enginery.sources.tensorflow.scales import fold_scales

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["put_weights"]

_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike"})
_MOST_GROWTH = 2
_SMALL_BYTES = 1 << 10

Array = np.ndarray[Any, Any]


def put_weights(model: ir.Model, weights: Mapping[str, LargeWeight]) -> None:
    """Turn inputs into initializers, and compute what depends on nothing else.

    Args:
        model: changed in place; the new tensors are read when they are looked at, each time anew.
        weights: by the names of the inputs that stand for them.
    """
    graph = model.graph
    taken = {value.name for value in graph.inputs} | {value.name for node in graph for value in node.outputs}
    taken |= set(graph.initializers)
    stand_ins = [value for value in graph.inputs if value.name in weights]
    kept = [value for value in graph.inputs if value.name not in weights]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    apart = set()
    for value in stand_ins:
        weight = weights[value.name or ""]
        value.name = _unused(weight.name, taken)
        value.const_value = lazy_tensor(value.name, weight.read)
        value.shape, value.type = value.const_value.shape, type_of(value.const_value)
        graph.register_initializer(value)
        apart.add(value)
    _fold(model, apart)
    fold_scales(model)
    _drop_unused(model)


def _unused(name: str, taken: set[str | None]) -> str:
    found, number = name, 1
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _fold(model: ir.Model, apart: set[ir.Value]) -> None:
    """Replace nodes of the main graph that read weights and constants alone; `apart` grows by what they give."""
    for node in list(model.graph):
        sources = [value for value in node.inputs if value is not None]
        if not any(value in apart for value in sources) or not _is_foldable(node, sources):
            continue
        tensors = [value.const_value for value in sources if value.const_value is not None]
        folded = _evaluate(node, [value.name or "" for value in sources], tensors, model.opset_imports)
        results = [lazy_tensor(output.name, _one_of(folded, place)) for place, output in enumerate(node.outputs)]
        limit = _SMALL_BYTES + _MOST_GROWTH * sum(tensor.nbytes for tensor in tensors)
        if sum(result.nbytes for result in results) <= limit:
            apart.update(_replace(node, results))


def _drop_unused(model: ir.Model) -> None:
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def _is_foldable(node: ir.Node, sources: Sequence[ir.Value]) -> bool:
    import onnx_ir as ir

    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return (
        all(value.is_initializer() and value.const_value is not None for value in sources)
        and not any(attribute.type in graphs for attribute in node.attributes.values())
        and not any(value.is_graph_output() or not value.name for value in node.outputs)
        and node.op_type not in _RANDOM
        and node.domain == ""
    )


def _evaluate(
    node: ir.Node, names: Sequence[str], tensors: Sequence[ir.TensorProtocol], opsets: Mapping[str, int]
) -> Callable[[], list[Array]]:
    """Return what computes one node by ONNX's reference evaluator."""
    import onnx_ir as ir
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = {
        name: helper.make_tensor_value_info(name, int(tensor.dtype), tensor.shape.numpy())
        for name, tensor in zip(names, tensors, strict=True)
    }
    outputs = [helper.make_tensor_value_info(value.name or "", 0, None) for value in node.outputs]
    graph = helper.make_graph([ir.to_proto(node)], "one", list(inputs.values()), outputs)
    opset = helper.make_opsetid("", opsets[""])
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[opset]))

    def compute() -> list[Array]:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [np.asarray(array) for array in evaluator.run(None, feeds)]

    return compute


def _one_of(compute: Callable[[], list[Array]], place: int) -> Callable[[], Array]:
    return lambda: compute()[place]


def _replace(node: ir.Node, tensors: Sequence[ir.LazyTensor]) -> list[ir.Value]:
    """Put initializers in the place of a node's outputs."""
    import onnx_ir as ir

    graph = node.graph
    assert isinstance(graph, ir.Graph)  # noqa: S101 - it stands in the main graph
    found = []
    for output, tensor in zip(list(node.outputs), tensors, strict=True):
        value = ir.Value(name=output.name, shape=tensor.shape, type=type_of(tensor), const_value=tensor)
        output.replace_all_uses_with(value)
        found.append(value)
    graph.remove(node, safe=True)
    for value in found:
        graph.register_initializer(value)
    return found
