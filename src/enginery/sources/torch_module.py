"""PyTorch: a module or an exported program in memory, and files of TorchScript and of exported programs.

The module is exported through a thin wrapper whose inputs and outputs are flat tuples of tensors, so that names,
nested values and keyword arguments are treated alike by the exporters and by `run`.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import machine, storage
from enginery.benchmark.base import Timer, call_timer
from enginery.errors import CustomOperatorError, ExportError, OutputError, SourceError, UsageError
from enginery.graph.base import all_nodes
from enginery.optional import require, versions
from enginery.records import ExportRecord
from enginery.sources.axes import check_shapes, name_axes, resize, tracing_sizes
from enginery.sources.base import Array, Evaluate, Exported
from enginery.sources.blame import explain
from enginery.sources.plan import ExportPlan, check_batch, check_opset, make_example, show_shapes
from enginery.sources.pytorch.called import CalledByName, fixing_line
from enginery.sources.pytorch.exporters import by_dynamo, by_program, by_torchscript, finish, mend_of
from enginery.sources.pytorch.files import SUFFIXES, hash_state, load_file, missing_operator
from enginery.sources.pytorch.fixed_sizes import find_fixed_size, find_written_size
from enginery.sources.pytorch.program import Program
from enginery.sources.pytorch.weights import load_weights
from enginery.spec import Example, Shape, SourceSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TorchModule", "open", "recognises"]

OPTIONS = frozenset({"weights"})
_DEFAULT_OPSET = 20
_MADE_BY = ("torch", "onnxscript", "onnx-ir")
_WHY = "to take a PyTorch model"
_FIXED_IN_CODE = (
    "a size is fixed in that line, or before it: take it from the input's shape there, or ask for one shape"
)
_FIXED_IN_PROGRAM = "ask for sizes that the program takes, or export it again with other dynamic_shapes"


def recognises(thing: Any) -> bool:
    """Say whether it is a module or a program in memory, such as a factory returns, or a file of PyTorch."""
    if isinstance(thing, (str, Path)):
        return Path(thing).suffix.lower() in SUFFIXES and Path(thing).is_file()
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    exported = sys.modules.get("torch.export")
    return isinstance(thing, torch.nn.Module) or (exported is not None and isinstance(thing, exported.ExportedProgram))


def open(thing: Any, spec: SourceSpec) -> TorchModule:  # noqa: A001
    """Open a module, an exported program, or a file of either; no code that a file brings is run.

    Args:
        thing: an `nn.Module`, a TorchScript module, a ``torch.export.ExportedProgram``, or the path of a file.
        spec: in its examples, a name that is no parameter of ``forward`` stands for the next one, and is what the
            graph calls it; its example inputs are tensors or numpy arrays, a tuple in the order of ``forward``; its
            weights are loaded into what a factory made, or into a copy of the caller's module.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SourceError: the inputs do not fit ``forward``, or the weights do not fit the module; a file is cut short, holds
            weights alone, or needs operators that are not here (each its own kind).
        UnsafeModelError: reading a file would run code that it brings.
        UsageError: weights were given with a file that has its own.
    """
    torch = require("torch", extra="torch", why=_WHY)
    path = Path(thing) if isinstance(thing, (str, Path)) else None
    if path is not None:
        if spec.weights:
            raise UsageError(
                f"weights {spec.weights!r} mean nothing for {path}, which has its own",
                mend="leave them out, or give the function that returns the module: file.py:factory",
            )
        thing = load_file(torch, path)
    label = f"{path.name} ({_kind(torch, thing)})" if path else f"{_kind(torch, thing)} {_name(thing)}"
    label += f" ({spec.factory})" if spec.factory else ""
    notes: list[str] = []
    if spec.weights:
        if not isinstance(thing, torch.nn.Module):
            raise UsageError(f"weights mean nothing for {label}", mend="leave them out: it has its own")
        thing = thing if spec.factory else copy.deepcopy(thing)
        notes = load_weights(torch, thing, Path(spec.weights), label)
    return TorchModule(
        thing, label=label, examples=spec.examples, example_inputs=spec.example_inputs, path=path, notes=notes
    )


class TorchModule:
    """A module or a program with its example inputs; it computes in evaluation mode and is never changed.

    Args:
        thing: the caller's `nn.Module`, whose training mode is put back after each use, or an exported program.
        label: what a table calls it.
        examples: stand over `example_inputs`.
        example_inputs: of one call; a program has its own.
        path: the file it came from.
        notes: what a user should know of its opening.
    """

    kind = "torch"

    def __init__(
        self,
        thing: Any,
        *,
        label: str | None = None,
        examples: Sequence[Example] = (),
        example_inputs: Any = None,
        path: Path | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        torch = require("torch", extra="torch", why=_WHY)
        self.label = label or f"{_kind(torch, thing)} {_name(thing)}"
        self._program = None if isinstance(thing, torch.nn.Module) else Program(torch, thing)
        self._original = thing if self._program is None else self._program.module
        self._scripted = isinstance(thing, torch.jit.ScriptModule)
        how = "exported program" if self._program else "TorchScript" if self._scripted else "eager"
        self.framework = f"PyTorch {torch.__version__.partition('+')[0]} {how}"
        self._title = _name(thing)
        self._path = path
        self._notes = tuple(notes)
        self._was_training = self._program is None and path is None and bool(thing.training)
        if self._program is not None and example_inputs is None and not examples:
            example_inputs = self._program.example_inputs()
        self._has_data = not examples and example_inputs is not None
        if examples:
            example_inputs = {example.name: make_example(example) for example in examples}
        self._called = CalledByName(
            torch,
            self._original,
            self.label,
            example_inputs,
            signature=self._program.signature if self._program else None,
            convert_half=self._program is None,
        )

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file, or of all parameters and buffers: names, dtypes, shapes and bytes."""
        return storage.hash_file(self._path) if self._path is not None else hash_state(self._original)

    def example_feeds(self) -> dict[str, Array] | None:
        """Return copies of the example inputs by name; None where only their shapes were given."""
        return {name: array.copy() for name, array in self._called.example.items()} if self._has_data else None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute once, without gradients and in evaluation mode.

        Args:
            feeds: an array for each input by name, as the graph calls it.

        Returns:
            The outputs under the names that the exported graph has; the caller owns them.

        Raises:
            InputNameError: an input is missing or unknown.
            SourceError: there are no example inputs, or ``forward`` raised.
        """
        return self._called.run(feeds)

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Return the timer of one call of the module; inputs are tensors already, on its device."""
        return call_timer(self._called.timer(feeds))

    def close(self) -> None:
        """Do nothing: the module is the caller's."""

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Export with ``torch.onnx.export``: by ``torch.export``, and by tracing where that fails.

        Args:
            shapes: the profile of each input by name; an input that is not named keeps its example's sizes, or a
                program's own dynamic axes.
            opset: version of ONNX's operator set; None for 20.
            evaluate: runs a graph, to see whether it agrees with the module before it is taken.

        Raises:
            ExportError: the module does not run at all the sizes asked for, or no exporter gave a right graph; the
                message lists every reason.
            CustomOperatorError: it calls an operator that ONNX has no form of.
            SourceError: there are no example inputs, or the module cannot run on them.
            UnknownNameError: `shapes` names no input.
            UsageError: a shape does not fit its example.
        """
        begin = time.perf_counter()
        check_opset(opset)
        plan, exporters = self._plan(shapes, opset or _DEFAULT_OPSET)
        attempts: list[str] = []
        failures: list[Exception] = []
        for exporter, export in exporters:
            notes = len(plan.notes)
            try:
                graph = export(plan)
                finish(graph, plan, evaluate)
            except OutputError:  # no exporter is better where the disk is full
                raise
            except Exception as error:  # noqa: BLE001 - exporters raise anything; each reason is kept and shown
                attempts.append(f"{exporter}: {explain(error)}")
                failures.append(error)
                del plan.notes[notes:]
                continue
            return Exported(graph, self._record(graph, exporter, plan, attempts, time.perf_counter() - begin))
        raise self._failed(attempts, failures)

    def _plan(
        self, shapes: Mapping[str, Shape], opset: int
    ) -> tuple[ExportPlan, list[tuple[str, Callable[[ExportPlan], ir.Model]]]]:
        """Say what is exported, see that the module itself runs at all those sizes, and choose the exporters."""
        example = self._called.require_example()
        sizes = {name: array.shape for name, array in example.items()}
        check_shapes(shapes, sizes)
        axes = {name: found for name, found in name_axes(shapes).items() if found}
        symbols: dict[str, str] = {}
        if self._program is not None:
            shapes, axes, symbols = self._program.resolve(shapes, sizes, self.label)
        feeds = {name: resize(array, tracing_sizes(shapes.get(name), array.shape)) for name, array in example.items()}
        plan = ExportPlan(feeds, (), axes, shapes, opset, self._title, notes=list(self._opening_notes()))
        if self._program and (tied := [name for symbol, name in symbols.items() if symbol in self._program.tied]):
            plan.notes.append(f"sizes follow from {', '.join(tied)}, which was checked at one value only")
        plan.checks.extend(self._checked(plan))
        plan.outputs = tuple(plan.checks[0][1])
        check_batch(plan, self.label, example=example, blame=lambda: self._folding_line(plan))
        traced = ("torch.onnx.export (TorchScript)", functools.partial(by_torchscript, self._called))
        if self._program is not None:
            written = functools.partial(by_program, self._program.program, symbols)
            return plan, [("torch.onnx.export (ExportedProgram)", written), traced]
        if self._scripted:
            return plan, [traced]
        return plan, [("torch.onnx.export (dynamo)", functools.partial(by_dynamo, self._called)), traced]

    def _folding_line(self, plan: ExportPlan) -> str:
        (one, _), (other, _), *_ = plan.checks
        return fixing_line(self._called, one, other, find_fixed_size)

    def _opening_notes(self) -> Iterator[str]:
        yield from self._notes
        if self._called.half:
            yield f"the module's {' and '.join(self._called.half)} parameters were taken as float32"
        if self._called.kept_half:
            yield f"the program's {' and '.join(self._called.kept_half)} parameters stay so in the graph"
        if self._was_training:
            yield "the module was in training mode; it was exported in evaluation mode"

    def _checked(self, plan: ExportPlan) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Run the module itself at the sizes that a graph is checked at: as traced, at others, and at the smallest."""
        seen: set[str] = set()
        for choices in ((plan.feeds,), (plan.other_feeds(), plan.other_feeds(alike=True)), (plan.smallest_feeds(),)):
            feeds, outputs = self._run_one(choices)
            if show_shapes(feeds) not in seen:
                seen.add(show_shapes(feeds))
                yield feeds, outputs

    def _run_one(self, choices: Sequence[dict[str, Array]]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run on the first inputs that the module takes; where it takes none, say what is fixed."""
        feeds, *others = choices
        try:
            return feeds, self.run(feeds)
        except SourceError as error:
            example, at = self._called.example, show_shapes(feeds)
            if at == show_shapes(example):
                raise
            if others and show_shapes(others[0]) != at:
                return self._run_one(others)
            self.run(example)  # where this fails too, it is not the size
            where = fixing_line(self._called, example, feeds, find_fixed_size, find_written_size)
            told = where and where.partition(": ")[0] not in error.message
            raise ExportError(
                f"at {at}, which is within the shapes asked for, {error.message}"
                + (f"; the size is most likely fixed at {where}" if told else ""),
                mend=_FIXED_IN_PROGRAM if self._program is not None else _FIXED_IN_CODE,
            ) from error

    def _failed(self, attempts: Sequence[str], failures: Sequence[Exception]) -> SourceError:
        listed = f"{self.label} cannot be exported to ONNX:\n  " + "\n  ".join(attempts)
        if custom := next(filter(None, map(missing_operator, failures)), ""):
            return CustomOperatorError(
                f"{listed}\nONNX has no form of {custom}",
                mend="write that part with PyTorch's own operators, or leave it out of the model",
            )
        return ExportError(listed, mend=mend_of(failures))

    def _record(
        self, graph: ir.Model, exporter: str, plan: ExportPlan, attempts: Sequence[str], seconds: float
    ) -> ExportRecord:
        return ExportRecord(
            source=self.label,
            kind=self.kind,
            exporter=exporter,
            versions=versions(*_MADE_BY),
            opset=plan.opset,
            dynamic_axes={name: tuple(found.values()) for name, found in plan.axes.items()},
            seconds=seconds,
            nodes=sum(1 for _ in all_nodes(graph)),
            attempts=tuple(attempts),
            notes=tuple(plan.notes),
            peak_memory_bytes=machine.peak_memory_bytes(),
        )


def _kind(torch: Any, thing: Any) -> str:
    if isinstance(thing, torch.jit.ScriptModule):
        return "TorchScript module"
    return "torch module" if isinstance(thing, torch.nn.Module) else "torch program"


def _name(thing: Any) -> str:
    """Return the name of the class that the user wrote, which TorchScript has as its original name."""
    return str(getattr(thing, "original_name", None) or type(thing).__name__)
