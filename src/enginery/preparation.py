"""Before a build: a source becomes a graph with profiles, and inputs are made to verify and time it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from enginery import backends
from enginery.backends.asked import check_plan_offered
from enginery.backends.base import Design, SpecChecker
from enginery.errors import InputError, UsageError
from enginery.evaluation import Evaluator
from enginery.fitting import check_conversion, small_feeds, with_open_dims
from enginery.machine import describe_machine
from enginery.progress import Progress
from enginery.records import ExportRecord, GraphRecord, ManifestRecord, SimplifyRecord, TensorInfo
from enginery.sources.base import HandBuilt, Source
from enginery.spec import BuildSpec, Option, PrecisionPlan, Shape, as_shapes, check_precision

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.inputs.base import Case, Range

__all__ = [
    "CaseSet",
    "Prepared",
    "asked_precision",
    "asked_words",
    "bench_case",
    "builder_of",
    "check_asked",
    "check_typed",
    "choose_backend",
    "make_build_spec",
    "make_cases",
    "make_design",
    "network_design",
    "prepare",
    "reference_of",
    "reference_outputs",
]


_DEFAULT_BACKEND = "onnxruntime"


@dataclass(frozen=True)
class Prepared:
    """A source that became a graph, ready to be built.

    Args:
        source: the opened source; it can still run, to be compared with.
        export: how it became a graph.
        simplify: what simplification did; None where it was not asked for.
        plain: path of the exported graph, untouched.
        path: path of the graph to build: with the shapes asked for, and simplified where that was asked for.
        graph: what is in that graph.
        inputs: its inputs, each with the profile asked for, if any.
        outputs: its outputs.
        index_limits: values of the inputs that index a table of known size, such as token ids.
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

    @property
    def design(self) -> Design:
        """What an engine is built from."""
        return Design(self.path, self.source.label, self.source.sha256, self.graph.sha256)

    @property
    def plain_design(self) -> Design:
        """What an engine of the untouched graph is built from."""
        from enginery.graph import files

        return replace(self.design, path=self.plain, graph_sha256=files.hash_model(self.plain))


@dataclass(frozen=True)
class CaseSet:
    """Inputs to verify and time with: the cases, what they are in one line, and the one that is timed."""

    cases: tuple[Case, ...]
    described: str
    timed: str


def builder_of(source: Source) -> str | None:
    """Return the name of the one backend that can build a source; None where any that reads graphs can."""
    return source.backend if isinstance(source, HandBuilt) else None


def choose_backend(source: Source, asked: str | None) -> str:
    """Return the backend to build with: a hand-built network has one of its own.

    Raises:
        UsageError: another one was asked for.
        BackendUnavailableError: its library is not here.
    """
    own = builder_of(source)
    if own is not None and asked not in (None, own):
        raise UsageError(
            f"the {source.label} is built by hand for {own}, so {asked} cannot build it",
            mend=f"leave the backend out, or give {own}; or build its reference with {asked}",
        )
    chosen = own or asked or _DEFAULT_BACKEND
    backends.get_available(chosen)
    return chosen


def asked_precision(precision: str | None, plan: PrecisionPlan | str | Path | None) -> tuple[str, PrecisionPlan | None]:
    """Return the one word for what was asked for, and the plan: fp32 where nothing was said.

    Args:
        precision: a word, or None for what the plan says.
        plan: of single nodes, or the file that says it.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: it is ``best``, the plan says something else or is none, or its file cannot be read.
    """
    if precision is not None and check_precision(precision) == "best":
        raise UsageError("one engine has one precision, not 'best'", mend="use `optimize`, or name a precision")
    if plan is None:
        return precision or "fp32", None
    if not isinstance(plan, PrecisionPlan):
        plan = _read_plan(plan)
    if precision not in (None, plan.precision, plan.narrowest):
        said = plan.precision if plan.precision == plan.narrowest else f"{plan.precision} with {plan.narrowest} nodes"
        raise UsageError(
            f"{precision} was asked for, and the precision plan says {said}",
            mend="leave the precision out, or the plan",
        )
    return precision or plan.narrowest, plan


def _read_plan(path: Any) -> PrecisionPlan:
    from enginery.graph.base import read_plan

    if not isinstance(path, str | Path):
        mend = "give a PrecisionPlan of enginery.spec, or the path of its file: docs/precision.md shows one"
        raise UsageError(f"the precision plan is a {type(path).__name__}: {path!r}", mend=mend)
    return read_plan(path)


def make_build_spec(
    shapes: Mapping[str, Shape | str] | None,
    precision: str | None,
    *,
    options: Mapping[str, Option] | None,
    profiles: Sequence[Mapping[str, Shape | str]],
    values: Mapping[str, Shape | str] | None,
    plan: PrecisionPlan | str | Path | None,
) -> BuildSpec:
    """Return what one engine shall be from what a caller said, texts read.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: a shape or a plan cannot be read, or the precision and the plan differ.
    """
    word, plan = asked_precision(precision, plan)
    narrower = tuple(as_shapes(profile, "profile") for profile in profiles)
    return BuildSpec(as_shapes(shapes), word, dict(options or {}), narrower, as_shapes(values, "range"), plan)


def asked_words(spec: BuildSpec) -> tuple[str, ...]:
    """Return every precision that an engine shall have."""
    return (spec.precision, *(spec.plan.words if spec.plan is not None else ()))


def check_typed(precision: str, plan: PrecisionPlan | None, *, convert_io: bool) -> None:
    """Refuse what the types of a graph cannot say.

    Raises:
        UsageError: nodes shall be quantised, or inputs and outputs shall take a type where none is asked for.
    """
    words = plan.words if plan is not None else (precision,)
    if other := sorted(set(words) - {"fp32", "tf32", "fp16", "bf16"}):
        mend = "ask for fp16 or bf16; or quantise with recorded inputs: enginery.steps.quantize, build --calibration"
        raise UsageError(f"{other[0]} is more than a change of the graph's types", mend=mend)
    own = plan.precision if plan is not None else precision
    if convert_io and own not in ("fp16", "bf16"):
        mend = "name the precision that they shall have: fp16 or bf16"
        raise UsageError(f"inputs and outputs shall be converted, and the precision is {own}", mend=mend)


def check_asked(backend: str, spec: BuildSpec, *, precision: bool = True) -> None:
    """Refuse, before a source is exported, what the backend would refuse for any graph.

    Args:
        backend: its name.
        spec: what was asked for.
        precision: whether to look at the precision as well.

    Raises:
        BackendUnavailableError: its library is not here.
        UnknownNameError: no such backend, or no such option.
        UsageError: an option has a value of the wrong kind.
        BackendError: the backend cannot follow an option or compute in the precision, here or at all.
    """
    module = backends.get_available(backend)
    if precision:
        offered = module.capabilities(describe_machine())
        check_plan_offered(backend, spec, offered.precisions, offered.lacks)
    if isinstance(module, SpecChecker):
        module.check_spec(spec)


def reference_of(source: Source) -> Source:
    """Return what engines of a source are compared with: the source itself, or a hand-built network's reference.

    Raises:
        UsageError: a hand-built network has none.
    """
    return source.reference() if isinstance(source, HandBuilt) else source


def network_design(source: Source, folder: Path, *, in_process: bool = False) -> Design | None:
    """Return what a hand-built network is built from, its files in a part of `folder`; None for any other source."""
    return source.design(folder / "network", in_process=in_process) if isinstance(source, HandBuilt) else None


def make_design(
    source: Source,
    folder: Path,
    *,
    shapes: Mapping[str, Shape | str] | None = None,
    simplify: bool = True,
    in_process: bool = False,
    progress: Progress,
) -> Design:
    """Return what an engine is built from: a hand-built network as it is, any other source as a graph.

    Raises:
        SourceError: the source cannot be exported, or a network's weights cannot be read.
        UsageError: a network's function cannot be imported by another process.
    """
    design = network_design(source, folder, in_process=in_process)
    if design is None:
        return prepare(source, folder, shapes=shapes, simplify=simplify, progress=progress).design
    for step in ("export", "simplify"):
        progress.drop(step)
    return design


def prepare(
    source: Source,
    folder: Path,
    *,
    shapes: Mapping[str, Shape | str] | None = None,
    opset: int | None = None,
    simplify: bool = True,
    progress: Progress | None = None,
) -> Prepared:
    """Export a source and ready its graph for building; writes ``plain.onnx`` and ``graph.onnx`` into `folder`.

    Raises:
        SourceError: the source cannot be exported.
        GraphError: the graph cannot have the shapes asked for.
        UnknownNameError: a shape names no input.
    """
    from enginery.backends.profiles import with_profiles
    from enginery.graph import files
    from enginery.graph.base import tensor_infos
    from enginery.graph.modules import note_modules
    from enginery.graph.shapes import apply_shapes
    from enginery.graph.summary import summarise
    from enginery.inputs.generated import index_limits

    progress = progress or Progress()
    profile = as_shapes(shapes)
    simplified = None
    with Evaluator(folder) as evaluator:
        with progress.step("export"):
            exported = source.export(
                shapes=profile, opset=opset, evaluate=lambda model, feeds: evaluator.run(model, [feeds])[0]
            )
            record = replace(exported.record, nodes_with_module=note_modules(exported.graph))
            if exported.original is not None:
                unchecked = check_conversion(exported.original, exported.graph, profile, evaluator, progress)
                record = replace(record, notes=(*record.notes, *([unchecked] if unchecked else [])))
            plain = folder / "plain.onnx"
            files.save_shared(exported.graph, plain)
            graph = apply_shapes(files.load(plain), profile)
            limits = index_limits(graph)
        if simplify:
            with progress.step("simplify"):
                graph, simplified = _simplify(graph, profile, limits, evaluator, progress)
    path = folder / "graph.onnx"
    files.save_shared(graph, path)
    return Prepared(
        source=source,
        export=record,
        simplify=simplified,
        plain=plain,
        path=path,
        graph=replace(summarise(graph, profile), sha256=files.hash_model(path)),
        inputs=with_profiles(tensor_infos(graph.graph.inputs), profile),
        outputs=tensor_infos(graph.graph.outputs),
        index_limits=limits,
    )


def make_cases(
    prepared: Prepared,
    *,
    data: str | Path | None = None,
    ranges: Mapping[str, Range] | None = None,
    seed: int = 0,
    say: Callable[[str], None],
) -> CaseSet:
    """Make the inputs to verify and time with: the data given, and random ones at min, opt and max.

    Where there is data, the ends are cut from it too, for random values may lie where no real ones do; they are random
    only at shapes that the data does not have.

    Raises:
        UnknownNameError: a range names no input.
        DataError: the data cannot be read or does not fit.
    """
    from enginery.inputs import generated
    from enginery.inputs.recorded import load_data

    ranges = {**prepared.index_limits, **(ranges or {})}
    inputs = with_open_dims(prepared.inputs, say)
    opt = generated.random_case(inputs, "opt", seed=seed, ranges=ranges)
    low = generated.random_case(inputs, "min", seed=seed, ranges=ranges)
    high = generated.random_case(inputs, "max", seed=seed, ranges=ranges)
    random = [case for case in (low, opt, high) if case is opt or not _same_shapes(case, opt)]
    described = generated.describe(inputs, ranges=ranges, seed=seed)
    if data is None:
        return CaseSet(tuple(random), described, opt.name)
    recorded = load_data(data, inputs, say=say)
    ends = [_from_data(case, data, inputs) for case in random if not _same_shapes(case, recorded[0])]
    rows = sum(_rows(case) for case in recorded)
    made_up = [case.name for case in ends if case in random]
    extra = f"; at {' and '.join(made_up)}: {described}" if made_up else ""
    return CaseSet((*recorded, *ends), f"{rows} rows of {data}{extra}", recorded[0].name)


def bench_case(
    manifests: Mapping[str, ManifestRecord],
    at: Literal["min", "opt", "max"],
    data: str | Path | None,
    ranges: Mapping[str, Range],
) -> tuple[Case, str]:
    """Make the one case that all engines are timed on; they must take the same inputs."""
    from enginery.inputs import generated
    from enginery.inputs.recorded import load_data

    (label, first), *others = manifests.items()
    inputs = with_open_dims(first.inputs)
    for other, manifest in others:
        if [(info.name, info.dtype) for info in manifest.inputs] != [(info.name, info.dtype) for info in first.inputs]:
            raise UsageError(
                f"{other} and {label} take different inputs, so their times cannot be compared",
                mend="time engines of one model",
            )
    if data is not None:
        batch = next((info.profile.at(at)[0] for info in inputs if info.profile and info.profile.dims), None)
        return load_data(data, inputs, batch=batch)[0], f"the first batch of {data}"
    described = f"{generated.describe(inputs, ranges=ranges, seed=0)}, at the {at} shape"
    return generated.random_case(inputs, at, seed=0, ranges=ranges), described


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
    with Evaluator(folder) as evaluator:
        outputs = evaluator.run(prepared.plain, [case.feeds for case in cases])
        backend = evaluator.backend
    return outputs, f"{prepared.source.label} on {backend} without optimisation"


def _simplify(
    graph: ir.Model, shapes: Mapping[str, Shape], limits: Mapping[str, Range], evaluator: Evaluator, progress: Progress
) -> tuple[ir.Model, SimplifyRecord]:
    from enginery.graph.simplify import simplify

    try:
        feeds = small_feeds(graph, shapes, limits)
    except InputError as error:  # a sequence, or an unknown rank
        progress.say(f"simplify: outputs are not compared, only the structure is checked: {error.message}")
        return simplify(graph, evaluate=None, say=progress.say)
    return simplify(graph, evaluate=lambda candidate: evaluator.run(candidate, feeds, keep=True), say=progress.say)


def _same_shapes(one: Case, other: Case) -> bool:
    return {name: array.shape for name, array in one.feeds.items()} == {
        name: array.shape for name, array in other.feeds.items()
    }


def _from_data(random: Case, data: str | Path, inputs: Sequence[TensorInfo]) -> Case:
    """Return a case of the same shapes with rows of the data; the random one where the data has none of its shapes.

    Its rows are among the data's own cases, which are scored by their labels; here they would count twice.
    """
    from enginery.inputs.base import Case
    from enginery.inputs.recorded import stream_data

    cut = next(stream_data(data, inputs, batch=_rows(random), say=lambda _: None))
    return Case(random.name, cut.feeds) if _same_shapes(cut, random) else random


def _rows(case: Case) -> int:
    first = next(iter(case.feeds.values()))
    return int(first.shape[0]) if first.ndim else 1
