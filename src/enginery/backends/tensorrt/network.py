"""A network that a user built with TensorRT's own API: its inputs and outputs, named, sized and typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enginery.backends.base import Built, Definition
    from enginery.backends.tensorrt.versions import Api
    from enginery.spec import BuildSpec

__all__ = ["build_network"]


def build_network(api: Api, definition: Definition, spec: BuildSpec, folder: Path) -> Built:
    """Let a user's function fill an empty network, and build it."""
    raise NotImplementedError
