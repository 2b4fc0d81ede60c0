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
from enginery.errors import ExportError, InputNameError, SourceError, SourceNotFoundError, UnknownNameError
from enginery.graph.base import hash_model, load_model, normalise, save_model, tensor_infos
from enginery.optional import version
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
            evaluate: not needed, since the graph is the source.

        Raises:
            CorruptModelError: the file is no ONNX, or is cut short.
            ExportError: the graph cannot be converted to `opset`.
            UnknownNameError: `shapes` names no input.
        """
        del evaluate
        begin = time.perf_counter()
        graph = self._load()
        inputs = tensor_infos(graph.graph.inputs)
        for name in shapes:
            if name not in {info.name for info in inputs}:
                raise UnknownNameError.from_choices("input", name, (info.name for info in inputs))
        own = graph.opset_imports.get("", 0)
        notes: tuple[str, ...] = ()
        if opset is not None and own and opset != own:
            graph = _convert(graph, opset)
            notes = (f"converted from opset {own} to {opset}",)
        record = ExportRecord(
            source=self.label,
            kind=self.kind,
            exporter="none",
            versions={name: found for name in ("onnx", "onnx-ir") if (found := version(name))},
            opset=graph.opset_imports.get("", 0),
            dynamic_axes={
                info.name: names
                for info in inputs
                if (names := tuple(dim for dim in info.shape or () if isinstance(dim, str)))
            },
            seconds=time.perf_counter() - begin,
            nodes=sum(1 for _ in graph.graph),
            notes=notes,
        )
        return Exported(graph, record)

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

    @functools.cached_property
    def _graph(self) -> ir.Model:
        return self._load()

    @functools.cached_property
    def _evaluator(self) -> Any:
        import onnx_ir as ir
        from onnx.reference import ReferenceEvaluator

        on_disk = isinstance(self._thing, (str, Path))
        return ReferenceEvaluator(str(self._thing) if on_disk else ir.to_proto(self._graph))


def _convert(graph: ir.Model, opset: int) -> ir.Model:
    import onnx_ir as ir
    from onnx import defs, version_converter

    newest = defs.onnx_opset_version()
    if opset > newest:
        raise ExportError(f"there is no opset {opset} in the installed onnx", mend=f"give {newest} at the most")
    try:
        proto = version_converter.convert_version(ir.to_proto(graph), opset)
    except Exception as error:
        own = graph.opset_imports.get("", 0)
        reason = str(error).rpartition(" failed: ")[2]  # what comes before is a place in onnx's own code
        raise ExportError(
            f"onnx's version converter cannot bring this graph from opset {own} to {opset}: {reason}",
            mend=f"keep opset {own}, or export the model again with opset {opset}",
        ) from error
    converted: ir.Model = ir.from_proto(proto)
    return converted


def _is_proto(thing: Any) -> bool:
    onnx = sys.modules.get("onnx")
    return onnx is not None and isinstance(thing, onnx.ModelProto)


def _is_ir(thing: Any) -> bool:
    library = sys.modules.get("onnx_ir")
    return library is not None and isinstance(thing, library.Model)
