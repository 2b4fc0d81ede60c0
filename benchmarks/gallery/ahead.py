"""One entry built ahead of time, for GPUs that are not here: in fp32 and with fp16 types, for several at once.

Nothing can be run without a GPU, so what is shown is that the library takes the graph. The graph with fp16 types is
run on ONNX Runtime beside the one it was made from, which shows that the types are right.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import enginery
from benchmarks.gallery.attempt import Attempt
from enginery.backends.onnxruntime import open_graph
from enginery.graph import base, files
from enginery.inputs.generated import random_case
from enginery.storage import read_manifest

if TYPE_CHECKING:
    from benchmarks.gallery.entry import Entry

__all__ = ["BACKENDS", "CAPABILITIES", "Ahead", "typed_error"]

BACKENDS = ("tensorrt_rtx",)
"""Backends that build for machines other than the one they are on."""

CAPABILITIES = "8.6,8.9,12.0"
"""Ampere, Ada and Blackwell as they stand on desks: one engine for the three."""

PRECISIONS = ("fp32", "fp16")
_FAR = 0.1
"""A typed graph whose output is further off than this is wrong, not rounded: random weights let rounding grow."""


class Ahead(Attempt):
    """Made, exported, simplified and built twice; compared as far as can be without a GPU."""

    def __init__(self, entry: Entry, folder: Path, backend: str) -> None:
        super().__init__(entry, folder, backend)
        self.stages = (
            ("make", self._make), ("export", self._export), ("build fp32", lambda: self._build_in("fp32")),
            ("build fp16", lambda: self._build_in("fp16")), ("types", self._compare_types),
        )  # fmt: skip

    def _build_in(self, precision: str) -> None:
        begin = time.perf_counter()
        engine = self.folder / f"{precision}.engine"
        enginery.build(
            self._graph, engine, backend=self.result.backend, shapes=self._shapes, precision=precision, simplify=False,
            options={"compute_capabilities": CAPABILITIES}, in_process=True,  # the gallery's own, which may crash
        )  # fmt: skip
        built = read_manifest(engine).precision_built
        seconds = (self.result.build_s or 0.0) + time.perf_counter() - begin
        self._note(built=(*self.result.built, precision), build_s=seconds)
        if precision == "fp16" and not built.get("fp16"):
            self._fail(f"nothing in it is fp16: {dict(built)}")

    def _compare_types(self) -> None:
        found = typed_error(self._graph, self._shapes, self._ranges)
        self._note(error=found)
        if not found < _FAR:
            self._fail(f"the graph with fp16 types is off by {found:.1e} on ONNX Runtime")


def typed_error(graph: Path, shapes: Mapping[str, enginery.Shape], ranges: Mapping[str, enginery.Range]) -> float:
    """Return the largest relative L2 of a graph with fp16 types against itself in fp32, both on ONNX Runtime."""
    model = files.load(graph)
    typed = graph.with_name("typed.onnx")
    files.save(base.apply_plan(model, base.make_plan(model, "fp16")), typed)
    inputs = tuple(replace(info, profile=shapes[info.name]) for info in base.tensor_infos(model.graph.inputs))
    feeds = random_case(inputs, "opt", seed=1, ranges=ranges).feeds
    with open_graph(graph) as one, open_graph(typed) as other:
        right, found = one.run(feeds), other.run(feeds)
    return max(_distance(found[name], right[name]) for name in right)


def _distance(found: Any, right: Any) -> float:
    """Return the relative L2 of floats; whole numbers that stand for choices may fall to the other side of a tie."""
    if right.dtype.kind != "f" or found.shape != right.shape or not right.size:
        return 0.0
    difference = np.linalg.norm(found.astype(np.float64) - right)
    return float(difference / max(np.linalg.norm(right.astype(np.float64)), 1e-30))
