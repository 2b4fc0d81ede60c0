"""An ONNX file, or an ONNX model in memory: a source that is its own reference."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.benchmark.base import Timer, call_timer
from enginery.errors import ExportError, GraphError, InputNameError, SourceError, SourceNotFoundError, UnknownNameError
from enginery.graph.base import (
    all_nodes,
    convert_opset,
    hash_model,
    load_model,
    make_dynamic,
    normalise,
    save_model,
    tensor_infos,
)
from enginery.machine import peak_memory_bytes
from enginery.optional import versions
from enginery.records import ExportRecord
from enginery.sources import nearest_files
from enginery.sources.base import Array, Evaluate, Exported
from enginery.spec import Shape, SourceSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["OnnxModel", "open", "recognises"]

OPTIONS = frozenset({"make_dynamic"})
_SUFFIX = ".onnx"


def recognises(thing: Any) -> bool:
    """Say whether it is a path that ends in ``.onnx``, or a model of the onnx or onnx_ir library."""
    if isinstance(thing, (str, Path)):
        return Path(thing).suffix.lower() == _SUFFIX
    return _is_proto(thing) or _is_ir(thing)


def open(thing: Any, spec: SourceSpec) -> OnnxModel:  # noqa: A001
    """Open an ONNX model; nothing is read before it is needed.

    Args:
        thing: a path, an `onnx.ModelProto` or an `onnx_ir.Model` (which is not changed).
        spec: of its examples, only real inputs are looked at: the file knows its own names, dtypes and shapes.

    Raises:
        SourceNotFoundError: there is no such file; the nearest names are suggested.
    """
    if isinstance(thing, (str, Path)):
        path = Path(thing)
        if not path.exists():
            raise SourceNotFoundError(f"there is no file {path}", mend=nearest_files(path))
        if not path.is_file():
            raise SourceError(f"{path} is a folder", mend="name the ONNX file itself")
    return OnnxModel(thing, spec)


class OnnxModel:
    """An ONNX model on disk or in memory."""

    kind = "onnx"
    framework = None

    def __init__(self, thing: Any, spec: SourceSpec) -> None:
        self._thing = thing
        self._example_inputs = spec.example_inputs
        self._make_dynamic = spec.make_dynamic

    @property
    def label(self) -> str:
        """The file's name, or ``onnx model NAME``."""
        if isinstance(self._thing, (str, Path)):
            return Path(self._thing).name
        return f"onnx model {self._thing.graph.name or 'without a name'}"

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file and its external data; of a model in memory, as it would be written."""
        if isinstance(self._thing, (str, Path)):
            return hash_model(self._thing)
        with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(self._load(), path)
            return hash_model(path)

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Read the graph; its own dynamic dimensions stay, and `shapes` only has its names checked.

        Args:
            shapes: the profile of each input by name.
            opset: converts the graph where it is not the file's own version.
            evaluate: proves a graph whose axes were made dynamic; the graph is its own source otherwise.

        Raises:
            CorruptModelError: the file is no ONNX, or is cut short.
            ExportError: the graph cannot be converted to `opset`.
            UnknownNameError: `shapes`, or an axis to be made dynamic, names no input.
            GraphError: an axis cannot be made dynamic; names the nodes in the way.
        """
        begin = time.perf_counter()
        graph, notes = self._made_dynamic(shapes, evaluate)
        inputs = tensor_infos(graph.graph.inputs)
        for name in shapes:
            if name not in {info.name for info in inputs}:
                raise UnknownNameError.from_choices("input", name, (info.name for info in inputs))
        own = graph.opset_imports.get("", 0)
        original = None
        if opset is not None and own and opset != own:
            original, graph = graph, _convert(graph, opset)
            notes = (*notes, f"converted from opset {own} to {opset}")
        record = ExportRecord(
            source=self.label,
            kind=self.kind,
            exporter="none",
            versions=versions("onnx", "onnx-ir"),
            opset=graph.opset_imports.get("", 0),
            dynamic_axes={
                info.name: names
                for info in inputs
                if (names := tuple(dim for dim in info.shape or () if isinstance(dim, str)))
            },
            seconds=time.perf_counter() - begin,
            nodes=sum(1 for _ in all_nodes(graph)),
            notes=notes,
            peak_memory_bytes=peak_memory_bytes(),
        )
        return Exported(graph, record, original)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute with ONNX's reference evaluator: right by definition, and slow.

        Raises:
            InputNameError: an input is missing or unknown.
            SourceError: the evaluator cannot run this graph.
        """
        names = [value.name or "" for value in self._graph.graph.inputs]
        if set(names) != set(feeds):
            wrong = ", ".join(sorted(set(names) ^ set(feeds)))
            raise InputNameError(f"the inputs do not match: {wrong}", mend=f"the inputs are {', '.join(names)}")
        try:
            found = self._evaluator.run(None, dict(feeds))
        except Exception as error:
            raise SourceError(
                f"ONNX's reference evaluator cannot run {self.label}: {type(error).__name__}: {error}",
                mend="check the inputs, or take a backend as the reference",
            ) from error
        return dict(zip(self._evaluator.output_names, found, strict=True))

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Return the timer of one call of the reference evaluator."""
        evaluator, fixed = self._evaluator, dict(feeds)

        def call() -> None:
            evaluator.run(None, fixed)

        return call_timer(call)

    def example_feeds(self) -> dict[str, Array] | None:
        """Return the example inputs that were given, by name."""
        given = self._example_inputs
        if given is None:
            return None
        if isinstance(given, Mapping):
            return {str(name): np.asarray(array) for name, array in given.items()}
        arrays = given if isinstance(given, (tuple, list)) else (given,)
        names = [value.name or "" for value in self._graph.graph.inputs]
        if len(arrays) > len(names):
            mend = f"the inputs are {', '.join(names) or 'none'}"
            raise InputNameError(f"{len(arrays)} example inputs for {len(names)} inputs", mend=mend)
        return {name: np.asarray(array) for name, array in zip(names, arrays, strict=False)}

    def _load(self) -> ir.Model:
        import onnx_ir as ir

        if isinstance(self._thing, (str, Path)):
            return load_model(self._thing)
        model: ir.Model = self._thing.clone() if _is_ir(self._thing) else ir.from_proto(self._thing)
        normalise(model)
        return model

    def _made_dynamic(self, shapes: Mapping[str, Shape], evaluate: Evaluate | None) -> tuple[ir.Model, tuple[str, ...]]:
        """Read the graph and let the axes vary that were asked for; say what was changed and how it was proved."""
        graph = self._load()
        if not self._make_dynamic:
            return graph, ()
        given = self._example_inputs
        examples = self.example_feeds() if given is not None else None
        return make_dynamic(graph, self._make_dynamic, shapes=shapes, evaluate=evaluate, examples=examples)

    @functools.cached_property
    def _graph(self) -> ir.Model:
        return self._made_dynamic({}, None)[0]

    @functools.cached_property
    def _evaluator(self) -> Any:
        import onnx_ir as ir
        from onnx.reference import ReferenceEvaluator

        on_disk = isinstance(self._thing, (str, Path)) and not self._make_dynamic
        return ReferenceEvaluator(str(self._thing) if on_disk else ir.to_proto(self._graph))


def _convert(graph: ir.Model, opset: int) -> ir.Model:
    try:
        return convert_opset(graph, opset)
    except GraphError as error:
        raise ExportError(error.message, mend=error.mend) from error


def _is_proto(thing: Any) -> bool:
    onnx = sys.modules.get("onnx")
    return onnx is not None and isinstance(thing, onnx.ModelProto)


def _is_ir(thing: Any) -> bool:
    library = sys.modules.get("onnx_ir")
    return library is not None and isinstance(thing, library.Model)
