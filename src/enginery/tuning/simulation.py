"""Plans tried without their backend: rounded in a float32 graph, on ONNX Runtime, in a worker that stays warm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from enginery.graph import base
from enginery.inputs.base import Case, load_cases, save_cases
from enginery.plain import from_plain
from enginery.records import VerifyRecord
from enginery.spec import PrecisionPlan, VerifySpec
from enginery.tuning.watching import Seen, chunks
from enginery.worker import Worker

if TYPE_CHECKING:
    import onnx_ir as ir
    from typing_extensions import Self

    from enginery.graph.base import Study

__all__ = ["CHUNK_BYTES", "Simulator"]

CHUNK_BYTES = 256 << 20
"""How many bytes of tensors between nodes are outputs at one time."""

_FEW = 4


class Simulator:
    """Runs one graph under plans, and watches the tensors in it; a context manager that ends its worker.

    Args:
        graph: path of the float32 graph. Trials are written beside it, so that they share its weights.
        cases: folder of the inputs, as `enginery.inputs.base.save_cases` writes it.
        expected: folder of the reference's outputs, each case under its name.
        folder: its own, for the worker and what it makes.
        spec: the bounds.
        reference, inputs: for the verify records.
        limit_s: time limit of one run of all cases.
        on_wait: called about ten times a second while it runs.
    """

    def __init__(
        self,
        graph: Path,
        *,
        cases: Path,
        expected: Path,
        folder: Path,
        spec: VerifySpec,
        reference: str = "",
        inputs: str = "",
        limit_s: float = 600.0,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        self.graph, self.inputs = graph.absolute(), inputs
        self.model: ir.Model = base.load_model(graph)
        self._cases, self._expected, self._folder = cases.absolute(), expected.absolute(), folder.absolute()
        self._spec = replace(spec, repeats=1, max_rows=0)
        self._reference, self._limit_s, self._on_wait = reference, limit_s, on_wait
        self._worker: Worker | None = None
        self._few: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close() if kind is None else self._worker.kill()

    def judge(self, plan: PrecisionPlan, *, few: bool = False) -> VerifyRecord:
        """Hold the outputs under a plan against the reference's.

        Args:
            plan: of the graph's nodes.
            few: only on a few of the cases, to rank many plans.

        Raises:
            GraphError: the plan does not fit the graph.
        """
        return self.judge_graph(self._write(base.emulate(self.model, plan)), few=few)

    def judge_graph(self, graph: Path, *, few: bool = False) -> VerifyRecord:
        """Hold the outputs of any graph with the same inputs and outputs against the reference's."""
        arguments = {
            "graph": graph.absolute(),
            "cases": self._few_cases() if few else self._cases,
            "expected": self._expected,
            "spec": self._spec,
            "reference": self._reference,
            "inputs": self.inputs,
        }
        found = self._call("judge", arguments)
        return from_plain(VerifyRecord, found)

    def watch(self, study: Study, limit_bytes: int = CHUNK_BYTES) -> tuple[dict[str, Seen], int]:
        """Run the graph in float32 with the tensors between its nodes as outputs, a part of them at a time.

        Args:
            study: which tensors, and the limits of the type they are held against.
            limit_bytes: of the tensors of one part.

        Returns:
            What was seen of each tensor, and how many parts there were.
        """
        largest = max(load_cases(self._cases), key=lambda case: sum(array.size for array in case.feeds.values()))
        inputs = {name: tuple(array.shape) for name, array in largest.feeds.items()}
        sizes = base.sizes_of(self.model, study.watched, inputs) if study.watched else {}
        parts = list(chunks(study.watched, sizes, limit_bytes))
        seen: dict[str, Seen] = {}
        limits = [study.largest, study.normal, study.smallest]
        for names in parts:
            trial = self._write(base.with_outputs(self.model, names))
            found: Mapping[str, object] = self._call("watch", {"graph": trial, "cases": self._cases, "limits": limits})
            seen |= {name: from_plain(Seen, one) for name, one in found.items()}
        return seen, len(parts)

    def input_sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes of the inputs of the first case."""
        return {name: tuple(array.shape) for name, array in load_cases(self._cases)[0].feeds.items()}

    def _write(self, model: ir.Model) -> Path:
        path = self.graph.with_name(f"{self.graph.stem}-trial.onnx")
        base.save_shared(model.clone() if model is self.model else model, path)
        return path

    def _call(self, job: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        if self._worker is None or self._worker.pid is None:
            self._worker = Worker("simulate", folder=self._folder / "simulate")
            self._worker.start()
        found: Mapping[str, object] = self._worker.call(job, arguments, limit_s=self._limit_s, on_wait=self._on_wait)
        return found

    def _few_cases(self) -> Path:
        """Return a folder of a few cases, spread over all."""
        if self._few is None:
            cases: tuple[Case, ...] = load_cases(self._cases)
            step = max(len(cases) // _FEW, 1)
            self._few = self._folder / "few"
            save_cases(cases[::step][:_FEW], self._few)
        return self._few
