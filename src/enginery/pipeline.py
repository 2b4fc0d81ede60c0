"""optimize(): the whole flow on one screen. It joins the stages, and nothing else does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import preparation, steps, storage
from enginery.environments import find_python
from enginery.errors import DataError, UsageError
from enginery.graph.base import check_plan, load_model
from enginery.machine import describe_machine
from enginery.plain import to_json, to_plain
from enginery.progress import Progress
from enginery.quantising import Quantiser, check_calibrated, check_calibration, make_quantiser, quantise_contestants
from enginery.records import FileRecord, OptimizeRecord
from enginery.sources import opened
from enginery.spec import (
    BenchSpec,
    OptimizeSpec,
    PrecisionPlan,
    Shape,
    SourceOptions,
    SourceSpec,
    VerifySpec,
    as_shapes,
)
from enginery.staging import staging

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from enginery.backends.base import Design
    from enginery.backends.session import Session
    from enginery.inputs.base import Range
    from enginery.preparation import CaseSet, Prepared
    from enginery.tuning.race import Race

__all__ = ["PICTURE", "RECORD", "OptimizeResult", "optimize"]

_CANDIDATES = "candidates"
RECORD = "optimize.json"
"""Name of the file in a saved engine's folder that holds the `OptimizeRecord`."""

PICTURE = "pareto.svg"
"""Name of the file beside it that shows latency against error."""

_FOUND = (RECORD, PICTURE)

_EXPECTED_S = (("export", 5.0), ("simplify", 5.0), ("reference", 5.0), (_CANDIDATES, 40.0))
"""Steps and their seconds for a model of middle size; the last stands for those that are listed later."""


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` made and found.

    Args:
        record: everything that was found, ready for JSON.
        engine: path of the saved engine folder.
    """

    record: OptimizeRecord
    engine: Path

    @property
    def table(self) -> str:
        """Every candidate in one table: latency, error, size, chosen or why not."""
        from enginery.reports.text import optimize_text

        return optimize_text(self.record)

    def open(self) -> Session:
        """Open the chosen engine; the caller closes the session, or uses it in a ``with`` statement."""
        return steps.load(self.engine)


def optimize(
    source: Any,
    example_inputs: Any = None,
    *,
    shapes: Mapping[str, Shape | str] | None = None,
    precision: str = "fp32",
    max_error: float | None = None,
    min_cosine: float | None = None,
    max_drop: Mapping[str, float] | None = None,
    output: str | Path | None = None,
    backends: Sequence[str] = (),
    objective: str = "latency",
    max_latency_ms: float | None = None,
    data: str | Path | None = None,
    calibration: Any = None,
    calibration_method: str = "minmax",
    ranges: Mapping[str, Range] | None = None,
    environments: Mapping[str, str] | None = None,
    simplify: bool = True,
    limit_s: float = 10.0,
    search_limit_s: float = 600.0,
    resume: str | Path | None = None,
    plan: PrecisionPlan | str | Path | None = None,
    spec: OptimizeSpec | None = None,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> OptimizeResult:
    """Turn a trained model into the fastest engine that is accurate enough, and save it.

    Args:
        source: a path of an ONNX file, ``file.py:factory``, ``package.module:factory``, or a module in memory.
        example_inputs: arrays or tensors for a module in memory: one, a tuple, or a dict by name.
        shapes: the profile of each input, as a `Shape` or a text such as ``"1..8..32x3x224x224"``.
        precision: one of `enginery.spec.PRECISIONS`, or ``best`` for all that the backends offer.
        max_error: largest allowed error of an output against the source (relative L2 for floats); 0.001 where no
            bound is given.
        min_cosine: smallest allowed cosine between an output and the source's.
        max_drop: how far a metric of `enginery.spec.DROPS` may fall, such as ``{"top1": 0.005}``.
        output: path of the engine folder; by default the source's name with ``.engine``, in the current folder.
        backends: their names; all that are here where none is named.
        objective: ``latency`` (lowest median), ``throughput`` or ``size``.
        max_latency_ms: reject candidates whose median is above it.
        data: recorded inputs (``.npz``, a folder of ``.npy``, ``file.py:loader``), with ``labels`` if known.
        calibration: recorded inputs that INT8 ranges follow from: as `data`, or an iterable of inputs, such as a torch
            DataLoader; without it int8 is not tried.
        calibration_method: how a range follows from the values: ``minmax``, ``entropy`` or ``percentile``.
        ranges: of random inputs, by name.
        environments: other interpreters by name, each the path of a Python that has Enginery.
        simplify: whether to simplify the graph first.
        limit_s: seconds that one candidate is timed at the most.
        search_limit_s: seconds after which one search of a plan between two precisions ends; 0 for no search.
        resume: folder that keeps what a search measures; one that was killed goes on from it.
        plan: precision of single nodes for every candidate, or the file that says it, as for `enginery.build`.
        spec: everything above in one, with the limits of verification and benchmark; stands over the arguments.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Returns:
        The record, its table, and the path of the engine.

    Raises:
        SourceError: the source cannot be taken.
        EnvironmentSetupError: an environment's interpreter is not there.
        UsageError: what was given goes with nothing that was asked for.
        DataError: a bound needs labels, and the data has none; or no range follows from the calibration data.
        NoCandidateError: no candidate was accepted; the message lists every reason.
        OutputError: the engine cannot be written.

    Example:
        >>> import enginery, numpy, onnx_ir, tempfile
        >>> model = onnx_ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
        ... twice (float[batch, 4] x) => (float[batch, 4] y) { y = Add(x, x) }''')
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = enginery.optimize(
        ...         model, shapes={"x": "1..8x4"}, output=f"{folder}/twice.engine", backends=["onnxruntime"],
        ...         limit_s=0.1,
        ...     )
        ...     with result.open() as session:
        ...         print(result.record.candidates[0].label, session(numpy.ones((2, 4), "float32"))[0, 0])
        onnxruntime, plain 2.0
    """
    begin = time.monotonic()
    asked = SourceSpec.of(example_inputs, **said)
    spec = spec or OptimizeSpec(
        shapes=as_shapes(shapes),
        precision=precision,
        backends=tuple(backends),
        objective=objective,
        max_latency_ms=max_latency_ms,
        environments=dict(environments or {}),
        simplify=simplify,
        calibration=_said(calibration),
        calibration_method=calibration_method,
        search_limit_s=search_limit_s,
        resume=None if resume is None else str(resume),
        plan=preparation.asked_precision(None, plan)[1],
        verify=VerifySpec.of(max_error, min_cosine=min_cosine, max_drop=max_drop),
        bench=BenchSpec(limit_s=limit_s),
    )
    spec = replace(spec, shapes=as_shapes(spec.shapes))
    progress = progress or Progress()
    given = calibration if calibration is not None else spec.calibration or None
    check_calibration(given, spec.calibration_method, spec.plan.words if spec.plan is not None else (spec.precision,))
    _check_folder(spec.resume)
    output = Path(output) if output is not None else _default_output(source)
    storage.refuse_to_replace(output.absolute())
    for python in spec.environments.values():
        find_python(python)  # a slip in a path is told before any work
    progress.plan(*(step for step in _EXPECTED_S if spec.simplify or step[0] != "simplify"))
    with staging(output.resolve()) as folder, opened(source, asked) as found:
        network = preparation.network_design(found, folder)
        compared = preparation.reference_of(found)
        prepared = preparation.prepare(compared, folder, shapes=spec.shapes, simplify=spec.simplify, progress=progress)
        if spec.plan is not None:
            check_plan(load_model(prepared.path), spec.plan)  # a slip in a name is told before anything is built
        if given is None and network is None:
            check_calibrated(prepared.path, spec.precision, spec.plan)
        cases = preparation.make_cases(prepared, data=data, ranges=ranges, seed=spec.verify.seed, say=progress.say)
        _check_labels(cases, spec.verify)
        examples = compared.example_feeds() if given is not None else None
        quantiser = make_quantiser(given, spec.calibration_method, examples, spec.shapes, folder, progress)
        race = _race(prepared, network, cases, spec, quantiser, folder=folder, progress=progress)
        record = replace(_record(prepared, race, spec, output, begin), source=found.label)
        record = _save(race.engines[race.chosen], record, output, progress)
    return OptimizeResult(record, output)


def _race(
    prepared: Prepared,
    network: Design | None,
    cases: CaseSet,
    spec: OptimizeSpec,
    quantiser: Quantiser | None,
    *,
    folder: Path,
    progress: Progress,
) -> Race:
    """Build, verify and time every candidate beside the baselines, and choose one; a hand-built network among them."""
    from enginery.fitting import Fitter, fit_contestants
    from enginery.inputs.base import Case, save_cases
    from enginery.tuning.candidates import GRAPH, NETWORK, PLAIN, list_candidates
    from enginery.tuning.race import race

    with progress.step("reference"):
        expected, reference = preparation.reference_outputs(prepared, cases.cases, folder)
    save_cases(cases.cases, folder / "cases")
    save_cases(
        [Case(case.name, outputs) for case, outputs in zip(cases.cases, expected, strict=True)], folder / "expected"
    )
    timed = next(case for case in cases.cases if case.name == cases.timed)
    progress.drop(_CANDIDATES)
    contestants = list_candidates(prepared.graph, describe_machine(), spec, folder=folder, network=network)
    designs = {GRAPH: prepared.design, PLAIN: prepared.plain_design} | ({NETWORK: network} if network else {})
    fitted, designs = fit_contestants(contestants, designs, Fitter(folder, spec.shapes, progress))
    fitted, designs = quantise_contestants(fitted, designs, quantiser, progress)
    frameworks = {}
    if prepared.source.framework is not None:
        frameworks[prepared.source.framework] = prepared.source.timer(timed.feeds)
    return race(
        fitted,
        designs=designs,
        cases=folder / "cases",
        expected=folder / "expected",
        bench_case=cases.timed,
        spec=spec,
        folder=folder,
        reference=reference,
        inputs=cases.described,
        frameworks=frameworks,
        quantise=None if quantiser is None else quantiser.quantise,
        progress=progress,
    )


def _record(prepared: Prepared, race: Race, spec: OptimizeSpec, output: Path, begin: float) -> OptimizeRecord:
    from enginery.tuning.words import chosen_words

    return OptimizeRecord(
        source=prepared.source.label,
        export=prepared.export,
        graph=prepared.graph,
        simplify=prepared.simplify,
        candidates=race.records,
        chosen=race.chosen,
        engine=str(output),
        machine=describe_machine(),
        spec=to_plain(spec),
        seconds=time.monotonic() - begin,
        notes=race.notes,
        searches=race.searches,
        words=chosen_words(race.records, race.chosen, race.searches),
    )


def _save(built: Path, record: OptimizeRecord, output: Path, progress: Progress) -> OptimizeRecord:
    """Give the chosen engine its records and its place; say loudly where only another environment opens it as timed.

    The whole record, every candidate in it, goes beside the manifest as ``optimize.json``, and its picture as
    ``pareto.svg``.
    """
    from enginery.reports.pareto import pareto_svg

    chosen = next(row for row in record.candidates if row.label == record.chosen)
    manifest = replace(storage.read_manifest(built), verify=chosen.verify, bench=chosen.bench)
    if python := record.spec["environments"].get(chosen.environment):
        manifest = replace(manifest, environment=chosen.environment, interpreter=find_python(python))
        note = (
            f"the engine belongs to the environment {manifest.environment!r}: open it with {manifest.interpreter} "
            f"(Python {manifest.machine.python}, {manifest.backend} {manifest.backend_version})"
        )
        progress.say(note)
        record = replace(record, notes=(*record.notes, note))
    (built / RECORD).write_text(to_json(record) + "\n", encoding="utf-8")
    (built / PICTURE).write_text(pareto_svg(record), encoding="utf-8")
    files = {name: FileRecord(storage.hash_file(built / name), (built / name).stat().st_size) for name in _FOUND}
    storage.write_manifest(built, replace(manifest, files={**manifest.files, **files}))
    storage.adopt_folder(built, output)
    return record


def _check_folder(resume: str | None) -> None:
    """Raise `UsageError` where what a search shall keep its measurements in is a file."""
    if resume is not None and Path(resume).is_file():
        raise UsageError(f"{resume}, to resume from, is a file", mend="name the folder of an earlier run, or a new one")


def _check_labels(cases: CaseSet, spec: VerifySpec) -> None:
    """Raise `DataError` where a bound needs labels, and no case has any: no engine could hold it."""
    if "top1" in spec.max_drop and all(case.labels is None for case in cases.cases):
        mend = "give data that has an array called 'labels' (--data), or bound 'agreement' or 'cosine' instead"
        raise DataError("a bound on top1 was given, and there are no labels", mend=mend)


def _said(calibration: Any) -> str:
    """Say what data was given, for the record."""
    if calibration is None:
        return ""
    return str(calibration) if isinstance(calibration, str | Path) else f"a {type(calibration).__name__}"


def _default_output(source: Any) -> Path:
    """Name the engine after the file or the factory; a model in memory has the name of its class."""
    if not isinstance(source, str | Path):
        return Path(f"{type(source).__name__.lower()}.engine")
    place, _, factory = str(source).partition(":")
    return Path(f"{factory or Path(place).stem}.engine")
