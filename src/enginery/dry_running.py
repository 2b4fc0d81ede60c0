"""Before a long build: what of a source will not convert, how it would be shared, and what memory it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import backends
from enginery.errors import GraphError, UsageError
from enginery.fitting import Fitter
from enginery.machine import describe_machine
from enginery.plain import from_plain
from enginery.preparation import asked_words, check_asked, choose_backend, make_build_spec, make_design, reference_of
from enginery.progress import Progress
from enginery.quantising import check_calibration, make_quantiser, quantised
from enginery.records import DryRunRecord, FindingRecord
from enginery.sources import opened
from enginery.spec import BuildSpec, Option, PrecisionPlan, Shape, SourceOptions, SourceSpec

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from enginery.backends.base import Design

__all__ = ["dry_run"]

_JOB_LIMIT_S = 600.0


def dry_run(
    source: Any,
    *,
    backend: str | None = None,
    shapes: Mapping[str, Shape | str] | None = None,
    precision: str | None = None,
    options: Mapping[str, Option] | None = None,
    profiles: Sequence[Mapping[str, Shape | str]] = (),
    values: Mapping[str, Shape | str] | None = None,
    plan: PrecisionPlan | str | Path | None = None,
    calibration: Any = None,
    calibration_method: str = "minmax",
    weight_bits: int | None = None,
    example_inputs: Any = None,
    simplify: bool = True,
    in_process: bool = False,
    limit_s: float = _JOB_LIMIT_S,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> DryRunRecord:
    """Say what would become of `enginery.steps.build` with the same arguments; no engine is built or written.

    The source is exported and simplified as for a build, and the backend's parser reads the graph in a worker.

    Returns:
        The record, whether or not the graph converts: `DryRunRecord.converts` says so.

    Raises:
        SourceError: the source cannot be exported.
        UnknownNameError: no such backend, option or input.
        UsageError: the source is a hand-built network, which is no graph.
        WorkerError: the backend's library crashed or hung.
    """
    progress = progress or Progress()
    progress.plan(("export", 5.0), *([("simplify", 5.0)] if simplify else []), ("examine", 2.0))
    spec = make_build_spec(shapes, precision, options=options, profiles=profiles, values=values, plan=plan)
    check_calibration(calibration, calibration_method, asked_words(spec), weight_bits)
    asked = SourceSpec.of(example_inputs, **said)
    with tempfile.TemporaryDirectory(prefix="enginery-") as name, opened(source, asked) as found:
        folder = Path(name)
        backend = choose_backend(found, backend)
        check_asked(backend, spec, precision=False)  # a precision that is not offered is a finding
        design = make_design(found, folder, shapes=spec.shapes, simplify=simplify, progress=progress)
        if design.path.suffix != ".onnx":
            mend = "build it: its own functions say what they cannot do"
            raise UsageError(f"the {found.label} is built by hand, and a dry run reads graphs", mend=mend)
        offered = backends.get(backend).capabilities(describe_machine())
        examples = reference_of(found).example_feeds() if calibration is not None else None
        quantiser = make_quantiser(calibration, calibration_method, examples, spec.shapes, folder, progress)
        refused: tuple[FindingRecord, ...] = ()
        try:
            design = Fitter(folder, spec.shapes, progress).fit(design, offered.opsets)
            design, spec = quantised(design, spec, offered, quantiser, weight_bits)
        except GraphError as error:
            refused = (FindingRecord("refused", "", error.message, error.mend),)
        with progress.step("examine"):
            record = _examine(design, backend, spec, in_process=in_process, limit_s=limit_s, folder=folder)
    return replace(record, findings=(*refused, *record.findings))


def _examine(
    design: Design, backend: str, spec: BuildSpec, *, in_process: bool, limit_s: float, folder: Path
) -> DryRunRecord:
    arguments = {**design.as_arguments(), "backend": backend, "spec": spec}
    if in_process:
        from enginery.backends.dry_run import dry_run as examine
        from enginery.graph import files

        return examine(files.load(design.path), spec, backend=backend, source=design.source, notes=design.notes)
    from enginery.worker import Worker

    with Worker(f"examine-{backend}", folder=folder / "worker") as worker:
        return from_plain(DryRunRecord, worker.call("examine", arguments, limit_s=limit_s))
