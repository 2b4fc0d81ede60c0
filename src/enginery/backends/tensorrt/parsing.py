"""ONNX into a network, with every error of the parser told by node, operator and module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.log import BuildLog
    from enginery.backends.tensorrt.versions import Api

__all__ = ["parse_file", "unsupported_operators"]


def parse_file(api: Api, network: Any, path: Path, graph: ir.Model, log: BuildLog) -> tuple[str, ...]:
    """Parse the file of a graph into an empty network; returns notes for the user."""
    raise NotImplementedError


def unsupported_operators(api: Api, graph: ir.Model) -> tuple[str, ...]:
    """Return the operators of a graph that the parser does not know, by name alone."""
    raise NotImplementedError
