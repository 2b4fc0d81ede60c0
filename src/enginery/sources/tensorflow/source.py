"""A model of TensorFlow's as a source: everything that the framework does, it does in a process of its own."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.benchmark.base import Timer
from enginery.errors import (
    EngineryError,
    ExporterCrashError,
    ExportError,
    GraphError,
    InputNameError,
    OutputError,
    SourceError,
    WorkerCrashError,
    WorkerMemoryError,
    WorkerTimeoutError,
)
from enginery.graph.base import all_nodes, convert_opset, load_model, skeleton
from enginery.inputs.base import Case, load_cases, save_cases
from enginery.records import ExportRecord
from enginery.sources.base import Array, Evaluate, Exported
from enginery.sources.blame import explain
from enginery.sources.graph_names import check_sizes, name_outputs
from enginery.sources.plan import ExportPlan, check_agreement, check_opset, show_shapes
from enginery.sources.tensorflow.graph import check_operators, name_nodes, name_values, note_layouts, open_sizes
from enginery.sources.tensorflow.plan import Input, make_plan
from enginery.sources.tensorflow.process import FrameworkProcess
from enginery.spec import Shape, SourceSpec
from enginery.streams import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Place", "TensorflowSource"]

_CHATTER = re.compile(r"WARNING: All log messages before|[IWE]\d{4} [\d:. ]+")
_CRASHES = (WorkerCrashError, WorkerMemoryError, WorkerTimeoutError)


@dataclass(frozen=True)
class Place:
    """Where the framework finds a model: a path, and whether it is ``keras``'s file or a ``saved_model``."""

    path: Path
    kind: str


@dataclass(frozen=True)
class _Description:
    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    routes: Mapping[str, str]
    versions: Mapping[str, str]
    framework: str


class TensorflowSource:
    """A Keras model or a SavedModel.

    Args:
        kind: its name in the table of sources.
        label: what a table calls it.
        places: where it is, given the folder of the framework's process; the next is tried where one cannot be loaded.
        hashed: computes the hash of what it was opened from.
        spec: what else was said of it.
        process: the framework's process; None for one of its own.
    """

    def __init__(
        self,
        kind: str,
        label: str,
        places: Sequence[Callable[[Path], Place]],
        hashed: Callable[[], str],
        spec: SourceSpec,
        *,
        process: FrameworkProcess | None = None,
    ) -> None:
        self.kind = kind
        self.label = label
        self._places = tuple(places)
        self._hashed = hashed
        self._spec = spec
        self._process = process or FrameworkProcess("tensorflow")
        self._place: Place | None = None

    @property
    def framework(self) -> str | None:
        """Which TensorFlow `run` computes with."""
        return self._described.framework

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file, of all files of the folder, or of a model's configuration and weights."""
        return self._hashed()

    def example_feeds(self) -> dict[str, Array] | None:
        """Return the example inputs that were given, by name.

        Raises:
            InputNameError: there are more of them than inputs, or one has another name.
        """
        given = self._spec.example_inputs
        if given is None:
            return None
        names = [info.name for info in self._described.inputs]
        if not isinstance(given, Mapping):
            arrays = given if isinstance(given, (tuple, list)) else (given,)
            given = dict(zip(names, arrays, strict=False)) if len(arrays) <= len(names) else {"": None}
        if set(given) - set(names):
            raise InputNameError("the example inputs are not the model's", mend=f"its inputs are {', '.join(names)}")
        return {str(name): np.array(array) for name, array in given.items()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute once, in inference mode, in the framework's process.

        Args:
            feeds: an array for each input by name.

        Returns:
            The outputs under the names that the exported graph has; the caller owns them.

        Raises:
            InputNameError: an input is missing or unknown.
            SourceError: the model fails on these inputs.
            WorkerError: its process crashes.
        """
        cases, output = self._save(feeds), self._process.place("outputs")
        self._call("run", {"cases": cases, "output": output})
        return dict(load_cases(output)[0].feeds)

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Return the timer of one call; the clock runs in the framework's process, inputs are tensors already."""
        cases = self._save(feeds)

        def timer(warmup_ms: float, seconds: float, min_calls: int) -> list[float]:
            turn = {"cases": cases, "warmup_ms": warmup_ms, "seconds": seconds, "min_calls": min_calls}
            samples: list[float] = self._call("time", turn)["samples_ms"]
            return samples

        return timer

    def close(self) -> None:
        """End the framework's process and remove its folder; a second call does nothing."""
        self._process.close()

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Convert by one route after another until a graph is right; each runs in the framework's process.

        Args:
            shapes: the profile of each input by name; an input that is not named keeps its open first axis.
            opset: version of ONNX's operator set; None for the converter's best.
            evaluate: runs a graph, to see whether it agrees with the model before it is taken.

        Raises:
            ExportError: no route gave a right graph; the message lists every reason.
            ExporterCrashError: the process died on every route.
            UnknownNameError: `shapes` names no input.
            UsageError: a shape does not fit the model's own, or an open axis has no size.
        """
        check_opset(opset)
        begin = time.perf_counter()
        described = self._described
        plan = make_plan(
            described.name, described.inputs, described.outputs, shapes,
            opset=opset, given=self.example_feeds(), examples=self._spec.examples,
        )  # fmt: skip
        attempts, crashes = [], 0
        for route, exporter in described.routes.items():
            try:
                graph, peak_bytes = self._convert(route, plan)
                self._finish(graph, plan, evaluate)
            except OutputError:  # no route is better where the disk is full
                raise
            except EngineryError as error:  # what the framework raises comes as one of ours from its process
                crashed = isinstance(error, _CRASHES)
                crashes += crashed
                reason = f"its process failed: {_without_chatter(error)}" if crashed else explain(error)
                attempts.append(f"{exporter}: {reason}")
                continue
            graph, original = _raise_opset(graph, plan, opset)
            record = self._record(graph, plan, exporter, time.perf_counter() - begin)
            record = replace(record, attempts=tuple(attempts), peak_memory_bytes=peak_bytes)
            return Exported(graph, record, original)
        tried = f"{self.label} cannot be exported to ONNX:\n  " + "\n  ".join(attempts)
        if crashes == len(attempts):
            mend = "see whether memory ran out (dmesg), or give a factory of the same model in PyTorch"
            raise ExporterCrashError(tried, mend=mend)
        mend = "leave out or replace what is named above, or give a factory of the same model in PyTorch"
        raise ExportError(tried, mend=mend)

    @functools.cached_property
    def _described(self) -> _Description:
        """Load the model in the framework's process, from the first place where that works."""
        for number, find in enumerate(self._places, start=1):
            try:
                self._place = find(self._process.folder)
                said = self._call("describe", {})
            except SourceError:
                if number == len(self._places):
                    raise
                continue
            inputs = tuple(Input(one["name"], one["dtype"], tuple(one["shape"])) for one in said.pop("inputs"))
            return _Description(inputs=inputs, **{**said, "outputs": tuple(said["outputs"])})
        raise SourceError(f"{self.label} is nowhere")

    def _call(self, job: str, arguments: Mapping[str, Any]) -> Any:
        if self._place is None:
            self._described  # noqa: B018 - finds the place
        assert self._place is not None  # noqa: S101 - found a line above
        where = {"path": self._place.path, "kind": self._place.kind}
        more = {"signature": self._spec.signature, "label": self.label}
        return self._process.call(job, {**where, **more, **arguments})

    def _save(self, feeds: Mapping[str, Array]) -> Path:
        names = [info.name for info in self._described.inputs]
        if set(feeds) != set(names):
            wrong = ", ".join(repr(name) for name in sorted(set(feeds) ^ set(names)))
            raise InputNameError(
                f"{self.label} is given other inputs than it takes: {wrong}",
                mend=f"its inputs are {', '.join(names) or 'none'}",
            )
        folder = self._process.place("cases")
        save_cases([Case("feeds", {name: np.asarray(feeds[name]) for name in names})], folder)
        return folder

    def _convert(self, route: str, plan: ExportPlan) -> tuple[ir.Model, int]:
        """Convert by one route, and give what was written the model's names."""
        folder = self._process.place(route)
        folder.mkdir()
        shapes = {
            name: [None if axis in plan.axes.get(name, {}) else size for axis, size in enumerate(array.shape)]
            for name, array in plan.feeds.items()
        }
        path = folder / "model.onnx"
        said = self._call("convert", {"route": route, "shapes": shapes, "opset": plan.opset, "output": path})
        with quiet("onnx_ir"):  # tf2onnx may leave attributes that are no text in what is refused below
            graph = load_model(path)
        inputs, outputs = list(plan.feeds), list(plan.outputs)
        check_operators(graph)
        name_values(
            graph,
            dict(zip(said["inputs"], inputs, strict=True)) if said["inputs"] else inputs,
            dict(zip(said["outputs"], outputs, strict=True)) if said["outputs"] else outputs,
        )
        return graph, said["peak_memory_bytes"]

    def _finish(self, graph: ir.Model, plan: ExportPlan, evaluate: Evaluate | None) -> None:
        """Put names and sizes in order, and check the graph at two shapes of every open axis."""
        from onnx import checker

        found = graph.opset_imports.get("")
        if found != plan.opset:
            raise ExportError(f"it wrote opset {found}, {plan.opset} was asked for")
        open_sizes(
            graph,
            {
                name: [plan.axes.get(name, {}).get(axis, size) for axis, size in enumerate(array.shape)]
                for name, array in plan.feeds.items()
            },
        )
        name_nodes(graph, self._described.layers)
        graph.graph.name = plan.title
        graph.producer_version = (graph.producer_version or "").removesuffix(" None")  # tf2onnx's missing commit
        note_layouts(graph)
        try:
            checker.check_model(skeleton(graph))
        except checker.ValidationError as error:
            raise ExportError(f"it wrote a graph that is no ONNX: {explain(error)}") from error
        if not plan.checks:
            plan.checks.extend((feeds, self.run(feeds)) for feeds in plan.checked_feeds())
        for feeds, expected in plan.checks:
            check_sizes(graph, expected, show_shapes(feeds))
        name_outputs(graph, plan.axes, plan.checks[0], plan.checks[min(1, len(plan.checks) - 1)])
        for feeds, expected in plan.checks:
            if evaluate is not None:
                check_agreement(
                    expected, evaluate(graph, feeds), f"its graph, at {show_shapes(feeds)},", than="the model"
                )

    def _record(self, graph: ir.Model, plan: ExportPlan, exporter: str, seconds: float) -> ExportRecord:
        return ExportRecord(
            source=self.label,
            kind=self.kind,
            exporter=exporter,
            versions=self._described.versions,
            opset=graph.opset_imports.get("", 0),
            dynamic_axes={name: tuple(found.values()) for name, found in plan.axes.items()},
            seconds=seconds,
            nodes=sum(1 for _ in all_nodes(graph)),
            notes=tuple(plan.notes),
        )


def _raise_opset(graph: ir.Model, plan: ExportPlan, asked: int | None) -> tuple[ir.Model, ir.Model | None]:
    """Bring a graph to an opset that the converter does not write yet; return the one before as well, if there is one.

    Raises:
        ExportError: nodes stand in the way; the message names them.
    """
    if asked is None or asked <= plan.opset:
        return graph, None
    try:
        raised = convert_opset(graph, asked)
    except GraphError as error:
        raise ExportError(error.message, mend=f"ask for opset {plan.opset} at the most, as tf2onnx writes") from error
    plan.notes.append(f"converted from opset {plan.opset} to {asked}")
    return raised, graph


def _without_chatter(error: EngineryError) -> str:
    """Leave out of a crash's log what TensorFlow says at every start."""
    lines = [line for line in error.message.splitlines() if not _CHATTER.match(line)]
    if len(lines) == 1:
        lines[0] = lines[0].removesuffix("; its log ends with:")
    return "\n    ".join(lines)
