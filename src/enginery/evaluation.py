"""What a graph computes: outputs from ONNX Runtime without optimisation, in a worker, so that a crash is an error."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginery.worker import Worker

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from typing_extensions import Self

__all__ = ["REFERENCE_BACKEND", "Evaluator"]

REFERENCE_BACKEND = "onnxruntime"
_NAME = "evaluate"
_LIMIT_S = 600.0


class Evaluator:
    """Runs graphs on given inputs; every graph that is evaluated to be compared goes through here.

    Args:
        folder: for graphs and arrays in passing; what it makes there it removes. Graphs whose weights lie in files
            of this folder are evaluated without these being written again.

    Example:
        >>> import numpy as np, onnx_ir as ir, tempfile
        >>> text = '<ir_version: 8, opset_import: ["": 17]> negate (float[2] x) => (float[2] y) {y = Neg(x)}'
        >>> with tempfile.TemporaryDirectory() as folder, Evaluator(Path(folder)) as evaluator:
        ...     evaluator.run(ir.from_onnx_text(text), [{"x": np.array([1, 2], np.float32)}])[0]["y"]
        array([-1., -2.], dtype=float32)
    """

    def __init__(self, folder: Path) -> None:
        self._beside = folder.absolute()  # where a graph may share the weights of the others
        self._folder = self._beside / _NAME
        self._kept = 0
        self._worker: Worker | None = None
        self.backend = REFERENCE_BACKEND  # of the last graph: one that is too new for it, another backend runs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self, graph: ir.Model | Path, feeds: Sequence[Mapping[str, np.ndarray[Any, Any]]], *, keep: bool = False
    ) -> list[dict[str, np.ndarray[Any, Any]]]:
        """Run a graph once on each set of inputs.

        Args:
            graph: in memory, or the path of an ONNX file.
            feeds: arrays by input name; not changed.
            keep: leave what is written of a graph in the folder, and point its large weights there, so that these
                are neither held in memory nor written again.

        Returns:
            For each set, the outputs by name; the caller owns them.

        Raises:
            BuildError: ONNX Runtime refuses the graph.
            RunError: it fails while running.
            WorkerError: it crashes, hangs or outgrows its memory; the next call starts another worker.
        """
        from enginery.graph import files
        from enginery.inputs.base import Case, load_cases, save_cases

        arrays = self._folder / "arrays"
        shutil.rmtree(arrays, ignore_errors=True)
        save_cases([Case(str(number), dict(one)) for number, one in enumerate(feeds)], arrays / "cases")
        if isinstance(graph, Path):
            self._evaluate(graph, arrays)
        elif keep:
            self._kept += 1
            path = self._beside / f"{_NAME}-{self._kept}.onnx"
            files.save_shared(graph, path)
            self._evaluate(path, arrays)
        else:
            self._evaluate_in_passing(graph, arrays)
        found = {case.name: case.feeds for case in load_cases(arrays / "outputs")}
        shutil.rmtree(arrays)
        return [found[str(number)] for number in range(len(feeds))]

    def _evaluate_in_passing(self, graph: ir.Model, arrays: Path) -> None:
        from enginery.graph import files

        path = self._beside / f"{_NAME}.onnx"
        try:
            files.save_shared(graph.clone(), path)  # the caller's model must not point at a file that goes
            self._evaluate(path, arrays)
        finally:
            for file in (path, path.with_name(f"{path.name}.data")):
                file.unlink(missing_ok=True)

    def _evaluate(self, path: Path, arrays: Path) -> None:
        if self._worker is None or self._worker.pid is None:
            self._worker = Worker(_NAME, folder=self._folder / "worker")
            self._worker.start()
        arguments = {"graph": path.absolute(), "cases": arrays / "cases", "output": arrays / "outputs"}
        self.backend = self._worker.call(_NAME, arguments, limit_s=_LIMIT_S)["backend"]
