"""Why a converted graph is off: the type's own rounding, or what a search finds must stay in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from benchmarks.converter_torture.emulate import round_all
from benchmarks.converter_torture.judge import TOLERANCE, Original, Verdict, judge, run_plain, worst_distance

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.tuning.search import Found

__all__ = ["planned_verdict", "rounding_error"]

_AS_GOOD = 2.0
"""A converted graph may be so many times as far off as plain rounding: what is rounded once more or less differs."""


def rounding_error(model: onnx.ModelProto, feeds: Mapping[str, Any], right: Original, precision: str) -> float:
    """Return how far the float32 graph is off when each of its tensors and weights is rounded, and nothing else done.

    No converter has a hand in it: what is not further off than `_AS_GOOD` times this has lost no more than the type
    costs.
    """
    import onnx_ir as ir  # noqa: PLC0415 - for few graphs

    dtype = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}[precision]
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    found = run_plain(ir.to_proto(round_all(inferred, dtype)), feeds, right.runner)
    return _AS_GOOD * worst_distance(found, right.outputs or [])


def planned_verdict(
    model: onnx.ModelProto, feeds: Mapping[str, Any], right: Original, precision: str
) -> tuple[Verdict, str]:
    """Cast again by the plan that Enginery's search finds for these inputs; say what it keeps in float32, and why.

    It is the search of `enginery optimize` with the tolerance as its bound, simulated only, for few backends here
    compute in either type.
    """
    import onnx_ir as ir  # noqa: PLC0415 - for few graphs

    from enginery.errors import EngineryError  # noqa: PLC0415
    from enginery.graph.base import all_nodes, apply_plan, normalise  # noqa: PLC0415

    graph = ir.from_proto(model)
    normalise(graph)
    try:
        found = _search(graph, feeds, right, precision)
    except EngineryError as error:
        return Verdict(reason=f"search: {error.message}"), "no plan"
    if found.plan is None:
        return Verdict(reason=found.steps[-1].reason), f"no plan in {len(found.steps)} steps"
    verdict = judge(ir.to_proto(apply_plan(graph, found.plan)), feeds, right, precision)
    count, kept = sum(1 for _ in all_nodes(graph)), found.plan.reasons
    why = f", such as {next(iter(kept))!r}: {next(iter(kept.values()))}" if kept else ""
    return verdict, f"{len(kept)} of {count} nodes kept in fp32{why}"


def _search(graph: ir.Model, feeds: Mapping[str, Any], right: Original, precision: str) -> Found:
    """Look for the plan that keeps as few nodes in float32 as the tolerance allows."""
    from enginery.graph import files  # noqa: PLC0415 - for few graphs
    from enginery.inputs.base import Case, save_cases  # noqa: PLC0415
    from enginery.progress import Progress  # noqa: PLC0415
    from enginery.spec import VerifySpec  # noqa: PLC0415
    from enginery.tuning.journal import Journal  # noqa: PLC0415
    from enginery.tuning.search import search_plan  # noqa: PLC0415
    from enginery.tuning.sensitivity import sensitivity  # noqa: PLC0415
    from enginery.tuning.simulation import Simulator  # noqa: PLC0415
    from enginery.tuning.trials import Pace, simulated  # noqa: PLC0415

    outputs = dict(zip([value.name or "" for value in graph.graph.outputs], right.outputs or [], strict=True))
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        files.save(graph, folder / "graph.onnx")
        save_cases([Case("opt", dict(feeds))], folder / "cases")
        save_cases([Case("opt", outputs)], folder / "expected")
        bound = VerifySpec(max_error=TOLERANCE[precision])
        with Simulator(
            folder / "graph.onnx", cases=folder / "cases", expected=folder / "expected", folder=folder, spec=bound
        ) as simulator:
            ranking = sensitivity(simulator, precision)
            trial = simulated(simulator, Journal(None), {}, Pace(Progress()), None)
            return search_plan(ranking, trial, None)
