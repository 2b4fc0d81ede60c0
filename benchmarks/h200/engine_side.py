"""The engines' side: builds, verifies and times with Enginery; in the interpreter that has TensorRT.

    python310 -m benchmarks.h200.engine_side

Every handler is asked for by its name over one line of JSON, and returns plain data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import enginery
from benchmarks.h200 import arenas, inspecting, mishaps, odd_graphs, plans, timing
from benchmarks.h200.answering import answer
from benchmarks.h200.jobs import ERRORS
from benchmarks.h200.pixels import take_bytes
from enginery.optional import version
from enginery.plain import to_plain
from enginery.spec import PrecisionPlan
from enginery.storage import read_manifest

State = dict[str, Any]
_LIBRARIES = (
    "tensorrt",
    "cuda-bindings",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "polygraphy",
    "torch",
)


def describe(state: State) -> dict[str, Any]:
    """Say what this interpreter and this machine are."""
    del state
    from enginery.machine import describe_machine  # noqa: PLC0415 - asked for once

    found = {name: known for name in _LIBRARIES if (known := version(name))}
    return {"machine": to_plain(describe_machine()), "libraries": found}


def build(
    state: State, *, graph: str, output: str, backend: str, precision: str, shapes: Mapping[str, str],
    options: Mapping[str, Any], in_process: bool = False, profiles: Sequence[Mapping[str, str]] = (),
    kept: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Build one engine as a user does, in a worker or here, some operators kept in float32; tells what was built."""
    del state
    source, plan = _keeping(Path(graph), Path(output), precision, shapes, kept) if kept else (Path(graph), None)
    begin = time.perf_counter()
    engine = enginery.build(
        source, Path(output), backend=backend, precision=precision, options=dict(options), in_process=in_process,
        shapes=_parsed(shapes), profiles=[_parsed(each) for each in profiles], plan=plan,
    )  # fmt: skip
    manifest = engine.manifest
    record = manifest.build
    return {
        "seconds": time.perf_counter() - begin, "build_s": record.seconds if record else None,
        "mib": sum(file.bytes for file in manifest.files.values()) / 2**20,
        "peak_mib": (record.peak_memory_bytes or 0) / 2**20 if record else None,
        "precision_built": dict(manifest.precision_built), "notes": list(record.notes if record else ()),
    }  # fmt: skip


def _keeping(
    graph: Path, output: Path, precision: str, shapes: Mapping[str, str], kept: Sequence[str]
) -> tuple[Path, PrecisionPlan]:
    """Return the simplified graph, in which every node has a name, and the plan that keeps some operators."""
    simplified = output.with_suffix(".onnx")
    nodes = plans.simplify(graph, simplified, _parsed(shapes))
    return simplified, PrecisionPlan(precision, {name: "fp32" for name, kind in nodes.items() if kind in kept})


def _parsed(shapes: Mapping[str, str]) -> dict[str, enginery.Shape]:
    return {name: enginery.Shape.parse(text) for name, text in shapes.items()}


def pixels(state: State, *, graph: str, output: str) -> None:
    """Write the graph that takes bytes."""
    del state
    take_bytes(Path(graph), Path(output))


def quantise(state: State, *, graph: str, output: str, cases: str, name: str) -> dict[str, Any]:
    """Quantise a graph by the inputs of a file of cases."""
    del state
    from enginery import steps  # noqa: PLC0415 - only where INT8 is asked for

    data = Path(output).with_suffix(".calibration.npz")
    with np.load(cases) as recorded:
        np.savez(data, **{name: recorded[f"in_{name}"]})
    begin = time.perf_counter()
    steps.quantize(Path(graph), Path(output), data=data, form="symmetric8")
    return {"seconds": time.perf_counter() - begin}


def verify(state: State, *, engine: str, cases: str, batches: list[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """Compare an engine with PyTorch's float64 outputs at each batch; the error is the worst relative L2."""
    del state
    begin = time.perf_counter()
    errors = {}
    with enginery.load(engine, options=dict(options)) as session:
        name = session.outputs[0].name
        for batch in batches:
            feeds, right = read_case(Path(cases) / f"{batch}.npz")
            errors[str(batch)] = distance(session.run(feeds)[name], right)
        placement = session.placement
    worst = max(errors.values()) if all(np.isfinite(list(errors.values()))) else float("inf")
    return {"error": worst, "errors": errors, "placement": placement, "verify_s": time.perf_counter() - begin}


def verify_bytes(state: State, *, engine: str, graph: str) -> dict[str, Any]:
    """Compare an engine that takes bytes with its own graph on ONNX Runtime, by `enginery.verify`."""
    del state
    spec = enginery.VerifySpec(max_error=ERRORS["fp16"], repeats=1, max_rows=1)
    record = enginery.verify(engine, Path(graph), spec=spec)
    return {"error": record.error, "passed": record.passed, "reason": record.reason}


def layers(state: State, *, engine: str) -> dict[str, Any]:
    """Count the layers of an engine by what they compute in, as its manifest has it."""
    del state
    manifest = read_manifest(Path(engine))
    return {"precision_built": dict(manifest.precision_built), "files": sorted(manifest.files)}


def read_case(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Read the inputs and the right output of one batch."""
    with np.load(path) as case:
        return {name[3:]: case[name] for name in case.files if name.startswith("in_")}, case["out"]


def distance(found: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Return the relative L2."""
    difference = found.astype(np.float64) - right
    return float(np.linalg.norm(difference) / np.linalg.norm(right.astype(np.float64)))


HANDLERS = {
    "describe": describe, "build": build, "quantise": quantise, "verify": verify, "verify_bytes": verify_bytes,
    "layers": layers, "pixels": pixels, **inspecting.HANDLERS, **timing.HANDLERS, **arenas.HANDLERS,
    **odd_graphs.HANDLERS, **mishaps.HANDLERS, **plans.HANDLERS,
}  # fmt: skip

if __name__ == "__main__":
    answer(HANDLERS)
