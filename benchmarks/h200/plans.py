"""One plan on TensorRT: graphs with a plan each, built, and read back from the layers of the engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import enginery
from enginery.graph.base import all_nodes, load_model
from enginery.records import LayerRecord
from enginery.storage import read_layers

__all__ = ["HANDLERS", "read_back", "simplify"]

_BITS = {"fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8}
_UNTOLD = "not told"


def follow_plans(state: dict[str, Any], *, folder: str, backend: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Build every graph of a folder by its plan, and say which nodes compute in what; `cases.json` lists them.

    Returns:
        By case, what `read_back` tells or the error; and how many nodes differ from their plans in all.
    """
    del state
    found = {}
    for name, planned in json.loads((Path(folder) / "cases.json").read_text(encoding="utf-8")).items():
        graph = Path(folder) / f"{name}.onnx"
        try:
            engine = enginery.build(
                graph, Path(folder) / f"{name}.engine", backend=backend, plan=graph.with_suffix(".json"),
                options=dict(options), in_process=True,
            )  # fmt: skip
        except enginery.EngineryError as error:
            found[name] = {"error": f"{type(error).__name__}: {error}", "mend": error.mend}
            continue
        notes = list(engine.manifest.build.notes) if engine.manifest.build else []
        found[name] = {**read_back(planned, read_layers(engine.folder)), "notes": notes}
    differing = sum(len(one["differing"]) if "error" not in one else 1 for one in found.values())
    return {"cases": found, "differing": differing}


def simplify(graph: Path, simplified: Path, shapes: Mapping[str, enginery.Shape] | None = None) -> dict[str, str]:
    """Write a graph as a build simplifies it, for a plan to name its nodes; returns each one's operator by name."""
    enginery.export(graph, simplified, shapes=shapes, simplify=True)
    return {node.name or "": node.op_type for node in all_nodes(load_model(simplified))}


def read_back(planned: Mapping[str, str], layers: Sequence[LayerRecord]) -> dict[str, Any]:
    """Hold a plan against an engine's layers.

    Args:
        planned: what each computing node shall compute in.
        layers: of the engine.

    Returns:
        How many nodes compute in what; those that differ from the plan; those that differ and were made one with a
        node whose precision the layer has; those inside a layer of several whose precision nothing tells.

    Example:
        >>> layer = LayerRecord("conv + act", "Conv", "fp16", nodes=("conv", "act"))
        >>> read_back({"conv": "fp16", "act": "fp32"}, [layer])["by_fusion"]
        {'act': 'fp32, with conv in fp16'}
    """
    told: dict[str, tuple[str, Sequence[str]]] = {}
    for layer in layers:
        for node in layer.nodes:
            if node not in planned:
                continue
            before = told.get(node, ("", ()))[0]
            if _BITS.get(layer.precision, 64) <= _BITS.get(before, 64):
                told[node] = (layer.precision or _UNTOLD, layer.nodes)
    differing, by_fusion, untold = {}, {}, []
    for node, word in planned.items():
        built, beside = told.get(node, ("no layer", ()))
        same = [other for other in beside if planned.get(other) == built]
        if built == _UNTOLD:  # inside a region that is compiled as a whole
            untold.append(node)
        elif same and built != word:
            by_fusion[node] = f"{word}, with {same[0]} in {built}"
        elif built != word:
            differing[node] = f"{word}, built {built}"
    return {
        "planned": dict(Counter(planned.values())), "built": dict(Counter(word for word, _ in told.values())),
        "differing": differing, "by_fusion": by_fusion, "untold": untold,
    }  # fmt: skip


HANDLERS = {"follow_plans": follow_plans}
