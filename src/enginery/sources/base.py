"""The contract between Enginery and a source: what a trained model answers, whatever framework it lives in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from enginery.benchmark.base import Timer
from enginery.records import ExportRecord
from enginery.spec import Shape

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from enginery.backends.base import Design

__all__ = ["Array", "Evaluate", "Exported", "HandBuilt", "Source"]

Array = np.ndarray[Any, Any]

Evaluate = Callable[["ir.Model", Mapping[str, Array]], dict[str, Array]]
"""Runs a graph on some inputs; the caller of `Source.export` supplies it, since a source knows no backend."""


@dataclass(frozen=True)
class Exported:
    """A source as a graph, and how it became one.

    Args:
        graph: the caller's to change.
        record: what made it, in which versions, and what was tried before.
        original: the graph before its opset was converted, where it was: the caller sees that both compute the same.
    """

    graph: ir.Model
    record: ExportRecord
    original: ir.Model | None = None


@runtime_checkable
class Source(Protocol):
    """A trained model as its framework has it. Opening one is cheap; exporting and running it may not be."""

    @property
    def kind(self) -> str:
        """Its name in `enginery.sources.SOURCES`."""
        ...

    @property
    def label(self) -> str:
        """What a table calls it, such as ``torch module ResNet`` or ``resnet50.onnx``."""
        ...

    @property
    def framework(self) -> str | None:
        """What `run` computes with, such as ``PyTorch 2.13.0 eager``; None where the graph is its own reference."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the file and its external data, or of the module's parameters and buffers."""
        ...

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Turn it into a graph; the source itself is left as it was.

        Args:
            shapes: the profile of each input by name; only ranged dimensions become dynamic.
            opset: version of ONNX's operator set; None for the exporter's or the file's own.
            evaluate: with it, an exporter whose graph disagrees with the source, at the sizes it was traced with or at
                others, is dropped for the next one.

        Raises:
            ExportError: no exporter gave a right graph; the message lists every attempt.
            UnknownNameError: `shapes` names no input.
        """
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs in the source's own framework, under the names that the exported graph has.

        The arrays returned are the caller's.

        Raises:
            InputNameError: an input is missing or unknown.
            SourceError: the model itself fails on these inputs.
        """
        ...

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Return what times its calls, each until its end; the inputs are converted beforehand.

        The clock runs where the framework does, so that no process boundary is counted.
        """
        ...

    def close(self) -> None:
        """Give up what it holds, such as its framework's process; a second call does nothing."""
        ...

    def example_feeds(self) -> dict[str, Array] | None:
        """Return the real example inputs that came with the source; None where only shapes were given, or nothing."""
        ...


@runtime_checkable
class HandBuilt(Protocol):
    """What a source answers besides that has no graph: it is built by one backend, and compared with another source."""

    @property
    def backend(self) -> str:
        """Name of the one backend that builds it."""
        ...

    def design(self, folder: Path, *, in_process: bool) -> Design:
        """Return what a build takes: files in the new `folder`, or what is in memory for a build in this process.

        Raises:
            UsageError: another process could not import its code.
        """
        ...

    def reference(self) -> Source:
        """Return the source it is compared with, which is closed with this one.

        Raises:
            UsageError: it has none.
        """
        ...
