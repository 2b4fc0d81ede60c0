"""The contract between Enginery and a backend: what a backend answers, and what crosses the line.

A backend is a module (or any object) with the functions of `Backend`; there is nothing to inherit. It never checks
arrays, hashes files or writes a manifest: `enginery.backends.session` and `enginery.backends.engine` do so for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from enginery.graph.base import OpsetLimits
from enginery.records import (
    FindingRecord,
    GraphRecord,
    MachineRecord,
    ManifestRecord,
    PartRecord,
    ProfileRecord,
    TargetRecord,
    TensorInfo,
)
from enginery.spec import BuildSpec, Option, Shape

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.backends.device_arrays import DeviceCall

__all__ = [
    "Availability",
    "Backend",
    "Built",
    "Capabilities",
    "Definition",
    "Design",
    "DeviceRunner",
    "Examiner",
    "Feeds",
    "NetworkBuilder",
    "Runner",
    "Session",
    "SpecChecker",
    "WeightChanger",
]

Feeds = Mapping[str, Any]
"""Arrays by input name: numpy's, or any that speak DLPack."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here.

    Args:
        available: whether it can build here.
        version: of its library; None where it is not here.
        reason: why it is not available, or does not run; empty where it does both.
        mend: the exact command that brings what is missing; empty where nothing is.
        runs: whether engines can be opened here too. False where it builds ahead of time, for other machines: such a
            backend is no candidate of `optimize` here.
    """

    available: bool
    version: str | None = None
    reason: str = ""
    mend: str = ""
    runs: bool = True

    @property
    def usable(self) -> bool:
        """Whether engines can be built and opened here."""
        return self.available and self.runs


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do on a machine with a graph.

    Args:
        precisions: those it can compute in here, of `enginery.spec.PRECISIONS`.
        max_opset: highest version of ONNX's operator set that it reads rightly.
        min_opset: lowest version of it.
        max_ir_version: highest version of the file format that it reads; None for any.
        max_opsets: highest versions of other operator sets by domain, such as ``ai.onnx.ml``; any of one not named.
        dynamic_shapes: whether one engine may take several shapes.
        unsupported: operators of the graph that it cannot run, where it can say so before building.
        profiles: whether it is built for several profiles, and for ranges of values of an input that holds sizes.
        int8_form: how it best reads INT8: a name of `enginery.graph.precision.forms.FORMS`.
        int8_rest: the precision of what is not INT8 then.
        lacks: why it cannot compute in a precision that it does not offer, by that, such as ``{"tf32": "..."}``.
        by_name: precisions of those offered that it takes where they are asked for by name, and that are not worth a
            try otherwise: it has hardly a kernel for them here.
    """

    precisions: frozenset[str]
    max_opset: int
    min_opset: int = 1
    max_ir_version: int | None = None
    max_opsets: Mapping[str, int] = field(default_factory=dict)
    dynamic_shapes: bool = True
    unsupported: tuple[str, ...] = ()
    profiles: bool = False
    int8_form: str = "symmetric"
    int8_rest: str = "fp32"
    lacks: Mapping[str, str] = field(default_factory=dict)
    by_name: frozenset[str] = frozenset()

    @property
    def opsets(self) -> OpsetLimits:
        """Which graphs it reads rightly: a graph outside is converted before it is built."""
        return OpsetLimits(self.max_opset, self.min_opset, self.max_ir_version, self.max_opsets)


@dataclass(frozen=True)
class Built:
    """What a backend's `build` leaves in the folder it was given.

    Args:
        inputs, outputs: as the engine has them, without profiles.
        precision_built: read back from what was built: precision to number of layers or operators.
        options: all options with the values really used.
        notes: what a user should know.
        profiles: narrower profiles that the engine has besides the first, which takes all of ``spec.shapes``.
        target: what the engine needs to be opened; None where any machine with the library will do.
        parts: what runs where, in order, where two backends share the graph.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision_built: Mapping[str, int]
    options: Mapping[str, Option] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    profiles: tuple[Mapping[str, Shape], ...] = ()
    target: TargetRecord | None = None
    parts: tuple[PartRecord, ...] = ()


@dataclass(frozen=True)
class Design:
    """What an engine is built from, as a plain file that a job in any process takes, and where it came from.

    Args:
        path: an ONNX graph, or the description of a hand-built network (``network.json``).
        source: what it came from, for the manifest.
        source_sha256: hash of that.
        graph_sha256: hash of the graph; empty where there is none.
        backend: name of the one backend that can build it; empty where any that reads graphs can.
        content: what is in it, where it cannot be a file and is built in this process; crosses to no other.
        notes: what a user should know of how it came about, such as ``converted from opset 20 to 17``.
    """

    path: Path
    source: str = ""
    source_sha256: str = ""
    graph_sha256: str = ""
    backend: str = ""
    content: Definition | None = None
    notes: tuple[str, ...] = ()

    def as_arguments(self) -> dict[str, Any]:
        """Return what the job ``build`` takes of it; the path becomes absolute."""
        return {
            "design": self.path.absolute(),
            "source": self.source,
            "source_sha256": self.source_sha256,
            "graph_sha256": self.graph_sha256,
            "notes": list(self.notes),
        }


@runtime_checkable
class Definition(Protocol):
    """A hand-built network, ready to be defined with a backend's own API: a user's function and its weights."""

    @property
    def name(self) -> str:
        """What the network is called, such as ``resnet``."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the last call of `define`, such as weights that it never read."""
        ...

    def define(self, api: Any) -> Any:
        """Call the user's function with the API and the weights, once, and return what it returned.

        Raises:
            SourceError: the function raised; the message has its line, the cause is what it raised.
            UnknownNameError: it asked for a weight that is not there.
        """
        ...


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
class DeviceRunner(Protocol):
    """What the runner of a GPU's backend does besides `Runner`, where it can.

    Args:
        device_dtypes: numpy's name of the element type that an array of the device must have, by input.
        replay: runs the last call on arrays of the device again, with the feeds and outputs of a new one, or returns
            None where that is another call; None before there was one. It is the shortest way, and checks as much as
            it needs to.
    """

    device_dtypes: Mapping[str, str]
    replay: Callable[[Feeds, Feeds | None], dict[str, Any] | None] | None

    def infer_into(
        self, feeds: dict[str, np.ndarray[Any, Any]], outputs: dict[str, np.ndarray[Any, Any]] | None
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Run once, as `Runner.infer` does; outputs go into the caller's arrays, where it gave some."""
        ...

    def infer_on_device(self, call: DeviceCall) -> dict[str, Any]:
        """Run once on arrays of the device, in the order of the caller's stream, with no copy."""
        ...

    def pipeline(
        self,
        slots: int,
        check_feeds: Callable[[Feeds], dict[str, np.ndarray[Any, Any]]],
        check_shapes: Callable[[Mapping[str, tuple[int, ...]]], None],
    ) -> Any:
        """Return what keeps several batches under way; each batch is checked as the feeds of a call are."""
        ...

    def profile(self, feeds: dict[str, np.ndarray[Any, Any]], runs: int) -> ProfileRecord:
        """Time the parts of a call."""
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

    def run(self, feeds: Feeds, outputs: Feeds | None = None) -> dict[str, Any]:
        """Run once and return the outputs by name, in the caller's kind of array, or in the arrays given for them."""
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


@runtime_checkable
class SpecChecker(Protocol):
    """What a backend has besides, where it can tell a slip in what was asked for before there is a graph."""

    def check_spec(self, spec: BuildSpec) -> None:
        """Refuse at once what its `build` would refuse for any graph, after an export that may take minutes.

        Raises:
            UnknownNameError: ``spec.options`` names an option or a word that it does not have.
            UsageError: an option has a value of the wrong kind.
            BackendError: it cannot follow an option, here or at all.
        """
        ...


@runtime_checkable
class Examiner(Protocol):
    """What a backend has besides, where it can say before a build what will not convert."""

    shares: bool
    """Whether it leaves to another backend what it cannot run, where ``partition=auto`` is asked for."""

    def examine(self, graph: ir.Model, spec: BuildSpec) -> tuple[FindingRecord, ...]:
        """Say what of a graph cannot be built, or may not be, without building it. Nodes have names then.

        What every backend has in common is looked at already: the precision, the operator sets and the profiles.
        """
        ...


@runtime_checkable
class WeightChanger(Protocol):
    """What a backend has besides, where an engine can take other weights without being built again."""

    def refit(self, folder: Path, manifest: ManifestRecord, graph: ir.Model, target: Path) -> None:
        """Write the artefact of the engine in `folder` anew into the empty `target`, with the weights of `graph`.

        Raises:
            UsageError: the engine was not built to take other weights.
            BuildError: the graph's weights are not the engine's by name, size and type.
        """
        ...


@runtime_checkable
class NetworkBuilder(Protocol):
    """The function that a backend has besides, where users may build networks with its own API, layer by layer.

    What the ``api`` is, and what the user's function returns, is the library's own way:

    - OpenVINO: ``api`` is its newest module of operators (``openvino.opset16``); the function returns an
      ``openvino.Model``. A Parameter without a tensor name is called by its friendly name.
    - TensorRT: ``api`` is the empty ``INetworkDefinition`` to fill. The builder makes it, strongly typed, before the
      call, and keeps it and the builder alive until the engine is serialised; the function adds inputs and layers,
      marks the outputs and returns None. Weights are numpy arrays, which the definition holds until `build_network`
      returns, for TensorRT copies none before it builds. ``spec.shapes`` becomes one optimization profile (min, opt,
      max for each input with an axis of -1; an input that it does not name must have fixed axes) after the call.
    """

    def build_network(self, definition: Definition, spec: BuildSpec, folder: Path) -> Built:
        """Let `definition` build a network, and build its artefact into the empty `folder`, as `Backend.build` does.

        The inputs and outputs of the result are read back from the network; the profiles of ``spec.shapes`` are held
        against them with `enginery.backends.profiles.with_profiles` before anything is compiled.

        Raises:
            SourceError: the user's function failed, or returned something else than a network.
            BuildError: the library refused the network, or an input or output has no name.
            PrecisionError: it cannot compute in ``spec.precision`` here.
            UnknownNameError: ``spec`` names an input or an option that is not there.
        """
        ...
