"""A backend that computes nothing: zeros of the right shape and dtype, at once.

It makes the pipeline and the command line testable in milliseconds, and times what Enginery itself costs. It keeps the
graph only to know the outputs; an output dimension that no input names is 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.backends.asked import check_options
from enginery.backends.base import Availability, Built, Capabilities
from enginery.dtypes import numpy_dtype
from enginery.graph.base import tensor_infos
from enginery.records import GraphRecord, MachineRecord, ManifestRecord, TensorInfo
from enginery.spec import PRECISIONS, BuildSpec, Option

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["build", "capabilities", "check_spec", "diagnose", "open", "probe", "variants"]

_ARTEFACT = "model.null"


def probe() -> Availability:
    """It is always here."""
    return Availability(available=True, version="0")


def capabilities(machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
    """It takes everything."""
    del machine, graph
    return Capabilities(precisions=frozenset(PRECISIONS), max_opset=10_000)


def variants(graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
    """It has no options."""
    del graph, machine
    return ({},)


def check_spec(spec: BuildSpec) -> None:
    """Refuse options that it does not have."""
    check_options({}, spec.options)


def build(graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Write an empty artefact.

    Raises:
        UnknownNameError: an option was given; it has none.
    """
    check_options({}, spec.options)
    (folder / _ARTEFACT).write_bytes(b"")
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    return Built(inputs, outputs, precision_built={spec.precision: 0})


def open(folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> NullRunner:  # noqa: A001
    """Open it: nothing is read."""
    del folder
    check_options({}, options)
    return NullRunner(manifest.inputs, manifest.outputs)


def diagnose(error: Exception, graph: ir.Model | None) -> str | None:
    """It does not fail."""
    del error, graph
    return None


class NullRunner:
    """Returns zeros."""

    placement = "nowhere"

    def __init__(self, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
        self._inputs = inputs
        self._outputs = outputs

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Return zeros whose dimensions are the inputs' where they share a name."""
        sizes = {
            name: size
            for info in self._inputs
            for name, size in zip(info.shape or (), feeds[info.name].shape, strict=False)
        }
        return {
            info.name: np.zeros(
                [dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in info.shape or ()],
                numpy_dtype(info.dtype),
            )
            for info in self._outputs
        }

    def close(self) -> None:
        """Hold nothing."""
