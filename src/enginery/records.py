"""What was found: frozen, data only; `enginery.plain` writes it as JSON and reads it back.

Times are in milliseconds (``_ms``) or seconds (``_s``), sizes in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from enginery.spec import Option, PrecisionPlan, Shape

__all__ = [
    "SCHEMA",
    "BenchRecord",
    "BuildRecord",
    "CandidateRecord",
    "CheckRecord",
    "CutRecord",
    "DangerRecord",
    "DivergenceRecord",
    "DoctorRecord",
    "DoctorRow",
    "DryRunRecord",
    "ExportRecord",
    "FindingRecord",
    "GraphRecord",
    "GroupSensitivityRecord",
    "LayerRecord",
    "LayerTimeRecord",
    "LoadRecord",
    "MachineRecord",
    "ManifestRecord",
    "NodeRecord",
    "NodeSensitivityRecord",
    "OptimizeRecord",
    "OutputRecord",
    "PartRecord",
    "PassRecord",
    "ProfileRecord",
    "QueryRecord",
    "SearchRecord",
    "SearchStepRecord",
    "SensitivityRecord",
    "SimplifyRecord",
    "SmallestRecord",
    "TargetRecord",
    "TensorInfo",
    "TrtexecRecord",
    "VerifyRecord",
]

SCHEMA = 1
"""Version of the JSON forms in this file; raised when a reader of the old form would be misled."""


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Args:
        name: the tensor's name in the graph.
        dtype: ONNX's name of the element type in lower case: ``float32``, ``int64``, ``bool``, ``string``, ...
        shape: a size or a symbolic name for each axis (``?`` where it has no name); None where the rank is unknown.
        profile: the sizes the engine accepts, for an input of an engine.
        layout: what its axes stand for, such as ``NHWC``, where the source says so.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None
    profile: Shape | None = None
    layout: str | None = None


@dataclass(frozen=True)
class GraphRecord:
    """What is in a graph.

    Args:
        operators: how often each operator occurs, subgraphs and functions included; a domain other than ONNX's
            own stands before the name, as in ``com.microsoft.FusedConv``.
        flops: floating-point operations of one call at the `opt` shape (a multiply-add counts as two); None where
            shapes are unknown.
        opsets: version of each operator domain.
        dynamic_dims: symbolic names of the inputs' dimensions.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: int
    operators: Mapping[str, int]
    parameters: int
    parameter_bytes: int
    flops: int | None
    opsets: Mapping[str, int]
    ir_version: int
    producer: str
    dynamic_dims: tuple[str, ...]
    functions: int = 0
    subgraphs: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class ExportRecord:
    """How a source became a graph.

    Args:
        source: what it was, such as ``torch module ResNet`` or ``resnet50.onnx``.
        exporter: what made the graph, such as ``torch.onnx.export (dynamo)``; ``none`` for an ONNX file.
        attempts: exporters that were tried before and why each was not used.
        nodes: as exported, those of subgraphs and functions among them.
        nodes_simplified: after simplification; None where that was not asked for.
        nodes_with_module: how many say which module of the source they came from.
        peak_memory_bytes: of the process that exported, its whole life; None where it is unknown.
    """

    source: str
    kind: str
    exporter: str
    versions: Mapping[str, str]
    opset: int
    dynamic_axes: Mapping[str, tuple[str, ...]]
    seconds: float
    nodes: int
    attempts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nodes_simplified: int | None = None
    nodes_with_module: int = 0
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: `status` is ``changed``, ``unchanged`` or ``dropped`` (then `reason` says why)."""

    name: str
    status: str
    nodes_before: int
    nodes_after: int
    ms: float
    reason: str = ""


@dataclass(frozen=True)
class SimplifyRecord:
    """What simplification did to a graph."""

    nodes_before: int
    nodes_after: int
    passes: tuple[PassRecord, ...]
    checked_by: str
    seconds: float


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a built engine, as the backend's own inspector tells it.

    Args:
        kind: the backend's word for what it is, such as ``CaskConvolution`` or ``Reformat``.
        precision: what it computes in, such as ``fp16``; empty where it only moves data or nothing tells.
        inputs: element type and format of each input, such as ``fp16 CHW2``.
        outputs: likewise.
        nodes: names of the ONNX nodes that it came from.
        modules: paths of the source's modules that these came from.
        tactic: name of the kernel; empty where nothing tells.
    """

    name: str
    kind: str
    precision: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    tactic: str = ""


@dataclass(frozen=True)
class TargetRecord:
    """What an engine needs to be opened, of a backend whose engines are bound to a machine.

    Args:
        library: what built it, such as ``tensorrt``.
        version: of that.
        gpu: name of the GPU it was built on; empty where it was built without one.
        compute_capabilities: of the GPUs it runs on, such as ``("8.6", "8.9")``; empty where it is not known.
        driver: version of the GPU's driver; empty where there is none.
    """

    library: str
    version: str
    gpu: str = ""
    compute_capabilities: tuple[str, ...] = ()
    driver: str = ""


@dataclass(frozen=True)
class PartRecord:
    """One part of an engine whose graph two backends share.

    Args:
        folder: where its artefact is, below the engine's folder.
        backend: name of the backend that built it and runs it.
        label: what messages call that backend.
        main: whether that is the backend asked for, rather than the one that takes the rest.
        nodes: names of the graph's nodes in it.
        operators: how often each operator occurs among these.
        inputs, outputs: as its artefact has them, inputs with their profiles where sizes are known.
        options: all options with the values really used.
        precision_built: read back from what was built: precision to number of layers or operators.
        size_bytes: of its files.
        profiles: narrower profiles besides the inputs' own, in the artefact's order.
        handed_over_bytes: what it reads from parts before it, at the opt sizes; None where sizes are not known.
        notes: what a user should know of it.
    """

    folder: str
    backend: str
    label: str
    main: bool
    nodes: tuple[str, ...]
    operators: Mapping[str, int]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    options: Mapping[str, Option]
    precision_built: Mapping[str, int]
    size_bytes: int
    handed_over_bytes: int | None = None
    notes: tuple[str, ...] = ()
    profiles: tuple[Mapping[str, Shape], ...] = ()


@dataclass(frozen=True)
class FindingRecord:
    """Something that matters before a build.

    Args:
        severity: ``refused`` (it will not build), ``moved`` (another backend would run it), ``unsure`` (it may not
            build), or ``note``.
        subject: the node or tensor that it is about; empty where it is about the whole.
        text: what was found.
        mend: what to do; may be empty.
    """

    severity: str
    subject: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class DryRunRecord:
    """What would become of a build, as far as can be told without one.

    Args:
        nodes: of the graph that would be built.
        findings: the worst first.
        parts: how the graph would be shared with another backend; empty where it need not be, or cannot.
        weights_bytes: of all constants, as they are in the graph.
        activation_bytes: most memory that tensors between nodes take at the max sizes, estimated in the graph's own
            types; None where sizes are not known.
    """

    source: str
    backend: str
    backend_version: str
    precision: str
    nodes: int
    findings: tuple[FindingRecord, ...]
    parts: tuple[PartRecord, ...]
    weights_bytes: int
    activation_bytes: int | None
    schema: int = SCHEMA

    @property
    def converts(self) -> bool:
        """Whether nothing was found that will not build."""
        return all(finding.severity != "refused" for finding in self.findings)


@dataclass(frozen=True)
class BuildRecord:
    """How an engine was built.

    Args:
        precision: what was asked for.
        precision_built: what the backend reads back: precision to number of layers or operators.
        size_bytes: of the engine's own files.
        peak_memory_bytes: of the process that built it, its whole life; None where it is unknown.
        notes: what a user should know, such as an option the backend changed.
        parts: what runs where, in order, where two backends share the graph.
        planned: how many nodes of the graph ``precision.json`` gives each precision.
    """

    backend: str
    backend_version: str
    precision: str
    precision_built: Mapping[str, int]
    options: Mapping[str, Option]
    seconds: float
    size_bytes: int
    peak_memory_bytes: int | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[PartRecord, ...] = ()
    planned: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputRecord:
    """How one output of one case differs from the reference's.

    Args:
        case: which input it was, such as ``opt`` or ``data 0``.
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        relative_l2: norm of the difference over the norm of the reference.
        cosine: cosine between the two, over all elements.
        snr_db: ``10 log10(sum(reference^2) / sum(difference^2))``; infinity where they are equal.
        top1_agreement: share of rows whose largest element stands at the same place, where that makes sense.
        mismatch: share of elements that differ, for integers, booleans and strings.
        nan, inf: counts in the engine's output, and in the reference's.
    """

    name: str
    case: str
    dtype: str
    shape: tuple[int, ...]
    max_abs: float | None = None
    mean_abs: float | None = None
    relative_l2: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    top1_agreement: float | None = None
    mismatch: float | None = None
    nan: int = 0
    inf: int = 0
    reference_nan: int = 0
    reference_inf: int = 0

    @property
    def error(self) -> float:
        """The one figure that a bound is held against: relative L2 for floats, else the share that differs."""
        found = self.relative_l2 if self.relative_l2 is not None else self.mismatch
        return math.nan if found is None else found


@dataclass(frozen=True)
class CheckRecord:
    """One check that needs no reference; `passed` is None where it does not apply, and `detail` says why."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class NodeRecord:
    """One node of a graph: its name, operator and domain, the module that it came from, and the nodes in its bodies."""

    name: str
    operator: str
    domain: str = ""
    module: str = ""
    inner: tuple[str, ...] = ()


@dataclass(frozen=True)
class CutRecord:
    """How what crosses one cut of a graph compares between two engines that were built up to there.

    Args:
        place: how many nodes stand before it.
        node: name of the last of these; empty before the first.
        operator: of that node.
        tensors: how many cross.
        tensor: the one that is furthest off; empty where nothing crosses.
        error: of that one, as `OutputRecord.error`.
        max_abs: its largest absolute difference; None where it holds no floats.
        nan, inf: counts in it, and in the reference's.
        harm: error of the outputs where float32 goes on with what is beyond the bound; None where nothing is.
        good: whether nothing beyond the bound crosses, or what does is forgotten before it reaches an output.
        failure: why nothing was compared, where it could not be built or run; empty where it was.
    """

    place: int
    node: str
    operator: str
    tensors: int
    tensor: str = ""
    error: float = 0.0
    max_abs: float | None = None
    nan: int = 0
    inf: int = 0
    reference_nan: int = 0
    reference_inf: int = 0
    harm: float | None = None
    good: bool = True
    failure: str = ""


@dataclass(frozen=True)
class SmallestRecord:
    """The smallest model that was found to show a divergence.

    Args:
        folder: where it was written, with the inputs that were recorded.
        nodes: in it.
        operators: how often each occurs in it.
        inputs: the size of each.
        error: of its output, built alone.
        commands: the line that shows it again.
    """

    folder: str
    nodes: int
    operators: Mapping[str, int]
    inputs: Mapping[str, tuple[int, ...]]
    error: float
    commands: str


@dataclass(frozen=True)
class DivergenceRecord:
    """Where an engine first leaves its reference.

    Args:
        reference: what every cut was compared with.
        case: the input it was looked for with: the one whose outputs were the furthest off.
        max_error: the bound that a tensor may not leave.
        kind: ``jump`` (the nodes are off by themselves, from exact inputs), ``amplified`` (they enlarge an error that
            they get, as float32 would), ``gradual`` (many nodes add up to it), ``fused`` (it is off only where the
            backend may fuse it with what stands before); empty where nothing was found.
        nodes: the first to diverge, one where the graph could be cut around it.
        tensor: what they make that is off.
        error: of that tensor, in an engine that ends there.
        error_before: the largest of what they read, in an engine that ends before them.
        own_error: of the tensor, where these nodes alone are built and read exact inputs; None where that failed.
        inherited_error: of the tensor, where float32 computes these nodes from what the engine made before them.
        confirmed: whether an engine whose outputs are both what the nodes read and what they make shows it too;
            None where there was none to be built.
        said: all that in a sentence.
        call: of the node's body that is off by itself, such as ``then_branch`` or ``iteration 2``; empty where it has
            none, or none of the first few is.
        inside: where that call diverges first; None where there is none.
        cuts: all that were compared, in the order of the graph.
        builds: engines that were built.
        smallest: the smallest model that shows it; None where nothing was found.
    """

    reference: str
    case: str
    max_error: float
    kind: str
    nodes: tuple[NodeRecord, ...]
    tensor: str
    error: float
    error_before: float
    own_error: float | None
    inherited_error: float | None
    confirmed: bool | None
    said: str
    cuts: tuple[CutRecord, ...]
    builds: int
    smallest: SmallestRecord | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    call: str = ""
    inside: DivergenceRecord | None = None

    @property
    def found(self) -> bool:
        """Whether any node was found."""
        return bool(self.kind)


@dataclass(frozen=True)
class VerifyRecord:
    """How an engine's outputs compare with its source's.

    Args:
        reference: what it was compared with, such as ``torch module ResNet``.
        inputs: which inputs were used, such as ``random (normal, seed 0) at min, opt, max``.
        error: the worst `OutputRecord.error`; infinity where an output is NaN and the reference is not.
        max_error: the bound it was held against; infinity where only other bounds were given, which are checks.
        accuracy: share of rows whose top-1 class is the label given with the data.
        reference_accuracy: the same, of the reference.
        notes: what a user should know, such as an output that proves little.
        divergence: where it first leaves its reference; None where that was not asked for, or it did not.
    """

    reference: str
    inputs: str
    outputs: tuple[OutputRecord, ...]
    checks: tuple[CheckRecord, ...]
    error: float
    max_error: float
    passed: bool
    accuracy: float | None = None
    reference_accuracy: float | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    divergence: DivergenceRecord | None = None

    @property
    def cosine(self) -> float | None:
        """The worst cosine of an output to the reference's; NaN where one has none, None where no output is floats."""
        found = [output.cosine for output in self.outputs if output.cosine is not None]
        return math.nan if any(map(math.isnan, found)) else min(found, default=None)

    @property
    def reason(self) -> str:
        """Why it did not pass, in one line; empty where it did."""
        if self.passed:
            return ""
        failed = [f"{check.name}: {check.detail}" for check in self.checks if check.passed is False]
        if not self.error <= self.max_error:
            failed.insert(0, f"error {self.error:.2e} is above {self.max_error:.2e}")
        return "; ".join(failed)


@dataclass(frozen=True)
class LoadRecord:
    """What else kept the machine busy while a benchmark ran.

    Args:
        cpus: processors this process may use.
        others_busy: share of the machine's processor time that other processes used, 0 to 1; None where unknown.
        load_average: one-minute load average at the end.
        steal: share of processor time taken by the host, 0 to 1; None where unknown.
        notes: warnings, such as a benchmark that shared its processors.
    """

    cpus: int
    others_busy: float | None
    load_average: float | None
    steal: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchRecord:
    """How long one call takes.

    Args:
        shapes: of the inputs that were timed.
        batch: rows of one call: the size of the first input's first axis, 1 for a scalar.
        ci_low_ms, ci_high_ms: 95 % confidence interval of the median.
        throughput: rows for each second, ``1000 * batch / p50_ms``.
        stable: whether the stopping rule was met before the time limit.
        rule: the stopping rule in words.
        turns_ms: median of each turn, in the order they were taken.
        first_call_ms: the first call of the opened session, apart from all samples.
        load_ms: opening the engine, apart from all samples.
        parts_ms: mean of each part in the last turn, in order, where backends share the engine.
    """

    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    samples: int
    min_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    ci_low_ms: float
    ci_high_ms: float
    throughput: float
    stable: bool
    rule: str
    turns_ms: tuple[float, ...]
    first_call_ms: float | None
    load_ms: float | None
    placement: str
    load: LoadRecord | None = None
    parts_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class QueryRecord:
    """When one query was enqueued, copied in, computed and copied out.

    Args:
        enqueue, h2d, gpu, d2h: begin and end of each, in milliseconds since the measuring began; the host's clock for
            the first, the device's for the others. A copy that is not measured begins and ends at one time.
    """

    enqueue: tuple[float, float]
    h2d: tuple[float, float]
    gpu: tuple[float, float]
    d2h: tuple[float, float]

    @property
    def enqueue_ms(self) -> float:
        """How long the host took to enqueue it."""
        return self.enqueue[1] - self.enqueue[0]

    @property
    def h2d_ms(self) -> float:
        """How long its inputs were copied to the device."""
        return self.h2d[1] - self.h2d[0]

    @property
    def gpu_ms(self) -> float:
        """How long the device computed."""
        return self.gpu[1] - self.gpu[0]

    @property
    def d2h_ms(self) -> float:
        """How long its outputs were copied to the host."""
        return self.d2h[1] - self.d2h[0]

    @property
    def latency_ms(self) -> float:
        """Copies and compute together, without the waiting between them."""
        return self.h2d_ms + self.gpu_ms + self.d2h_ms


@dataclass(frozen=True)
class LayerTimeRecord:
    """How long one layer of an engine took, over several runs of its own.

    Args:
        total_ms: of all runs together.
        average_ms, median_ms: of one run.
    """

    name: str
    total_ms: float
    average_ms: float
    median_ms: float


@dataclass(frozen=True)
class ProfileRecord:
    """What a call spends where; medians.

    Args:
        runs: how many calls were timed.
        shapes: of the inputs.
        enqueue_ms: the host's time to ask for the engine's kernels, without a graph.
        copy_in_ms: inputs to the device.
        device_ms: the engine on the device.
        copy_out_ms: outputs to the host.
        layers: in the engine's order; timed one by one, so that their sum is more than `device_ms`.
    """

    runs: int
    shapes: Mapping[str, tuple[int, ...]]
    enqueue_ms: float
    copy_in_ms: float
    device_ms: float
    copy_out_ms: float
    layers: tuple[LayerTimeRecord, ...]


@dataclass(frozen=True)
class TrtexecRecord:
    """What `enginery trtexec` built and measured.

    Args:
        engine: path of the engine folder; empty where none was kept.
        plan: path of the plan as its library serialised it; empty where none was kept.
        load_ms: reading and deserialising the plan; None where it was not opened.
        queries: in the order they were enqueued, without those of the warm-up.
        warmups: how many queries the warm-up had.
        walltime_ms: of the host, from the first measured query's enqueueing to the last one's end.
        shapes: of the inputs that were measured.
        transfers, cuda_graph, spin: what the queries were measured with.
        layers: that the engine was built of.
        layer_times: measured in `profile_runs` runs after the queries.
    """

    backend: str
    backend_version: str
    engine: str = ""
    plan: str = ""
    plan_bytes: int = 0
    build_s: float | None = None
    load_ms: float | None = None
    placement: str = ""
    queries: tuple[QueryRecord, ...] = ()
    warmups: int = 0
    warmup_ms: float = 0.0
    walltime_ms: float = 0.0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    streams: int = 1
    transfers: bool = True
    cuda_graph: bool = False
    spin: bool = False
    average_runs: int = 10
    percentiles: tuple[float, ...] = (90.0, 95.0, 99.0)
    layers: tuple[LayerRecord, ...] = ()
    layer_times: tuple[LayerTimeRecord, ...] = ()
    profile_runs: int = 0
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True)
class MachineRecord:
    """What is here: hardware, system and library versions.

    Args:
        isa: instruction sets that matter to inference, such as ``avx512_vnni``.
        gpus: one line for each GPU: name, memory, driver.
        libraries: installed version of each library that Enginery can use.
    """

    system: str
    cpu: str
    cores: int
    memory_bytes: int
    isa: tuple[str, ...]
    gpus: tuple[str, ...]
    driver: str | None
    cuda: str | None
    python: str
    enginery: str
    libraries: Mapping[str, str]


@dataclass(frozen=True)
class DoctorRow:
    """One thing that was looked for.

    Args:
        group: what it belongs to: ``python``, ``core``, ``backend``, ``extra``, ``gpu`` or ``disk``.
        version: what was found; None where there is no version to tell.
        status: ``here``, ``missing``, or ``broken`` (installed, and it does not work).
        why: what is wrong, or what it is good for; may be empty.
        mend: the exact command that brings or repairs it; empty where nothing is to be done.
    """

    group: str
    name: str
    version: str | None
    status: str
    why: str = ""
    mend: str = ""


@dataclass(frozen=True)
class DoctorRecord:
    """What is here, what is missing, and the line that mends it."""

    machine: MachineRecord
    rows: tuple[DoctorRow, ...]
    schema: int = SCHEMA


@dataclass(frozen=True)
class DangerRecord:
    """Something that a narrower type may do to one node.

    Args:
        kind: ``overflow``, ``weight``, ``mask``, ``vanishing``, ``subnormal`` or ``accumulation``.
        severity: ``certain`` (values are lost on the inputs that were watched), ``likely`` or ``possible``.
        tensor: which one of the node's.
        text: what was found, with the values.
    """

    kind: str
    severity: str
    tensor: str
    text: str


@dataclass(frozen=True)
class NodeSensitivityRecord:
    """How one node bears a narrower type.

    Args:
        module: path of the source's module that it came from; empty where nothing tells.
        group: name of the group it was lowered with.
        largest: the largest finite magnitude among what it reads and makes; None where nothing was watched.
        dangers: the worst first.
        error: of the model's outputs where its group alone computes lower; None where that was not measured.
    """

    name: str
    operator: str
    module: str
    group: str
    largest: float | None
    dangers: tuple[DangerRecord, ...]
    error: float | None


@dataclass(frozen=True)
class GroupSensitivityRecord:
    """How the outputs change where one group of nodes alone computes lower.

    Args:
        name: the module that its nodes came from, or what it begins with.
        nodes: names.
        error: as `VerifyRecord.error`.
        cosine: as `VerifyRecord.cosine`.
    """

    name: str
    nodes: tuple[str, ...]
    error: float
    cosine: float | None


@dataclass(frozen=True)
class SensitivityRecord:
    """How a model bears a narrower type, node by node.

    Args:
        precision: the type, ``fp16`` or ``bf16``.
        error: of the outputs where every node computes lower.
        total: how many nodes the graph has.
        lowered: how many of them compute lower where all are asked to.
        nodes: of those, the most endangered first.
        groups: the most harmful first; empty where errors were not measured.
        watched: how many tensors were watched.
        runs: how many times the graph was run for it, in parts that bound the memory.
        inputs: what the cases are, in words.
    """

    precision: str
    error: float
    total: int
    lowered: int
    nodes: tuple[NodeSensitivityRecord, ...]
    groups: tuple[GroupSensitivityRecord, ...]
    watched: int
    runs: int
    inputs: str
    seconds: float
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA


@dataclass(frozen=True)
class SearchStepRecord:
    """One step of a search: a plan that was tried.

    Args:
        what: ``simulated`` (rounded in a float32 graph), ``built`` (by the backend itself) or ``timed``.
        action: what it does to the plan before, in words.
        kept: how many nodes the plan keeps higher.
        holds: whether the bounds held.
        reason: why not; empty where they did.
        error, cosine: of the outputs; None where there were none.
        p50_ms: median, where it was timed.
        again: whether it is known from a run before this one.
    """

    what: str
    action: str
    kept: int
    holds: bool
    reason: str
    error: float | None
    cosine: float | None
    seconds: float
    p50_ms: float | None = None
    again: bool = False


@dataclass(frozen=True)
class SearchRecord:
    """How a plan was found that is as low as the bounds allow.

    Args:
        label: of the candidate that it began with.
        found: labels of the candidates that follow the plan; empty where none held the bounds, or none was needed.
        precision: of the nodes that are not kept.
        kept: precision of each node that is kept higher, by name.
        reasons: why, for those nodes.
        total: how many nodes the graph has.
        words: what was found, in one paragraph.
    """

    label: str
    found: tuple[str, ...]
    precision: str
    kept: Mapping[str, str]
    reasons: Mapping[str, str]
    total: int
    steps: tuple[SearchStepRecord, ...]
    sensitivity: SensitivityRecord | None
    words: str
    seconds: float


@dataclass(frozen=True)
class CandidateRecord:
    """One row of `optimize`: what was tried and what became of it.

    Args:
        label: short and unique, such as ``openvino`` or ``onnxruntime threads=1``.
        role: ``candidate``, or ``baseline`` for the source framework and for plain ONNX Runtime.
        status: ``chosen``, ``accepted`` (good, but another was better), ``rejected`` (outside a bound),
            ``failed``, or ``timed`` for a baseline.
        reason: why it was not chosen; for the chosen one, why it was.
        plan: precision of single nodes; None where all are `precision`.
    """

    label: str
    role: str
    backend: str
    environment: str
    precision: str
    options: Mapping[str, Option]
    status: str
    reason: str
    build: BuildRecord | None = None
    verify: VerifyRecord | None = None
    bench: BenchRecord | None = None
    plan: PrecisionPlan | None = None


@dataclass(frozen=True)
class ManifestRecord:
    """The manifest of an engine folder, ``engine.json``.

    Args:
        inputs, outputs: tensors; an input's `profile` is the range of shapes that the engine takes.
        source: what it was built from.
        source_sha256: hash of the source file or of the exported graph.
        graph_sha256: hash of the graph that was handed to the backend.
        files: for each file of the folder, its ``sha256`` and its ``bytes``.
        environment: name of the other environment that it was chosen from; empty where it was this one.
        interpreter: path of that environment's Python, which opens it as it was verified and timed.
        profiles: narrower profiles besides the inputs' own, in the engine's order: profile 1, 2, ...
        values: the range of the values of each input that says shapes, an element for each axis of the `Shape`.
        target: what the engine needs to be opened; None where any machine with the library will do.
    """

    backend: str
    backend_version: str
    enginery: str
    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    precision: str
    precision_built: Mapping[str, int]
    options: Mapping[str, Option]
    source: str
    source_sha256: str
    graph_sha256: str
    machine: MachineRecord
    files: Mapping[str, FileRecord]
    created: str
    build: BuildRecord | None = None
    verify: VerifyRecord | None = None
    bench: BenchRecord | None = None
    environment: str = ""
    interpreter: str = ""
    profiles: tuple[Mapping[str, Shape], ...] = ()
    values: Mapping[str, Shape] = field(default_factory=dict)
    target: TargetRecord | None = None
    schema: int = SCHEMA


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class OptimizeRecord:
    """What `optimize` found.

    Args:
        chosen: label of the chosen candidate.
        engine: path of the saved engine folder.
        spec: the `OptimizeSpec` as plain data.
        searches: for plans between two precisions.
        words: what was chosen and why, in one paragraph.
    """

    source: str
    export: ExportRecord
    graph: GraphRecord
    simplify: SimplifyRecord | None
    candidates: tuple[CandidateRecord, ...]
    chosen: str
    engine: str
    machine: MachineRecord
    spec: Mapping[str, Any]
    seconds: float
    notes: tuple[str, ...] = field(default=())
    searches: tuple[SearchRecord, ...] = ()
    words: str = ""
    schema: int = SCHEMA
