"""What `enginery.backends` asks of TensorRT and of TensorRT-RTX: one class, an instance for each library.

Nothing here imports the library before it must: `probe` and `capabilities` without a graph read its version from what
pip installed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginery import optional
from enginery.backends import get
from enginery.backends.base import Availability, Built, Capabilities, Definition, Runner
from enginery.backends.partitioned import is_partitioned, open_partitioned
from enginery.backends.tensorrt.options import read_options, read_session_options
from enginery.backends.tensorrt.versions import (
    LIBRARIES,
    Library,
    int8_form,
    lacking,
    load_api,
    opset_ceiling,
    precisions,
)
from enginery.errors import BackendUnavailableError
from enginery.machine import compute_capability, describe_machine
from enginery.records import FindingRecord, GraphRecord, MachineRecord, ManifestRecord
from enginery.spec import BuildSpec, Option

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TensorRTBackend"]

_RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Of the GPUs that TensorRT-RTX runs on: none of a data centre from Hopper on."""

_MIN_OPSET = 9


class TensorRTBackend:
    """The functions of `enginery.backends.base.Backend`, for one of the two libraries.

    Args:
        library_name: ``tensorrt`` or ``tensorrt_rtx``; the backend is called as its library is.
    """

    shares = True

    def __init__(self, library_name: str) -> None:
        self.name = library_name
        self.library = LIBRARIES[library_name]

    def probe(self) -> Availability:
        """Look for the library and a GPU without importing anything; TensorRT-RTX also builds without a GPU."""
        version = _installed_version(self.library)
        if version is None:
            mend = f'run: pip install "enginery[{self.library.extra}]"'
            reason = f"{self.library.module} is not installed"
            return Availability(available=False, reason=reason, mend=mend)
        machine = describe_machine()
        if not machine.gpus and not _device_here():
            return self._without_gpu(version)
        if self.name == "tensorrt_rtx" and (other := _not_for_rtx(machine)):
            reason = f"TensorRT-RTX does not run on {other}"
            mend = "build for this GPU with TensorRT: --backend tensorrt"
            return Availability(available=True, version=version, reason=reason, mend=mend, runs=False)
        if not optional.installed("cuda"):
            reason = "cuda-python is not installed, and engines run with it"
            mend = f'run: pip install "enginery[{self.library.extra}]"'
            return Availability(available=True, version=version, reason=reason, mend=mend, runs=False)
        return Availability(available=True, version=version)

    def capabilities(self, machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
        """Say what this version computes in and reads; with a graph, which operators its parser does not know.

        The parser is asked by the operator's name alone: only a build proves that a graph can be built.
        """
        version = self.probe().version or ""
        own = compute_capability(machine) if self.name == "tensorrt" else ""  # TensorRT-RTX builds for other GPUs too
        offered = precisions(self.library, version, own)
        ceiling = opset_ceiling(self.library, version)
        unsupported: tuple[str, ...] = ()
        if graph is not None:
            from enginery.backends.tensorrt.parsing import unsupported_operators

            unsupported = unsupported_operators(load_api(self.name), graph)
        lacks = lacking(self.library, version, own)
        return Capabilities(
            offered, ceiling, _MIN_OPSET, unsupported=unsupported, profiles=True, int8_rest="fp16", lacks=lacks,
            int8_form=int8_form(self.library, version),
        )  # fmt: skip

    def variants(self, graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
        """Return what may beat the defaults: profiles of one size where sizes vary, else the highest level.

        That level looks longest for kernels, and for each profile anew: both together are left to the user.
        """
        del machine
        if graph.dynamic_dims:
            return {}, {"narrow": "ends"}
        version = self.probe().version or ""
        return ({},) if version.startswith("8.5") else ({}, {"optimization_level": 5})

    def check_spec(self, spec: BuildSpec) -> None:
        """Refuse at once the options that no graph could be built with; TensorRT is loaded only to name GPUs."""
        from enginery.backends.tensorrt.configuration import refuse_options
        from enginery.backends.tensorrt.targets import asked_capabilities, check_capabilities

        options = read_options(spec.options)
        if options["compute_capabilities"]:
            check_capabilities(spec.precision, asked := asked_capabilities(load_api(self.name), options))
        else:
            asked = ()
        refuse_options(self.library, options, gpu_here=bool(describe_machine().gpus), targets=len(asked))

    def build(self, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
        """Build ``model.plan`` and ``layers.json``; see `enginery.backends.tensorrt.building`.

        With the option ``partition=auto``, parts of a graph that cannot be built whole go to ONNX Runtime.
        """
        from enginery.backends.tensorrt.building import build_graph
        from enginery.backends.tensorrt.optimization_profiles import narrowed
        from enginery.graph.base import tensor_infos

        api = load_api(self.name)
        spec = narrowed(tensor_infos(graph.graph.inputs), spec)
        if read_options(spec.options)["partition"] == "auto":
            from enginery.backends.tensorrt.sharing import build_shared

            return build_shared(api, self, graph, spec, folder)
        return build_graph(api, graph, spec, folder)

    def build_network(self, definition: Definition, spec: BuildSpec, folder: Path) -> Built:
        """Let a user's function fill an empty network, and build it as `build` builds a graph."""
        from enginery.backends.tensorrt.network import build_network

        return build_network(load_api(self.name), definition, spec, folder)

    def open(self, folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:
        """Open ``model.plan`` on the GPU.

        Raises:
            BackendUnavailableError: there is no GPU that this library runs on.
            BuildError: the library refused the plan; the message has its own words, the mend our diagnosis.
            UsageError: an option that only a build can follow.
        """
        asked = read_session_options(manifest.options, options)
        found = self.probe()
        if not found.usable:
            raise BackendUnavailableError(f"{folder.name} cannot run here: {found.reason}", mend=found.mend)
        if is_partitioned(folder):
            return open_partitioned(folder, manifest, options, lambda name: self if name == self.name else get(name))
        from enginery.backends.tensorrt.runtime import open_plan

        return open_plan(load_api(self.name), folder, manifest, asked)

    def examine(self, graph: ir.Model, spec: BuildSpec) -> tuple[FindingRecord, ...]:
        """Say what of a graph will not build, without building it."""
        from enginery.backends.tensorrt.examining import examine

        return examine(load_api(self.name), graph, spec)

    def refit(self, folder: Path, manifest: ManifestRecord, graph: ir.Model, target: Path) -> None:
        """Write the artefact of an engine folder anew into `target`, with the weights of another graph."""
        from enginery.backends.tensorrt.refitting import refit_plan

        refit_plan(load_api(self.name), folder, manifest, graph, target)

    def diagnose(self, error: Exception, graph: ir.Model | None) -> str | None:
        """Say what TensorRT's text probably means and what to do, or None."""
        from enginery.backends.tensorrt.diagnosis import diagnose

        return diagnose(error, graph, self.library)

    def _without_gpu(self, version: str) -> Availability:
        if self.name == "tensorrt_rtx":
            return Availability(
                available=True,
                version=version,
                reason="no NVIDIA GPU is here, so it builds ahead of time for other machines and cannot run",
                mend="copy the engine to a machine with a GeForce or RTX GPU and run it there",
                runs=False,
            )
        return Availability(
            available=False,
            version=version,
            reason=f"{self.library.label} {version} is installed, but no NVIDIA GPU is here, and it builds on the GPU",
            mend="build on the machine that shall run the engine; `nvidia-smi` says whether its driver answers",
        )


@functools.cache
def _installed_version(library: Library) -> str | None:
    if not optional.installed(library.module):
        return None
    versions = (optional.version(name) for name in library.distributions)
    return next((version for version in versions if version is not None), None)


@functools.cache
def _device_here() -> bool:
    """Say whether the system shows a GPU, where nvidia-smi is missing, as in a small container."""
    return any(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*"))


def _not_for_rtx(machine: MachineRecord) -> str:
    found = compute_capability(machine)
    if not found or tuple(int(part) for part in found.split(".")) in _RTX_CAPABILITIES:
        return ""
    return f"{machine.gpus[0].partition(',')[0]} (compute capability {found})"
