"""Queries measured as trtexec measures them: a warm-up, then many queries, each with its times on host and device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from enginery import backends, storage
from enginery.backends.tensorrt.queries import Measuring, Trace
from enginery.dtypes import numpy_dtype
from enginery.errors import BackendError, DataError, InputShapeError, UnknownNameError
from enginery.inputs.base import resolve_shapes
from enginery.records import ProfileRecord, TensorInfo, TrtexecRecord
from enginery.reports.trtexec_report import outputs_json, profile_json, times_json
from enginery.spec import Option, Shape, show_sizes
from enginery.trtexec_spec import TrtexecSpec

if TYPE_CHECKING:
    from enginery.backends.engine import Engine
    from enginery.progress import Progress

__all__ = ["Measured", "Outcome", "feeds_of", "measure", "read_raw", "session_options", "with_trace"]

_PROFILE_RUNS = 10
_MEASURE_STEP = "measure"


@dataclass(frozen=True)
class Outcome:
    """What was found, and what the last query computed where that was asked for."""

    record: TrtexecRecord
    outputs: Mapping[str, Any] = field(default_factory=dict)


def session_options(spec: TrtexecSpec) -> dict[str, Option]:
    """Return what a session is opened with; each stream that is measured makes a context of its own later.

    Example:
        >>> from enginery.trtexec_spec import TrtexecSpec
        >>> session_options(TrtexecSpec(spin=True, options={"device": 1, "refit": "yes"}))
        {'device': 1, 'cuda_graph': False, 'spin': True}
    """
    named = {"weight_budget_mib", "device", "plugins", "dla_core"}
    asked = {name: value for name, value in spec.options.items() if name in named}
    return {**asked, "cuda_graph": bool(spec.cuda_graph), "spin": bool(spec.spin)}


def feeds_of(spec: TrtexecSpec, inputs: tuple[TensorInfo, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """Return an array for each input: the bytes of its file, else random values, of the sizes that are measured.

    Raises:
        UnknownNameError: a flag names no input.
        InputShapeError: the sizes are outside the profile.
        DataError: a file does not hold so many bytes.
    """
    from enginery.inputs.generated import random_case

    known = [info.name for info in inputs]
    for name in (*spec.at, *spec.files):
        if name not in known:
            raise UnknownNameError.from_choices("input", name, known)
    sized = tuple(_sized(info, spec.at.get(info.name)) for info in inputs)
    shapes = resolve_shapes(sized, "opt")
    drawn = random_case(tuple(info for info in sized if info.name not in spec.files), "opt", seed=0).feeds
    read = {
        info.name: read_raw(Path(spec.files[info.name]), info, shapes[info.name])
        for info in sized
        if info.name in spec.files
    }
    return {name: read[name] if name in read else drawn[name] for name in known}


def _sized(info: TensorInfo, sizes: tuple[int, ...] | None) -> TensorInfo:
    """Give an input the one shape that is measured."""
    if sizes is None:
        return info
    if info.profile is not None:
        dims = info.profile.dims
        inside = len(dims) == len(sizes) and all(size in dim for dim, size in zip(dims, sizes, strict=True))
        if not inside:
            raise InputShapeError(
                f"--shapes gives input {info.name!r} {show_sizes(sizes)}, and the engine takes {info.profile}",
                mend="give sizes inside the profile, or build with one that holds them",
            )
    return replace(info, profile=Shape.fixed(sizes))


def read_raw(path: Path, info: TensorInfo, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Read the raw bytes of one input, as ``array.tofile`` writes them.

    Raises:
        DataError: the file is not there, or does not hold so many bytes.
    """
    dtype = numpy_dtype(info.dtype)
    needed = math.prod(shape) * dtype.itemsize
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", mend="name the file of raw bytes") from error
    if found != needed:
        raise DataError(
            f"{path} holds {found} bytes, and input {info.name!r} of {info.dtype} {show_sizes(shape)} has {needed}",
            mend="write it with array.tofile(), in the input's own type; or give its sizes by --shapes",
        )
    return np.fromfile(path, dtype).reshape(shape)


@runtime_checkable
class Measured(Protocol):
    """An opened engine that can be measured query by query."""

    @property
    def placement(self) -> str:
        """What it runs on."""
        ...

    def infer(self, feeds: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run once."""
        ...

    def measure(self, feeds: dict[str, np.ndarray[Any, Any]], how: Measuring) -> Trace:
        """Measure queries."""
        ...

    def profile(self, feeds: dict[str, np.ndarray[Any, Any]], runs: int) -> ProfileRecord:
        """Time the layers."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


def measure(engine: Engine, spec: TrtexecSpec, record: TrtexecRecord, progress: Progress) -> Outcome:
    """Open an engine, measure its queries and its layers, and write the files that were asked for.

    Args:
        engine: the engine folder.
        spec: what was asked for, with what the version's trtexec does filled in.
        record: of the build.
        progress: told what is going on.

    Raises:
        BackendUnavailableError: no GPU is here that it runs on.
        BackendError: parts of it run on another backend.
    """
    manifest = engine.manifest
    feeds = feeds_of(spec, manifest.inputs)
    backend = backends.get_available(manifest.backend, to_run=True)
    begin = time.perf_counter()
    runner = backend.open(engine.folder, manifest, session_options(spec))
    record = replace(record, load_ms=(time.perf_counter() - begin) * 1e3, placement=runner.placement)
    try:
        if not isinstance(runner, Measured):
            mend = f"time whole calls: enginery bench {engine.folder}"
            raise BackendError(f"{engine.folder} runs on {runner.placement}, and has no queries of its own", mend=mend)
        return Outcome(record) if spec.only_load else _measured(runner, spec, record, feeds, progress)
    finally:
        runner.close()


def _measured(
    runner: Measured, spec: TrtexecSpec, record: TrtexecRecord, feeds: dict[str, Any], progress: Progress
) -> Outcome:
    how = Measuring(**{field.name: getattr(spec, field.name) for field in fields(Measuring)})
    progress.plan((_MEASURE_STEP, spec.warmup_ms / 1e3 + spec.duration_s))
    with progress.step(_MEASURE_STEP):
        trace = runner.measure(feeds, how)
    record = with_trace(record, spec, trace, {name: array.shape for name, array in feeds.items()})
    if spec.export_times:
        storage.write_text(Path(spec.export_times), times_json(record.queries))
    if spec.dump_profile or spec.export_profile:
        found = runner.profile(feeds, _PROFILE_RUNS)
        record = replace(record, layer_times=found.layers, profile_runs=found.runs)
    if spec.export_profile:
        storage.write_text(Path(spec.export_profile), profile_json(record.layer_times, record.profile_runs))
    outputs = runner.infer(feeds) if spec.dump_output or spec.export_output else {}
    if spec.export_output:
        storage.write_text(Path(spec.export_output), outputs_json(outputs))
    return Outcome(record, outputs)


def with_trace(
    record: TrtexecRecord, spec: TrtexecSpec, trace: Trace, shapes: Mapping[str, tuple[int, ...]]
) -> TrtexecRecord:
    """Put what was measured, and what it was measured with, into a record."""
    return replace(
        record, queries=trace.queries, warmups=trace.warmups, warmup_ms=spec.warmup_ms, walltime_ms=trace.walltime_ms,
        shapes=dict(shapes), streams=spec.streams, transfers=bool(spec.transfers), cuda_graph=trace.cuda_graph,
        spin=bool(spec.spin),
    )  # fmt: skip
