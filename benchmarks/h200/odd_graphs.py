"""Small graphs with something odd: outputs whose size depends on the data, an operator TensorRT lacks, an overflow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import parser

import enginery

__all__ = ["GRAPHS", "HANDLERS", "write_graph"]

GRAPHS: Mapping[str, str] = {
    "nonzero": """odd (float[batch, 64] x) => (int64[2, found] y) {
        zero = Constant<value_float = 0.0>() above = Relu(x) y = NonZero(above) }""",
    "nms": """odd (float[batch, 100, 4] boxes, float[batch, 3, 100] scores) => (int64[found, 3] y) {
        most = Constant<value_ints = [20]>() overlap = Constant<value_floats = [0.5]>()
        least = Constant<value_floats = [0.3]>() y = NonMaxSuppression(boxes, scores, most, overlap, least) }""",
    # Its kernel sorts all boxes of all classes, for which it wants memory of its own.
    "many_boxes": """odd (float[1, 20000, 4] boxes, float[1, 80, 20000] scores) => (int64[found, 3] y) {
        most = Constant<value_ints = [100]>() overlap = Constant<value_floats = [0.5]>()
        least = Constant<value_floats = [0.3]>() y = NonMaxSuppression(boxes, scores, most, overlap, least) }""",
    "partitioned": """odd (float[batch, 4, 8, 8] x) => (float[batch, 4, 8, 8] y)
        <float[4, 4, 1, 1] w = {WEIGHTS}> {
        a = Conv(x, w) b = Relu(a) d = Det(b) axes = Constant<value_ints = [2, 3]>() e = Unsqueeze(d, axes)
        f = Tanh(e) g = Mul(b, f) y = Conv(g, w) }""",
    # What two convolutions hand over has to be stored, and a stored half cannot hold it; one fused kernel would not
    # mind. They are large enough that no builder takes a float32 kernel for the faster one.
    "overflow": """odd (float[batch, 64, 56, 56] x) => (float[batch, 64, 56, 56] y)
        <float[64, 64, 3, 3] w = {THICK}> {
        a = Conv<pads = [1, 1, 1, 1]>(x, w) large = Constant<value_float = 6.0e4>() b = Mul(a, large)
        c = Conv<pads = [1, 1, 1, 1]>(b, w) small = Constant<value_float = 1.6e-5>() y = Mul(c, small) }""",
    "plugin": """odd (float[batch, 64] x) => (float[batch, 64] y) { y = vendor.MagicPlugin(x) }""",
    "plain": """odd (float[batch, 64] x) => (float[batch, 64] y) <float[64, 64] w = {SQUARE}> {
        a = MatMul(x, w) y = Relu(a) }""",
}
"""By name, in ONNX's text form."""

_SHAPES: Mapping[str, Mapping[str, str]] = {
    "nonzero": {"x": "1..4..8x64"},
    "nms": {"boxes": "1..2..4x100x4", "scores": "1..2..4x3x100"},
    "partitioned": {"x": "1..4..8x4x8x8"},
}


def write_graph(name: str, folder: Path) -> Path:
    """Write one of `GRAPHS` with random weights, and return its path."""
    generator = np.random.default_rng(0)
    text = GRAPHS[name]
    for word, size, scale in (
        ("{WEIGHTS}", 16, 0.5), ("{SQUARE}", 64 * 64, 0.125), ("{THICK}", 64 * 64 * 9, 0.042),
    ):  # fmt: skip
        if word in text:
            numbers = ", ".join(f"{value:.6f}" for value in generator.standard_normal(size) * scale)
            text = text.replace(word, f"{{{numbers}}}")
    path = folder / f"{name}.onnx"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "vendor": 1]> {text}')
    path.write_bytes(model.SerializeToString())
    return path


def dynamic_output(state: dict[str, Any], *, name: str, backend: str) -> dict[str, Any]:
    """Build a graph whose output's size depends on the data, and run it at two batches beside ONNX Runtime."""
    del state
    with tempfile.TemporaryDirectory(prefix="h200-") as folder:
        return _beside(Path(folder), name, backend, {}, _same)


def partition(state: dict[str, Any], *, backend: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Build a graph with one operator in the middle that TensorRT lacks, and run it beside ONNX Runtime."""
    del state
    with tempfile.TemporaryDirectory(prefix="h200-") as folder:
        return _beside(Path(folder), "partitioned", backend, options, _distance)


def _beside(
    folder: Path, name: str, backend: str, options: Mapping[str, Any], compare: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    graph = write_graph(name, folder)
    shapes = {key: enginery.Shape.parse(text) for key, text in _SHAPES[name].items()}
    engine = enginery.build(graph, folder / "ours.engine", backend=backend, shapes=shapes, options=dict(options))
    other = enginery.build(graph, folder / "other.engine", backend="onnxruntime", shapes=shapes)
    notes = engine.manifest.build.notes if engine.manifest.build else ()
    found: dict[str, Any] = {"precision_built": dict(engine.manifest.precision_built), "notes": list(notes)}
    results = []
    with engine.open() as session, other.open() as reference:
        found["placement"] = session.placement
        for which in ("min", "max"):
            feeds = _feeds({key: shape.at(which) for key, shape in shapes.items()})
            ours, right = session.run(feeds)["y"], reference.run(feeds)["y"]
            found[f"shape at {which}"] = list(ours.shape)
            results.append(compare(ours, right))
    return {**found, **_joined(results)}


def _joined(results: list[Any]) -> dict[str, Any]:
    if isinstance(results[0], bool):
        return {"right": all(results)}
    return {"error": max(results)}


def _feeds(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return random inputs; boxes have their corners in order."""
    generator = np.random.default_rng(1)
    feeds = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if "boxes" in feeds:
        low = generator.random((*shapes["boxes"][:-1], 2), np.float32)
        feeds["boxes"] = np.concatenate([low, low + 0.2], -1)
        feeds["scores"] = generator.random(shapes["scores"], np.float32)
    return feeds


def _same(ours: Any, right: Any) -> bool:
    """Whether both found the same rows; the order of rows is nobody's promise."""
    if ours.shape != right.shape:
        return False
    rows = (ours.T, right.T) if ours.shape[0] == 2 else (ours, right)
    one, other = (sorted(map(tuple, part.tolist())) for part in rows)
    return one == other


def _distance(ours: Any, right: Any) -> float:
    return float(np.linalg.norm(ours - right) / np.linalg.norm(right))


HANDLERS = {"dynamic_output": dynamic_output, "partition": partition}
