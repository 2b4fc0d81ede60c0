"""The contract between Enginery and a backend: what a backend answers, and what crosses the line.

A backend is a module (or any object) with the functions of `Backend`; there is nothing to inherit. It never checks
arrays, hashes files or writes a manifest: `enginery.backends.session` and `enginery.backends.engine` do so for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from enginery.records import GraphRecord, MachineRecord, ManifestRecord, TensorInfo
from enginery.spec import BuildSpec, Option

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "Availability",
    "Backend",
    "Built",
    "Capabilities",
    "Feeds",
    "Runner",
    "Session",
]

Feeds = Mapping[str, Any]
"""Arrays by input name: numpy's, or any that speak DLPack."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here.

    Args:
        available: whether its library and device are here.
        version: of its library; None where it is not here.
        reason: why it is not available; empty where it is.
        mend: the exact command that brings it; empty where nothing is missing.
    """

    available: bool
    version: str | None = None
    reason: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do on a machine with a graph.

    Args:
        precisions: those it can compute in here, of `enginery.spec.PRECISIONS`.
        max_opset: highest version of ONNX's operator set that it reads rightly.
        dynamic_shapes: whether one engine may take several shapes.
        unsupported: operators of the graph that it cannot run, where it can say so before building.
    """

    precisions: frozenset[str]
    max_opset: int
    dynamic_shapes: bool = True
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """What a backend's `build` leaves in the folder it was given.

    Args:
        inputs, outputs: as the engine has them, without profiles.
        precision_built: read back from what was built: precision to number of layers or operators.
        options: all options with the values really used.
        notes: what a user should know.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision_built: Mapping[str, int]
    options: Mapping[str, Option] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """An opened engine as its backend sees it: checked numpy arrays in, numpy arrays out."""

    @property
    def placement(self) -> str:
        """What it really runs on, such as ``CPUExecutionProvider, 2 threads``."""
        ...

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once. Inputs are complete, of the right dtype and rank, and C-contiguous.

        The arrays returned belong to the caller: a later call does not change them.
        """
        ...

    def close(self) -> None:
        """Give up what it holds; called once."""
        ...


@runtime_checkable
class Session(Protocol):
    """An opened engine as callers see it; `enginery.backends.session.Session` is the one implementation."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs, with the profile each accepts."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs, with symbolic names for dimensions that vary."""
        ...

    @property
    def placement(self) -> str:
        """What it really runs on."""
        ...

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """Run once and return the outputs by name, in the caller's kind of array."""
        ...

    def close(self) -> None:
        """Give up what it holds; a second call does nothing."""
        ...


class Backend(Protocol):
    """The functions a backend's module has."""

    def probe(self) -> Availability:
        """Say whether it can be used here. Cheap (no heavy import where it can be helped), and never raises."""
        ...

    def capabilities(self, machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
        """Say what it can do on `machine`, and with `graph` where one is given."""
        ...

    def variants(self, graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
        """Return the sets of options that `optimize` should try, the plainest (usually ``{}``) first."""
        ...

    def build(self, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
        """Build an engine's artefact into the empty `folder`.

        Raises:
            BuildError: the library refused the graph.
            PrecisionError: it cannot compute in ``spec.precision`` here.
            UnknownNameError: ``spec.options`` names an option it does not have.
        """
        ...

    def open(self, folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:
        """Open what `build` left in `folder`; `options` stand over the manifest's for this session.

        Raises:
            ProviderError: it would run elsewhere than asked.
            BuildError: the library refused the artefact.
        """
        ...

    def diagnose(self, error: Exception, graph: ir.Model | None) -> str | None:
        """Say what another tool's failure probably means and what to do, or None."""
        ...
