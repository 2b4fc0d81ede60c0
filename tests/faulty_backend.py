"""A backend that computes wrongly in a way that its option ``fault`` names; what it reads is else run as it is.

- ``jump``: every Erf is 5 % too large
- ``drift``: every MatMul is 0.04 % too large
- ``fusion``: a Mul of a Sigmoid that nobody else reads is 10 % too large, as if both were fused and wrongly so
- ``overflow``: what an Exp makes above 65504 is infinite
- ``refuse``: as ``jump``, and graphs that end in a Relu cannot be built
- ``crash``: as ``jump``, and the process dies of graphs that end in a Relu
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from enginery.backends.base import Availability, Built, Capabilities
from enginery.errors import BuildError
from enginery.graph.base import save_model, tensor_infos

_FAULTS = ("", "jump", "drift", "fusion", "overflow", "refuse", "crash")


def probe():
    """It is always here."""
    return Availability(available=True, version="1.0")


def capabilities(machine, graph=None):
    """It reads every graph."""
    del machine, graph
    return Capabilities(precisions=frozenset({"fp32"}), max_opset=24, min_opset=7)


def variants(graph, machine):
    """It is no candidate."""
    del graph, machine
    return ({},)


def build(graph, spec, folder):
    """Write the graph as it came."""
    fault = str(spec.options.get("fault", ""))
    assert fault in _FAULTS
    ends = {value.producer().op_type for value in graph.graph.outputs if value.producer() is not None}
    if fault == "refuse" and "Relu" in ends:
        raise BuildError("faulty takes no graph that ends in a Relu", mend="end it elsewhere")
    if fault == "crash" and "Relu" in ends:
        os.abort()
    save_model(graph, folder / "model.onnx")
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    return Built(inputs, outputs, {"fp32": 1}, dict(spec.options))


def open(folder, manifest, options):  # noqa: A001 - the contract's name
    """Read the graph, and plant the fault."""
    model = onnx.load(Path(folder) / "model.onnx")
    plant(model, str({**manifest.options, **options}.get("fault", "")))
    return Runner(model, [info.name for info in manifest.outputs])


def diagnose(error, graph):
    """It has no advice."""
    del error, graph


def plant(model, fault):
    """Change a graph so that it computes as the backend would."""
    if fault in ("jump", "refuse", "crash"):
        _scale(model, lambda node: node.op_type == "Erf", 1.05)
    elif fault == "drift":
        _scale(model, lambda node: node.op_type == "MatMul", 1.0004)
    elif fault == "fusion":
        outputs = {value.name for value in model.graph.output}
        sigmoids = {node.output[0] for node in model.graph.node if node.op_type == "Sigmoid"} - outputs
        _scale(model, lambda node: node.op_type == "Mul" and not sigmoids.isdisjoint(node.input), 1.1)
    elif fault == "overflow":
        _overflow(model)


def _scale(model, chosen, factor):
    _behind(model, chosen, lambda made, name: [helper.make_node("Mul", [made, name], [""])], factor)


def _overflow(model):
    def nodes(made, limit):
        return [
            helper.make_node("Greater", [made, limit], [f"{made}/above"]),
            helper.make_node("Where", [f"{made}/above", f"{limit}/inf", made], [""]),
        ]

    model.graph.initializer.append(numpy_helper.from_array(np.float32(np.inf), "fault/inf"))
    _behind(model, lambda node: node.op_type == "Exp", nodes, 65504.0)


def _behind(model, chosen, nodes, number):
    """Put nodes behind the chosen ones, in bodies too; the last takes over the name of what these make."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(number), "fault"))
    for graph in _graphs(model.graph):
        found = []
        for node in graph.node:
            found.append(node)
            if chosen(node):
                name, made = node.output[0], f"{node.output[0]}/right"
                node.output[0] = made
                more = nodes(made, "fault")
                more[-1].output[0] = name
                found.extend(more)
        del graph.node[:]
        graph.node.extend(found)


def _graphs(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


class Runner:
    """Evaluates what was read."""

    placement = "numpy"

    def __init__(self, model, names):
        self._evaluator = ReferenceEvaluator(model)
        self._names = names

    def infer(self, feeds):
        """Run once."""
        with np.errstate(all="ignore"):
            return dict(zip(self._names, self._evaluator.run(self._names, feeds), strict=True))

    def close(self):
        """Hold nothing."""
