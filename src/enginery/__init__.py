"""Enginery: a trained model in, an inference engine that is fast, verified and explained out.

    >>> import enginery
    >>> result = enginery.optimize("resnet50.onnx", shapes={"input": "1..8..32x3x224x224"})  # doctest: +SKIP
    >>> with enginery.load(result.engine) as session:  # doctest: +SKIP
    ...     scores = session(images)

The public names below are loaded when they are first used, so that importing the package costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enginery.backends.base import Session as Session
    from enginery.errors import EngineryError as EngineryError
    from enginery.inputs.base import Range as Range
    from enginery.pipeline import OptimizeResult as OptimizeResult
    from enginery.pipeline import optimize as optimize
    from enginery.sources.network import network as network
    from enginery.spec import BenchSpec as BenchSpec
    from enginery.spec import Dim as Dim
    from enginery.spec import Example as Example
    from enginery.spec import OptimizeSpec as OptimizeSpec
    from enginery.spec import Shape as Shape
    from enginery.spec import VerifySpec as VerifySpec
    from enginery.steps import bench as bench
    from enginery.steps import build as build
    from enginery.steps import doctor as doctor
    from enginery.steps import export as export
    from enginery.steps import inspect as inspect
    from enginery.steps import load as load
    from enginery.steps import run as run
    from enginery.steps import verify as verify

__version__ = "0.1.0"

_HOMES = {
    "BenchSpec": "spec",
    "Dim": "spec",
    "EngineryError": "errors",
    "Example": "spec",
    "OptimizeResult": "pipeline",
    "OptimizeSpec": "spec",
    "Range": "inputs.base",
    "Session": "backends.base",
    "Shape": "spec",
    "VerifySpec": "spec",
    "bench": "steps",
    "build": "steps",
    "doctor": "steps",
    "export": "steps",
    "inspect": "steps",
    "load": "steps",
    "network": "sources.network",
    "optimize": "pipeline",
    "run": "steps",
    "verify": "steps",
}

__all__ = [  # noqa: RUF022 - the lazy names first
    "BenchSpec",
    "Dim",
    "EngineryError",
    "Example",
    "OptimizeResult",
    "OptimizeSpec",
    "Range",
    "Session",
    "Shape",
    "VerifySpec",
    "bench",
    "build",
    "doctor",
    "export",
    "inspect",
    "load",
    "network",
    "optimize",
    "run",
    "verify",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'enginery' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"enginery.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
