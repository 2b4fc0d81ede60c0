"""From a graph to ``model.plan``: parse, profiles, configuration, build, and what was really built."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.backends.asked import read_allowed
from enginery.backends.base import Built
from enginery.backends.tensorrt import audit, inspection
from enginery.backends.tensorrt.building_progress import following
from enginery.backends.tensorrt.configuration import configure, refuse_options
from enginery.backends.tensorrt.diagnosis import is_short_of_memory, meaning_of
from enginery.backends.tensorrt.gpu_memory import check_room, free_bytes, use_device, weak_narrowing
from enginery.backends.tensorrt.history import Work
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.optimization_profiles import add_profiles, check_profiles
from enginery.backends.tensorrt.options import listed, read_options
from enginery.backends.tensorrt.parsing import (
    new_builder,
    nodes_named,
    parse_file,
    refuse_uint8_quantisation,
    type_notes,
)
from enginery.backends.tensorrt.plugins import load_plugins
from enginery.backends.tensorrt.targets import (
    asked_capabilities,
    check_capabilities,
    opens_here,
    set_capabilities,
    target_of,
)
from enginery.backends.tensorrt.timing_cache import Device, attach
from enginery.backends.tensorrt.versions import Api
from enginery.backends.tensorrt.weak_typing import constrain, is_plain
from enginery.errors import BuildError, DeviceMemoryError
from enginery.graph.base import (
    apply_plan,
    constants,
    count_flops,
    gelu_by_tanh,
    make_plan,
    patches_by_product,
    save_model,
    split_layer_norms,
    tensor_infos,
)
from enginery.machine import cpu_count, describe_machine
from enginery.plain import to_plain
from enginery.records import LayerRecord, TensorInfo
from enginery.spec import BuildSpec, Option, PrecisionPlan, Shape
from enginery.storage import LAYERS

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ARTEFACT", "Construction", "build_graph"]

ARTEFACT = "model.plan"
"""The engine, exactly as TensorRT serialises it."""

_MOST_THREADS = 16


@dataclass
class Construction:
    """One build: what was asked for, checked, and TensorRT's objects, which must live until the plan is written.

    Args:
        options: all of them.
        capabilities: compute capabilities that were asked for.
        builder, network: TensorRT's; the network is empty at first.
        log: what TensorRT says.
        notes: what a user should know.
        kept: what else must live as long, such as the parser, which holds the weights.
    """

    api: Api
    spec: BuildSpec
    options: dict[str, Option]
    capabilities: tuple[str, ...]
    builder: Any
    network: Any
    log: BuildLog
    notes: list[str] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    @classmethod
    def begin(cls, api: Api, spec: BuildSpec) -> Construction:
        """Check what was asked for, load the plugins, and make an empty network.

        Raises:
            EngineryError: an option that there is not, or that this library, version or machine cannot follow.
        """
        options = read_options(spec.options)
        capabilities = asked_capabilities(api, options)
        for word in (spec.precision, *(spec.plan.words if spec.plan is not None else ())):
            check_capabilities(word, capabilities)
        refuse_options(api.library, options, gpu_here=bool(describe_machine().gpus), targets=len(capabilities))
        log = BuildLog(api)
        load_plugins(api, listed(options["plugins"]), log.logger)
        use_device(int(options["device"]))
        builder = new_builder(api, log)
        network = builder.create_network(api.network_flags())
        return cls(api, spec, options, capabilities, builder, network, log)

    def finish(
        self,
        graph: ir.Model,
        plan: PrecisionPlan,
        ranges: Sequence[Mapping[str, Shape]],
        tensors: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]],
        folder: Path,
    ) -> Built:
        """Build the filled network, write `ARTEFACT` and `LAYERS` into `folder`, and say what was built.

        Args:
            graph: what the network was made of, for the names of nodes and modules.
            plan: the precision of each node.
            ranges: the shapes of the inputs in each profile.
            tensors: the inputs and the outputs, as the engine's callers see them.
            folder: takes the files.

        Raises:
            BuildError: TensorRT built nothing; the message has its own words, the mend our diagnosis.
            DeviceMemoryError: it ran out of memory, or the weights do not fit in what is free.
            PrecisionMismatchError: it built another precision than was asked for.
        """
        allowed = read_allowed(self.options["allow_precision"])
        config = self.builder.create_builder_config()
        add_profiles(self.builder, self.network, config, ranges=ranges, values=self.spec.values)
        configure(self.api, self.builder, config, "tf32" if "tf32" in plan.words else plan.precision, self.options)
        set_capabilities(self.api, config, self.capabilities)
        if threads := self._threads(graph):
            self.builder.max_threads = threads
        if not self.api.is_typed:
            self.notes += constrain(self.api, self.network, config, plan, graph, wider="fp32" in allowed)
        self._check_room(sum(weights.nbytes for weights in constants(graph)))
        self._serialise(config, folder / ARTEFACT, graph, len(ranges))
        layers = self._read_layers(graph, folder / ARTEFACT)
        _write_layers(layers, folder / LAYERS)
        self.notes += audit.check(layers, plan, allowed)
        self.notes += self.log.notes()
        return Built(
            *tensors,
            precision_built=inspection.count(layers),
            options=self.options,
            notes=tuple(dict.fromkeys(self.notes)),
            profiles=tuple(dict(shapes) for shapes in ranges[1:]),
            target=target_of(self.api, self.capabilities, int(self.options["device"])),
        )

    def _threads(self, graph: ir.Model) -> int:
        """Return how many threads the builder shall work with; 0 for the library's own choice."""
        measured = not self.api.is_typed and is_plain(graph)
        return int(self.options["builder_threads"]) or (min(cpu_count(), _MOST_THREADS) if measured else 0)

    def _check_room(self, weights_bytes: int) -> None:
        """Ask, where the build runs on a GPU, whether it can fit."""
        if self.api.is_rtx or not describe_machine().gpus:
            return
        free = free_bytes(int(self.options["device"]))
        streamed = bool(self.options["weight_streaming"])
        narrowing = 1 if self.api.is_typed else weak_narrowing(self.spec.precision)
        note = check_room(weights_bytes // narrowing, int(self.options["workspace_mib"]), free, streamed=streamed)
        self.notes += [note] if note else []

    def _serialise(self, config: Any, path: Path, graph: ir.Model, profiles: int) -> None:
        """Let TensorRT build, with the timings of earlier builds, and write its plan."""
        device = Device.of(describe_machine(), int(self.options["device"]))
        timings = attach(self.api, config, device, str(self.options["timing_cache"]))
        work = Work(
            library=f"{self.api.library.module} {self.api.version}",
            gpu=device.name if device is not None else "",
            layers=self.network.num_layers,
            precision=self.spec.precision,
            flops=(count_flops(graph, self.spec.shapes) or 0) if len(graph.graph) else 0,  # none: built by hand
            level=int(self.options["optimization_level"]),
            profiles=profiles,
            warm=timings.entries_bytes > 0,
        )
        with following(self.api, config, self.log, work=work):
            built = self.builder.build_serialized_network(self.network, config)
            if built is None:
                raise self._failure(graph)
        timings.keep(config)
        self.notes += timings.notes
        with path.open("wb") as file:
            file.write(built)  # its buffer: no second copy of the weights

    def _failure(self, graph: ir.Model) -> BuildError:
        label = f"{self.api.library.label} {self.api.version}"
        said = self.log.errors() or (self.log.tail(5),)
        text = "\n  ".join(dict.fromkeys(line.strip() for line in (*said, *nodes_named(said, graph))))
        mend = meaning_of(text, self.api.library)
        where = f"\n  (its full log: {self.log.path})" if self.log.path is not None else ""
        kind = DeviceMemoryError if is_short_of_memory(text) else BuildError
        return kind(
            f"{label} built no engine:\n  {text}{where}",
            mend=mend or "the text above is its own; try --option optimization_level=2, or another backend",
        )

    def _read_layers(self, graph: ir.Model, path: Path) -> tuple[LayerRecord, ...]:
        """Read the layers back from the plan; where it cannot be opened here, from the typed network."""
        if not opens_here(self.api, self.capabilities, int(self.options["device"])):
            return inspection.read_network_layers(self.api, self.network, graph)
        from enginery.backends.tensorrt.runtime import deserialize

        engine = deserialize(self.api, path, self.log, host_code=bool(self.options["version_compatible"]))
        return inspection.read_layers(self.api, engine, graph)


def build_graph(api: Api, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Build `ARTEFACT` and `LAYERS` into the empty `folder`.

    The graph is parsed from a file, with its large weights in a file beside it, and never held as one message: that
    ends at 2 GiB.

    Raises:
        BuildError: the graph cannot be read or built; the message names nodes and modules, the mend what to do.
        FeatureError: this version lacks what was asked for.
        PrecisionError: a GPU that the engine shall run on cannot compute in the precision.
        PrecisionMismatchError: another precision was built than was asked for.
    """
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    refuse_uint8_quantisation(api, graph)
    ranges = check_profiles(inputs, spec.shapes, spec.profiles)
    construction = Construction.begin(api, spec)
    if construction.options["gelu"] == "tanh":
        graph = _with_tanh(graph, construction.notes)
    if not api.is_typed and spec.precision == "fp16" and spec.plan is None:
        graph = _in_fused_forms(graph)
    plan = spec.plan or make_plan(graph, spec.precision)
    typed = apply_plan(graph, plan, say=construction.notes.append) if api.is_typed else graph
    with tempfile.TemporaryDirectory(prefix=".onnx", dir=folder) as scratch:
        path = Path(scratch) / "model.onnx"
        save_model(typed, path)
        construction.kept.append(parse_file(api, construction.network, path, typed, construction.log))
        construction.notes += type_notes(api, construction.network, graph)
        return construction.finish(typed, plan, ranges, (inputs, outputs), folder)


def _in_fused_forms(graph: ir.Model) -> ir.Model:
    """Write a graph in the forms that TensorRT 8 fuses in half precision; it computes the same.

    It makes one kernel of layer normalisation in parts, and three of the operator; and the tokens of patches by a
    matrix product in the region of the rest, in place of a slow convolution of few channels before it.
    """
    return split_layer_norms(patches_by_product(graph))


def _with_tanh(graph: ir.Model, notes: list[str]) -> ir.Model:
    changed = gelu_by_tanh(graph)
    notes.append(
        "gelu=tanh: GELU is computed by its approximation, which differs from it by up to 4.7e-4"
        if changed is not graph
        else "gelu=tanh: there is no GELU by an error function in this graph, so nothing was changed"
    )
    return changed


def _write_layers(layers: Sequence[LayerRecord], path: Path) -> None:
    path.write_text(json.dumps(to_plain(list(layers)), indent=1), encoding="utf-8")
