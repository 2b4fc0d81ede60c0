"""What a session's `run` adds to calling the library directly, on a model so small that nothing else is left.

    python benchmarks/session_overhead.py

Both sides run in one process on the same arrays and take turns, A B A B; the figure is the median of the differences
of neighbours, so that drift hits both alike. The direct side is what each library's documentation shows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from enginery.backends import engine
from enginery.spec import BuildSpec, parse_shapes

LIMIT_US = 15.0
Call = Callable[[], Any]


def model(inputs: int) -> ir.Model:
    """Return a model that adds up `inputs` inputs of dynamic batch."""
    names = [f"x{at}" for at in range(inputs)]
    given = ", ".join(f"float[batch, 4] {name}" for name in names)
    body = f"s = Sum({', '.join(names)}) y = Abs(s)"
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> tiny ({given}) => (float[batch, 4] y) {{ {body} }}'
    )


def open_onnxruntime(folder: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> Call:
    """Return a direct call of ONNX Runtime with the engine's own options."""
    import onnxruntime as ort  # noqa: PLC0415 - after Enginery, which sets it up

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def open_openvino(folder: Path, feeds: dict[str, np.ndarray[Any, Any]]) -> Call:
    """Return a direct call of OpenVINO with the engine's own options."""
    import openvino as ov  # noqa: PLC0415 - after Enginery, which keeps it from reporting its import

    core = ov.Core()
    asked = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(folder / "model.xml"), "CPU", asked)
    return lambda: compiled(feeds)


DIRECT = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def paired_us(direct: Call, ours: Call, pairs: int) -> tuple[list[float], list[float]]:
    """Return the times of both calls in microseconds, taken in turns."""
    for _ in range(200):
        direct(), ours()
    first, second = [], []
    for _ in range(pairs):
        begin = time.perf_counter_ns()
        direct()
        middle = time.perf_counter_ns()
        ours()
        end = time.perf_counter_ns()
        first.append((middle - begin) / 1e3)
        second.append((end - middle) / 1e3)
    return first, second


def measure(backend: str, inputs: int, pairs: int) -> dict[str, Any]:
    """Return the medians of both sides and of their difference for one backend."""
    feeds = {f"x{at}": np.ones((2, 4), np.float32) for at in range(inputs)}
    shapes = parse_shapes([f"{name}=1..2..8x4" for name in feeds])
    with tempfile.TemporaryDirectory() as folder:
        spec = BuildSpec(shapes=shapes, options={"threads": 1})
        built = engine.build(model(inputs), spec, Path(folder) / "tiny.engine", backend=backend)
        with built.open() as session:
            direct = DIRECT[backend](built.folder, feeds)
            first, second = paired_us(direct, lambda: session.run(feeds), pairs)
    differences = [b - a for a, b in zip(first, second, strict=True)]
    return {
        "backend": backend,
        "inputs": inputs,
        "direct_us": round(statistics.median(first), 2),
        "session_us": round(statistics.median(second), 2),
        "added_us": round(statistics.median(differences), 2),
    }


def main() -> int:
    """Print a table; leaves with 1 where a session adds more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    asked = parser.parse_args()
    print(f"{'backend':12} {'inputs':>6} {'direct us':>10} {'session us':>11} {'added us':>9}")
    rows = [measure(backend, inputs, asked.pairs) for backend in DIRECT for inputs in (1, 3)]
    for row in rows:
        print("{backend:12} {inputs:6d} {direct_us:10.2f} {session_us:11.2f} {added_us:9.2f}".format_map(row))
    if asked.output:
        asked.output.write_text(json.dumps({"limit_us": LIMIT_US, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return int(any(row["added_us"] > LIMIT_US for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
