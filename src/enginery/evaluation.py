"""What a graph computes: outputs from ONNX Runtime without optimisation, in a worker, so that a crash is an error."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from enginery.jobs import build_arguments
from enginery.spec import BuildSpec, Option
from enginery.worker import Worker

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from typing_extensions import Self

__all__ = ["REFERENCE_BACKEND", "Evaluator"]

REFERENCE_BACKEND = "onnxruntime"
_NOT_OPTIMISED: dict[str, Option] = {"optimization": "none"}
_LIMIT_S = 600.0


class Evaluator:
    """Runs graphs on given inputs; every graph that is evaluated to be compared goes through here.

    Args:
        folder: for graphs, engines and arrays in passing; what it makes there it removes.

    Example:
        >>> import numpy as np, onnx_ir as ir, tempfile
        >>> text = '<ir_version: 8, opset_import: ["": 17]> negate (float[2] x) => (float[2] y) {y = Neg(x)}'
        >>> with tempfile.TemporaryDirectory() as folder, Evaluator(Path(folder)) as evaluator:
        ...     evaluator.run(ir.from_onnx_text(text), [{"x": np.array([1, 2], np.float32)}])[0]["y"]
        array([-1., -2.], dtype=float32)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute() / "evaluate"
        self._worker: Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker is not None:
            self._worker.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self, graph: ir.Model | Path, feeds: Sequence[Mapping[str, np.ndarray[Any, Any]]]
    ) -> list[dict[str, np.ndarray[Any, Any]]]:
        """Run a graph once on each set of inputs.

        Args:
            graph: in memory, or the path of an ONNX file.
            feeds: arrays by input name; not changed.

        Returns:
            For each set, the outputs by name; the caller owns them.

        Raises:
            BuildError: ONNX Runtime refuses the graph.
            RunError: it fails while running.
            WorkerError: it crashes, hangs or outgrows its memory; the next call starts another worker.
        """
        from enginery.graph import files
        from enginery.inputs.base import Case, load_cases, save_cases

        at = self._folder / "graph"
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir(parents=True)
        path = graph if isinstance(graph, Path) else at / "model.onnx"
        if not isinstance(graph, Path):
            files.save(graph, path)
        save_cases([Case(str(number), dict(one)) for number, one in enumerate(feeds)], at / "cases")
        self._call("build", self._build_arguments(path, at / "model.engine"))
        self._call("open", {"engine": at / "model.engine", "options": {}})
        self._call("run", {"cases": at / "cases", "output": at / "outputs"})
        self._call("close", {})
        found = {case.name: case.feeds for case in load_cases(at / "outputs")}
        shutil.rmtree(at)
        return [found[str(number)] for number in range(len(feeds))]

    def _call(self, job: str, arguments: Mapping[str, Any]) -> None:
        if self._worker is None or self._worker.pid is None:
            self._worker = Worker("evaluate", folder=self._folder / "worker")
            self._worker.start()
        self._worker.call(job, arguments, limit_s=_LIMIT_S)

    def _build_arguments(self, path: Path, output: Path) -> dict[str, Any]:
        spec = BuildSpec(options=_NOT_OPTIMISED)
        return build_arguments(
            graph=path,
            backend=REFERENCE_BACKEND,
            spec=spec,
            output=output,
            source="",
            source_sha256="",
            graph_sha256="",
        )
