"""What an engine is made of: each layer's kind, types and formats, and the ONNX nodes it came from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.versions import Api
    from enginery.records import LayerRecord

__all__ = ["count", "read_layers", "read_network_layers"]


def read_layers(api: Api, engine: Any, graph: ir.Model) -> tuple[LayerRecord, ...]:
    """Read the layers of a built engine; it must have been built with detailed profiling verbosity."""
    raise NotImplementedError


def read_network_layers(api: Api, network: Any, graph: ir.Model) -> tuple[LayerRecord, ...]:
    """Read the layers of a typed network before it is built, where the engine cannot be opened here."""
    raise NotImplementedError


def count(layers: Iterable[LayerRecord]) -> dict[str, int]:
    """Count the layers that compute in each precision, such as ``{"fp16": 50, "fp32": 3}``."""
    raise NotImplementedError
