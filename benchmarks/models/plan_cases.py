"""The graphs and plans that `same_plan.py` compares: a CNN, a transformer encoder and a graph with an If."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from enginery import steps
from enginery.backends.precision import computes
from enginery.graph.base import all_nodes, load_model, make_plan, plan_to_json, quantisable, quantize, save_model
from enginery.spec import PrecisionPlan


@dataclass(frozen=True)
class Case:
    """One graph with one plan.

    Args:
        graphs: the graph by the form of INT8 that it is quantised in; one alone, under "", where nothing is.
        plan: what each node shall compute in.
    """

    name: str
    graphs: Mapping[str, ir.Model]
    plan: PrecisionPlan


def cases(*, large: bool = False) -> Iterator[Case]:
    """Yield the graphs with their plans.

    Args:
        large: whether they are so large that a GPU is quicker in fewer bits.
    """
    picture = (8, 3, 112, 112) if large else (2, 3, 16, 16)
    cnn = _exported(_cnn(8 if large else 1), picture)
    encoder = _exported(_encoder(512), (16, 128, 512)) if large else _exported(_encoder(64), (2, 8, 64))
    kept = {node.name: "fp32" for node in all_nodes(cnn) if node.op_type in ("Softmax", "GlobalAveragePool")}
    kept |= {next(node.name for node in all_nodes(cnn) if node.op_type == "Conv"): "fp32"}
    yield Case("cnn, fp16", {"": cnn}, PrecisionPlan("fp16", kept))
    normal = {node.name: "fp32" for node in all_nodes(encoder) if node.op_type in ("Softmax", "LayerNormalization")}
    yield Case("encoder, fp16", {"": encoder}, PrecisionPlan("fp16", normal))
    few = {node.name: "fp16" for node in all_nodes(encoder) if node.op_type == "MatMul"}
    yield Case("encoder, fp32 with fp16 products", {"": encoder}, PrecisionPlan("fp32", few))
    yield Case("if, fp16", {"": branches()}, PrecisionPlan("fp16", {"else_exp": "fp32", "head": "fp32"}))
    feeds = [
        {cnn.graph.inputs[0].name or "": np.random.default_rng(at).standard_normal(picture).astype(np.float32)}
        for at in range(8)
    ]
    nodes = quantisable(cnn, "symmetric8")  # those for which every library has a kernel
    forms = {form: quantize(cnn, feeds, nodes=nodes, form=form) for form in ("symmetric", "whole")}
    yield Case("cnn, int8", forms, make_plan(forms["symmetric"], "int8"))


def write_cases(written: Iterable[Case], folder: Path) -> list[str]:
    """Write each graph as TensorRT reads it, with its plan beside it.

    Returns:
        Their names; ``cases.json`` of the folder has what each computing node shall compute in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = {}
    for case in written:
        name, graph = case.name.replace(",", "").replace(" ", "-"), case.graphs.get("symmetric", case.graphs.get(""))
        save_model(graph, folder / f"{name}.onnx")
        (folder / f"{name}.json").write_text(plan_to_json(case.plan), encoding="utf-8")
        listed[name] = {node.name: case.plan.of(node.name) for node in all_nodes(graph) if computes(node.op_type)}
    (folder / "cases.json").write_text(json.dumps(listed), encoding="utf-8")
    return list(listed)


def _cnn(width: int) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 16 * width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16 * width, 16 * width, 3, padding=1, groups=16 * width), nn.Hardswish(),
        nn.Conv2d(16 * width, 32 * width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32 * width, 10), nn.Softmax(-1),
    )  # fmt: skip


def _encoder(width: int) -> Any:
    class Block(nn.Module):
        """Attention of one head and two dense layers, each with its normalisation."""

        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.join = (nn.Linear(width, width) for _ in range(4))
            self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.query(x) @ self.key(x).transpose(-1, -2) / width**0.5
            x = self.first(x + self.join(torch.softmax(scores, -1) @ self.value(x)))
            return self.second(x + self.narrow(nn.functional.gelu(self.wide(x))))

    return nn.Sequential(Block(), Block())


def _exported(module: Any, shape: tuple[int, ...]) -> ir.Model:
    """Return a module as a graph, simplified as for a build."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        torch.manual_seed(0)
        steps.export(module.eval(), path, example_inputs=(torch.randn(shape),), opset=17, simplify=True)
        return load_model(path)


def branches() -> ir.Model:
    """Return a graph with an If that captures a tensor and shares a weight."""
    return ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        branches (float[2, 4] x, bool flag) => (float[2, 4] y) <float[4, 4] w = {
            1, 2, 3, 4, 4, 3, 2, 1, 1, 3, 2, 4, 2, 4, 1, 3}, float k = {0.5}> {
            [first] a = MatMul(x, w)
            [scale] b = Mul(a, k)
            [choice] c = If (flag) <
                then_branch = yes () => (float[2, 4] d) { [then_product] e = MatMul(b, w) [then_tanh] d = Tanh(e) },
                else_branch = no () => (float[2, 4] f) { [else_exp] g = Exp(b) [else_sum] f = Add(g, x) }>
            [head] y = Softmax(c)
        }
    """)
