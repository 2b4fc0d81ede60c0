"""How far a converted graph comes: converted, valid, loaded, run, and close to float32."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

__all__ = ["LEVEL", "STAGES", "TOLERANCE", "Original", "Verdict", "judge", "original", "run_plain", "worst_distance"]

STAGES = ("converted", "valid", "loads", "runs", "close")
"""What is asked of a converted graph; where not even the original runs, being valid is all that can be."""

TOLERANCE = {"fp16": 1e-2, "bf16": 8e-2}
"""The largest relative L2 of an output: about twenty times the rounding of the type."""

ORT = "onnxruntime"
LEVEL = "TORTURE_LEVEL"
"""The environment's name for another level of optimisation, where ONNX Runtime dies at its own."""

_NO_KERNEL = "NOT_IMPLEMENTED"
_LONGEST = 300


@dataclass(frozen=True)
class Original:
    """A graph in float32, and what comes out of it.

    Args:
        outputs: None where nothing here can run it.
        runner: what ran it: ``onnxruntime``, or ``reference`` for ONNX's evaluator.
        why: nothing can.
        rounded: by precision, the outputs for inputs that were rounded to that type.
        random: whether a second run gives other outputs.
    """

    outputs: Sequence[Any] | None
    runner: str = ""
    why: str = ""
    rounded: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    random: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of one graph in one converter's hands.

    Args:
        passed: the stages that it passed.
        reason: why it did not pass the others.
        error: the largest relative L2 of an output.
        told: what the converter said.
        ran: what gave its outputs: ``emulated`` where every narrow tensor was rounded, ``onnxruntime`` or ``reference``
            where it could be run as it is alone, ``nowhere`` where nothing runs the original.
    """

    passed: tuple[str, ...] = ()
    reason: str = ""
    error: float | None = None
    told: tuple[str, ...] = field(default=())
    ran: str = ""


def original(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Original:
    """Run a graph as it is; on ONNX's reference evaluator where ONNX Runtime cannot, optimised or not."""
    why = ""
    for runner in ("onnxruntime", "optimised", "reference"):
        try:
            session = (
                reference(model)
                if runner == "reference"
                else _session(model, level="all" if runner == "optimised" else "disable")
            )
            first, second = (session.run(None, _asked(session, feeds)) for _ in range(2))
            rounded = {name: session.run(None, _asked(session, _rounded(feeds, name))) for name in TOLERANCE}
        except Exception as error:  # noqa: BLE001 - the runtime's kinds are its own; the reason is kept
            why = why or short(error)
            continue
        return Original(
            first, "reference" if runner == "reference" else ORT, "", rounded, worst_distance(first, second) > 0
        )
    return Original(None, "", why)


def _rounded(feeds: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Round the inputs of float32 to a type; those beyond its range stay, which a cast shall tell."""
    import ml_dtypes  # noqa: PLC0415 - the parent needs none of it

    narrow = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[precision]
    largest = float(ml_dtypes.finfo(narrow).max)
    return {
        name: np.where(np.abs(value) <= largest, value.astype(narrow).astype(np.float32), value)
        if isinstance(value, np.ndarray) and value.dtype == np.float32
        else value
        for name, value in feeds.items()
    }


def judge(converted: onnx.ModelProto, feeds: Mapping[str, Any], right: Original, precision: str) -> Verdict:
    """See which stages a converted graph passes, each judged by itself as far as can be."""
    passed, reasons = ["converted"], []
    try:
        onnx.checker.check_model(converted, full_check=True)
        passed.append("valid")
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reasons.append(f"checker: {short(error)}")
    if right.outputs is None:
        rest = STAGES[2:] if "valid" in passed else ()
        return Verdict((*passed, *rest), "; ".join(reasons), ran="nowhere")
    ran = ""
    try:
        _load(converted, right.runner, precision)
        passed.append("loads")
        found, ran = _run_narrow(converted, feeds, right.runner)
        passed.append("runs")
    except Exception as error:  # noqa: BLE001 - the runtime's kinds are its own; the reason is kept
        return Verdict(tuple(passed), "; ".join([*reasons, f"runtime: {short(error)}"]))
    worst = (
        0.0
        if right.random
        else min(worst_distance(found, right.outputs), worst_distance(found, right.rounded[precision]))
    )
    if worst <= TOLERANCE[precision]:
        passed.append("close")
    else:
        reasons.append(f"off by {worst:.2g}")
    return Verdict(tuple(passed), "; ".join(reasons), worst, ran=ran)


def worst_distance(found: Sequence[Any], right: Sequence[Any]) -> float:
    """Return the largest distance of outputs."""
    return max((distance(one, other) for one, other in zip(found, right, strict=True)), default=0.0)


def run_plain(model: onnx.ModelProto, feeds: Mapping[str, Any], runner: str) -> Any:
    """Run a float32 graph without optimisation."""
    session = reference(model) if runner == "reference" else _session(model, level="disable")
    return session.run(None, _asked(session, feeds))


def _load(converted: onnx.ModelProto, runner: str, precision: str) -> None:
    """Open a converted graph as it is where its original ran.

    bfloat16 may have no kernels: ONNX Runtime looks for them after it has inferred all types and found them right.
    """
    if runner == "reference":
        reference(converted)
        return
    try:
        _session(converted)
    except Exception as error:
        if precision != "bf16" or _NO_KERNEL not in str(error):
            raise


def _run_narrow(converted: onnx.ModelProto, feeds: Mapping[str, Any], runner: str) -> tuple[Any, str]:
    """Run a converted graph with every narrow tensor rounded; as it is where it cannot be written so."""
    open_it = reference if runner == "reference" else _session
    try:
        session, ran = open_it(_emulated(converted)), "emulated"
    except Exception:  # noqa: BLE001 - a graph that is not valid has no other form; what it gives by itself counts
        session, ran = open_it(converted), runner
    return session.run(None, _asked(session, feeds)), ran


def reference(model: onnx.ModelProto) -> Any:
    """Open a graph on ONNX's own evaluator."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - few graphs need it

    return ReferenceEvaluator(model)


def _asked(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a session has; a constant that nothing read may have gone."""
    if hasattr(session, "input_names"):
        return {name: value for name, value in feeds.items() if name in session.input_names}
    return {one.name: feeds[one.name] for one in session.get_inputs() if one.name in feeds}


def distance(found: Any, right: Any) -> float:
    """Return the relative L2 of floats, the share of different elements of other types; infinite where lost.

    Example:
        >>> distance(np.array([1.0, np.inf]), np.array([1.0, 2.0]))
        inf
    """
    if isinstance(right, list):
        same = isinstance(found, list) and len(found) == len(right)
        return max((distance(*pair) for pair in zip(found, right, strict=True)), default=0.0) if same else np.inf
    if right is None or found is None:
        return 0.0 if right is found else np.inf
    found, right = np.asarray(found), np.asarray(right)
    if found.shape != right.shape or found.dtype != right.dtype:
        return np.inf
    quantised = right.dtype.name in ("int8", "uint8")
    if right.dtype.kind not in "fcV" and not quantised:
        return float(np.mean(found != right)) if right.size else 0.0
    return _relative(found.astype(np.float64), right.astype(np.float64))


def _relative(found: Any, right: Any) -> float:
    finite = np.isfinite(right)
    if not np.array_equal(found[~finite], right[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return np.inf
    difference = float(np.linalg.norm(found[finite] - right[finite]))
    return difference / max(float(np.linalg.norm(right[finite])), 1e-6) if difference else 0.0


def short(error: BaseException) -> str:
    """Return what an error says, in one line of limited length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]


def _emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that rounds where the given one is narrow, and computes in float32.

    Where a converter left nodes in any order, and types of before beside them, order and types follow from the graph.
    """
    import onnx_ir as ir  # noqa: PLC0415 - the parent needs none of it

    from benchmarks.converter_torture.emulate import emulate  # noqa: PLC0415

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        del graph.value_info[:]
    ordered = ir.from_proto(copy)
    ordered.graph.sort()
    return ir.to_proto(emulate(ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(ordered)))))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _session(model: onnx.ModelProto, *, level: str = "") -> Any:
    """Open a graph; at ONNX Runtime's own level of optimisation, unless told otherwise."""
    import onnxruntime  # noqa: PLC0415 - the parent needs none of it

    level = level or os.environ.get(LEVEL, "all")

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    word = "DISABLE_ALL" if level == "disable" else f"ENABLE_{level.upper()}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{word}")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
