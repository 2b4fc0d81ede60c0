"""OpenVINO on the CPU. The artefact is its own IR, ``model.xml`` and ``model.bin``, weights uncompressed.

The precision is always asked for by name: left to itself, OpenVINO computes an fp32 graph in bf16 on processors that
have it, without a word. It takes no types from the graph, so a plan of single nodes is marks on operators, and what was
really built is read back from the compiled model, layer by layer.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from enginery import optional
from enginery.backends.asked import OptionRule, check_options, check_plan_offered, read_allowed
from enginery.backends.audit import check_ran
from enginery.backends.base import Availability, Built, Capabilities, Definition
from enginery.backends.openvino_errors import diagnose
from enginery.backends.openvino_layers import count_layers, element_types, precision_notes
from enginery.backends.openvino_network import check_model, name_ports, network_types, newest_opset, read_ports
from enginery.backends.openvino_plan import HINTS, check_kept, low_word, mark_kept, owners_of, read_ran
from enginery.backends.openvino_runner import OpenVinoRunner, find_outputs, find_ports
from enginery.backends.precision import count_ran
from enginery.backends.profiles import with_profiles
from enginery.errors import BuildError, PrecisionError, ProviderError
from enginery.graph.base import make_plan, read_plan, save_model, tensor_infos
from enginery.machine import cpu_count, describe_machine
from enginery.records import GraphRecord, MachineRecord, ManifestRecord, TensorInfo
from enginery.spec import BuildSpec, Dim, Option, PrecisionPlan, Shape
from enginery.storage import PLAN

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["build", "build_network", "capabilities", "check_spec", "diagnose", "open", "probe", "variants"]

_ARTEFACT = "model.xml"
_DEVICE = "CPU"
# OpenVINO reads a newer opset as its newest, without a word. Its build file names 21 for the releases of 2025
# (ONNX_OPSET_VERSION of src/frontends/onnx/frontend); for 2026.4 these are the newest schemas inside its frontend.
_OPSETS = (((2026, 4), 27), ((0, 0), 21))
_NEEDS_ISA = {"bf16": {"avx512_bf16", "amx_bf16"}, "fp16": {"avx512_fp16", "amx_fp16"}}
_LACKS = {
    "tf32": "that is a mode of NVIDIA's GPUs, and it runs on the CPU",
    "fp8": "it has no kernels that multiply in fp8 on the CPU",
    **{word: f"the processor has neither {' nor '.join(sorted(isa))}" for word, isa in _NEEDS_ISA.items()},
}
_WHY_WIDER = dict.fromkeys(("fp16", "bf16", "int8"), "a hint allows a type, and OpenVINO chooses layer by layer")


def probe() -> Availability:
    """Look for the library without importing it."""
    version = optional.version("openvino")
    if version is None or not optional.installed("openvino"):
        mend = 'run: pip install "enginery[openvino]"'
        return Availability(available=False, reason="openvino is not installed", mend=mend)
    return Availability(available=True, version=version)


def capabilities(machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
    """Offer fp32, INT8 of quantised graphs, and bf16 or fp16 where the processor has instructions for it.

    It would read a newer opset than the ceiling as if it were the ceiling's, so such a graph is converted before.
    """
    del graph
    return Capabilities(precisions=_offered(machine), max_opset=_opset_ceiling(), lacks=_LACKS, int8_form="asymmetric")


def variants(graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
    """Return what may beat the defaults (all processors, one stream, tuned for latency).

    - one thread: handing a small operator to other threads costs more than they save;
    - half the processors, from eight on: two threads of one core share its arithmetic units.
    """
    del graph
    found: list[dict[str, Option]] = [{}]
    if machine.cores > 1:
        found.append({"threads": 1})
    if machine.cores >= 8:  # noqa: PLR2004 - said above
        found.append({"threads": machine.cores // 2})
    return tuple(found)


def check_spec(spec: BuildSpec) -> None:
    """Refuse options that it does not have."""
    read_allowed(_options(spec.options)["allow_precision"])


def build(graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Convert the graph to IR with the profile's bounds on its inputs, and compile it once to read back the precision.

    Raises:
        BuildError: an input or output holds texts, or OpenVINO lost one.
        PrecisionError: it cannot compute in the plan's precisions, or fp32 was asked for and a layer compiled to less.
        PrecisionMismatchError: it computes in another precision than was asked for.
    """
    check_plan_offered("openvino", spec, _offered(describe_machine()), _LACKS)
    options = _options(spec.options)
    plan = spec.plan or make_plan(graph, spec.precision)
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    _refuse_texts((*inputs, *outputs))
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".onnx", dir=folder) as scratch:
        save_model(graph, Path(scratch) / "model.onnx")
        model = _core().read_model(Path(scratch) / "model.onnx")
        find_ports(model.inputs, inputs)  # both refuse what OpenVINO has lost
        find_outputs(model.outputs, outputs)
        notes += _bound(model, spec.shapes)
        owners = owners_of(model, graph)
        mark_kept(model, plan, owners, graph)
        _library().save_model(model, folder / _ARTEFACT, compress_to_fp16=False)
        del model  # it maps the file that goes with the folder
    ran, broken = read_ran(_compile(folder, plan, options), plan, owners, graph)
    counts, allowed = count_ran(ran), read_allowed(options["allow_precision"])
    own_types = element_types(graph)
    if plan.narrowest in ("fp32", "tf32"):
        notes += precision_notes("fp32", counts, own_types)
    notes += [*check_kept(broken, low_word(plan), allowed), *check_ran("OpenVINO", ran, plan, allowed, _WHY_WIDER)]
    return Built(inputs, outputs, counts, options, (*notes, *_width_notes(inputs, own_types)))


def build_network(definition: Definition, spec: BuildSpec, folder: Path) -> Built:
    """Let a user's function build a model with OpenVINO's newest operators, and treat it as `build` treats a graph.

    Raises:
        SourceError: the function raised, or returned no `openvino.Model`.
        BuildError: an input or output has no name, holds texts, or has another shape than asked for.
        PrecisionError: fp32 was asked for, and a layer was compiled to less.
    """
    check_plan_offered("openvino", spec, _offered(describe_machine()), _LACKS)
    options, ov = _options(spec.options), _library()
    model = check_model(definition.define(newest_opset(ov)), ov.Model, definition.name)
    name_ports(model)
    inputs, outputs = read_ports(model, ov, spec.shapes)
    _refuse_texts((*inputs, *outputs))
    with_profiles(inputs, spec.shapes)
    notes = _bound(model, spec.shapes)
    inputs, outputs = read_ports(model, ov, spec.shapes)
    own_types = network_types(model)
    ov.save_model(model, folder / _ARTEFACT, compress_to_fp16=False)
    del model  # it may map the weights' file, which is the user's
    counts = count_layers(_compile(folder, PrecisionPlan(spec.precision), options))
    notes += [*precision_notes(spec.precision, counts, own_types), *_width_notes(inputs, own_types)]
    return Built(inputs, outputs, counts, options, tuple(notes))


def open(folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> OpenVinoRunner:  # noqa: A001
    """Compile the IR for this processor.

    Raises:
        PrecisionError: OpenVINO would compute in another precision than the manifest's.
        ProviderError: it would run elsewhere than on the CPU.
    """
    values = _options(manifest.options, options)
    plan = read_plan(folder) if (folder / PLAN).is_file() else PrecisionPlan(manifest.precision)
    compiled = _compile(folder, plan, values)
    return OpenVinoRunner(compiled, manifest.inputs, manifest.outputs, _library())


@functools.cache
def _library() -> ModuleType:
    with _no_telemetry():
        return optional.require("openvino", extra="openvino", why="to run a graph on OpenVINO")


@contextlib.contextmanager
def _no_telemetry() -> Iterator[None]:
    """Keep OpenVINO's import from reporting itself to its makers: it takes a stub where the reporter is missing."""
    name = "openvino_telemetry"
    if name in sys.modules or "openvino" in sys.modules:
        yield  # somebody else imported it, and has made that choice
        return
    sys.modules[name] = cast("ModuleType", None)  # the documented way to make an import fail
    try:
        yield
    finally:
        del sys.modules[name]


@functools.cache
def _core() -> Any:
    return _library().Core()


def _opset_ceiling() -> int:
    version = tuple(int(part) for part in (optional.version("openvino") or "0.0").split(".")[:2])
    return next(opset for since, opset in _OPSETS if version >= since)


def _offered(machine: MachineRecord) -> frozenset[str]:
    return frozenset({"fp32", "int8"} | {name for name, isa in _NEEDS_ISA.items() if isa & set(machine.isa)})


def _options(*given: Mapping[str, Option]) -> dict[str, Option]:
    rules = {
        "threads": OptionRule(cpu_count(), low=1),
        "hint": OptionRule("latency", choices=("latency", "throughput")),
        "streams": OptionRule(1, low=1),
        "allow_precision": OptionRule(""),
    }
    return check_options(rules, *given)


def _bound(model: Any, shapes: Mapping[str, Shape]) -> list[str]:
    """Write the profile's bounds into the inputs' dynamic dimensions; say so where the graph does not allow it."""
    if not shapes:
        return []
    ov = _library()
    bounded = {name: ov.PartialShape([_dimension(dim) for dim in shape.dims]) for name, shape in shapes.items()}
    before = {name: model.input(name).get_partial_shape() for name in shapes}
    try:
        model.reshape(bounded)
    except RuntimeError as error:
        model.reshape(before)
        first = str(error).strip().splitlines()[-1]
        return [f"OpenVINO cannot carry the profile's bounds through the graph, and takes any size: {first}"]
    return []


def _dimension(dim: Dim) -> Any:
    return _library().Dimension(dim.min, dim.max) if dim.dynamic else _library().Dimension(dim.min)


def _compile(folder: Path, plan: PrecisionPlan, options: Mapping[str, Option]) -> Any:
    hint = HINTS[low_word(plan)]
    asked = {
        "INFERENCE_PRECISION_HINT": hint,
        # Accuracy mode also rules out quantised activations and caches; the hint above alone does not.
        "EXECUTION_MODE_HINT": "ACCURACY" if plan.words == ("fp32",) else "PERFORMANCE",
        "PERFORMANCE_HINT": str(options["hint"]).upper(),
        "INFERENCE_NUM_THREADS": int(options["threads"]),
        "NUM_STREAMS": int(options["streams"]),
    }
    compiled = _core().compile_model(_core().read_model(folder / _ARTEFACT), _DEVICE, asked)
    if (devices := compiled.get_property("EXECUTION_DEVICES")) != [_DEVICE]:
        message = f"the CPU was asked for, but OpenVINO would run on {', '.join(devices)}"
        raise ProviderError(message, mend="unset OpenVINO's device settings in the environment")
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != hint:
        raise PrecisionError(f"OpenVINO took {found} where {hint} was asked for", mend="ask for fp32")
    return compiled


def _width_notes(inputs: Iterable[TensorInfo], types: Collection[str]) -> list[str]:
    """Say what OpenVINO computes in half the width that the graph has."""
    notes = []
    if any(info.dtype in ("int64", "uint64") for info in inputs):
        notes.append("OpenVINO computes 64-bit integers in 32 bits on the CPU: larger values come out wrong")
    if "DOUBLE" in types:
        notes.append("OpenVINO computes float64 in float32 on the CPU: seven digits are left of sixteen")
    return notes


def _refuse_texts(infos: Iterable[TensorInfo]) -> None:
    """Refuse texts before OpenVINO is called: as of 2026.4 it frees their memory twice, and the process dies."""
    for info in infos:
        if info.dtype == "string":
            message = f"{info.name!r} holds texts, which OpenVINO cannot take without crashing"
            raise BuildError(message, mend="build with another backend, or cut the text processing off the graph")
