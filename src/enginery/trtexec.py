"""What `enginery trtexec` and `enginery onnx2trt` do: build a plan or take one, and measure it as trtexec does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginery import backends, steps, storage
from enginery.backends.tensorrt import foreign_plan
from enginery.backends.tensorrt.building import ARTEFACT
from enginery.errors import OutputExistsError, UnknownNameError, UsageError
from enginery.plain import from_json
from enginery.progress import Progress
from enginery.records import LayerRecord, ManifestRecord, TensorInfo, TrtexecRecord
from enginery.reports.trtexec_report import layers_json
from enginery.spec import Dim, PrecisionPlan, Shape, show_sizes
from enginery.storage import LAYERS
from enginery.trtexec_queries import Outcome, measure
from enginery.trtexec_spec import Library, TrtexecSpec, defaults_of, with_defaults

if TYPE_CHECKING:
    from enginery.backends.engine import Engine

__all__ = ["run"]

_SUFFIX = ".engine"


def run(spec: TrtexecSpec, library: Library, progress: Progress | None = None) -> Outcome:
    """Build or load an engine, keep what was asked for, and measure it.

    Args:
        spec: what the flags ask for.
        library: as `choose_library` gives it.
        progress: told what is going on.

    Raises:
        EngineryError: of `enginery.steps.build` and of the backend; `BackendUnavailableError` where measuring was
            asked for and no GPU is here: the plan is built and kept before that.
    """
    progress = progress or Progress()
    if bool(spec.onnx) == bool(spec.load):
        raise UsageError("name either a model to build from or a plan to load", mend="give --onnx or --loadEngine")
    if spec.only_version:
        return Outcome(_only_version(spec))
    with tempfile.TemporaryDirectory(prefix="enginery-") as name:
        engine = _load(spec, library, Path(name)) if spec.load else _build(spec, library, Path(name), progress)
        if spec.save:
            _keep_plan(engine, Path(spec.save))
        record = _describe(engine, spec, library)
        if spec.export_layers:
            tensors = [info.name for info in (*engine.manifest.inputs, *engine.manifest.outputs)]
            storage.write_text(Path(spec.export_layers), layers_json(record.layers, tensors))
        if not spec.measure:
            return Outcome(record)
        return measure(engine, with_defaults(spec, defaults_of(library.major)), record, progress)


def _keep_plan(engine: Engine, path: Path) -> None:
    """Write the plan of an engine folder to a file of its own, byte for byte."""
    with storage.new_file(path) as part:
        shutil.copyfile(engine.folder / ARTEFACT, part)


def _only_version(spec: TrtexecSpec) -> TrtexecRecord:
    """Read which version wrote a plan, without loading it."""
    if not spec.load:
        raise UsageError("--getPlanVersionOnly reads a plan, and none is named", mend="give --loadEngine=FILE")
    path = Path(spec.load)
    plan = path / ARTEFACT if path.is_dir() else path
    header = foreign_plan.read_header(plan)
    note = f"the plan was written by version {header.version or 'before 8.6, which plans do not name'}"
    return TrtexecRecord(
        header.backend, header.version or foreign_plan.UNKNOWN, plan=spec.load, plan_bytes=plan.stat().st_size,
        notes=(note,),
    )  # fmt: skip


def _build(spec: TrtexecSpec, library: Library, scratch: Path, progress: Progress) -> Engine:
    """Build the engine folder, and write its plan where it was asked for."""
    backend = backends.get_available(library.backend)
    if spec.measure and not (found := backend.probe()).runs:
        progress.say(f"{found.reason}: the engine is built, and measuring it will fail; --skipInference only builds")
    if spec.save and Path(spec.save).is_dir():
        raise OutputExistsError(f"{spec.save} is a folder", mend="name the plan to write, such as model.plan")
    graph = steps.inspect(spec.onnx)
    if isinstance(graph, ManifestRecord):
        raise UsageError(f"{spec.onnx} is an engine, not an ONNX file", mend="load it: --loadEngine=FOLDER")
    _check_types(spec, graph.inputs, graph.outputs)
    shapes = _named_shapes(spec.shapes, graph.inputs, progress)
    output = Path(f"{spec.save}{_SUFFIX}") if spec.save else scratch / f"{Path(spec.onnx).stem}{_SUFFIX}"
    return _built(spec, library, shapes, output, progress)


def _built(
    spec: TrtexecSpec, library: Library, shapes: Mapping[str, Shape], output: Path, progress: Progress
) -> Engine:
    if spec.precision == "best":
        from enginery.backends import engine as engines
        from enginery.pipeline import optimize

        backends.get_available(library.backend, to_run=True)
        if spec.options or spec.profiles:
            given = ", ".join(spec.options) or "several profiles"
            mend = "name the precision instead of --best, or leave these flags out"
            raise UsageError(f"--best tries each precision with the library's own options, not {given}", mend=mend)
        optimize(
            spec.onnx, shapes=dict(shapes), precision="best", output=output, backends=[library.backend], max_error=1e-2,
            simplify=False, progress=progress,
        )  # fmt: skip
        return engines.load(output)
    return steps.build(
        spec.onnx, output, backend=library.backend, shapes=shapes, precision=spec.precision, options=spec.options,
        plan=_plan(spec), profiles=spec.profiles, simplify=False, in_process=spec.in_process or spec.verbose,
        limit_s=spec.limit_s, progress=progress,
    )  # fmt: skip


def _plan(spec: TrtexecSpec) -> PrecisionPlan | None:
    """Return the precision of each node, where they differ."""
    if spec.precision == "int8" and spec.rest != "fp32":
        from enginery.graph import files
        from enginery.graph.base import make_plan

        return make_plan(files.load(Path(spec.onnx)), "int8", rest=spec.rest)
    return PrecisionPlan(spec.precision, spec.nodes) if spec.nodes else None


def _load(spec: TrtexecSpec, library: Library, scratch: Path) -> Engine:
    """Open an engine folder as it is, a plan by the folder that stands beside it, and any other by reading it."""
    from enginery.backends import engine as engines

    path = Path(spec.load)
    if spec.save and storage.is_engine_folder(path):
        raise UsageError(f"{path} is an engine folder already", mend="leave --saveEngine out")
    beside = Path(f"{spec.load}{_SUFFIX}")
    if storage.is_engine_folder(path):
        return engines.load(path)
    if storage.is_engine_folder(beside) and not spec.save:
        found = engines.load(beside)
        if found.manifest.files[ARTEFACT].sha256 == storage.hash_file(path):
            return found
    output = Path(f"{spec.save}{_SUFFIX}") if spec.save else scratch / f"{path.name}{_SUFFIX}"
    foreign_plan.adopt(path, output, backend=library.backend, options=spec.options)
    return engines.load(output)


def _describe(engine: Engine, spec: TrtexecSpec, library: Library) -> TrtexecRecord:
    build = engine.manifest.build
    layers = engine.folder / LAYERS
    kept = bool(spec.save) or storage.is_engine_folder(Path(spec.load or "."))
    return TrtexecRecord(
        backend=library.backend,
        backend_version=library.version,
        engine=str(engine.folder) if kept else "",
        plan=spec.save or spec.load,
        plan_bytes=(engine.folder / ARTEFACT).stat().st_size,
        build_s=build.seconds if build is not None and spec.onnx else None,
        layers=from_json(tuple[LayerRecord, ...], layers.read_text(encoding="utf-8")) if layers.exists() else (),
        average_runs=spec.average_runs,
        percentiles=spec.percentiles,
        notes=build.notes if build is not None else (),
    )


def _check_types(spec: TrtexecSpec, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
    """Hold the types that the flags name against the model's; one type stands for all.

    Raises:
        UsageError: another number of types than tensors, or another type than the model has.
    """
    for kind, infos in (("input", inputs), ("output", outputs)):
        said = spec.types.get(f"{kind}s", ())
        types = said * len(infos) if len(said) == 1 else said
        flag = f"--{kind}IOFormats"
        if types and len(types) != len(infos):
            raise UsageError(f"{flag} names {len(types)} of {len(infos)} {kind}s", mend="name one for each, or one")
        for info, named in zip(infos, types, strict=False):
            if named not in ("", info.dtype):
                mend = f"leave {flag} out, or change the type in the model: engines take its {kind}s as they are"
                raise UsageError(f"{flag} says {named} of {kind} {info.name!r}, which is {info.dtype}", mend=mend)


def _named_shapes(asked: Mapping[str, Shape], inputs: tuple[TensorInfo, ...], progress: Progress) -> dict[str, Shape]:
    """Put inputs' names for names with ``*``; where nothing is said of a dynamic input, its sizes are 1, as trtexec's.

    Raises:
        UnknownNameError: a name with ``*`` fits no input.
    """
    found: dict[str, Shape] = {}
    for name, shape in asked.items():
        fits = [info.name for info in inputs if _fits(name, info.name)] if "*" in name else [name]
        if not fits:
            raise UnknownNameError.from_choices("input", name, (info.name for info in inputs))
        found.update(dict.fromkeys(fits, shape))
    for info in inputs:
        if info.name not in found and info.shape and any(isinstance(size, str) for size in info.shape) and not asked:
            sizes = [size if isinstance(size, int) else 1 for size in info.shape]
            found[info.name] = Shape(tuple(Dim.fixed(size) for size in sizes))
            progress.say(f"no sizes are given for input {info.name!r}: {show_sizes(sizes)} is taken, as trtexec does")
    return found


def _fits(pattern: str, name: str) -> bool:
    head, _, tail = pattern.partition("*")
    return len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)
