"""Each step of the way as one function: export, build, verify, bench, run, inspect, doctor.

`enginery.pipeline` joins the same steps into `optimize`; the command line calls nothing below this level.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import backends, sources, storage
from enginery.errors import UsageError
from enginery.progress import Progress
from enginery.records import (
    BenchRecord,
    DoctorRecord,
    ExportRecord,
    GraphRecord,
    ManifestRecord,
    SimplifyRecord,
    TensorInfo,
    VerifyRecord,
)
from enginery.spec import BenchSpec, BuildSpec, Dim, Example, Option, Shape, VerifySpec, check_precision

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.backends.engine import Engine
    from enginery.backends.session import Session
    from enginery.inputs.base import Case, Range
    from enginery.sources.base import Source

__all__ = [
    "CaseSet",
    "Prepared",
    "bench",
    "build",
    "doctor",
    "export",
    "inspect",
    "load",
    "make_cases",
    "prepare",
    "reference_outputs",
    "run",
    "scratch_folder",
    "verify",
]

_REFERENCE_BACKEND = "onnxruntime"
_REFERENCE_OPTIONS: dict[str, Option] = {"optimization": "none"}
_JOB_LIMIT_S = 600.0


@dataclass(frozen=True)
class Prepared:
    """A source that became a graph, ready to be built.

    Args:
        source: the opened source; it can still run, to be compared with.
        export: how it became a graph.
        plain: path of the exported graph, untouched.
        path: path of the graph to build: with the shapes asked for, and simplified where that was asked for.
        graph: what is in that graph.
        inputs: its inputs, each with the profile asked for.
        outputs: its outputs.
    """

    source: Source
    export: ExportRecord
    simplify: SimplifyRecord | None
    plain: Path
    path: Path
    graph: GraphRecord
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    index_limits: Mapping[str, Range]


@dataclass(frozen=True)
class CaseSet:
    """Inputs to verify and time with: the cases, what they are in one line, and the one that is timed."""

    cases: tuple[Case, ...]
    described: str
    timed: str


def export(
    source: Any,
    output: str | Path,
    *,
    examples: Sequence[Example] = (),
    example_inputs: Any = None,
    shapes: Mapping[str, Shape] | None = None,
    opset: int | None = None,
    simplify: bool = False,
    progress: Progress | None = None,
) -> ExportRecord:
    """Turn a trained model into an ONNX file.

    Args:
        source: a path, ``file.py:factory``, ``package.module:factory``, or a module in memory.
        output: path of the ONNX file; large weights go into a file beside it.
        examples: name, dtype and shape of each input, where the source does not bring its own.
        example_inputs: example arrays for a module in memory.
        shapes: the profile of each input; a range makes that axis dynamic.
        opset: version of ONNX's operator set; None for the exporter's own choice.
        simplify: whether to simplify the graph as well.
        progress: told what is going on.

    Raises:
        SourceError: the source cannot be taken, or no exporter gave a right graph.
        OutputError: `output` cannot be written.
    """
    from enginery.graph import files

    output = Path(output)
    if output.suffix != ".onnx":
        raise UsageError(f"{output} is no name for an ONNX file", mend=f"name it {output.with_suffix('.onnx')}")
    progress = progress or Progress()
    with scratch_folder(output) as folder:
        prepared = prepare(
            source, folder, examples=examples, example_inputs=example_inputs, shapes=shapes, opset=opset,
            simplify=simplify, progress=progress,
        )  # fmt: skip
        files.save(files.load(prepared.path), output)
    return replace(prepared.export, nodes=prepared.graph.nodes)


def build(
    source: Any,
    output: str | Path,
    *,
    backend: str = "onnxruntime",
    shapes: Mapping[str, Shape] | None = None,
    precision: str = "fp32",
    options: Mapping[str, Option] | None = None,
    examples: Sequence[Example] = (),
    example_inputs: Any = None,
    simplify: bool = True,
    in_process: bool = False,
    limit_s: float = _JOB_LIMIT_S,
    progress: Progress | None = None,
) -> Engine:
    """Build one engine with one backend, in a worker process.

    Args:
        source: as for `export`.
        output: path of the engine folder; an engine that stands there is replaced.
        backend: its name.
        shapes: the profile of each input.
        precision: one of `enginery.spec.PRECISIONS`.
        options: the backend's own.
        examples: as for `export`.
        example_inputs: as for `export`.
        simplify: whether to simplify the graph first.
        in_process: build in this process instead, for debugging.
        limit_s: time limit of the build, in seconds.
        progress: told what is going on.

    Raises:
        UnknownNameError: no such backend, option or input.
        BuildError: the backend refused the graph.
        WorkerError: the build crashed, hung or outgrew its memory.
    """
    from enginery.backends import engine as engines

    output = Path(output)
    progress = progress or Progress()
    if check_precision(precision) == "best":
        raise UsageError("one engine has one precision, not 'best'", mend="use `optimize`, or name a precision")
    backends.get_available(backend)
    storage.refuse_to_replace(output)
    spec = BuildSpec(dict(shapes or {}), precision, dict(options or {}))
    with scratch_folder(output) as folder:
        prepared = prepare(
            source, folder, examples=examples, example_inputs=example_inputs, shapes=shapes, simplify=simplify,
            progress=progress,
        )  # fmt: skip
        with progress.step(f"build {backend}"):
            staged = folder / output.name
            _build_at(prepared, staged, backend, spec, in_process=in_process, limit_s=limit_s, folder=folder)
        storage.adopt_folder(staged, output)
    return engines.load(output)


def verify(
    engine: str | Path,
    source: Any,
    *,
    examples: Sequence[Example] = (),
    example_inputs: Any = None,
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    spec: VerifySpec | None = None,
    progress: Progress | None = None,
) -> VerifyRecord:
    """Compare an engine with what it was built from, and write the record into its manifest.

    Args:
        engine: path of the engine folder.
        source: as for `export`; the engine's inputs and outputs must be the source's.
        examples: as for `export`.
        example_inputs: as for `export`.
        data: recorded inputs; random ones where none are given.
        ranges: of the random inputs, by name.
        spec: bound, seed and numbers of runs.
        progress: told what is going on.

    Returns:
        The record, whether or not it passed.
    """
    from enginery.backends import engine as engines
    from enginery.verify.compare import compare

    spec = spec or VerifySpec()
    progress = progress or Progress()
    loaded = engines.load(engine)
    shapes = {info.name: info.profile for info in loaded.manifest.inputs if info.profile is not None}
    with tempfile.TemporaryDirectory(prefix="enginery-") as name:
        prepared = prepare(
            source, Path(name), examples=examples, example_inputs=example_inputs, shapes=shapes, simplify=False,
            progress=progress,
        )  # fmt: skip
        chosen = make_cases(prepared, data=data, ranges=ranges, seed=spec.seed)
        with progress.step("reference"):
            expected, reference = reference_outputs(prepared, chosen.cases, Path(name))
        with progress.step("verify"), loaded.open() as session:
            record = compare(session, chosen.cases, expected, spec=spec, reference=reference, inputs=chosen.described)
    loaded.with_records(record, loaded.manifest.bench)
    return record


def bench(
    engines: Sequence[str | Path],
    *,
    at: str = "opt",
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
    from enginery.tune.race import time_engines

    return time_engines(
        _by_label(engines), at=at, data=data, ranges=dict(ranges or {}), options=dict(options or {}),
        spec=spec or BenchSpec(), progress=progress or Progress(),
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
    from enginery.graph import files, summary

    path = Path(path)
    if path.is_dir():
        manifest = storage.read_manifest(path)
        storage.check_files(path, manifest.files)
        return manifest
    return replace(summary.summarise(files.load(path)), sha256=files.hash_model(path))


def doctor() -> DoctorRecord:
    """Say what is here, what is missing, and the line that mends it."""
    from enginery.doctor import examine

    return examine()


def prepare(
    source: Any,
    folder: Path,
    *,
    examples: Sequence[Example] = (),
    example_inputs: Any = None,
    shapes: Mapping[str, Shape] | None = None,
    opset: int | None = None,
    simplify: bool = True,
    progress: Progress | None = None,
) -> Prepared:
    """Export a source and ready its graph for building; writes ``plain.onnx`` and ``graph.onnx`` into `folder`.

    Raises:
        SourceError: the source cannot be taken.
        GraphError: the graph cannot have the shapes asked for.
        UnknownNameError: a shape names no input.
    """
    from enginery.backends.engine import with_profiles
    from enginery.graph import files, summary
    from enginery.graph.base import tensor_infos
    from enginery.graph.shapes import apply_shapes
    from enginery.inputs.generated import index_limits

    progress = progress or Progress()
    shapes = dict(shapes or {})
    with progress.step("export"):
        opened = sources.open_source(source, examples=examples, example_inputs=example_inputs)
        exported = opened.export(shapes=shapes, opset=opset)
        plain = folder / "plain.onnx"
        files.save(exported.graph, plain)
        graph = apply_shapes(files.load(plain), shapes)
        limits = index_limits(graph)
    simplified = None
    if simplify:
        with progress.step("simplify"):
            graph, simplified = _simplify(graph, shapes, limits, folder, progress)
    path = folder / "graph.onnx"
    files.save(graph, path)
    return Prepared(
        source=opened,
        export=exported.record,
        simplify=simplified,
        plain=plain,
        path=path,
        graph=replace(summary.summarise(graph, shapes), sha256=files.hash_model(path)),
        inputs=_with_open_dims(with_profiles(tensor_infos(graph.graph.inputs), shapes), progress),
        outputs=tensor_infos(graph.graph.outputs),
        index_limits=limits,
    )


def make_cases(
    prepared: Prepared,
    *,
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    seed: int = 0,
) -> CaseSet:
    """Make the inputs to verify and time with: the data given, and random ones at min, opt and max.

    Random inputs at the opt shape are left out where there is data for it.

    Raises:
        UnknownNameError: a range names no input.
        DataError: the data cannot be read or does not fit.
    """
    from enginery.inputs import generated
    from enginery.inputs.recorded import load_data

    ranges = {**prepared.index_limits, **(ranges or {})}
    random = [
        generated.random_case(prepared.inputs, which, seed=seed, ranges=ranges) for which in ("min", "opt", "max")
    ]
    random = [case for at, case in enumerate(random) if all(not _same_shapes(case, other) for other in random[:at])]
    described = generated.describe(prepared.inputs, ranges=ranges, seed=seed)
    if data is None:
        opt = next((case for case in random if case.name == "opt"), random[0])
        return CaseSet(tuple(random), described, opt.name)
    recorded = load_data(data, prepared.inputs, batch=_opt_batch(prepared.inputs))
    ends = [case for case in random if not _same_shapes(case, recorded[0])]
    rows = sum(_rows(case) for case in recorded)
    extra = f"; at {' and '.join(case.name for case in ends)}: {described}" if ends else ""
    return CaseSet((*recorded, *ends), f"{rows} rows of {data}{extra}", recorded[0].name)


def reference_outputs(
    prepared: Prepared, cases: Sequence[Case], folder: Path
) -> tuple[list[dict[str, np.ndarray[Any, Any]]], str]:
    """Run the source itself on every case: the framework, or the untouched graph on ONNX Runtime, not optimised.

    Returns:
        The outputs of each case, and what they are in words.
    """
    if prepared.source.framework is not None:
        outputs = [prepared.source.run(case.feeds) for case in cases]
        return outputs, f"{prepared.source.label} in {prepared.source.framework}"
    from enginery.backends import engine as engines
    from enginery.graph import files

    at = folder / "reference.engine"
    engine = engines.build(
        files.load(prepared.plain), BuildSpec(options=_REFERENCE_OPTIONS), at, backend=_REFERENCE_BACKEND
    )
    with engine.open() as session:
        outputs = [session.run(case.feeds) for case in cases]
    shutil.rmtree(at)
    return outputs, f"{prepared.source.label} on {_REFERENCE_BACKEND} without optimisation"


@contextlib.contextmanager
def scratch_folder(output: Path) -> Iterator[Path]:
    """Yield a folder beside `output` for work in progress, gone when the block ends, however it ends.

    Raises:
        OutputError: the folder of `output` cannot be written to.
        DiskFullError: no space is left.
    """
    output = output.absolute()
    with storage.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".part", dir=output.parent))
    try:
        with storage.writing(output):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build_at(
    prepared: Prepared, staged: Path, backend: str, spec: BuildSpec, *, in_process: bool, limit_s: float, folder: Path
) -> None:
    from enginery.graph import files

    if in_process:
        from enginery.backends import engine as engines

        engines.build(
            files.load(prepared.path), spec, staged, backend=backend, source=prepared.source.label,
            source_sha256=prepared.source.sha256, graph_sha256=prepared.graph.sha256,
        )  # fmt: skip
        return
    from enginery.jobs import build_arguments
    from enginery.worker import Worker

    with Worker(f"build-{backend}", folder=folder / "worker") as worker:
        arguments = build_arguments(
            graph=prepared.path, backend=backend, spec=spec, output=staged, source=prepared.source.label,
            source_sha256=prepared.source.sha256, graph_sha256=prepared.graph.sha256,
        )  # fmt: skip
        worker.call("build", arguments, limit_s=limit_s)


def _simplify(
    graph: ir.Model, shapes: Mapping[str, Shape], limits: Mapping[str, Range], folder: Path, progress: Progress
) -> tuple[ir.Model, SimplifyRecord]:
    from enginery.backends import engine as engines
    from enginery.backends.engine import with_profiles
    from enginery.graph.base import tensor_infos
    from enginery.graph.simplify import simplify
    from enginery.inputs.generated import random_case

    inputs = _with_open_dims(with_profiles(tensor_infos(graph.graph.inputs), shapes), Progress())
    cases = [random_case(_small(inputs, more), "min", seed=more, ranges=limits) for more in (0, 1)]
    if _same_shapes(*cases):
        cases = cases[:1]

    def evaluate(candidate: ir.Model) -> list[dict[str, np.ndarray[Any, Any]]]:
        at = folder / f"simplify-{time.monotonic_ns()}.engine"
        engine = engines.build(candidate, BuildSpec(options=_REFERENCE_OPTIONS), at, backend=_REFERENCE_BACKEND)
        try:
            with engine.open() as session:
                return [session.run(case.feeds) for case in cases]
        finally:
            shutil.rmtree(at)

    return simplify(graph, evaluate=evaluate, say=progress.say)


def _with_open_dims(inputs: Sequence[TensorInfo], progress: Progress) -> tuple[TensorInfo, ...]:
    """Give a dynamic first axis that nobody sized the sizes 1 and 2 to be tried at; refuse to guess any other."""
    return tuple(info if info.profile is not None else _opened(info, progress) for info in inputs)


def _opened(info: TensorInfo, progress: Progress) -> TensorInfo:
    if info.shape is None:
        return info
    unsized = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str)]
    shown = "x".join("1..8..32" if axis == 0 else str(dim) for axis, dim in enumerate(info.shape))
    if unsized != [0]:
        names = ", ".join(f"{axis} ({info.shape[axis]})" for axis in unsized)
        raise UsageError(
            f"input {info.name!r} has dynamic axes {names} and no sizes for them",
            mend=f"say which sizes to build, verify and time, for example --shapes {info.name}={shown}",
        )
    progress.say(
        f"input {info.name!r} has a dynamic axis 0 and no sizes for it: verified at 1 and 2, timed at 1; "
        f"give --shapes {info.name}={shown} for others"
    )
    dims = tuple(Dim(1, 1, 2, str(dim)) if isinstance(dim, str) else Dim.fixed(dim) for dim in info.shape)
    return replace(info, profile=Shape(dims))


def _small(inputs: Sequence[TensorInfo], more: int) -> tuple[TensorInfo, ...]:
    """Move the small end of every profile up by `more`, so that two small and different shapes can be tried."""
    return tuple(
        replace(info, profile=Shape(tuple(replace(dim, min=min(dim.min + more, dim.opt)) for dim in info.profile.dims)))
        if info.profile is not None
        else info
        for info in inputs
    )


def _same_shapes(one: Case, other: Case) -> bool:
    return {name: array.shape for name, array in one.feeds.items()} == {
        name: array.shape for name, array in other.feeds.items()
    }


def _opt_batch(inputs: Sequence[TensorInfo]) -> int | None:
    for info in inputs:
        if info.profile is not None and info.profile.dims:
            return info.profile.dims[0].opt
        if info.shape and isinstance(info.shape[0], int):
            return info.shape[0]
    return None


def _rows(case: Case) -> int:
    first = next(iter(case.feeds.values()))
    return int(first.shape[0]) if first.ndim else 1


def _by_label(engines: Sequence[str | Path]) -> dict[str, Path]:
    labelled: dict[str, Path] = {}
    for engine in engines:
        path = Path(engine)
        labelled[path.name if path.name not in labelled else str(path)] = path
    return labelled
