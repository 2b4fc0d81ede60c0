"""What `verify` needs to look for a divergence: what an engine is held against, and the graph it was built of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import backends, storage
from enginery.divergence import Opposite, Suspect, locate_divergence
from enginery.errors import GraphError, UnknownNameError, UsageError
from enginery.evaluation import Evaluator
from enginery.fitting import Fitter
from enginery.machine import describe_machine
from enginery.part_engines import PartEngines
from enginery.preparation import Prepared, prepare, reference_of, reference_outputs
from enginery.progress import Progress
from enginery.quantising import make_quantiser, quantised
from enginery.records import DivergenceRecord, ManifestRecord, TensorInfo, VerifyRecord
from enginery.sources import opened
from enginery.spec import QUANTISED, BuildSpec, PrecisionPlan, Shape, SourceSpec

if TYPE_CHECKING:
    from enginery.backends.base import Design
    from enginery.backends.engine import Engine
    from enginery.inputs.base import Case

__all__ = ["Against", "Search", "opened_against"]

_MEND = "name another engine of the same source, or the float32 original of it"


@dataclass(frozen=True)
class Against:
    """What an engine is compared with in place of its source: another engine of it, or another source."""

    label: str
    engine: Engine | None = None
    prepared: Prepared | None = None

    def outputs(self, prepared: Prepared, cases: Sequence[Case], folder: Path) -> tuple[list[dict[str, Any]], str]:
        """Run it, in place of what was `prepared`, on every case; return the outputs of each, and what they are."""
        if self.engine is not None:
            with self.engine.open() as session:
                return [session.run(case.feeds) for case in cases], self.label
        return reference_outputs(self.prepared or prepared, cases, folder)


@contextlib.contextmanager
def opened_against(
    against: str | Path | None, manifest: ManifestRecord, folder: Path, progress: Progress
) -> Iterator[Against | None]:
    """Open what an engine of some manifest shall be compared with; None where that is its source.

    Raises:
        UsageError: its inputs and outputs have other names.
        EngineFolderError: an engine folder cannot be used.
        SourceError: another source cannot be taken.
    """
    from enginery.backends import engine as engines

    if against is None:
        yield None
    elif storage.is_engine_folder(Path(against)):
        found = engines.load(against)
        _check_names(str(against), manifest, found.manifest.inputs, found.manifest.outputs)
        label = f"{against} ({found.manifest.backend} {found.manifest.backend_version}, {found.manifest.precision})"
        yield Against(label, engine=found)
    else:
        folder.mkdir()
        with opened(str(against), SourceSpec()) as source:
            try:
                prepared = prepare(
                    reference_of(source), folder, shapes=_shapes(manifest), simplify=False, progress=progress
                )
            except (UnknownNameError, GraphError) as error:  # the engine's shapes do not fit the inputs
                raise UsageError(f"{against} is another model: {error.message}", mend=_MEND) from error
            _check_names(str(against), manifest, prepared.inputs, prepared.outputs)
            yield Against(prepared.source.label, prepared=prepared)


@dataclass(frozen=True)
class Search:
    """What a divergence is looked for in.

    Args:
        engine: what was verified.
        prepared: what it was built from, as it was exported, with the engine's shapes.
        against: what it was compared with; None for its source.
        calibration: recorded inputs that INT8 ranges follow from, as for the engine; None where it needs none.
        method: how a range follows from them.
        folder: for what is made in passing.
        progress: told what is going on.
    """

    engine: Engine
    prepared: Prepared
    against: Against | None
    folder: Path
    progress: Progress
    calibration: Any = None
    method: str = "minmax"

    def look(self, record: VerifyRecord, cases: Sequence[Case], output: Path) -> VerifyRecord:
        """Add to a record where the engine first leaves what it was compared with; a note where no output does.

        Args:
            record: what was found.
            cases: the inputs that it was found with.
            output: the folder for the smallest model that shows it.

        Raises:
            UsageError: the engine is no graph, or its outputs are no tensors.
            OutputError: `output` cannot be written.
        """
        worst = max(record.outputs, key=lambda one: one.error, default=None)
        if worst is None or worst.error <= record.max_error:
            said = "no output is off by more than --max-error, so there is no node to look for"
            return replace(record, notes=(*record.notes, said if worst is not None else "no input could be run"))
        case = next(case for case in cases if case.name == worst.case)
        with self.progress.step("locate"):
            return replace(record, divergence=self._locate(record, case, output))

    def _locate(self, record: VerifyRecord, case: Case, output: Path) -> DivergenceRecord:
        from enginery.graph.base import load_model

        design, original, note = self._designs()
        home, plan = design.path.parent, _plan_of(self.engine.folder)
        suspect = Suspect(self.engine.folder, self.engine.manifest, plan, load_model(design.path))
        with contextlib.ExitStack() as stack:
            evaluator = stack.enter_context(Evaluator(home))
            parts = stack.enter_context(PartEngines("suspect", suspect.manifest, plan, home))
            opposite = Opposite(record.reference, graph=load_model(original.path) if original != design else None)
            if self.against is not None and self.against.engine is not None:
                other = self.against.engine
                run = PartEngines("reference", other.manifest, _plan_of(other.folder), home)
                opposite = replace(opposite, engine=stack.enter_context(run))
            elif self.against is not None and self.against.prepared is not None:
                opposite = Opposite(record.reference, graph=load_model(self.against.prepared.path))
            found = locate_divergence(
                suspect, opposite, case, record.max_error, output, parts=parts, progress=self.progress,
                go_on=lambda model, feeds: evaluator.run(model, [feeds])[0],
            )  # fmt: skip
        return replace(found, notes=(*found.notes, *([note] if note else [])))

    def _designs(self) -> tuple[Design, Design, str]:
        """Return the graph that the engine was built from, the one before it was quantised, and a note.

        Both are made again from the source; whether that was simplified, the hash tells.
        """
        wanted = self.engine.manifest.graph_sha256
        if not wanted:
            message = f"{self.engine.folder} was built by hand, layer by layer: it has no graph that could be cut"
            raise UsageError(message, mend="leave out --layers")
        original = self._fit(self.prepared.design, self.folder)
        if original.graph_sha256 == wanted:
            return original, original, ""
        home = self.folder / "simplified"
        home.mkdir()
        again = prepare(self.prepared.source, home, shapes=_shapes(self.engine.manifest), progress=self.progress)
        original = self._fit(again.design, home)
        design = original if original.graph_sha256 == wanted else self._quantised(original)
        note = "the graph that was cut is not to the byte the one that the engine was built of"
        return design, original, "" if design.graph_sha256 == wanted else note

    def _quantised(self, design: Design) -> Design:
        """Quantise the graph as it was for the engine; the graph itself where it was not."""
        from enginery.graph import base

        manifest, plan = self.engine.manifest, _plan_of(self.engine.folder)
        words = {manifest.precision, *(plan.words if plan is not None else ())}
        there = any(node.op_type == "QuantizeLinear" for node in base.all_nodes(base.load_model(design.path)))
        if words.isdisjoint(QUANTISED) or there:
            return design
        if self.calibration is None:
            message = f"{self.engine.folder} computes in int8, by ranges that followed from recorded inputs"
            raise UsageError(message, mend="give the same ones: --calibration PATH, so that its parts are built alike")
        spec = BuildSpec(_shapes(manifest), manifest.precision, plan=plan)
        examples = self.prepared.source.example_feeds()
        quantiser = make_quantiser(
            self.calibration, self.method, examples, spec.shapes, design.path.parent, self.progress
        )
        offered = backends.get(manifest.backend).capabilities(describe_machine())
        return quantised(design, spec, offered, quantiser)[0]

    def _fit(self, design: Design, folder: Path) -> Design:
        """Bring the graph to the opset that the backends read, as it was for the engine."""
        other = self.against.engine if self.against is not None else None
        for manifest in (self.engine.manifest, *([other.manifest] if other is not None else [])):
            limits = backends.get(manifest.backend).capabilities(describe_machine()).opsets
            design = Fitter(folder, _shapes(self.engine.manifest), self.progress).fit(design, limits)
        return design


def _check_names(
    against: str, manifest: ManifestRecord, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> None:
    for kind, own, others in (("inputs", manifest.inputs, inputs), ("outputs", manifest.outputs, outputs)):
        names, found = (sorted(info.name for info in infos) for infos in (own, others))
        if names != found:
            said = f"its {kind} are {', '.join(found)}, and the engine's {', '.join(names)}"
            raise UsageError(f"{against} is another model: {said}", mend=_MEND)


def _shapes(manifest: ManifestRecord) -> dict[str, Shape]:
    return {info.name: info.profile for info in manifest.inputs if info.profile is not None}


def _plan_of(folder: Path) -> PrecisionPlan | None:
    from enginery.graph.base import plan_from_json

    file = folder / storage.PLAN
    return plan_from_json(file.read_text(encoding="utf-8")) if file.is_file() else None
