"""One engine of two backends: the parts of a graph that the main one takes, and the rest, run one after another.

The engine's folder has a folder for each part, as its backend writes it, beside ``parts.json``, which says what runs
where. Tensors go from part to part by name.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginery.backends.base import Backend, Built
from enginery.backends.part_sizes import PartSizes
from enginery.backends.partitioned_runner import OpenPart, PartitionedRunner, placement_of
from enginery.backends.profiles import with_profiles
from enginery.errors import BuildError, EngineryError, GraphError, ManifestError
from enginery.graph.base import Part, Partition, all_nodes, inner_nodes, make_plan, partition, tensor_infos
from enginery.plain import from_json, to_json
from enginery.records import ManifestRecord, PartRecord
from enginery.spec import BuildSpec, Option, PrecisionPlan
from enginery.storage import write_text

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PARTS", "Side", "build_partitioned", "is_partitioned", "open_partitioned"]

PARTS = "parts.json"
"""What runs where: `Parts` as JSON."""

_NO_PARTITION: Mapping[str, Option] = {"partition": "no"}
_TRIES = 8
_SHORTEST_NAME = 4
_LOG = logging.getLogger("enginery")


@dataclass(frozen=True)
class Side:
    """One of the two backends that share a graph.

    Args:
        name: as the table of backends has it.
        label: what messages call it.
        backend: its functions.
        options: its own, where they are not those of the spec.
    """

    name: str
    label: str
    backend: Backend = field(repr=False)
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """What ``parts.json`` holds."""

    parts: tuple[PartRecord, ...]


def build_partitioned(
    graph: ir.Model,
    spec: BuildSpec,
    folder: Path,
    *,
    main: Side,
    rest: Side,
    supported: Callable[[ir.Node], bool],
) -> Built:
    """Build each part of a graph with its backend into a folder of its own, and write ``parts.json``.

    The profiles of a part follow from those of the whole: the sizes of a tensor at a cut are inferred with the real
    sizes of the inputs; where ONNX cannot infer them, the rest runs the graph before the cut. Where the main backend
    refuses a part and names one of its nodes, that node goes to the rest and the graph is cut anew, a few times.

    Args:
        graph: the whole; it is not changed.
        spec: of the whole. The rest computes in fp32, in the types that the graph has.
        folder: where to build, empty.
        main: the backend asked for.
        rest: the one that takes what `main` does not.
        supported: whether `main` takes a node; see `enginery.graph.base.partition`.

    Returns:
        What was built: inputs and outputs as the graph has them, notes that say what runs where and why.

    Raises:
        BuildError: nothing is left for `main`, or a part cannot be built; the message names it.
        GraphError: the type or rank of a tensor at a cut is not known.
    """
    job = _Job(graph, spec, folder, main, rest)
    for _ in range(_TRIES):
        cut = partition(graph, lambda node: node.name not in job.refused and supported(node))
        if not cut.count(main=True):
            raise job.nothing_left(cut)
        if len(cut.parts) == 1:
            if (whole := job.build_whole(cut.parts[0])) is not None:
                return whole
            continue
        records = job.build_all(cut)
        if records is not None:
            return job.finish(cut, records)
    raise BuildError(
        f"{main.label} refused a node of every cut, {_TRIES} times: {', '.join(job.refused)}",
        mend=f"build the whole with {rest.name}: --backend {rest.name}",
    )


def is_partitioned(folder: Path) -> bool:
    """Say whether an engine's folder holds parts."""
    return (folder / PARTS).is_file()


def open_partitioned(
    folder: Path, manifest: ManifestRecord, options: Mapping[str, Option], find: Callable[[str], Backend]
) -> PartitionedRunner:
    """Open the parts of an engine.

    Args:
        folder: of the engine.
        manifest: of the engine.
        options: stand over those that the parts of the main backend were built with; the rest keeps its own.
        find: returns the backend of a name, such as `enginery.backends.get_available`.

    Raises:
        ManifestError: ``parts.json`` cannot be read.
        BuildError: a backend refused its part.
    """
    try:
        text = (folder / PARTS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{folder / PARTS} cannot be read: {error}", mend="build the engine again") from error
    parts = from_json(Parts, text).parts
    with ExitStack() as opened:
        found = []
        for part in parts:
            own = _manifest_of(part, manifest)
            runner = find(part.backend).open(folder / part.folder, own, options if part.main else {})
            opened.callback(runner.close)
            found.append(OpenPart(part, runner))
        opened.pop_all()
    return PartitionedRunner(tuple(found), manifest.outputs)


def _manifest_of(part: PartRecord, manifest: ManifestRecord) -> ManifestRecord:
    """Return the manifest that the engine of one part would have."""
    prefix = f"{part.folder}/"
    read = {info.name for info in part.inputs}
    return replace(
        manifest,
        backend=part.backend,
        inputs=part.inputs,
        outputs=part.outputs,
        options=part.options,
        precision_built=part.precision_built,
        profiles=part.profiles,
        values={name: shape for name, shape in manifest.values.items() if name in read},
        files={name.removeprefix(prefix): file for name, file in manifest.files.items() if name.startswith(prefix)},
    )


class _Job:
    """One build: what was refused so far, and the parts that need not be built again."""

    def __init__(self, graph: ir.Model, spec: BuildSpec, folder: Path, main: Side, rest: Side) -> None:
        self._graph, self._spec, self._folder = graph, spec, folder
        self._main, self._rest = main, rest
        self._built: dict[object, tuple[Path, Built]] = {}
        self._sizes = PartSizes(graph, spec, rest.backend, rest.options)
        self.refused: dict[str, str] = {}

    def build_whole(self, part: Part) -> Built | None:
        """Build a graph that needs no cut as the main backend builds any; None where it refused a node."""
        options = {**self._spec.options, **self._main.options, **(_NO_PARTITION if self._asked() else {})}
        staged = self._folder / "built_whole"
        staged.mkdir()
        try:
            built = self._main.backend.build(self._graph, replace(self._spec, options=options), staged)
        except Exception as error:
            shutil.rmtree(staged)
            if not self._refuse(part, error):
                raise
            return None
        for path in staged.iterdir():
            path.rename(self._folder / path.name)
        staged.rmdir()
        return replace(built, options={**built.options, **self._asked()})

    def build_all(self, cut: Partition) -> list[PartRecord] | None:
        """Build every part; None where one was refused for a node that can go to the rest."""
        self._sizes.cut_at({name for part in cut.parts if part.main for name in part.inputs})
        records = []
        for number, part in enumerate(cut.parts):
            try:
                folder, built = self._build(part)
            except Exception as error:
                if not part.main or not self._refuse(part, error):
                    raise self._told(error, part, number, len(cut.parts)) from error
                return None
            records.append(self._record(part, folder, built))
        return records

    def finish(self, cut: Partition, records: list[PartRecord]) -> Built:
        """Give the parts' folders their names, and write down what runs where."""
        placed = []
        for number, record in enumerate(records):
            name = f"part_{number}_{record.backend}"
            (self._folder / record.folder).rename(self._folder / name)
            placed.append(replace(record, folder=name))
        for left in self._folder.glob("built_*"):  # of cuts before this one
            shutil.rmtree(left)
        write_text(self._folder / PARTS, to_json(Parts(tuple(placed))) + "\n")
        counts: Counter[str] = Counter()
        for record in placed:
            counts.update(record.precision_built)
        options = next(record.options for record in placed if record.main)
        main = [built for _, built in self._built.values() if built.target is not None]
        return Built(
            inputs=tensor_infos(self._graph.graph.inputs),
            outputs=tensor_infos(self._graph.graph.outputs),
            precision_built=dict(counts),
            options={**options, **self._asked()},
            notes=tuple(self._notes(cut, placed)),
            profiles=self._sizes.narrower if any(record.profiles for record in placed) else (),
            target=main[0].target if main else None,
            parts=tuple(placed),
        )

    def nothing_left(self, cut: Partition) -> BuildError:
        """Make the error for a graph of which the main backend gets nothing."""
        why = {**cut.moved, **self.refused}
        said = "; ".join(f"{name}: {reason}" for name, reason in list(why.items())[:_TRIES])
        return BuildError(
            f"{self._main.label} would run nothing of this graph" + (f" ({said})" if said else ""),
            mend=f"build the whole with {self._rest.name}: --backend {self._rest.name}",
        )

    def _build(self, part: Part) -> tuple[Path, Built]:
        key = part.main, part.nodes, part.inputs, part.outputs
        if key not in self._built:
            side = self._main if part.main else self._rest
            folder = self._folder / f"built_{len(self._built)}"
            folder.mkdir()
            try:
                self._built[key] = folder, side.backend.build(part.model, self._spec_of(part), folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
        return self._built[key]

    def _spec_of(self, part: Part) -> BuildSpec:
        if not part.main:
            return BuildSpec(options=self._rest.options)
        shapes, profiles = self._sizes.profiles(part.inputs)
        options = {**self._spec.options, **self._main.options, **(_NO_PARTITION if self._asked() else {})}
        values = {name: shape for name, shape in self._spec.values.items() if name in part.inputs}
        whole = make_plan(self._graph, "int8") if self._spec.precision == "int8" else None
        plan = _plan_of(part, self._spec.plan or whole)
        return replace(self._spec, shapes=shapes, profiles=profiles, values=values, options=options, plan=plan)

    def _asked(self) -> dict[str, Option]:
        """Return what was asked of a backend that has an option for parts, which its own builds must not see."""
        return {name: value for name, value in self._spec.options.items() if name in _NO_PARTITION}

    def _refuse(self, part: Part, error: Exception) -> bool:
        """Note the nodes of a part that an error names; False where it names none."""
        if isinstance(error, EngineryError) and not isinstance(error, BuildError | GraphError):
            return False
        text = str(error)
        inside = {
            node.name or "": [inner.name for inner in inner_nodes(node) if inner.name] for node in part.model.graph
        }
        named = {name: told for name in part.nodes if (told := _told_of((name, *inside[name]), text))}
        for name, told in named.items():
            self.refused[name] = f"{self._main.label} refused it when building: {told}"
            _LOG.warning("%s refused the node %s, which goes to %s: %s", self._main.label, name, self._rest.label, told)
        return bool(named)

    def _told(self, error: Exception, part: Part, number: int, count: int) -> EngineryError:
        side = self._main if part.main else self._rest
        if isinstance(error, EngineryError):
            return type(error)(f"part {number + 1} of {count}: {error.message}", mend=error.mend)
        mend = side.backend.diagnose(error, part.model) or "the text above is the library's own"
        return BuildError(f"{side.name} cannot build part {number + 1} of {count}: {error}", mend=mend)

    def _record(self, part: Part, folder: Path, built: Built) -> PartRecord:
        side = self._main if part.main else self._rest
        given = {value.name for value in self._graph.graph.inputs}
        return PartRecord(
            folder=folder.name,
            backend=side.name,
            label=side.label,
            main=part.main,
            nodes=part.nodes,
            operators=dict(Counter(node.op_type for node in part.model.graph if node.name in part.nodes)),
            inputs=with_profiles(built.inputs, self._spec_of(part).shapes),
            outputs=built.outputs,
            options=built.options,
            precision_built=built.precision_built,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            handed_over_bytes=self._sizes.bytes_of([info for info in built.inputs if info.name not in given]),
            notes=built.notes,
            profiles=built.profiles,
        )

    def _notes(self, cut: Partition, records: list[PartRecord]) -> list[str]:
        """Say what runs where, what that costs, and why."""
        handed = [record.handed_over_bytes for record in records]
        cost = (
            f"{sum(size or 0 for size in handed):,} bytes at the opt sizes"
            if None not in handed
            else "tensors whose size is not known"
        )
        notes = [f"{placement_of(records)}; a call hands over {cost} between them"]
        there = Counter(op for record in records if not record.main for op in Counter(record.operators).elements())
        notes.append(f"{self._rest.label} runs {', '.join(f'{name} ({count})' for name, count in there.items())}")
        for name, why in {**cut.moved, **self.refused}.items():
            notes.append(f"{name} runs on {self._rest.label}: {why}")
        return [*notes, *dict.fromkeys(f"{record.label}: {note}" for record in records for note in record.notes)]


def _plan_of(part: Part, plan: PrecisionPlan | None) -> PrecisionPlan | None:
    """Return what a plan says of the nodes of one part."""
    if plan is None:
        return None
    own = {node.name for node in all_nodes(part.model)}
    return replace(plan, nodes={name: word for name, word in plan.nodes.items() if name in own})


def _told_of(names: Iterable[str], text: str) -> str:
    """Return the first line of an error that names one of some nodes; empty where none does."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if any(_names(line, name) for name in names)), "")


def _names(text: str, node: str) -> bool:
    """Say whether an error's text names a node: as a word of its own, a short name only in quotes or brackets."""
    quoted = re.search(rf"""(?:["'`\[({{]){re.escape(node)}(?:["'`\])}}])""", text)
    if quoted or len(node) < _SHORTEST_NAME:
        return quoted is not None
    return re.search(rf"(?<![\w/])(?<!\w\.){re.escape(node)}(?![\w/])", text) is not None
