"""Each step of the way as one function: export, build, verify, bench, run, inspect, doctor.

`enginery.pipeline` joins the same steps into `optimize`; the command line calls nothing below this level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from enginery import backends, storage
from enginery.divergence import FILE as DIVERGENCE
from enginery.errors import GraphError, SourceError, UnknownNameError, UsageError
from enginery.fitting import Fitter
from enginery.locating import Search, opened_against
from enginery.machine import describe_machine
from enginery.preparation import (
    Prepared,
    asked_precision,
    asked_words,
    bench_case,
    check_asked,
    check_typed,
    choose_backend,
    make_build_spec,
    make_cases,
    make_design,
    prepare,
    reference_of,
    reference_outputs,
)
from enginery.progress import Listener, Progress, listening, within
from enginery.quantising import check_calibration, make_quantiser, quantised
from enginery.records import (
    BenchRecord,
    DoctorRecord,
    ExportRecord,
    GraphRecord,
    LayerRecord,
    ManifestRecord,
    VerifyRecord,
)
from enginery.sources import SOURCES, find_kind, opened
from enginery.spec import (
    BenchSpec,
    BuildSpec,
    Option,
    PrecisionPlan,
    Shape,
    SourceOptions,
    SourceSpec,
    VerifySpec,
    as_shapes,
)
from enginery.staging import staging

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import Unpack

    from enginery.backends.base import Design
    from enginery.backends.engine import Engine
    from enginery.backends.session import Session
    from enginery.inputs.base import Range

__all__ = [
    "bench",
    "build",
    "doctor",
    "export",
    "inspect",
    "inspect_layers",
    "load",
    "quantize",
    "refit",
    "run",
    "verify",
]

_JOB_LIMIT_S = 600.0


def export(
    source: Any,
    output: str | Path,
    *,
    example_inputs: Any = None,
    shapes: Mapping[str, Shape | str] | None = None,
    opset: int | None = None,
    simplify: bool = False,
    precision: str | None = None,
    plan: PrecisionPlan | str | Path | None = None,
    convert_io: bool = False,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> ExportRecord:
    """Turn a trained model into an ONNX file.

    Args:
        source: a path, ``file.py:factory``, ``package.module:factory``, or a module in memory.
        output: path of the ONNX file; large weights go into a file beside it.
        example_inputs: example arrays for a module in memory.
        shapes: the profile of each input, as a `Shape` or a text such as ``"1..8..32x3x224x224"``; a range makes that
            axis dynamic.
        opset: version of ONNX's operator set; None for the exporter's own choice.
        simplify: whether to simplify the graph as well.
        precision: ``fp16`` or ``bf16`` to write the graph with these types; None for those of the source.
        plan: the precision of single nodes, or the file that says it.
        convert_io: whether float32 inputs and outputs take the precision's type too.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Raises:
        SourceError: the source cannot be taken, or no exporter gave a right graph.
        UsageError: the precision is none that the types of a graph say.
        OutputError: `output` cannot be written.
    """
    from enginery.graph import base, files

    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"{output} is no name for an ONNX file", mend=f"name it {output.with_suffix('.onnx')}")
    profile = as_shapes(shapes)
    word, plan = asked_precision(precision, plan)
    check_typed(word, plan, convert_io=convert_io)
    progress = progress or Progress()
    progress.plan(("export", 5.0), *([("simplify", 5.0)] if simplify else []))
    asked = SourceSpec.of(example_inputs, **said)
    with staging(output.resolve()) as folder, opened(source, asked) as found:
        prepared = prepare(found, folder, shapes=profile, opset=opset, simplify=simplify, progress=progress)
        graph = files.load(prepared.path)
        typed = base.apply_plan(graph, plan or PrecisionPlan(word), convert_io=convert_io, say=progress.say)
        files.save(typed, output)
    axes = {info.name: tuple(dim for dim in info.shape or () if isinstance(dim, str)) for info in prepared.inputs}
    dynamic = {name: names for name, names in axes.items() if names}
    simplified = prepared.simplify.nodes_after if prepared.simplify is not None else None
    return replace(prepared.export, nodes_simplified=simplified, dynamic_axes=dynamic)


def quantize(
    source: Any,
    output: str | Path,
    *,
    data: str | Path,
    method: str = "minmax",
    form: str = "symmetric",
    exclude: Sequence[str] = (),
    shapes: Mapping[str, Shape | str] | None = None,
    example_inputs: Any = None,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> ExportRecord:
    """Turn a trained model into an ONNX file whose convolutions and matrix products read INT8.

    The file is simplified first, and built like any other: ``build(output, ..., precision="int8")``.

    Args:
        source: as for `export`.
        output: path of the ONNX file.
        data: recorded inputs, a hundred real ones or more: the ranges follow from them.
        method: how a range follows from the values: ``minmax``, ``entropy`` or ``percentile``.
        form: of the numbers: ``symmetric`` for TensorRT (``symmetric8`` for 8.5 and 8.6), ``asymmetric`` for OpenVINO,
            ``whole`` for ONNX Runtime on CPUs; see `enginery.graph.precision.forms.FORMS`.
        exclude: names of nodes that stay as they are.
        shapes: as for `export`.
        example_inputs: as for `export`.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Raises:
        SourceError: the source cannot be taken.
        DataError: no range follows from the data.
        GraphError: the graph cannot be quantised.
        OutputError: `output` cannot be written.
    """
    from enginery.graph import base, files
    from enginery.inputs.recorded import stream_data

    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"{output} is no name for an ONNX file", mend=f"name it {output.with_suffix('.onnx')}")
    profile = as_shapes(shapes)
    progress = progress or Progress()
    progress.plan(("export", 5.0), ("simplify", 5.0), ("quantize", 10.0))
    asked = SourceSpec.of(example_inputs, **said)
    with staging(output.resolve()) as folder, opened(source, asked) as found:
        prepared = prepare(found, folder, shapes=profile, simplify=True, progress=progress)
        with progress.step("quantize"):
            batches = (case.feeds for case in stream_data(data, prepared.inputs, labels=False, say=progress.say))
            model = files.load(prepared.path)
            made = base.quantize(model, batches, method=method, form=form, exclude=exclude, say=progress.say)
            files.save(made, output)
    simplified = prepared.simplify.nodes_after if prepared.simplify is not None else None
    return replace(prepared.export, nodes_simplified=simplified)


def build(
    source: Any,
    output: str | Path,
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
) -> Engine:
    """Build one engine with one backend, in a worker process.

    Args:
        source: as for `export`.
        output: path of the engine folder; an engine that stands there is replaced.
        backend: its name; None for ``onnxruntime``, or for the one that a hand-built network is written for.
        shapes: the profile of each input, as a `Shape` or a text such as ``"1..8..32x3x224x224"``.
        precision: one of `enginery.spec.PRECISIONS`; None for ``fp32``, or for what the plan says.
        options: the backend's own.
        profiles: narrower profiles inside `shapes`, on a backend that has several.
        values: the range of the values of each input that holds sizes, an axis for each element.
        plan: precision of single nodes, or the file that says it: ``precision.json`` of an engine folder, as it is or
            edited; None where all are `precision`.
        calibration: recorded inputs that INT8 ranges follow from: a path or a loader as for `verify`'s data, or an
            iterable of inputs, such as a torch DataLoader; None where the graph is quantised already.
        calibration_method: how a range follows from the values: ``minmax``, ``entropy`` or ``percentile``.
        weight_bits: 8 or 4 to store the weights of matrix products in so many bits, and compute as `precision` says.
        example_inputs: as for `export`.
        simplify: whether to simplify the graph first.
        in_process: build in this process instead, for debugging.
        limit_s: time limit of the build, in seconds.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Raises:
        UnknownNameError: no such backend, option or input, or the plan names a node that there is not.
        PrecisionError: the backend cannot compute in the precision here; the message says why.
        DataError: no range follows from the calibration data.
        PrecisionMismatchError: another precision was built than was asked for.
        BuildError: the backend refused the graph.
        WorkerError: the build crashed, hung or outgrew its memory.
    """
    from enginery.backends import engine as engines

    output = Path(output)
    progress = progress or Progress()
    building = f"build {backend or 'engine'}"
    progress.plan(("export", 5.0), *([("simplify", 5.0)] if simplify else []), (building, 3.0))
    spec = make_build_spec(shapes, precision, options=options, profiles=profiles, values=values, plan=plan)
    check_calibration(calibration, calibration_method, asked_words(spec), weight_bits)
    if backend is not None:
        check_asked(backend, spec)
    storage.refuse_to_replace(output)
    asked = SourceSpec.of(example_inputs, **said)
    with staging(output.resolve()) as folder, opened(source, asked) as found:
        backend = choose_backend(found, backend)
        check_asked(backend, spec)
        design = make_design(
            found, folder, shapes=spec.shapes, simplify=simplify, in_process=in_process, progress=progress
        )
        offered = backends.get(backend).capabilities(describe_machine())
        design = Fitter(folder, spec.shapes, progress).fit(design, offered.opsets)
        examples = reference_of(found).example_feeds() if calibration is not None else None
        quantiser = make_quantiser(calibration, calibration_method, examples, spec.shapes, folder, progress)
        design, spec = quantised(design, spec, offered, quantiser, weight_bits)
        with progress.step(building):
            staged = folder / output.name
            _build_at(
                design, staged, backend, spec, in_process=in_process, limit_s=limit_s, folder=folder,
                hear=progress.advanced,
            )  # fmt: skip
        storage.adopt_folder(staged, output)
    return engines.load(output)


def refit(
    engine: str | Path,
    source: Any,
    output: str | Path | None = None,
    *,
    example_inputs: Any = None,
    simplify: bool = True,
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> Engine:
    """Give an engine other weights, without building it again: a model that was trained further, say.

    Args:
        engine: path of the engine folder, built with ``refit=yes``, or with ``strip_weights``.
        source: the same model with other weights; as for `export`.
        output: path of the new engine folder; None for the engine's own.
        example_inputs: as for `export`.
        simplify: whether to simplify the graph first: as it was for the engine, for weights go by name.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Raises:
        UsageError: the engine was not built for it, or its backend cannot do it.
        BuildError: the source's weights are not the engine's by name, size and type.
        BackendUnavailableError: there is no GPU to do it on.
    """
    from enginery.backends import engine as engines
    from enginery.graph import files

    loaded = engines.load(engine)
    manifest = loaded.manifest
    progress = progress or Progress()
    progress.plan(("export", 5.0), *([("simplify", 5.0)] if simplify else []), ("refit", 3.0))
    backend = backends.get_available(manifest.backend, to_run=True)
    shapes = {info.name: info.profile for info in manifest.inputs if info.profile is not None}
    target = Path(output if output is not None else engine)
    storage.refuse_to_replace(target)
    asked = SourceSpec.of(example_inputs, **said)
    with staging(target.resolve()) as folder, opened(source, asked) as found:
        design = make_design(found, folder, shapes=shapes, simplify=simplify, in_process=False, progress=progress)
        design = Fitter(folder, shapes, progress).fit(design, backend.capabilities(describe_machine()).opsets)
        if design.backend:
            raise UsageError(f"{source} is built by hand, and has no weights by name", mend="build it again")
        graph = files.load(design.path)
        with progress.step("refit"):
            staged = folder / target.name
            engines.refit(
                loaded, graph, staged, source=design.source, source_sha256=design.source_sha256,
                graph_sha256=design.graph_sha256,
            )  # fmt: skip
        storage.adopt_folder(staged, target)
    return engines.load(target)


def verify(
    engine: str | Path,
    source: Any,
    *,
    example_inputs: Any = None,
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    spec: VerifySpec | None = None,
    against: str | Path | None = None,
    layers: bool = False,
    output: str | Path = "divergence",
    calibration: Any = None,
    calibration_method: str = "minmax",
    progress: Progress | None = None,
    **said: Unpack[SourceOptions],
) -> VerifyRecord:
    """Compare an engine with what it was built from, and write the record into its manifest.

    Args:
        engine: path of the engine folder.
        source: as for `export`; the engine's inputs and outputs must be the source's.
        example_inputs: as for `export`.
        data: recorded inputs; random ones where none are given.
        ranges: of the random inputs, by name.
        spec: bound, seed and numbers of runs.
        against: path of another engine of the same source, or of another source whose tensors have the same names
            (the float32 original of a typed or quantised file), to compare with instead of `source`.
        layers: where an output is beyond the bound, look for the first node that is, by building parts of the graph.
        output: path of the folder for the smallest model that shows it.
        calibration: what an INT8 engine was calibrated with, as for `build`; only `layers` needs it.
        calibration_method: as for `build`.
        progress: told what is going on.
        said: what else is known of the source: see `enginery.spec.SourceSpec`.

    Returns:
        The record, whether or not it passed.
    """
    from enginery.backends import engine as engines
    from enginery.verification.compare import compare

    spec = spec or VerifySpec()
    progress = progress or Progress()
    progress.plan(("export", 5.0), ("reference", 5.0), ("verify", 5.0), *([("locate", 60.0)] if layers else []))
    loaded = engines.load(engine)
    if calibration is not None and not layers:
        mend = "ask for --layers too, or leave it out; to verify on recorded inputs, give them as --data"
        raise UsageError("data to calibrate with was given, and nothing is built to find a layer", mend=mend)
    if layers:
        storage.refuse_to_replace(Path(output), DIVERGENCE)
    shapes = {info.name: info.profile for info in loaded.manifest.inputs if info.profile is not None}
    asked = SourceSpec.of(example_inputs, **said)
    with tempfile.TemporaryDirectory(prefix="enginery-") as name, opened(source, asked) as found:
        try:
            prepared = prepare(reference_of(found), Path(name), shapes=shapes, simplify=False, progress=progress)
        except (UnknownNameError, GraphError) as error:  # the engine's shapes do not fit the source's inputs
            mend = f"name what it was built from ({loaded.manifest.source})"
            raise UsageError(f"{engine} was not built from {source}: {error.message}", mend=mend) from error
        _check_names(str(engine), loaded.manifest, prepared)
        chosen = make_cases(prepared, data=data, ranges=ranges, seed=spec.seed, say=progress.say)
        with opened_against(against, loaded.manifest, Path(name) / "against", progress) as other:
            with progress.step("reference"):
                outputs_of = reference_outputs if other is None else other.outputs
                expected, reference = outputs_of(prepared, chosen.cases, Path(name))
            with progress.step("verify"), loaded.open() as session:
                inputs = chosen.described
                record = compare(session, chosen.cases, expected, spec=spec, reference=reference, inputs=inputs)
            if layers:
                search = Search(loaded, prepared, other, Path(name), progress, calibration, calibration_method)
                record = search.look(record, chosen.cases, Path(output))
    storage.keep_records(loaded.folder, replace(loaded.manifest, verify=record), progress.say)
    return record


def bench(
    engines: Sequence[str | Path],
    *,
    at: Literal["min", "opt", "max"] = "opt",
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    options: Mapping[str, Option] | None = None,
    spec: BenchSpec | None = None,
    progress: Progress | None = None,
) -> dict[str, BenchRecord]:
    """Time engines against each other: each in a worker of its own, taking turns.

    Args:
        engines: paths of engine folders.
        at: which end of the profile is timed: ``min``, ``opt`` or ``max``.
        data: recorded inputs, whose first batch is timed; random ones where none are given.
        ranges: of the random inputs, by name.
        options: stand over those that the engines were built with.
        spec: when to stop.
        progress: told what is going on.

    Returns:
        A record for each engine, by the folder's name; written into the engine's manifest as well.
    """
    from enginery.inputs.base import save_cases
    from enginery.tuning.race import time_engines

    if at not in ("min", "opt", "max"):
        raise UnknownNameError.from_choices("end of the profile", at, ("min", "opt", "max"))
    labelled = _by_label(engines)
    manifests = {label: storage.read_manifest(path) for label, path in labelled.items()}
    for label, path in labelled.items():
        storage.check_files(path, manifests[label].files)
    case, described = bench_case(manifests, at, data, dict(ranges or {}))
    (progress or Progress()).say(f"timed on {described}")
    with tempfile.TemporaryDirectory(prefix="enginery-") as name:
        save_cases([case], Path(name) / "cases")
        return time_engines(
            labelled, cases=Path(name) / "cases", bench_case=case.name, folder=Path(name), options=dict(options or {}),
            spec=spec, progress=progress,
        )  # fmt: skip


def run(
    engine: str | Path, feeds: Mapping[str, np.ndarray[Any, Any]], *, options: Mapping[str, Option] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Run an engine once on given arrays; opens and closes it, so for many calls use `load`.

    Raises:
        EngineFolderError: the folder cannot be used.
        InputError: the arrays do not fit.
    """
    with load(engine, options=options) as session:
        return session.run(feeds)


def load(engine: str | Path, *, options: Mapping[str, Option] | None = None) -> Session:
    """Open an engine folder, after every file in it was checked against its manifest.

    Args:
        engine: path of the engine folder.
        options: stand over those it was built with, for this session only.

    Returns:
        A session, to be closed by the caller or used in a ``with`` statement.

    Raises:
        EngineFolderError: the folder cannot be used.
        BackendUnavailableError: the backend's library is not here.
    """
    from enginery.backends import engine as engines

    return engines.load(engine).open(options)


def inspect(path: str | Path) -> ManifestRecord | GraphRecord:
    """Describe an engine folder (its manifest, after its files were checked) or an ONNX file.

    Raises:
        SourceError: there is no such file, or it is no ONNX model.
        EngineFolderError: the folder is no whole engine.
    """
    from enginery.graph import files
    from enginery.graph.summary import summarise

    path = Path(path)
    if path.is_dir():
        if not (path / storage.MANIFEST).exists() and (kind := find_kind(path)):
            mend = f"export it first: enginery export {path} -o model.onnx"
            raise SourceError(f"{path} is {SOURCES[kind].summary}, neither an engine nor an ONNX file", mend=mend)
        manifest = storage.read_manifest(path)
        storage.check_files(path, manifest.files)
        return manifest
    return replace(summarise(files.load(path)), sha256=files.hash_model(path))


def inspect_layers(path: str | Path) -> tuple[LayerRecord, ...]:
    """List the layers of an engine as its backend built them: kinds, precisions, formats, nodes and modules.

    Raises:
        EngineFolderError: the folder is no whole engine, or its backend tells no layers.
    """
    manifest = storage.read_manifest(Path(path))
    storage.check_files(Path(path), manifest.files)
    return storage.read_layers(Path(path))


def doctor() -> DoctorRecord:
    """Say what is here, what is missing, and the line that mends it."""
    from enginery.checkup import examine

    return examine()


def _check_names(engine: str, manifest: ManifestRecord, prepared: Prepared) -> None:
    """Raise `UsageError` unless inputs and outputs are called alike: they are compared by name."""
    pairs = {"inputs": (manifest.inputs, prepared.inputs), "outputs": (manifest.outputs, prepared.outputs)}
    for kind, infos in pairs.items():
        own, others = ([info.name for info in each] for each in infos)
        if sorted(own) != sorted(others):
            raise UsageError(
                f"the {kind} of {engine} are {', '.join(own)}, and those of {prepared.source.label} are "
                f"{', '.join(others)}: they are compared by name",
                mend=f"give them one name each, or name what {engine} was built from ({manifest.source})",
            )


def _build_at(
    design: Design, staged: Path, backend: str, spec: BuildSpec, *, in_process: bool, limit_s: float, folder: Path,
    hear: Listener,
) -> None:  # fmt: skip
    from enginery.jobs import build_arguments, read_design

    if in_process:
        from enginery.backends import engine as engines

        with listening(within(limit_s, hear)):
            engines.build(
                design.content or read_design(design.path), spec, staged, backend=backend, source=design.source,
                source_sha256=design.source_sha256, graph_sha256=design.graph_sha256, notes=design.notes,
            )  # fmt: skip
        return
    from enginery.worker import Worker

    with Worker(f"build-{backend}", folder=folder / "worker") as worker:
        arguments = build_arguments(design, backend=backend, spec=spec, output=staged)
        worker.call("build", arguments, limit_s=limit_s, on_progress=hear)


def _by_label(engines: Sequence[str | Path]) -> dict[str, Path]:
    if not engines:
        raise UsageError("no engine is named", mend="name at least one engine folder")
    labelled: dict[str, Path] = {}
    for engine in engines:
        path = Path(engine)
        label = path.name if path.name not in labelled else str(path)
        times = sum(1 for other in labelled.values() if other == path)
        labelled[f"{label} ({times + 1})" if label in labelled else label] = path
    return labelled
