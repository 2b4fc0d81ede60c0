"""A backend that reads like an old parser: opset 17, and a second input of a reduction as if it were not there."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx.reference import ReferenceEvaluator

from enginery.backends.base import Availability, Built, Capabilities
from enginery.graph.base import save_model, tensor_infos

_SINCE_13 = ("ReduceSum",)  # its axes were an input then already


def probe():
    """It is always here."""
    return Availability(available=True, version="8.6")


def capabilities(machine, graph=None):
    """It reads what was current in 2022."""
    del machine, graph
    return Capabilities(precisions=frozenset({"fp32"}), max_opset=17, min_opset=7, max_ir_version=8)


def variants(graph, machine):
    """It has no options."""
    del graph, machine
    return ({},)


def build(graph, spec, folder):
    """Write the graph as it came."""
    save_model(graph, folder / "model.onnx")
    return Built(tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs), {spec.precision: 1})


def open(folder, manifest, options):  # noqa: A001 - the contract's name
    """Read the graph, and silently forget the axes that it does not know."""
    del options
    return Runner(misread(onnx.load(Path(folder) / "model.onnx")), [info.name for info in manifest.outputs])


def diagnose(error, graph):
    """It has no advice."""
    del error, graph


def misread(model):
    """Return the model as an old parser understands it: whatever its opset, reductions have one input."""
    for node in model.graph.node:
        if node.op_type.startswith("Reduce") and node.op_type not in _SINCE_13:
            del node.input[1:]
    return model


class Runner:
    """Evaluates what was read."""

    placement = "numpy"

    def __init__(self, model, names):
        self._evaluator = ReferenceEvaluator(model)
        self._names = names

    def infer(self, feeds):
        """Run once."""
        return dict(zip(self._names, self._evaluator.run(self._names, feeds), strict=True))

    def close(self):
        """Hold nothing."""
