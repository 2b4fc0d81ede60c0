"""ONNX's reference evaluator: slow, in numpy, and right. The oracle of the tests and of `verify`.

It computes in the types the graph states, one operator after the other, without any optimisation, and has no options.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.backends.asked import check_options, check_precision_offered
from enginery.backends.base import Availability, Built, Capabilities
from enginery.backends.precision import count_precisions
from enginery.dtypes import DTYPES
from enginery.graph.base import save_model, tensor_infos
from enginery.records import GraphRecord, MachineRecord, ManifestRecord
from enginery.spec import BuildSpec, Option

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

__all__ = ["build", "capabilities", "check_spec", "diagnose", "open", "probe", "variants"]

_ARTEFACT = "model.onnx"
_PRECISIONS = frozenset({"fp32"})


def probe() -> Availability:
    """It comes with onnx, which is a dependency of Enginery."""
    return Availability(available=True, version=importlib.metadata.version("onnx"))


def capabilities(machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
    """It computes in the graph's own types, and knows the operators of the installed onnx."""
    del machine, graph
    import onnx

    return Capabilities(
        precisions=_PRECISIONS, max_opset=onnx.defs.onnx_opset_version(), max_ir_version=int(onnx.IR_VERSION)
    )


def variants(graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
    """It has no options."""
    del graph, machine
    return ({},)


def check_spec(spec: BuildSpec) -> None:
    """Refuse options that it does not have."""
    check_options({}, spec.options)


def build(graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Write ``model.onnx`` and see that the evaluator has an implementation of every operator.

    Raises:
        BuildError: an operator has no reference implementation.
        PrecisionError: another precision than fp32 was asked for.
        UnknownNameError: an option was given; it has none.
    """
    check_options({}, spec.options)
    check_precision_offered("reference", spec.precision, _PRECISIONS)
    save_model(graph, folder / _ARTEFACT)
    _evaluator(folder)
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    return Built(inputs, outputs, precision_built=count_precisions(graph))


def open(folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> ReferenceRunner:  # noqa: A001
    """Read ``model.onnx``, its external data included, into memory."""
    check_options({}, options)
    tensors = frozenset(info.name for info in manifest.outputs if info.dtype in DTYPES)
    return ReferenceRunner(_evaluator(folder), [info.name for info in manifest.outputs], tensors)


def diagnose(error: Exception, graph: ir.Model | None) -> str | None:
    """Tell an operator without a reference implementation from a graph that is wrong."""
    del graph
    text = str(error)
    if isinstance(error, NotImplementedError) or "No reference implementation" in text or "No registered" in text:
        return "the reference evaluator knows ONNX's own operators only; use another backend for this graph"
    return None


def _evaluator(folder: Path) -> ReferenceEvaluator:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load(folder / _ARTEFACT))


class ReferenceRunner:
    """Evaluates the graph operator by operator."""

    placement = "numpy, 1 thread"

    def __init__(self, evaluator: ReferenceEvaluator, names: list[str], tensors: frozenset[str]) -> None:
        self._evaluator = evaluator
        self._names = names
        self._tensors = tensors

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once; an output that is one of the caller's inputs, or a constant of the graph, is copied."""
        with np.errstate(all="ignore"):  # infinities and NaN are answers, as they are of any other backend
            outputs = self._evaluator.run(self._names, feeds)
        return {name: self._owned(name, value) for name, value in zip(self._names, outputs, strict=True)}

    def _owned(self, name: str, value: Any) -> Any:
        # A scalar result is a numpy scalar here, an Identity hands out its input, a Constant its own array.
        return np.array(value) if name in self._tensors else value

    def close(self) -> None:
        """Hold nothing that needs closing."""
