"""Where an engine first leaves its reference, and the smallest model that shows it, written as a folder."""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import storage
from enginery.errors import UsageError
from enginery.part_engines import PartEngines, part_spec
from enginery.plain import to_json
from enginery.progress import Advance, Progress
from enginery.records import CutRecord, DivergenceRecord, ManifestRecord, NodeRecord, SmallestRecord
from enginery.spec import BuildSpec, PrecisionPlan
from enginery.verification.first_divergence import Cuttable, Finding, Prober, Run, Side, locate
from enginery.verification.inside_bodies import look_inside
from enginery.verification.smallest_model import Smallest, shrink

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.inputs.base import Case

    Arrays = dict[str, np.ndarray[Any, Any]]

__all__ = ["FILE", "Opposite", "Suspect", "locate_divergence"]

FILE = "divergence.json"
"""Name of the record in a folder that shows a divergence; by it the folder is known, and may be replaced."""

_MODEL, _REFERENCE, _INPUTS = "model.onnx", "reference.onnx", "inputs.npz"
_AROUND = 5
"""Builds besides those of the bisection: the whole, the nodes alone, a second cut, and two for the smallest model."""

_NAMED = 3
"""Nodes that the sentence names, where the graph could not be cut between them."""

_FUSED = "marking outputs changes what a backend may fuse"


@dataclass(frozen=True)
class Suspect:
    """The engine that is looked into.

    Args:
        folder: of the engine.
        manifest: its manifest.
        plan: its precision of single nodes; None where it has none.
        graph: what it was built from.
    """

    folder: Path
    manifest: ManifestRecord
    plan: PrecisionPlan | None
    graph: ir.Model


@dataclass(frozen=True)
class Opposite:
    """What it is compared with.

    Args:
        label: in words.
        graph: another graph with tensors of the same names; None for the suspect's own.
        engine: what runs its parts, as an engine was built; None for float32 on ONNX Runtime.
        manifest: of that engine.
    """

    label: str
    graph: ir.Model | None = None
    engine: PartEngines | None = None


def locate_divergence(
    suspect: Suspect,
    opposite: Opposite,
    case: Case,
    bound: float,
    output: Path,
    *,
    go_on: Run,
    parts: PartEngines,
    progress: Progress,
) -> DivergenceRecord:
    """Bisect an engine's graph, and write the smallest model that shows what was found.

    Args:
        suspect: the engine.
        opposite: what it is compared with.
        case: the inputs.
        bound: the largest error of a tensor.
        output: the folder to write; nothing is written where nothing was found.
        go_on: runs models in float32.
        parts: builds and runs parts of the suspect's graph.
        progress: told how far it is.

    Raises:
        UsageError: the graph's outputs are no tensors, so that it cannot be cut.
        OutputError: `output` cannot be written.
    """
    from enginery.graph.base import cuts_of

    begin = time.perf_counter()
    graph = cuts_of(suspect.graph)
    other = graph if opposite.graph is None else cuts_of(opposite.graph)
    run = opposite.engine.run if opposite.engine is not None else go_on
    hear = _Hearer(progress, len(graph.places))
    prober = Prober(Side(graph, parts.run), Side(other, run), case.feeds, go_on=go_on, bound=bound, hear=hear)
    if prober.places[-1] != len(graph.nodes):
        raise UsageError(
            f"the outputs of {suspect.folder} cannot be compared node by node: they are no tensors, or the reference "
            f"has none of these names",
            mend="name a reference whose outputs have the same names",
        )
    record, shrinkable = _looked(prober, opposite.label, case.name)
    smallest = shrink(*shrinkable) if shrinkable is not None else None
    record = replace(record, builds=parts.built, seconds=time.perf_counter() - begin)
    if smallest is None:
        note = "no part of the graph shows it with a single output"
        return replace(record, notes=(*record.notes, note)) if shrinkable is not None else record
    return _write(_Shown(suspect, opposite, other, smallest, bound), record, output)


def _looked(prober: Prober, reference: str, case: str) -> tuple[DivergenceRecord, tuple[Prober, Finding] | None]:
    """Return what was found, in the body of the node too, and what the smallest model can be made of."""
    finding = locate(prober)
    record = _record(prober, finding, reference, case)
    if not finding.kind:
        return record, None
    if not record.nodes[-1].inner:
        return record, (prober, finding)
    found = look_inside(prober, finding)
    if found is None:
        note = "by itself, no call of its body was found to be off, of those that were looked into"
        return replace(record, notes=(*record.notes, note)), (prober, finding)
    call, inner, inside = found
    told = _record(inner, inside, reference, case)
    said = f"{record.said}; {call} of its body: {told.said}"
    return replace(record, call=call, inside=told, said=said), (inner, inside)


class _Hearer:
    """Tells the progress of a search whose length is estimated: a build for each halving, and a few around."""

    def __init__(self, progress: Progress, places: int) -> None:
        self._progress, self._done = progress, 0
        self._expected = math.ceil(math.log2(max(places, 2))) + _AROUND
        self._begin = time.monotonic()

    def __call__(self, phase: str) -> None:
        expected = max(self._expected, self._done + 1)
        spent = time.monotonic() - self._begin
        total = spent / self._done * expected if self._done else None
        self._progress.advanced(Advance(self._done / expected, f"{phase}, {self._done + 1} of about {expected}", total))
        self._done += 1


def _record(prober: Prober, finding: Finding, reference: str, case: str) -> DivergenceRecord:
    behind, before = finding.behind.record, finding.before.record
    notes = list(finding.notes)
    if not finding.kind:
        said = f"the engine could not be built again: {behind.failure}"
        if not behind.failure:
            said = (
                f"an engine built again from the same graph agrees (error {behind.error:.2e}): the fault is in the "
                f"engine's files, or in how it was built, and not in a node"
            )
        return DivergenceRecord(
            reference, case, prober.bound, "", (), "", behind.error, 0.0, None, None, None, said, finding.cuts, 0
        )
    tensor, error = prober.worst(finding)
    nodes = prober.suspect.graph.describe(before.place, behind.place, finding.tensors)
    failed = sum(1 for cut in finding.cuts if cut.failure)
    if failed:
        notes.append(f"{failed} cuts could not be built or run, and were passed over")
    if len(nodes) > 1:
        notes.append(f"the graph could not be cut between these {len(nodes)} nodes")
    return DivergenceRecord(
        reference=reference, case=case, max_error=prober.bound, kind=finding.kind, nodes=nodes, tensor=tensor,
        error=error, error_before=prober.before(finding), own_error=finding.own_error,
        inherited_error=finding.inherited_error, confirmed=finding.confirmed,
        said=_said(prober, finding, nodes, _figure(behind, tensor, error)), cuts=finding.cuts, builds=0,
        notes=tuple(notes),
    )  # fmt: skip


def _said(prober: Prober, finding: Finding, nodes: tuple[NodeRecord, ...], figure: str) -> str:
    """Tell in a sentence what was found."""
    where = " and ".join(map(_called, nodes[:_NAMED])) + (f" and {len(nodes) - _NAMED} more" if nodes[_NAMED:] else "")
    grown = f"its output is off by {figure}, what it reads by {prober.before(finding):.1e}"
    if finding.kind == "jump":
        how = f"it is off by {finding.own_error:.1e} on exact inputs too"
    elif finding.kind == "amplified":
        how = f"float32 would enlarge that error as much ({finding.inherited_error:.1e}): the node is ill-conditioned"
    elif finding.kind == "fused":
        how = f"it is not where its inputs are outputs too, and {_FUSED}: it is fused with what stands before it"
    else:
        alone = f"{finding.own_error:.1e} by itself" if finding.own_error is not None else "not known by itself"
        how = (
            f"no node jumps: the error grows along the graph (this node adds {alone}) and passes {prober.bound:g} here"
        )
    doubt = ""
    if finding.kind in ("jump", "amplified") and finding.confirmed is False:
        doubt = f"; a second cut, before and behind it, does not show it: {_FUSED}"
    return f"{where}: {grown}; {how}{doubt}"


def _figure(cut: CutRecord, tensor: str, error: float) -> str:
    """Write how far off a tensor is: its NaN and infinities where these are what is wrong, else its error."""
    special = [f"{count} {word}" for count, word in ((cut.nan, "NaN"), (cut.inf, "Inf")) if count]
    return " and ".join(special) if math.isinf(error) and cut.tensor == tensor and special else f"{error:.1e}"


def _called(node: NodeRecord) -> str:
    module = f" of {node.module}" if node.module else ""
    return f"{node.name} ({node.operator}){module}"


@dataclass(frozen=True)
class _Shown:
    """What is written of a finding."""

    suspect: Suspect
    opposite: Opposite
    other: Cuttable
    smallest: Smallest
    bound: float


def _write(shown: _Shown, record: DivergenceRecord, output: Path) -> DivergenceRecord:
    """Write the folder whole or not at all, and return the record with what it says of it."""
    from enginery.graph import files
    from enginery.graph.base import plan_to_json
    from enginery.inputs.arrays import write_npz

    smallest, manifest = shown.smallest, shown.suspect.manifest
    model = smallest.model
    spec = part_spec(manifest, shown.suspect.plan, model)
    with storage.new_folder(output, FILE) as folder:
        files.save(model.clone(), folder / _MODEL)
        write_npz(smallest.feeds, folder / _INPUTS)
        if spec.plan is not None:
            (folder / storage.PLAN).write_text(plan_to_json(spec.plan, model), encoding="utf-8")
        reference = _MODEL
        if shown.opposite.graph is not None:
            reference = _REFERENCE
            given = [name for name in smallest.feeds if name in shown.other.names]
            files.save(shown.other.part(given, list(smallest.expected)), folder / _REFERENCE)
        written = SmallestRecord(
            folder=str(output),
            nodes=len(model.graph),
            operators=dict(Counter(node.op_type for node in model.graph)),
            inputs={name: tuple(array.shape) for name, array in smallest.feeds.items()},
            error=smallest.error,
            commands=_commands(shown, spec, reference, output),
        )
        record = replace(record, smallest=written)
        (folder / FILE).write_text(to_json(record) + "\n", encoding="utf-8")
    return record


def _commands(shown: _Shown, spec: BuildSpec, reference: str, output: Path) -> str:
    """Return the line that builds the smallest model and compares it."""
    built = f"{output}.engine"
    line = _build_line(shown.suspect.manifest.backend, spec, output, built)
    verify = ["enginery", "verify", built, str(output / reference), "--data", str(output / _INPUTS)]
    verify += ["--max-error", f"{shown.bound:g}"]
    if shown.opposite.engine is not None:
        other = f"{output}.reference.engine"
        opposite = shown.opposite.engine
        whole = BuildSpec(precision=opposite.manifest.precision, options=opposite.manifest.options)
        line += " && " + _build_line(opposite.manifest.backend, whole, output, other)
        verify += ["--against", other]
    return f"{line} && {shlex.join(verify)}"


def _build_line(backend: str, spec: BuildSpec, output: Path, built: str) -> str:
    words = ["enginery", "build", str(output / _MODEL), "--backend", backend, "--no-simplify", "-o", built]
    plan = ["--precision-plan", str(output / storage.PLAN)]
    words += plan if spec.plan is not None else ["--precision", spec.precision]
    for name, value in spec.options.items():
        if value != "":
            words += ["--option", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    return shlex.join(words)
