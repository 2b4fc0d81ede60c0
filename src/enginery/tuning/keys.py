"""What a kept measurement depends on: where any of it is another, the measurement is made anew."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginery.backends.base import Design
from enginery.graph import base
from enginery.inputs.base import load_cases
from enginery.machine import describe_machine
from enginery.plain import to_plain
from enginery.spec import VerifySpec

__all__ = ["design_key", "hash_cases", "machine_key"]


def design_key(design: Design, quantised: Design | None, data: str, bounds: VerifySpec) -> dict[str, Any]:
    """Say what every outcome depends on: the graph, the data and the bounds.

    Args:
        design: the float graph.
        quantised: what was made of it; its hash holds the ranges, so the data and the method of its calibration.
        data: hash of the inputs.
        bounds: what the outputs are held to.
    """
    names = [node.name for node in base.all_nodes(base.load_model(design.path))]
    return {
        "source": design.source_sha256,
        "nodes": hashlib.sha256("\n".join(name or "" for name in names).encode()).hexdigest(),
        "quantised": quantised.graph_sha256 if quantised is not None else "",
        "data": data,
        "bounds": to_plain(bounds),
    }


def machine_key() -> Mapping[str, Any]:
    """Say what an engine's outputs and times depend on beside its backend: processor, GPUs and their driver."""
    here = describe_machine()
    return {
        "cpu": here.cpu,
        "cores": here.cores,
        "isa": here.isa,
        "gpus": here.gpus,
        "seen": os.environ.get("CUDA_VISIBLE_DEVICES", ""),  # of GPUs that differ it may show another one
        "driver": here.driver,
    }


def hash_cases(folder: Path) -> str:
    """Return a hash of the inputs in a folder, names and types included."""
    found = hashlib.sha256()
    for case in load_cases(folder):
        for name, array in case.feeds.items():
            found.update(f"{case.name} {name} {getattr(array, 'dtype', '')} {getattr(array, 'shape', '')} ".encode())
            found.update(array.tobytes() if hasattr(array, "tobytes") else repr(array).encode())
    return found.hexdigest()
