"""A PyTorch module, in memory or returned by a function that the user names: PyTorch's only home.

The module is exported through a thin wrapper whose inputs and outputs are flat tuples of tensors, so that names,
nested values and keyword arguments are treated alike by the exporters and by `run`.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.benchmark.base import Timer, call_timer
from enginery.errors import ExportError
from enginery.optional import require, version
from enginery.records import ExportRecord
from enginery.sources.axes import check_shapes, name_axes, resize, tracing_sizes
from enginery.sources.base import Array, Evaluate, Exported
from enginery.sources.blame import explain
from enginery.sources.called import CalledByName
from enginery.sources.graph_names import check_dynamic, check_sizes, name_outputs, rename_clashes, strip_wrapper
from enginery.sources.plan import ExportPlan, check_agreement, make_example, show_shapes
from enginery.spec import Example, Shape, SourceSpec
from enginery.streams import quiet

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TorchModule", "open", "recognises"]

OPTIONS = frozenset({"weights"})
_DEFAULT_OPSET = 20
_LOWEST_DYNAMO_OPSET = 18  # it writes 18 without a word when asked for less
_MADE_BY = ("torch", "onnxscript", "onnx-ir")
_NOISY = ("torch", "torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")


def recognises(thing: Any) -> bool:
    """Say whether it is a module in memory, such as a factory returns."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def open(thing: Any, spec: SourceSpec) -> TorchModule:  # noqa: A001
    """Open a module.

    Args:
        thing: an `nn.Module`.
        spec: in its examples, a name that is no parameter of ``forward`` stands for the next one, and is what the
            graph calls it; its example inputs are tensors or numpy arrays, a tuple in the order of ``forward``.

    Raises:
        MissingExtraError: PyTorch is not installed.
        SourceError: the inputs do not fit ``forward``.
    """
    label = f"torch module {type(thing).__name__} ({spec.factory})" if spec.factory else None
    return TorchModule(thing, label=label, examples=spec.examples, example_inputs=spec.example_inputs)


class TorchModule:
    """An `nn.Module` with its example inputs; it computes in evaluation mode and is never changed.

    Args:
        module: the caller's; its training mode is put back after each use.
        label: what a table calls it.
        examples: stand over `example_inputs`.
        example_inputs: of one call.
    """

    kind = "torch"

    def __init__(
        self, module: Any, *, label: str | None = None, examples: Sequence[Example] = (), example_inputs: Any = None
    ) -> None:
        self._torch = require("torch", extra="torch", why="to take a PyTorch module")
        self.label = label or f"torch module {type(module).__name__}"
        self.framework = f"PyTorch {self._torch.__version__.partition('+')[0]} eager"
        self._original = module
        self._was_training = bool(module.training)
        self._has_data = not examples and example_inputs is not None
        if examples:
            example_inputs = {example.name: make_example(example) for example in examples}
        self._called = CalledByName(self._torch, module, self.label, example_inputs)

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of all parameters and buffers: names, dtypes, shapes and bytes."""
        digest = hashlib.sha256()
        for name, value in sorted(self._original.state_dict().items()):
            if isinstance(value, self._torch.Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(self._torch.uint8).numpy().data)
            else:
                digest.update(f"{name} {value!r}\n".encode())
        return digest.hexdigest()

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
            shapes: the profile of each input by name; an input that is not named keeps its example's sizes.
            opset: version of ONNX's operator set; None for 20.
            evaluate: runs a graph, to see whether it agrees with the module before it is taken.

        Raises:
            ExportError: neither gave a right graph; the message lists both reasons.
            SourceError: there are no example inputs, or the module cannot run on them.
            UnknownNameError: `shapes` names no input.
            UsageError: a shape does not fit its example.
        """
        begin = time.perf_counter()
        plan = self._plan(shapes, opset or _DEFAULT_OPSET)
        attempts: list[str] = []
        for exporter, export in (
            ("torch.onnx.export (dynamo)", self._export_dynamo),
            ("torch.onnx.export (TorchScript)", self._export_torchscript),
        ):
            try:
                graph = export(plan)
                self._finish(graph, plan, evaluate)
            except Exception as error:  # noqa: BLE001 - exporters raise anything; each reason is kept and shown
                attempts.append(f"{exporter}: {explain(error)}")
                continue
            return Exported(graph, self._record(graph, exporter, plan, attempts, time.perf_counter() - begin))
        raise ExportError(
            f"{self.label} cannot be exported to ONNX:\n  " + "\n  ".join(attempts),
            mend="change the lines named above, or give a module that leaves that part out",
        )

    def _plan(self, shapes: Mapping[str, Shape], opset: int) -> ExportPlan:
        example = self._called.require_example()
        check_shapes(shapes, {name: array.shape for name, array in example.items()})
        feeds = {name: resize(array, tracing_sizes(shapes.get(name), array.shape)) for name, array in example.items()}
        notes = []
        if self._called.half:
            notes.append(f"the module's {' and '.join(self._called.half)} parameters were taken as float32")
        if self._was_training:
            notes.append("the module was in training mode; it was exported in evaluation mode")
        axes = {name: found for name, found in name_axes(shapes).items() if found}
        return ExportPlan(feeds, tuple(self.run(feeds)), axes, shapes, opset, notes)

    def _export_dynamo(self, plan: ExportPlan) -> ir.Model:
        """Export by ``torch.export``, which proves that dynamic axes are."""
        if plan.opset < _LOWEST_DYNAMO_OPSET:
            raise ExportError(f"it writes opset {_LOWEST_DYNAMO_OPSET} at the least, {plan.opset} was asked for")
        dynamic = tuple(plan.axes.get(name, {}) for name in plan.feeds)
        with self._called.evaluating(), quiet(*_NOISY):
            try:
                program = self._torch.onnx.export(
                    self._called.flat(),
                    tuple(self._called.tensors(plan.feeds)),
                    dynamo=True,
                    opset_version=plan.opset,
                    input_names=list(plan.feeds),
                    output_names=list(plan.outputs),
                    dynamic_shapes=(dynamic,) if plan.axes else None,
                    verbose=False,
                )
            except Exception as error:
                if found := plan.fixed_axes(str(error)):
                    raise ExportError(f"{found} by the module's own code") from error
                raise
        graph: ir.Model = program.model
        return graph

    def _export_torchscript(self, plan: ExportPlan) -> ir.Model:
        """Export by tracing one call, after the trace was seen to agree with the module at other sizes too."""
        import tempfile

        import onnx_ir as ir

        tensors = tuple(self._called.tensors(plan.feeds))
        with (
            self._called.evaluating(),
            quiet(*_NOISY) as warned,
            tempfile.TemporaryDirectory(prefix="enginery-") as folder,
        ):
            traced = self._torch.jit.trace(self._called.flat(), tensors, check_trace=False)
            other = self._check_trace(traced, plan) if plan.axes else None
            path = Path(folder) / "model.onnx"
            self._torch.onnx.export(
                traced,
                tensors,
                str(path),
                dynamo=False,
                opset_version=plan.opset,
                input_names=list(plan.feeds),
                output_names=list(plan.outputs),
                dynamic_axes=dict(plan.axes),
            )
            graph = ir.external_data.load_to_model(ir.load(path))  # the folder goes, and its data with it
        if other is not None:
            name_outputs(graph, plan.axes, (plan.feeds, self.run(plan.feeds)), (other, self.run(other)))
        tracer = [str(w.message).partition("\n")[0] for w in warned if w.category.__name__ == "TracerWarning"]
        plan.notes.append(
            "exported by tracing one call: branches that depend on values are fixed as that call took them"
        )
        plan.notes.extend(dict.fromkeys(tracer))
        return graph

    def _check_trace(self, traced: Any, plan: ExportPlan) -> dict[str, Array]:
        """Compare the trace with the module at the other end of the profile, and return those inputs."""
        other = plan.other_feeds()
        expected = self.run(other)
        try:
            found = [self._called.numpy(value) for value in traced(*self._called.tensors(other))]
        except RuntimeError as error:
            raise ExportError(f"its trace cannot take {show_shapes(other)}: {explain(error)}") from error
        check_agreement(expected, dict(zip(expected, found, strict=True)), f"its trace, at {show_shapes(other)},")
        return other

    def _finish(self, graph: ir.Model, plan: ExportPlan, evaluate: Evaluate | None) -> None:
        """Put the names of what an exporter wrote in order, and check it."""
        from onnx_ir.passes.common import CheckerPass

        found = graph.opset_imports.get("")
        if found != plan.opset:
            raise ExportError(f"it wrote opset {found}, {plan.opset} was asked for")
        plan.notes.extend(check_dynamic(graph, plan.axes))
        strip_wrapper(graph)
        rename_clashes(graph)
        graph.graph.name = type(self._original).__name__
        with quiet(*_NOISY):
            CheckerPass()(graph)
        for feeds in (plan.feeds, plan.other_feeds()) if plan.axes else (plan.feeds,):
            expected = self.run(feeds)
            check_sizes(graph, expected, show_shapes(feeds))
            if evaluate is not None:
                check_agreement(expected, evaluate(graph, feeds), f"its graph, at {show_shapes(feeds)},")

    def _record(
        self, graph: ir.Model, exporter: str, plan: ExportPlan, attempts: Sequence[str], seconds: float
    ) -> ExportRecord:
        return ExportRecord(
            source=self.label,
            kind=self.kind,
            exporter=exporter,
            versions={name: found for name in _MADE_BY if (found := version(name))},
            opset=plan.opset,
            dynamic_axes={name: tuple(found.values()) for name, found in plan.axes.items()},
            seconds=seconds,
            nodes=sum(1 for _ in graph.graph),
            attempts=tuple(attempts),
            notes=tuple(plan.notes),
        )
