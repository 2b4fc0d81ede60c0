"""ONNX models: those that the ``onnx`` wheel brings for its tests, and some that are written out here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from benchmarks.gallery.entry import Made

__all__ = ["light", "nms_detector", "scan_recurrent", "text_lookup"]


def light(name: str) -> Callable[[Path], Made]:
    """Return a maker of a light model: whole architectures whose weights are one constant each."""

    def make(_: Path) -> Made:
        package = Path(onnx.__file__).parent
        return Made(package / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")

    return make


def nms_detector(folder: Path) -> Made:
    """Write a detector whose last operator is NonMaxSuppression: as many rows as boxes are kept."""
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]>
        detector (float[batch, 3, 64, 64] image) => (int64[kept, 3] chosen, float[kept, 4] boxes_kept)
        {
            x = Conv <strides = [4, 4], kernel_shape = [4, 4]> (image, stem)
            y = Relu (x)
            z = Conv <strides = [2, 2], kernel_shape = [2, 2]> (y, head)
            flat = Reshape (z, flat_shape)
            rows = Transpose <perm = [0, 2, 1]> (flat)
            corner, size, logits = Split <axis = 2> (rows, parts)
            low = Sigmoid (corner)
            reach = Sigmoid (size)
            high = Add (low, reach)
            boxes = Concat <axis = 2> (low, high)
            chances = Sigmoid (logits)
            scores = Transpose <perm = [0, 2, 1]> (chances)
            chosen = NonMaxSuppression (boxes, scores, most, overlap, least)
            pictures = Gather <axis = 1> (chosen, ends)
            boxes_kept = GatherND (boxes, pictures)
        }
    """)
    random = np.random.default_rng(0)
    return _written(model, folder, {
        "stem": random.standard_normal((16, 3, 4, 4)).astype(np.float32) / 7,
        "head": random.standard_normal((7, 16, 2, 2)).astype(np.float32) / 5,
        "flat_shape": np.array([0, 7, -1]), "parts": np.array([2, 2, 3]), "most": np.array([10]),
        "overlap": np.array([0.5], np.float32), "least": np.array([0.55], np.float32), "ends": np.array([0, 2]),
    })  # fmt: skip


def scan_recurrent(folder: Path) -> Made:
    """Write a recurrent network as a Scan, whose body is a subgraph that reads weights from outside."""
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]>
        recurrent (float[length, batch, 8] x, float[batch, 12] state)
        => (float[batch, 12] last, float[length, batch, 12] all)
        {
            last, all = Scan <num_scan_inputs = 1, body = step (float[batch, 12] h, float[batch, 8] v)
                              => (float[batch, 12] after, float[batch, 12] seen)
            {
                a = MatMul (v, inward)
                b = MatMul (h, onward)
                c = Add (a, b)
                after = Tanh (c)
                seen = Identity (after)
            }> (state, x)
        }
    """)
    random = np.random.default_rng(0)
    return _written(model, folder, {
        "inward": random.standard_normal((8, 12)).astype(np.float32) / 3,
        "onward": random.standard_normal((12, 12)).astype(np.float32) / 4,
    })  # fmt: skip


def text_lookup(folder: Path) -> Made:
    """Write a graph with an If: words are embedded, and a flag chooses between their mean and their largest."""
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 17]>
        chooser (int64[batch, length] ids, bool[1] largest) => (float[batch, 16] pooled)
        {
            words = Gather (table, ids)
            flag = Squeeze (largest)
            pooled = If (flag) <
                then_branch = most () => (float[batch, 16] top) { top = ReduceMax <axes = [1], keepdims = 0> (words) },
                else_branch = mean () => (float[batch, 16] mid) { mid = ReduceMean <axes = [1], keepdims = 0> (words) }
            >
        }
    """)
    table = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    return _written(model, folder, {"table": table})


def _written(model: onnx.ModelProto, folder: Path, weights: dict[str, np.ndarray[Any, Any]]) -> Made:
    """Give a model its weights, check it, and write it."""
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    path = folder / f"{model.graph.name}.onnx"
    path.write_bytes(model.SerializeToString())
    return Made(path)
