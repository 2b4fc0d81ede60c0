"""What would become of a build, as far as can be told without one: findings, parts and memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from enginery import backends
from enginery.backends.asked import check_plan_offered
from enginery.backends.base import Backend, Examiner
from enginery.backends.part_sizes import PartSizes
from enginery.backends.profiles import with_profiles
from enginery.errors import EngineryError, GraphError
from enginery.graph.base import (
    activation_bytes,
    all_nodes,
    check_plan,
    constants,
    inner_nodes,
    make_plan,
    partition,
    sized_by_data,
    tensor_infos,
    working_copy,
)
from enginery.machine import describe_machine
from enginery.records import DryRunRecord, FindingRecord, PartRecord, TensorInfo
from enginery.spec import BuildSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.graph.base import Part

__all__ = ["dry_run", "finding_of"]

_ORDER = ("refused", "moved", "unsure", "note")
_REST = "onnxruntime"
_ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def dry_run(
    graph: ir.Model, spec: BuildSpec, *, backend: str, source: str = "", notes: Iterable[str] = ()
) -> DryRunRecord:
    """Say what would become of a build. Nothing is built or written.

    Args:
        graph: what would be built; it is not changed.
        spec: shapes, precision and the backend's options.
        backend: its name.
        source: what the graph came from, for the record.
        notes: what a user should know of how the graph came about.

    Raises:
        UnknownNameError: there is no such backend.
        BackendUnavailableError: its library is not here.

    Example:
        >>> import onnx_ir as ir
        >>> head = '<ir_version: 8, opset_import: ["": 17, "own": 1]> '
        >>> graph = ir.from_onnx_text(head + "g (float[2] x) => (float[2] y) {y = own.Secret(x)}")
        >>> found = dry_run(graph, BuildSpec(), backend="onnxruntime")
        >>> found.converts, found.findings[0].text
        (True, "own.Secret is none of ONNX's operators: it builds only where the backend has it")
    """
    module = backends.get_available(backend)
    work = working_copy(graph)
    findings = [*_common(module, backend, graph, spec), *_data_dependent(work), *_custom(work)]
    if isinstance(module, Examiner):
        findings += module.examine(work, spec)
    findings += [FindingRecord("note", "", note) for note in notes]
    if not isinstance(module, Examiner):
        findings.append(
            FindingRecord("note", "", f"{backend} tells which operators it lacks only when it builds")
        )  # fmt: skip
    parts, more = _parts(module, backend, work, spec, findings)
    findings += more
    return DryRunRecord(
        source=source,
        backend=backend,
        backend_version=module.probe().version or "unknown",
        precision=spec.precision,
        nodes=len(list(all_nodes(work))),
        findings=tuple(sorted(dict.fromkeys(findings), key=lambda finding: _ORDER.index(finding.severity))),
        parts=parts,
        weights_bytes=sum(tensor.nbytes for tensor in constants(work)),
        activation_bytes=_activations(work, spec),
    )


def finding_of(error: EngineryError, *, severity: str = "refused", subject: str = "") -> FindingRecord:
    """Turn an error that a build would end with into a finding."""
    return FindingRecord(severity, subject, error.message, error.mend)


def _common(module: Backend, name: str, graph: ir.Model, spec: BuildSpec) -> Iterator[FindingRecord]:
    """Look at what all backends have in common: precision, operator sets, profiles."""
    offered = module.capabilities(describe_machine())
    try:
        check_plan_offered(name, spec, offered.precisions, offered.lacks)
        check_plan(graph, spec.plan or make_plan(graph, spec.precision))
    except EngineryError as error:
        yield finding_of(error)
    if refused := offered.opsets.refuses(graph):
        yield FindingRecord("refused", "", f"{name} {refused}", "`enginery build` converts the graph first")
    try:
        inputs = with_profiles(tensor_infos(graph.graph.inputs), spec.shapes)
    except EngineryError as error:
        yield finding_of(error)
        return
    if offered.profiles:
        return  # it is built for ranges, and refuses what has none in its own words
    for info in inputs:
        if info.profile is None and info.shape is not None:
            axes = ", ".join(f"{axis} ({dim})" for axis, dim in enumerate(info.shape) if isinstance(dim, str))
            mend = f"say its sizes: --shapes {info.name}={_example(info)}"
            yield FindingRecord("note", info.name, f"input {info.name!r} has open axes and no profile: {axes}", mend)


def _example(info: TensorInfo) -> str:
    return "x".join(str(dim) if isinstance(dim, int) else "1..8..32" for dim in info.shape or ())


def _data_dependent(work: ir.Model) -> Iterator[FindingRecord]:
    for node in sized_by_data(work):
        text = (
            f"{node.op_type} makes {', '.join(value.name or '' for value in node.outputs)}, whose size depends on data"
        )
        yield FindingRecord("note", node.name or "", text)


def _custom(work: ir.Model) -> Iterator[FindingRecord]:
    own = {function.domain for function in work.functions.values()}
    found = Counter(
        f"{node.domain}.{node.op_type}" for node in all_nodes(work) if node.domain not in {*_ONNX_DOMAINS, *own}
    )
    for name in found:
        text = f"{name} is none of ONNX's operators: it builds only where the backend has it"
        yield FindingRecord("unsure", "", text)


def _parts(
    module: Backend, name: str, work: ir.Model, spec: BuildSpec, findings: Iterable[FindingRecord]
) -> tuple[tuple[PartRecord, ...], list[FindingRecord]]:
    """Cut the graph as a build with ``partition=auto`` would, where some nodes cannot be built."""
    bad = {finding.subject for finding in findings if finding.severity in ("refused", "moved")} - {""}
    if not (isinstance(module, Examiner) and module.shares and bad):
        return (), []
    try:
        cut = partition(work, lambda node: bad.isdisjoint((node.name, *(inner.name for inner in inner_nodes(node)))))
        sizes = PartSizes(work, spec, backends.get(_REST), {})
    except EngineryError as error:
        return (), [finding_of(error) if isinstance(error, GraphError) else finding_of(error, severity="unsure")]
    given = {value.name for value in work.graph.inputs}
    found = tuple(_part(part, name, sizes, given) for part in cut.parts)
    moved = [
        FindingRecord("note", node, f"{node} would be left to {_REST} too: {why}") for node, why in cut.moved.items()
    ]
    if not cut.count(main=True):
        asked = any(finding.severity == "moved" for finding in findings)
        text = f"cut in parts, nothing of this graph would be left for {name}"
        mend = f"build the whole with {_REST}: --backend {_REST}"
        moved.append(FindingRecord("refused" if asked else "note", "", text, mend))
    return found, moved


def _part(part: Part, name: str, sizes: PartSizes, given: set[str | None]) -> PartRecord:
    inputs = tensor_infos(part.model.graph.inputs)
    return PartRecord(
        folder="",
        backend=name if part.main else _REST,
        label=name if part.main else _REST,
        main=part.main,
        nodes=part.nodes,
        operators=dict(Counter(node.op_type for node in part.model.graph if node.name in part.nodes)),
        inputs=inputs,
        outputs=tensor_infos(part.model.graph.outputs),
        options={},
        precision_built={},
        size_bytes=sum(tensor.nbytes for tensor in constants(part.model)),
        handed_over_bytes=sizes.bytes_of([info for info in inputs if info.name not in given]),
    )


def _activations(work: ir.Model, spec: BuildSpec) -> int | None:
    try:
        inputs = with_profiles(tensor_infos(work.graph.inputs), spec.shapes)
    except EngineryError:
        return None  # a finding says so already
    if any(info.profile is None for info in inputs):
        return None
    sizes = {info.name: info.profile.at("max") for info in inputs if info.profile is not None}
    found = activation_bytes(work, sizes)
    return None if found is None else math.ceil(found)
