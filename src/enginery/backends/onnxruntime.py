"""ONNX Runtime. The artefact is ``model.onnx``, which any other tool can open; it is optimised at opening.

The precision stands in the graph: its types, and its quantisers. What ONNX Runtime makes of it is read back from the
graph that it optimised: where it has no kernel for fp16, it computes in float32 without a word.

A provider that is asked for and does not come up is an error here: ONNX Runtime itself warns and runs on the CPU.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from enginery import optional
from enginery.backends.asked import OptionRule, check_options, check_plan_offered, read_allowed
from enginery.backends.audit import check_ran
from enginery.backends.base import Availability, Built, Capabilities
from enginery.backends.elements import is_extended
from enginery.backends.onnxruntime_errors import diagnose
from enginery.backends.onnxruntime_runners import OrtValueRunner, PlainRunner
from enginery.backends.precision import Ran, count_ran, read_ran
from enginery.backends.session import Session
from enginery.errors import BuildError, PrecisionError, ProviderError, UnknownNameError
from enginery.graph.base import all_nodes, apply_plan, load_model, make_plan, save_model, tensor_infos
from enginery.machine import cpu_count
from enginery.records import GraphRecord, MachineRecord, ManifestRecord, TensorInfo
from enginery.spec import BuildSpec, Option
from enginery.streams import captured_stderr

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.base import Runner

__all__ = [
    "build",
    "capabilities",
    "check_spec",
    "diagnose",
    "has_provider",
    "open",
    "open_graph",
    "probe",
    "variants",
]

_ARTEFACT = "model.onnx"
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_PRECISIONS = frozenset({"fp32", "fp16", "bf16", "int8"})
_LACKS = {
    "tf32": "it has no TF32 on the CPU, and its CUDA provider is told to compute float32 as float32",
    "fp8": "it has no kernels that multiply in fp8",
}
_NARROW_TYPES = {"FLOAT16": "fp16", "BFLOAT16": "bf16"}
_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'")
_WHY_WIDER = {
    "fp16": "where it has no fp16 kernel, it computes in fp32 between casts, which are left out where two meet",
    "int8": "where it has no kernel for the quantised form, or is told not to optimise, it dequantises and goes on",
}
_LEVELS = {"none": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "layout": "ENABLE_LAYOUT",
           "all": "ENABLE_ALL"}  # fmt: skip
_PIP = {"CUDA": "onnxruntime-gpu", "Tensorrt": "onnxruntime-gpu", "OpenVINO": "onnxruntime-openvino",
        "Dml": "onnxruntime-directml", "QNN": "onnxruntime-qnn"}  # fmt: skip
_READ_BACK_LIMIT_BYTES = 1 << 30  # above it, writing the optimised graph costs more than it tells
# Of ONNX Runtime 1.20, the oldest that Enginery takes; its table of versions says onnx 1.16 and opsets from 7.
_OLDEST_CEILING, _OLDEST_ML_CEILING, _OLDEST_IR_CEILING = 21, 5, 10
_LOWEST_OPSET = 7
_ML = "ai.onnx.ml"
_WARNING, _FATAL = 2, 4  # ONNX Runtime's log severities
_BIG_GRAPH_FLOPS = 50_000_000


def probe() -> Availability:
    """Look for the library without importing it; it comes under several distribution names."""
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn"):
        if (version := optional.version(name)) and optional.installed("onnxruntime"):
            return Availability(available=True, version=version)
    return Availability(available=False, reason="onnxruntime is not installed", mend="run: pip install onnxruntime")


def capabilities(machine: MachineRecord, graph: ir.Model | None = None) -> Capabilities:
    """It computes in the graph's own types; which kernels it lacks shows only when a graph is opened.

    On the CPU it has hardly a kernel for fp16 and bf16.
    """
    del graph
    return Capabilities(
        precisions=_PRECISIONS,
        lacks=_LACKS,
        int8_form="whole",
        by_name=frozenset() if machine.gpus else frozenset({"fp16", "bf16"}),
        max_opset=_opset_ceiling(),
        min_opset=_LOWEST_OPSET,
        max_ir_version=_ir_ceiling(),
        max_opsets={_ML: _opset_ceiling(_ML)},
    )


def variants(graph: GraphRecord, machine: MachineRecord) -> tuple[dict[str, Option], ...]:
    """Return what may beat the defaults (all processors, sequential, every optimisation).

    - one thread: handing a small operator to other threads costs more than they save;
    - half the processors, from eight on: two threads of one core share its arithmetic units;
    - ``extended``: without the blocked layout, whose reorders cost more than they save in thin convolutions;
    - ``parallel``: where branches join (Concat) and the graph is big, branches may run side by side.
    - ``cuda``: where there is a GPU, and this ONNX Runtime is the one made for it.
    """
    found: list[dict[str, Option]] = [{}]
    if machine.cores > 1:
        found.append({"threads": 1})
    if machine.cores >= 8:  # noqa: PLR2004 - said above
        found.append({"threads": machine.cores // 2})
    if graph.operators.get("Conv", 0):
        found.append({"optimization": "extended"})
    if machine.cores > 1 and graph.operators.get("Concat", 0) > 1 and (graph.flops or 0) > _BIG_GRAPH_FLOPS:
        found.append({"execution_mode": "parallel"})
    if machine.gpus and optional.version("onnxruntime-gpu"):
        found.append({"provider": "cuda"})
    return tuple(found)


def check_spec(spec: BuildSpec) -> None:
    """Refuse options that it does not have."""
    read_allowed(_options(spec.options)["allow_precision"])


def build(graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Write ``model.onnx`` (and ``model.onnx.data``) in the plan's types, and open it once: what cannot run fails here.

    ONNX Runtime's warnings of that opening become the notes.

    Raises:
        PrecisionError: it has no kernel at all for an operator in the precision asked for; the message names it.
        PrecisionMismatchError: it computes in another precision than was asked for.
    """
    check_plan_offered("onnxruntime", spec, _PRECISIONS, _LACKS)
    options = _options(spec.options)
    allowed = read_allowed(options["allow_precision"])
    options["provider"] = _provider(str(options["provider"]))
    plan = spec.plan or make_plan(graph, spec.precision)
    notes: list[str] = []
    typed = apply_plan(graph, plan, say=notes.append)
    save_model(typed, folder / _ARTEFACT)
    lowered, int8 = plan.words not in (("fp32",), ("tf32",)), spec.precision == "int8"
    ran, warnings = _try(folder, typed, options, lowered=lowered, int8=int8)
    notes += [*check_ran("ONNX Runtime", ran, plan, allowed, _WHY_WIDER), *warnings]
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    return Built(inputs, outputs, count_ran(ran), options, notes=tuple(notes))


def _try(
    folder: Path, typed: ir.Model, options: Mapping[str, Option], *, lowered: bool, int8: bool
) -> tuple[tuple[Ran, ...], tuple[str, ...]]:
    """Open the artefact once; return how its operators compute, and ONNX Runtime's warnings.

    A large graph in float32 is not read back: what it computes in stands in it.
    """
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    with tempfile.TemporaryDirectory(prefix=".optimised", dir=folder) as scratch:
        optimised = Path(scratch) / _ARTEFACT if lowered or size_bytes < _READ_BACK_LIMIT_BYTES else None
        with captured_stderr() as lines:
            try:
                _open_session(folder / _ARTEFACT, options, _WARNING, optimised, pack=False, int8=int8)
            except Exception as error:
                if (lacking := _without_kernel(error, typed, str(options["provider"]))) is not None:
                    raise lacking from error
                raise
        return read_ran(typed if optimised is None else _read(optimised)), _warnings(lines)


def _without_kernel(error: Exception, typed: ir.Model, provider: str) -> PrecisionError | None:
    """Return what an error means where a node of a narrow type has no kernel; None where it is another."""
    match = _NO_KERNEL.search(str(error))
    node = next((node for node in all_nodes(typed) if match and node.name == match[2]), None)
    values = () if node is None else [value for value in (*node.inputs, *node.outputs) if value is not None]
    types = [value.dtype.name for value in values if value.dtype is not None and value.dtype.name in _NARROW_TYPES]
    if node is None or not types:
        return None
    word = _NARROW_TYPES[types[0]]
    return PrecisionError(
        f"ONNX Runtime {_ort().__version__} has no {word} kernel for {node.op_type} on {provider}: node {node.name!r}",
        mend=f"keep that node and its like in fp32 in the precision plan, or build {word} with another backend",
    )


def open(folder: Path, manifest: ManifestRecord, options: Mapping[str, Option]) -> Runner:  # noqa: A001
    """Open ``model.onnx`` by its path, so that external data is mapped, not copied.

    Raises:
        ProviderError: the provider asked for did not come up.
        UnknownNameError: there is no such option or provider.
    """
    values = _options(manifest.options, options)
    session = _open_session(folder / _ARTEFACT, values, _FATAL, int8=manifest.precision == "int8")
    return _runner(session, values, manifest.inputs, manifest.outputs)


def open_graph(path: Path) -> Session:
    """Open an ONNX file where it lies, to compute as it says: nothing is optimised, and weights stay mapped.

    Returns:
        A session, to be closed by the caller or used in a ``with`` statement.

    Raises:
        BuildError: ONNX Runtime refuses the graph.
    """
    graph = load_model(path)
    inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
    options = _options({"optimization": "none"})
    options["provider"] = _CPU
    try:
        session = _open_session(path, options, _FATAL, pack=False)
    except Exception as error:
        mend = diagnose(error, graph) or "the text above is the library's own; check the graph with it"
        raise BuildError(f"onnxruntime cannot build this graph: {error}", mend=mend) from error
    return Session(_runner(session, options, inputs, outputs), inputs, outputs, lambda error: diagnose(error, None))


def has_provider(name: str) -> bool:
    """Say whether this ONNX Runtime was made with a provider, such as ``cuda``; its libraries may still be missing."""
    here = (provider.lower().removesuffix("executionprovider") for provider in _ort().get_available_providers())
    return name.lower() in here


def _runner(
    session: Any, values: Mapping[str, Option], inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]
) -> Runner:
    mode = ", parallel" if session.get_session_options().execution_mode.name == "ORT_PARALLEL" else ""
    threads = values["threads"]
    placement = f"{session.get_providers()[0]}, {threads} thread{'s' if threads != 1 else ''}{mode}"
    if any(is_extended(info.dtype) for info in (*inputs, *outputs)):
        return OrtValueRunner(session, inputs, outputs, placement, _ort())
    return PlainRunner(session, [info.name for info in outputs], placement)


def _ort() -> ModuleType:
    return optional.require("onnxruntime", extra="", why="to run a graph on ONNX Runtime")


def _options(*given: Mapping[str, Option]) -> dict[str, Option]:
    rules = {
        "threads": OptionRule(cpu_count(), low=1),
        "execution_mode": OptionRule("sequential", choices=("sequential", "parallel")),
        "optimization": OptionRule("all", choices=tuple(_LEVELS)),
        "provider": OptionRule(_CPU),
        "spinning": OptionRule(default=True),
        "allow_precision": OptionRule(""),
    }
    return check_options(rules, *given)


def _provider(name: str) -> str:
    """Return the full name of a provider that this ONNX Runtime has; ``cuda`` is short for CUDAExecutionProvider."""
    ort = _ort()
    known: list[str] = ort.get_all_providers()
    short = name.lower().removesuffix("executionprovider")
    full = next((item for item in known if item.lower() == f"{short}executionprovider"), None)
    if full is None:
        raise UnknownNameError.from_choices("provider", name, known)
    if full not in (here := ort.get_available_providers()):
        package = _PIP.get(full.removesuffix("ExecutionProvider"))
        raise ProviderError(
            f"provider {full} is not in the installed ONNX Runtime {ort.__version__}, which has {', '.join(here)}",
            mend=f"run: pip uninstall onnxruntime; pip install {package}" if package else f"ask for {here[-1]}",
        )
    return full


def _open_session(
    path: Path,
    options: Mapping[str, Option],
    severity: int,
    optimised: Path | None = None,
    *,
    pack: bool = True,
    int8: bool = False,
) -> Any:
    """Open a file; `pack` copies weights into the order that kernels like best, for a session that runs often."""
    ort = _ort()
    provider = _provider(str(options["provider"]))
    asked = _session_options(ort, options, severity)
    if optimised is not None:
        asked.optimized_model_filepath = str(optimised)
        asked.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        asked.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if not pack:
        asked.add_session_config_entry("session.disable_prepacking", "1")
    providers = [provider] if provider == _CPU else [_provider_options(ort, provider), _CPU]
    # It joins MatMul and Add to Gemm before it looks for quantised operators, and Gemm then stays float (1.31).
    without = ["MatMulAddFusion"] if int8 else []
    session = ort.InferenceSession(
        str(path), asked, providers=providers, enable_fallback=0, disabled_optimizers=without
    )
    if (found := session.get_providers()[0]) != provider:
        raise ProviderError(
            f"provider {provider} was asked for, but the session came up on {found}",
            mend="ONNX Runtime could not load the provider's libraries: check its driver and CUDA versions",
        )
    return session


def _provider_options(ort: ModuleType, provider: str) -> tuple[str, dict[str, str]]:
    """Return how a provider is asked for: CUDA with its libraries from pip, and without TF32, which fp32 is not."""
    if provider != _CUDA:
        return provider, {}
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        ort.preload_dlls(directory="")
    return provider, {"use_tf32": "0"}


def _session_options(ort: ModuleType, options: Mapping[str, Option], severity: int) -> Any:
    asked = ort.SessionOptions()
    asked.log_severity_level = severity
    asked.intra_op_num_threads = int(options["threads"])
    parallel = options["execution_mode"] == "parallel"
    asked.execution_mode = ort.ExecutionMode.ORT_PARALLEL if parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    if parallel:
        asked.inter_op_num_threads = int(options["threads"])
    levels = {word: getattr(ort.GraphOptimizationLevel, f"ORT_{level}", None) for word, level in _LEVELS.items()}
    level = levels[str(options["optimization"])]
    if level is None:
        known = [word for word in levels if levels[word] is not None]
        raise UnknownNameError.from_choices("value of option 'optimization':", str(options["optimization"]), known)
    asked.graph_optimization_level = level
    for pool in ("intra_op", "inter_op"):
        asked.add_session_config_entry(f"session.{pool}.allow_spinning", "1" if options["spinning"] else "0")
    return asked


@functools.cache
def _opset_ceiling(domain: str = "") -> int:
    """Return the highest opset that the library says it reads: it says so when it is given one that is too high."""
    match = re.search(r"till opset (\d+)", _refusal(domain=domain))
    return int(match[1]) if match else _OLDEST_ML_CEILING if domain else _OLDEST_CEILING


@functools.cache
def _ir_ceiling() -> int:
    """Return the highest IR version that the library says it reads."""
    match = re.search(r"max supported IR version: (\d+)", _refusal(ir_version=9999))
    return int(match[1]) if match else _OLDEST_IR_CEILING


def _refusal(*, domain: str = "", ir_version: int = 8) -> str:
    """Return what ONNX Runtime says to an empty model whose versions no release can know."""
    from onnx import helper

    ort = _ort()
    graph = helper.make_graph([], "empty", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 9999)], ir_version=ir_version)
    asked = ort.SessionOptions()
    asked.log_severity_level = _FATAL
    try:
        ort.InferenceSession(model.SerializeToString(), asked, providers=[_CPU])
    except Exception as error:  # noqa: BLE001 - every class of theirs derives from Exception alone
        return str(error)
    return ""


def _read(path: Path) -> ir.Model:
    import onnx_ir as ir

    return ir.load(path)


def _warnings(lines: list[str]) -> tuple[str, ...]:
    found = [match[1] for line in lines if (match := re.search(r"\[W:onnxruntime:[^\]]*\] (.*?)(?:\x1b\[m)?$", line))]
    mine = "Serializing optimized model"  # of reading back, not of the engine
    return tuple(dict.fromkeys(f"ONNX Runtime: {text}" for text in found if not text.startswith(mine)))
