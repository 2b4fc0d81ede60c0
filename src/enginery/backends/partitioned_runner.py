"""Runs the parts of an engine in order; tensors go from one to the next by name."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enginery.dtypes import DTYPES, numpy_dtype
from enginery.records import PartRecord, TensorInfo

if TYPE_CHECKING:
    import numpy as np

    from enginery.backends.base import Runner

__all__ = ["OpenPart", "PartitionedRunner", "placement_of"]


@dataclass(frozen=True)
class OpenPart:
    """A part and what runs it."""

    record: PartRecord
    runner: Runner


def placement_of(parts: Iterable[PartRecord]) -> str:
    """Say what runs on what, such as ``TensorRT (118 nodes) + ONNX Runtime (2 nodes)``, the main backend first."""
    nodes: Counter[str] = Counter()
    for part in sorted(parts, key=lambda part: not part.main):
        nodes[part.label] += len(part.nodes)
    return " + ".join(f"{label} ({count} node{'s' if count != 1 else ''})" for label, count in nodes.items())


class PartitionedRunner:
    """Runs parts one after another, and lets go of each tensor after its last reader.

    Args:
        parts: in their order; closed with this.
        outputs: of the whole, with the element types that the caller expects.
    """

    def __init__(self, parts: tuple[OpenPart, ...], outputs: tuple[TensorInfo, ...]) -> None:
        self._parts = parts
        self._outputs = tuple((info.name, _dtype(info)) for info in outputs)
        self._steps = tuple(
            (part.runner.infer, tuple((info.name, _dtype(info)) for info in part.record.inputs)) for part in parts
        )
        self._done = _last_reads(parts, {info.name for info in outputs})
        self._labels = tuple(f"{number}: {placement_of([part.record])}" for number, part in enumerate(parts))
        self._nanoseconds = [0] * len(parts)
        self._calls = 0
        self.placement = placement_of(part.record for part in parts)

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run every part once. An output that an input is itself comes back as a copy."""
        values: dict[str, Any] = dict(feeds)
        begin = time.perf_counter_ns()
        for number, (run, inputs) in enumerate(self._steps):
            values.update(run({name: _as(values[name], dtype) for name, dtype in inputs}))
            for name in self._done[number]:
                del values[name]
            end = time.perf_counter_ns()
            self._nanoseconds[number] += end - begin
            begin = end
        self._calls += 1
        return {
            name: values[name].copy() if name in feeds else _as(values[name], dtype) for name, dtype in self._outputs
        }

    def timings(self) -> Mapping[str, float]:
        """Return the mean milliseconds of each part, its handing over included, since this was last asked."""
        calls = max(self._calls, 1)
        found = {label: time / 1e6 / calls for label, time in zip(self._labels, self._nanoseconds, strict=True)}
        self._nanoseconds = [0] * len(self._parts)
        self._calls = 0
        return found

    def close(self) -> None:
        """Close every part, the others too where one fails."""
        with contextlib.ExitStack() as closing:
            for part in self._parts:
                closing.callback(part.runner.close)


def _last_reads(parts: tuple[OpenPart, ...], kept: set[str]) -> tuple[tuple[str, ...], ...]:
    """Return for each part the tensors that nothing needs after it."""
    last: dict[str, int] = {}
    for number, part in enumerate(parts):
        for info in (*part.record.inputs, *part.record.outputs):
            last[info.name] = number
    return tuple(
        tuple(name for name, at in last.items() if at == number and name not in kept) for number in range(len(parts))
    )


def _dtype(info: TensorInfo) -> np.dtype[Any] | None:
    return numpy_dtype(info.dtype) if info.dtype in DTYPES and info.dtype != "string" else None


def _as(array: Any, dtype: np.dtype[Any] | None) -> Any:
    """Hand an array over: as it is, or in the element type that the reader takes, such as int32 for int64.

    The one place where an array of one backend becomes another's.
    """
    if dtype is None or array.dtype == dtype:
        return array
    return array.astype(dtype)
