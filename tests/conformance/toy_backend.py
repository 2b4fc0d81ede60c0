"""A backend as somebody else's distribution would bring it: one module, nothing inherited, known by an entry point."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from enginery.backends.asked import check_options
from enginery.backends.base import Availability, Built, Capabilities, Runner
from enginery.graph.base import save_model, tensor_infos
from enginery.records import GraphRecord, MachineRecord, ManifestRecord
from enginery.spec import BuildSpec, Option

if TYPE_CHECKING:
    import onnx_ir as ir


def probe() -> Availability:
    """It is always here."""
    return Availability(available=True, version="1.0")


def capabilities(machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
    """It computes in the graph's own types."""
    del machine, graph
    return Capabilities(precisions=frozenset({"fp32"}), max_opset=onnx.defs.onnx_opset_version())


def variants(graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
    """It has no options."""
    del graph, machine
    return ({},)


def build(graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Write the graph as it is."""
    check_options({}, spec.options)
    save_model(graph, folder / "model.onnx")
    ToyRunner(folder, ())
    return Built(tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs), {"fp32": len(graph.graph)})


def open(folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:  # noqa: A001
    """Read the graph."""
    check_options({}, options)
    return ToyRunner(folder, tuple(info.name for info in manifest.outputs))


def diagnose(error: Exception, graph: ir.Model | None) -> str | None:
    """Blame the operator."""
    del error, graph
    return "the toy knows ONNX's own operators only"


class ToyRunner:
    """Evaluates with ONNX's reference evaluator and copies what it returns."""

    placement = "toy"

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._evaluator = ReferenceEvaluator(str(folder / "model.onnx"))
        self._names = names

    def infer(self, feeds: dict[str, Any]) -> dict[str, Any]:
        values = self._evaluator.run(list(self._names), feeds)
        copies = (value if isinstance(value, list) else np.array(value) for value in values)
        return dict(zip(self._names, copies, strict=True))

    def close(self) -> None:
        del self._evaluator
