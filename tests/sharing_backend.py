"""A backend for tests that takes only some operators, and shares every graph with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from enginery import backends
from enginery.backends import onnxruntime
from enginery.backends.onnxruntime import diagnose, probe
from enginery.backends.partitioned import Side, build_partitioned, is_partitioned, open_partitioned
from enginery.errors import BuildError

__all__ = ["build", "capabilities", "diagnose", "open", "probe", "variants"]

UNSUPPORTED: set[str] = set()
"""Operators that it does not take, as it says before building."""

REFUSED: set[str] = set()
"""Operators at which its build fails, naming the node."""

BUILT: list[tuple[str, ...]] = []
"""The operators of each part that it built."""


def capabilities(machine, graph=None):
    """As ONNX Runtime's, and it takes narrower profiles."""
    return replace(onnxruntime.capabilities(machine, graph), profiles=True)


def variants(graph, machine):
    """It has no options of its own."""
    del graph, machine
    return ({},)


def build(graph, spec, folder: Path):
    """Build what it takes, and let ONNX Runtime build the rest."""
    main = Side("sharing", "Main", SimpleNamespace(build=_build_part, open=onnxruntime.open, diagnose=diagnose))
    rest = Side("onnxruntime", "ONNX Runtime", onnxruntime)
    return build_partitioned(
        graph, spec, folder, main=main, rest=rest, supported=lambda node: node.op_type not in UNSUPPORTED
    )


def open(folder: Path, manifest, options: Mapping):  # noqa: A001
    """Open the parts; its own are ONNX Runtime's too."""
    if not is_partitioned(folder):
        return onnxruntime.open(folder, manifest, options)
    return open_partitioned(
        folder, manifest, options, lambda name: onnxruntime if name == "sharing" else backends.get(name)
    )


def _build_part(graph, spec, folder: Path):
    for node in graph.graph:
        assert node.op_type not in UNSUPPORTED
        if node.op_type in REFUSED:
            raise BuildError(f"no kernel for node '{node.name}' ({node.op_type})")
    BUILT.append((tuple(node.op_type for node in graph.graph), dict(spec.shapes), spec))
    return onnxruntime.build(graph, spec.__class__(precision="fp32"), folder)
