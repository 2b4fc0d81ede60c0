"""Ranges of a graph's tensors over recorded inputs, batch by batch, so that no more than one batch is held."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery import optional
from enginery.errors import DataError, GraphError, UnknownNameError
from enginery.graph.base import Ranges, sizes_of
from enginery.graph.files import save_shared
from enginery.graph.infer import infer_shapes
from enginery.graph.precision.calibration_data import checked
from enginery.graph.precision.histogram import Histogram
from enginery.graph.precision.quantisable import nothing_to_quantise, read_tensors
from enginery.spec import CALIBRATION_METHODS

if TYPE_CHECKING:
    import onnx_ir as ir

    Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

__all__ = ["calibrate"]

_BUDGET_BYTES = 1 << 29
"""Of the tensors that one run of the graph hands out."""

_UNKNOWN_BYTES = 1 << 24
_WHY = "to see the ranges of a graph's tensors"


def calibrate(
    model: ir.Model,
    batches: Iterable[Feeds],
    *,
    method: str = "minmax",
    examples: Feeds | None = None,
    say: Callable[[str], None] | None = None,
) -> Ranges:
    """Return the ranges of what can be quantised; see `enginery.graph.base.calibrate`."""
    if method not in CALIBRATION_METHODS:
        raise UnknownNameError.from_choices("method of calibration", method, CALIBRATION_METHODS)
    copy = model.clone()
    infer_shapes(copy)
    names = [value.name or "" for value in read_tensors(copy)]
    if not names:
        raise nothing_to_quantise(copy)
    seen = {name: Histogram(counting=method != "minmax") for name in names}
    count = _watch(copy, checked(copy, batches, examples, say), seen)
    _check_seen(seen)
    if say is not None:
        say(f"calibrated {len(names)} tensors, by {method} over {count} batches")
    return Ranges(method, {name: one.range(method) for name, one in seen.items()}, count)


def _watch(model: ir.Model, batches: Iterable[Feeds], seen: Mapping[str, Histogram]) -> int:
    """Run every batch and let the histograms see each tensor; return how many batches there were."""
    inputs = [value.name or "" for value in model.graph.inputs]
    computed = [name for name in seen if name not in inputs]
    count = 0
    with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
        runs: list[tuple[Any, list[str]]] = []
        for feeds in batches:
            if not runs:
                runs = list(_sessions(model, _chunks(model, computed, feeds), Path(folder)))
            for name in inputs:
                if name in seen:
                    seen[name].add(np.asarray(feeds[name]))
            for session, names in runs:
                for name, array in zip(names, _run(session, names, feeds), strict=True):
                    seen[name].add(array)
            count += 1
    return count


def _run(session: Any, names: Sequence[str], feeds: Feeds) -> list[Any]:
    try:
        found: list[Any] = session.run(names, dict(feeds))
    except Exception as error:
        message = f"the graph does not run on the data to calibrate with: {error}"
        raise DataError(message, mend="check the data against the graph's inputs") from error
    return found


def _chunks(model: ir.Model, names: Sequence[str], feeds: Feeds) -> Iterator[list[str]]:
    """Cut the tensors into groups that fit into `_BUDGET_BYTES` at this batch's sizes."""
    shapes = {name: array.shape for name, array in feeds.items()}
    sizes = sizes_of(model, names, shapes) if names else {}
    group: list[str] = []
    held = 0
    for name in names:
        shape = sizes[name]
        size = _UNKNOWN_BYTES if shape is None else 4 * int(np.prod(shape, dtype=np.int64))
        if group and held + size > _BUDGET_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _sessions(model: ir.Model, chunks: Iterable[Sequence[str]], folder: Path) -> Iterator[tuple[Any, list[str]]]:
    """Open the graph once for each group of tensors that it shall hand out; weights stay in one file."""
    ort = optional.require("onnxruntime", extra="", why=_WHY)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; one of its warnings says that the graph has more outputs than a model has
    shared = model.clone()
    save_shared(shared, folder / "shared.onnx")  # and all that follow read their weights there
    for at, names in enumerate(chunks):
        path = folder / f"{at}.onnx"
        save_shared(_handing_out(shared, names), path)
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            mend = "check the graph with onnx.checker, or export it again"
            raise GraphError(f"ONNX Runtime cannot run the graph to calibrate it: {error}", mend=mend) from error
        yield session, list(names)


def _handing_out(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy with more outputs."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    there = {value.name for value in copy.graph.outputs}
    copy.graph.outputs.extend(values[name] for name in names if name not in there)
    return copy


def _check_seen(seen: Mapping[str, Histogram]) -> None:
    for name, one in seen.items():
        if not one.finite:
            mend = "look at how the data was recorded; or keep the node that makes it out, with exclude"
            raise DataError(f"on the data to calibrate with, {name!r} is not finite", mend=mend)
        if one.low > one.high:
            mend = "give data that reaches every part of the graph"
            raise DataError(f"on the data to calibrate with, {name!r} never holds a value", mend=mend)
