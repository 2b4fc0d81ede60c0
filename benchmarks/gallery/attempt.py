"""One entry through export, simplification, build and verification, in this process, by Enginery's own functions."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import enginery
from benchmarks.gallery.result import Result
from enginery.inputs.generated import random_case
from enginery.progress import Progress
from enginery.storage import read_manifest

if TYPE_CHECKING:
    from benchmarks.gallery.entry import Entry, Made

__all__ = ["SAME", "Attempt", "variation"]

SAME = 1e-6
"""An output that changes by less, relative to its size, does not depend on the inputs."""


class Attempt:
    """One entry on one backend; `result` grows from stage to stage.

    Args:
        entry: what to try.
        folder: for everything that is written; the caller's to remove.
        backend: name of the backend.
    """

    def __init__(self, entry: Entry, folder: Path, backend: str) -> None:
        self.entry = entry
        self.folder = folder
        self.result = Result(entry.name, entry.family, entry.source, backend)
        self._graph = folder / "gallery.onnx"
        self._engine = folder / "gallery.engine"
        self._shapes = {name: enginery.Shape.parse(text) for name, text in entry.shapes.items()}
        self._ranges = {name: enginery.Range.parse(text) for name, text in entry.ranges.items()}
        self._asked: dict[str, Any] = {}
        self.stages: tuple[tuple[str, Callable[[], None]], ...] = (
            ("make", self._make), ("export", self._export), ("build", self._build), ("verify", self._verify),
            ("vary", self._vary),
        )  # fmt: skip

    def run(self) -> Result:
        """Go through the stages until one fails; whatever it raises is the reason."""
        self._note(status="passed")
        for name, stage in self.stages:
            self._note(stage=name)
            try:
                stage()
            except Exception as error:  # noqa: BLE001 - whatever goes wrong with a model is what is looked for
                self._fail(f"{type(error).__name__}: {error}")
                self._note(error_name=type(error).__name__, mend=getattr(error, "mend", ""))
            if self.result.status == "failed":
                break
        self._note(peak_memory_bytes=_peak_memory_bytes())
        return self.result

    def _note(self, **found: Any) -> None:
        self.result = replace(self.result, **found)

    def _fail(self, reason: str) -> None:
        said = reason.replace(str(self.folder), "FOLDER").replace(str(Path.home()), "~")  # no place of this machine
        self._note(status="failed", reason=" ".join(said.split()))

    def _make(self) -> None:
        made: Made = self.entry.make(self.folder)
        self._source = made.thing
        self._asked = {"example_inputs": made.example_inputs, "make_dynamic": self.entry.make_dynamic}

    def _export(self) -> None:
        progress = Progress()
        record = enginery.export(
            self._source, self._graph, shapes=self._shapes, simplify=True, progress=progress, **self._asked
        )
        seconds = {step.name: step.ended - step.started for step in progress.steps if step.started and step.ended}
        self._note(
            exporter=record.exporter, attempts=record.attempts, opset=record.opset, nodes=record.nodes,
            nodes_simplified=record.nodes_simplified, nodes_with_module=record.nodes_with_module,
            export_s=seconds.get("export"), simplify_s=seconds.get("simplify"),
        )  # fmt: skip

    def _build(self) -> None:
        begin = time.perf_counter()
        enginery.build(self._graph, self._engine, backend=self.result.backend, shapes=self._shapes, simplify=False)
        self._note(build_s=time.perf_counter() - begin)

    def _verify(self) -> None:
        begin = time.perf_counter()
        spec = enginery.VerifySpec(max_error=self.entry.max_error)
        record = enginery.verify(self._engine, self._source, ranges=self._ranges, spec=spec, **self._asked)
        cases = {output.case for output in record.outputs}
        self._note(verify_s=time.perf_counter() - begin, error=record.error, shapes=self._shown(cases))
        if not record.passed:
            self._fail(record.reason)
        elif len(self.result.shapes) < 2:
            self._fail("it was verified at one shape only")

    def _shown(self, cases: set[str]) -> tuple[str, ...]:
        """Write the shapes of the cases that were compared, once each."""
        shown = []
        for which in ("min", "opt", "max"):
            if which in cases:
                sizes = ("x".join(map(str, shape.at(which))) for shape in self._shapes.values())
                shown.append(" ".join(dict.fromkeys(sizes)))
        return tuple(dict.fromkeys(shown))

    def _vary(self) -> None:
        """See that no output stays the same when the inputs change, for then the comparison proves nothing."""
        inputs = read_manifest(self._engine).inputs
        with enginery.load(self._engine) as session:
            outputs = [session.run(random_case(inputs, "opt", seed=seed, ranges=self._ranges).feeds) for seed in (1, 2)]
        found = variation(*outputs)
        name, least = min(found.items(), key=lambda item: item[1])
        self._note(varies=least)
        if self.entry.constant:
            self._note(reason=f"the outputs do not depend on the inputs: {self.entry.constant}")
        elif not least > SAME:
            self._fail(f"output {name!r} is the same for two random inputs, so that to agree proves nothing")


def variation(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much each output changed, relative to its size: 1 where even the shape did.

    Example:
        >>> variation({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 4.5])})
        {'y': 0.1}
    """
    return {name: _change(np.asarray(one[name]), np.asarray(other[name])) for name in one}


def _change(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if one.shape != other.shape:
        return 1.0
    if one.dtype.kind != "f":
        return float(np.mean(one != other)) if one.size else 0.0
    change, size = np.linalg.norm(other - one), np.linalg.norm(one)
    return float(change / size) if size else float(change > 0)


def _peak_memory_bytes() -> int:
    """Return the largest resident memory that this process or any that it waited for ever had (Linux counts in KiB)."""
    kinds: Sequence[int] = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * 1024
