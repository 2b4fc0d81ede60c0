"""Engines of parts of a graph, built and run as the whole was: by its backend, precision and options, in a worker."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginery.backends.base import Design
from enginery.inputs.base import Case, load_cases, save_cases
from enginery.jobs import build_arguments
from enginery.records import ManifestRecord
from enginery.spec import PRECISIONS, BuildSpec, PrecisionPlan
from enginery.worker import Worker

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from typing_extensions import Self

    Arrays = dict[str, np.ndarray[Any, Any]]

__all__ = ["PartEngines", "part_spec"]

_CASE = "cut"
_LIMIT_S = 600.0


class PartEngines:
    """Builds a part of a graph and runs it once; one worker does all, and another takes its place where it dies.

    Args:
        name: of its files, where several work in one folder.
        manifest: of the engine whose backend, precision and options are used.
        plan: its precision of single nodes; None where there is none.
        folder: for what is made in passing; graphs whose weights lie there are not written with these again.
        limit_s: time limit of each build, in seconds.
    """

    def __init__(
        self, name: str, manifest: ManifestRecord, plan: PrecisionPlan | None, folder: Path, limit_s: float = _LIMIT_S
    ) -> None:
        self.manifest, self.plan, self.built = manifest, plan, 0
        self._name, self._beside, self._limit_s = name, folder.absolute(), limit_s
        self._folder = self._beside / f"{name}-parts"
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, model: ir.Model, feeds: Mapping[str, Any]) -> Arrays:
        """Build a model and return its outputs.

        Raises:
            BuildError: the backend refuses it.
            RunError: it fails while running.
            WorkerError: it crashes, hangs or outgrows its memory; the next call starts another worker.
        """
        from enginery.graph import files

        self._folder.mkdir(parents=True, exist_ok=True)
        graph, built = self._beside / f"{self._name}-part.onnx", self._folder / "part.engine"
        arrays = self._folder / "arrays"
        self.built += 1
        try:
            files.save_shared(model.clone(), graph)
            save_cases([Case(_CASE, dict(feeds))], arrays / "cases")
            self._work(graph, built, arrays, part_spec(self.manifest, self.plan, model))
            return load_cases(arrays / "outputs")[0].feeds
        finally:
            for file in (graph, graph.with_name(f"{graph.name}.data")):
                file.unlink(missing_ok=True)
            shutil.rmtree(arrays, ignore_errors=True)

    def _work(self, graph: Path, built: Path, arrays: Path, spec: BuildSpec) -> None:
        if self._worker is None or self._worker.pid is None:
            python = self.manifest.interpreter or None
            self._worker = Worker(f"build-{self.manifest.backend}", folder=self._folder / "worker", python=python)
            self._worker.start()
        arguments = build_arguments(Design(graph), backend=self.manifest.backend, spec=spec, output=built)
        self._worker.call("build", arguments, limit_s=self._limit_s)
        self._worker.call("open", {"engine": built, "options": {}}, limit_s=self._limit_s)
        where = {"cases": arrays / "cases", "output": arrays / "outputs"}
        self._worker.call("run", where, limit_s=self._limit_s)
        self._worker.call("close", {}, limit_s=self._limit_s)


def part_spec(manifest: ManifestRecord, plan: PrecisionPlan | None, model: ir.Model) -> BuildSpec:
    """Return what a part of an engine's graph is built with: the engine's own, for what the part has of it."""
    from enginery.graph.base import all_nodes, tensor_infos

    dynamic = {info.name for info in tensor_infos(model.graph.inputs) if not _is_fixed(info.shape)}
    inputs = {value.name for value in model.graph.inputs}
    shapes = {info.name: info.profile for info in manifest.inputs if info.profile is not None and info.name in dynamic}
    narrow = ({name: one for name, one in profile.items() if name in shapes} for profile in manifest.profiles)
    names, operators = {node.name for node in all_nodes(model)}, {node.op_type for node in all_nodes(model)}
    own = {name: word for name, word in plan.nodes.items() if name in names} if plan is not None else {}
    kept = replace(plan, nodes=own, reasons={}) if plan is not None else None
    precision = manifest.precision if kept is None else kept.narrowest
    if precision == "int8" and operators.isdisjoint({"QuantizeLinear", "DequantizeLinear"}):
        precision = "fp32"  # a part in which nothing is quantised; the rest of an INT8 engine is float32
    options = dict(manifest.options)
    if "allow_precision" in options:
        options["allow_precision"] = ",".join(PRECISIONS)  # a part of a few nodes may hold none in the one asked for
    return BuildSpec(
        shapes=shapes,
        precision=precision,
        options=options,
        profiles=tuple(profile for profile in narrow if profile),
        values={name: value for name, value in manifest.values.items() if name in inputs},
        plan=kept if own else None,
    )


def _is_fixed(shape: tuple[int | str, ...] | None) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)
