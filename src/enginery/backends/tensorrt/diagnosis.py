"""What TensorRT's error texts probably mean, and what to do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.versions import Library

__all__ = ["diagnose"]


def diagnose(error: Exception, graph: ir.Model | None, library: Library) -> str | None:
    """Say what TensorRT's text probably means and what to do; None where nothing is known of it."""
    raise NotImplementedError
