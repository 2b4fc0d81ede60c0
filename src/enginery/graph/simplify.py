"""Simplify a graph by a tuple of passes, and check it; a pass that breaks or crashes the graph is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.errors import OutputError
from enginery.graph.agree import difference, is_quantised
from enginery.graph.base import all_nodes, constants, tensor_infos
from enginery.graph.checks import checker_problem
from enginery.graph.modules import inherit_modules
from enginery.graph.passes.base import Pass, is_random
from enginery.graph.passes.drop_dropout import DropDropout
from enginery.graph.passes.drop_neutral_operands import DropNeutralOperands
from enginery.graph.passes.drop_no_ops import DropNoOps
from enginery.graph.passes.eliminate_identities import EliminateIdentities
from enginery.graph.passes.fold_batch_norm import FoldBatchNorm
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.inline_functions import InlineFunctions
from enginery.graph.passes.lift_constants import LiftConstants
from enginery.graph.passes.merge_duplicates import MergeEqualInitializers, MergeEqualNodes
from enginery.graph.passes.plain_shapes import PlainShapes
from enginery.graph.passes.remove_unused import RemoveUnused
from enginery.graph.passes.sort_nodes import SortNodes
from enginery.graph.passes.straighten_attention import StraightenAttention
from enginery.graph.weights import drop_pages
from enginery.records import PassRecord, SimplifyRecord

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PASSES", "Evaluate", "simplify"]

Outputs: TypeAlias = list[dict[str, np.ndarray[Any, Any]]]
Evaluate: TypeAlias = "Callable[[ir.Model], Outputs]"
"""Runs a graph on one or more fixed inputs and returns the outputs of each by name."""

PASSES: tuple[Pass, ...] = (
    InlineFunctions(),
    SortNodes(),
    EliminateIdentities(),
    FoldConstants(),
    DropNeutralOperands(),
    StraightenAttention(),
    PlainShapes(),
    LiftConstants(),
    DropDropout(),
    DropNoOps(),
    FoldBatchNorm(),
    MergeEqualInitializers(),
    MergeEqualNodes(),
    RemoveUnused(),
)
"""What `simplify` does, in this order."""


def simplify(
    model: ir.Model,
    *,
    evaluate: Evaluate | None,
    say: Callable[[str], None],
    passes: Sequence[Pass] = PASSES,
) -> tuple[ir.Model, SimplifyRecord]:
    """Return a simpler graph that computes the same, and what each pass did.

    After each pass that changed something, the inputs and outputs must have kept names, order, types and dimensions,
    and ONNX's checker must pass where it passed before. In the end, the outputs must still agree with the original's
    (`enginery.graph.agree`); where they do not, all is done again with the outputs compared after each pass, which
    finds the guilty one. A pass that fails any of it, or raises, is dropped: its changes are thrown away, `say` tells
    so, and the next pass goes on from the graph before it.

    Args:
        model: the graph; it is not changed, and shares its weights with the result.
        evaluate: runs a graph on fixed inputs, ONNX Runtime for example; None for structural checks only.
        say: takes loud lines.
        passes: what to do.
    """
    begin = time.perf_counter()
    checks = _Checks.of(model, evaluate, say)
    current, records = _run_all(passes, model, checks.structure_problem)
    changed = any(one.status == "changed" for one in records)
    if changed and checks.outputs_problem(current):
        current, records = _run_all(passes, model, checks.problem)
    for one in records:
        if one.status == "dropped":
            say(f"simplify: dropped the pass {one.name!r}: {one.reason}")
    record = SimplifyRecord(
        nodes_before=_count(model),
        nodes_after=_count(current),
        passes=records,
        checked_by=checks.described,
        seconds=time.perf_counter() - begin,
    )
    return current, record


def _run_all(
    passes: Sequence[Pass], model: ir.Model, problem: Callable[[ir.Model], str]
) -> tuple[ir.Model, tuple[PassRecord, ...]]:
    """Run every pass on what the one before it left; `problem` says what a pass broke, or nothing."""
    current, records = model.clone(), []
    for one in passes:
        current, done = _run(one, current, problem)
        records.append(done)
    return current, tuple(records)


def _run(one: Pass, model: ir.Model, problem: Callable[[ir.Model], str]) -> tuple[ir.Model, PassRecord]:
    """Run one pass on a copy; return the copy where it is good, else the model as it was."""
    begin, before = time.perf_counter(), _count(model)
    copy, status = model, "unchanged"
    try:
        if one.requires(model):
            copy = model.clone()
            changed = one.apply(copy)
            if changed:
                inherit_modules(model, copy)
            reason = one.ensures(copy) or (problem(copy) if changed else "")
            status = "dropped" if reason else "changed" if changed else "unchanged"
        else:
            reason = ""
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a pass does, the graph before it is good
        status, reason = "dropped", f"it raised {type(error).__name__}: {error}"
    kept = copy if status == "changed" else model
    drop_pages(constants(model))
    ms = (time.perf_counter() - begin) * 1e3
    return kept, PassRecord(one.name, status, before, _count(kept), ms, reason)


@dataclass(frozen=True)
class _Checks:
    """What must stay as it was.

    Args:
        inputs, outputs: names, types and dimensions.
        valid: whether ONNX's checker takes the original.
        expected: the original's outputs; None where they cannot be compared.
        quantised: whether the original rounds to integers on the way.
    """

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    valid: bool
    evaluate: Evaluate | None
    expected: Outputs | None
    described: str
    quantised: bool

    @classmethod
    def of(cls, model: ir.Model, evaluate: Evaluate | None, say: Callable[[str], None]) -> _Checks:
        """Note what must stay, and say loudly what cannot be checked."""
        expected, why = _evaluated(model, evaluate)
        if why and evaluate is not None:
            say(f"simplify: outputs are not compared, only the structure is checked: {why}")
        valid = not checker_problem(model)
        parts = ["signature", *(["onnx.checker"] if valid else [])]
        if expected is not None:
            parts.append(f"outputs of {len(expected)} fixed input{'s' if len(expected) != 1 else ''}")
        described = ", ".join(parts) + (f" (outputs not compared: {why})" if why else "")
        inputs, outputs = tensor_infos(model.graph.inputs), tensor_infos(model.graph.outputs)
        return cls(inputs, outputs, valid, evaluate, expected, described, is_quantised(model))

    def problem(self, model: ir.Model) -> str:
        """Say what a pass broke; empty where all is as it was."""
        return self.structure_problem(model) or self.outputs_problem(model)

    def structure_problem(self, model: ir.Model) -> str:
        """Say what is wrong with inputs, outputs or nodes; nothing is run."""
        for kind, before, values in (
            ("inputs", self.inputs, model.graph.inputs),
            ("outputs", self.outputs, model.graph.outputs),
        ):
            after = tensor_infos(values)
            if after != before:
                return f"it changed the {kind}: {_shown(after, before)} instead of {_shown(before, after)}"
        if self.valid and (said := checker_problem(model)):
            return f"the graph is no longer valid: {said}"
        return ""

    def outputs_problem(self, model: ir.Model) -> str:
        """Say how the outputs differ from the original's, or that there are none; empty if nothing can be compared."""
        if self.evaluate is None or self.expected is None:
            return ""
        try:
            found = self.evaluate(model)
        except OutputError:  # a full disk says nothing about the graph
            raise
        except Exception as error:  # noqa: BLE001 - the runtime's kinds are its own
            return f"the graph no longer runs: {error}"
        return difference(self.expected, found, quantised=self.quantised)


def _evaluated(model: ir.Model, evaluate: Evaluate | None) -> tuple[Outputs | None, str]:
    """Run the original; return its outputs, or why there are none to compare with."""
    if evaluate is None:
        return None, "nothing to run the graph with was given"
    if any(is_random(node) for node in all_nodes(model)):
        return None, "the graph draws random numbers"
    try:
        return evaluate(model), ""
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001 - the runtime's kinds are its own
        return None, f"the graph does not run: {error}"


def _shown(these: tuple[Any, ...], others: tuple[Any, ...]) -> str:
    """Show only those tensors that differ."""
    shown = [f"{info.name} {info.dtype}{list(info.shape or ())}" for info in these if info not in others]
    return ", ".join(shown) or "another order"


def _count(model: ir.Model) -> int:
    return sum(1 for _ in all_nodes(model))
