"""What TensorRT's inspector says of an engine, kept as it is, and counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.h200.timing import PLAN
from enginery.storage import read_manifest

__all__ = ["HANDLERS", "counted", "shortened"]

_MOST = 190_000
"""Characters of the inspector's text that are kept: layers at its end are left out, and it stays JSON."""
_BARE_NUMBER = re.compile(r"(?<=[:\[, ])-?(?:inf|nan)(?=[,\]} \n])")


def inspect(state: dict[str, Any], *, engine: str, output: str) -> dict[str, Any]:
    """Write what the inspector says of an engine, and count layers by precision, by edges, and by what they name."""
    del state
    text = _text(Path(engine) / PLAN)
    said = json.loads(_BARE_NUMBER.sub("null", text), strict=False)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(shortened(said), encoding="utf-8")
    precision = dict(read_manifest(Path(engine)).precision_built)
    return {"precision": precision, "characters": len(text), **counted(said)}


def counted(said: dict[str, Any]) -> dict[str, Any]:
    """Count what an inspector said.

    Example:
        >>> layer = {"Name": "{ForeignNode[a...b]}", "LayerType": "Myelin", "Inputs": [{"Format/Datatype": "Half"}]}
        >>> counted({"Layers": [layer, "a name alone"]})["foreign_edges"]
        {'Half': 1}
    """
    layers = said.get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    foreign = [layer for layer in detailed if "ForeignNode" in str(layer.get("Name"))]
    return {
        "keys": sorted(said), "layers": len(layers),
        "kinds": dict(Counter(str(layer.get("LayerType")) for layer in detailed)),
        "with_metadata": sum(bool(layer.get("Metadata")) for layer in detailed),
        "foreign_edges": dict(Counter(_edge(tensor) for layer in foreign for tensor in _edges(layer))),
        "tactics_by_type": dict(Counter(_types_named(layer) for layer in detailed)),
        "layer_keys": dict(Counter(key for layer in detailed for key in layer)),
    }  # fmt: skip


def _text(plan: Path) -> str:
    import tensorrt as trt  # noqa: PLC0415 - only where there is a GPU

    logger = trt.Logger(trt.Logger.ERROR)
    trt.init_libnvinfer_plugins(logger, "")
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def shortened(said: dict[str, Any]) -> str:
    """Return JSON of at most some length: layers at the end are left out, which it says."""
    layers = said.get("Layers", [])
    kept = len(layers)
    while True:
        text = json.dumps({**said, "Layers": layers[:kept], "left out": len(layers) - kept}, indent=0)
        if len(text) <= _MOST or not kept:
            return text
        kept = min(kept - 1, int(kept * _MOST / len(text)))


def _edges(layer: dict[str, Any]) -> list[Any]:
    return [*(layer.get("Inputs") or ()), *(layer.get("Outputs") or ())]


def _edge(tensor: Any) -> str:
    return str(tensor.get("Format/Datatype", tensor)) if isinstance(tensor, dict) else str(tensor)


def _types_named(layer: dict[str, Any]) -> str:
    """Return the first element type that the name of a layer's kernel has."""
    name = str(layer.get("TacticName", "")).lower()
    words = ("tf32", "f16f16_f16f16", "f16f16_f32", "i8i8", "f32f32", "half", "fp32")
    return next((word for word in words if word in name), "another name" if name else "no name")


HANDLERS = {"inspect": inspect}
