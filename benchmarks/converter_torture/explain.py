"""Why a converted graph is off: the type's own rounding, or values beyond its range, found in the float32 graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from benchmarks.converter_torture.emulate import round_all
from benchmarks.converter_torture.judge import Original, Verdict, judge, run_plain, worst_distance

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["kept_by_range", "planned_verdict", "rounding_error"]

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


def kept_by_range(graph: ir.Model, feeds: Mapping[str, Any], runner: str, largest: float) -> dict[str, str]:
    """Return the nodes of a graph that make or read values beyond half a type's range, each with the reason."""
    import onnx_ir as ir  # noqa: PLC0415 - for few graphs

    watching = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(graph)))
    values = [value for node in watching.graph for value in node.outputs if _is_float32(value)]
    names = [value.name for value in values]
    watching.graph.outputs.clear()
    watching.graph.outputs.extend(values)
    arrays = run_plain(ir.to_proto(watching), feeds, runner)
    sizes = {
        name: float(np.abs(array[np.isfinite(array)]).max(initial=0)) for name, array in zip(names, arrays, strict=True)
    }
    high = {name: size for name, size in sizes.items() if size > largest / 2}
    kept = {}
    for node in graph.graph:
        if found := [value.name for value in (*node.inputs, *node.outputs) if value is not None and value.name in high]:
            kept[node.name or ""] = f"{found[0]!r} reaches {high[found[0]]:.2g}"
    return kept


def planned_verdict(
    model: onnx.ModelProto, feeds: Mapping[str, Any], right: Original, precision: str
) -> tuple[Verdict, str]:
    """Cast again with what reaches beyond the range kept in float32; say what was kept and why."""
    import ml_dtypes  # noqa: PLC0415 - for few graphs
    import onnx_ir as ir  # noqa: PLC0415

    from enginery.graph.base import all_nodes, apply_plan, normalise  # noqa: PLC0415
    from enginery.spec import PrecisionPlan  # noqa: PLC0415

    graph = ir.from_proto(model)
    normalise(graph)
    largest = float(ml_dtypes.finfo({"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[precision]).max)
    kept = kept_by_range(graph, feeds, right.runner, largest)
    cast = apply_plan(graph, PrecisionPlan(precision, dict.fromkeys(kept, "fp32"), kept))
    verdict = judge(ir.to_proto(cast), feeds, right, precision)
    count = sum(1 for _ in all_nodes(graph))
    why = f", such as {next(iter(kept))!r}: {next(iter(kept.values()))}" if kept else ""
    return verdict, f"{len(kept)} of {count} nodes kept in fp32{why}"


def _is_float32(value: ir.Value) -> bool:
    import onnx_ir as ir  # noqa: PLC0415

    return isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.FLOAT
