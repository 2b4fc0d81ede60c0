"""From a graph to ``model.plan``: parse, profiles, configuration, build, and what was really built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.base import Built
    from enginery.backends.tensorrt.versions import Api
    from enginery.spec import BuildSpec

__all__ = ["ARTEFACT", "LAYERS", "build_graph"]

ARTEFACT = "model.plan"
"""The engine, exactly as TensorRT serialises it."""

LAYERS = "layers.json"
"""A list of `enginery.records.LayerRecord`."""


def build_graph(api: Api, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Build `ARTEFACT` and `LAYERS` into the empty `folder`."""
    raise NotImplementedError
