"""PyTorch's exporters, each as a function that gives a graph or raises whatever it likes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import ExportError
from enginery.sources.base import Evaluate
from enginery.sources.blame import explain, line_of_file, passed_through
from enginery.sources.graph_names import (
    check_dynamic,
    check_sizes,
    drop_stacks,
    name_outputs,
    rename_clashes,
    strip_wrapper,
)
from enginery.sources.plan import ExportPlan, check_agreement, show_shapes
from enginery.sources.pytorch.called import CalledByName
from enginery.sources.pytorch.lines import baked_line
from enginery.streams import captured_stdout, quiet

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["by_dynamo", "by_program", "by_torchscript", "finish", "mend_of"]

_LOWEST_DYNAMO_OPSET = 18  # it writes 18 without a word when asked for less
_CHANGE_LINES = "change the lines named above, or give a module that leaves that part out"
_MENDS = {
    "_detect_is_causal_mask": (
        "say beside the mask whether it is causal, tgt_is_causal=True (src_is_causal, is_causal): PyTorch's "
        "transformer looks at the mask's values where nobody says, which no graph can"
    ),
}
"""What to do, by the function of PyTorch's own that an exporter does not come through."""
_NOISY = ("torch", "torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")


def by_dynamo(called: CalledByName, plan: ExportPlan) -> ir.Model:
    """Export by ``torch.export``, which proves that dynamic axes are."""
    import torch

    _check_opset(plan)
    dynamic = tuple(plan.axes.get(name, {}) for name in plan.feeds)
    with called.evaluating(), quiet(*_NOISY):
        try:
            program = torch.onnx.export(
                called.flat(),
                tuple(called.tensors(plan.feeds)),
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
    return _graph(program)


def by_program(program: Any, symbols: Mapping[str, str], plan: ExportPlan) -> ir.Model:
    """Write an exported program as it is, and call its own symbols as the plan calls its axes.

    Args:
        program: a ``torch.export.ExportedProgram``.
        symbols: names of dynamic axes, by the program's own.
        plan: its axes are those that the program has.
    """
    import torch

    _check_opset(plan)
    with quiet(*_NOISY):
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=plan.opset,
            input_names=list(plan.feeds),
            output_names=list(plan.outputs),
            verbose=False,
        )
    graph = _graph(written)
    _rename_symbols(graph, symbols)
    return graph


def by_torchscript(called: CalledByName, plan: ExportPlan) -> ir.Model:
    """Export by tracing one call, after the trace was seen to agree with the module at other sizes too."""
    import tempfile

    import onnx_ir as ir
    import torch

    tensors = tuple(called.tensors(plan.feeds))
    with (
        called.evaluating(),
        captured_stdout(),  # its C++ part prints the whole graph there when it fails
        quiet(*_NOISY) as warned,
        tempfile.TemporaryDirectory(prefix="enginery-") as folder,
    ):
        traced = torch.jit.trace(called.flat(), tensors, check_trace=False)
        lines = [line for w in warned if _by_tracer(w) and (line := line_of_file(w.filename, w.lineno))]
        _check_trace(called, traced, plan, lines)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
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
    if plan.axes:
        name_outputs(graph, plan.axes, plan.checks[0], plan.checks[-1] if len(plan.checks) == 1 else plan.checks[1])
    if not called.scripted:
        plan.notes.append(
            "exported by tracing one call: branches that depend on values are fixed as that call took them"
        )
        plan.notes.extend(dict.fromkeys(str(w.message).partition("\n")[0] for w in warned if _by_tracer(w)))
    return graph


def finish(graph: ir.Model, plan: ExportPlan, evaluate: Evaluate | None) -> None:
    """Put the names of what an exporter wrote in order, and check it.

    Raises:
        ExportError: it is not what the module computes, or an axis became a constant; with the user's line, if found.
    """
    from onnx_ir.passes.common import CheckerPass

    found = graph.opset_imports.get("")
    if found != plan.opset:
        raise ExportError(f"it wrote opset {found}, {plan.opset} was asked for")
    plan.notes.extend(check_dynamic(graph, plan.axes))
    for feeds, expected in plan.checks:
        check_sizes(graph, expected, show_shapes(feeds), lambda name, axis: baked_line(graph, name, axis))
    strip_wrapper(graph)
    drop_stacks(graph)
    rename_clashes(graph)
    graph.graph.name = plan.title
    with quiet(*_NOISY):
        CheckerPass()(graph)
    if evaluate is None:
        return
    for feeds, expected in plan.checks:
        check_agreement(expected, evaluate(graph, feeds), f"its graph, at {show_shapes(feeds)},")


def mend_of(failures: Sequence[Exception]) -> str:
    """Say what to do where every exporter failed."""
    known = (mend for place, mend in _MENDS.items() if any(passed_through(error, place) for error in failures))
    return next(known, _CHANGE_LINES)


def _check_trace(called: CalledByName, traced: Any, plan: ExportPlan, lines: list[str]) -> None:
    """Compare the trace with the module at sizes that it was not traced with."""
    blamed = f" (a size became a constant at {lines[0]})" if lines else ""
    for feeds, expected in plan.checks[1:]:
        at = show_shapes(feeds)
        try:
            found = [called.numpy(value) for value in traced(*called.tensors(feeds))]
        except RuntimeError as error:
            raise ExportError(f"its trace cannot take {at}: {explain(error)}{blamed}") from error
        try:
            check_agreement(expected, dict(zip(expected, found, strict=True)), f"its trace, at {at},")
        except ExportError as error:
            raise ExportError(f"{error.message}{blamed}") from error


def _check_opset(plan: ExportPlan) -> None:
    if plan.opset < _LOWEST_DYNAMO_OPSET:
        raise ExportError(f"it writes opset {_LOWEST_DYNAMO_OPSET} at the least, {plan.opset} was asked for")


def _by_tracer(warning: Any) -> bool:
    return bool(warning.category.__name__ == "TracerWarning")


def _graph(program: Any) -> ir.Model:
    graph: ir.Model = program.model
    return graph


def _rename_symbols(graph: ir.Model, symbols: Mapping[str, str]) -> None:
    """Call symbols otherwise in every shape, also where one stands in an expression such as ``4*s27``."""
    import re

    import onnx_ir as ir

    if not symbols:
        return
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, symbols)) + r")\b")

    def renamed(dim: int | ir.SymbolicDim) -> int | str:
        return dim if isinstance(dim, int) else pattern.sub(lambda match: symbols[match[1]], str(dim.value or ""))

    for value in (*graph.graph.inputs, *(value for node in graph.graph.all_nodes() for value in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([renamed(dim) for dim in value.shape])
