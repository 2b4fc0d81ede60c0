"""Engine folders: built by a backend, hashed and described by a manifest, checked before they are opened."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginery import __version__, backends, storage
from enginery.backends.asked import check_precision_offered
from enginery.backends.session import Session
from enginery.errors import BackendUnavailableError, BuildError, EngineryError, UnknownNameError
from enginery.graph.base import tensor_infos
from enginery.machine import describe_machine, peak_memory_bytes
from enginery.records import BuildRecord, FileRecord, ManifestRecord, TensorInfo
from enginery.spec import BuildSpec, Dim, Option, Shape, show_sizes
from enginery.staging import is_full, writing

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.base import Backend, Built

__all__ = ["Engine", "build", "load", "with_profiles"]

_LOG = logging.getLogger("enginery")


@dataclass(frozen=True)
class Engine:
    """An engine folder whose files were found to be those its manifest was written for.

    Args:
        folder: the engine folder.
        manifest: its ``engine.json``.
    """

    folder: Path
    manifest: ManifestRecord

    def open(self, options: Mapping[str, Option] | None = None) -> Session:
        """Open the engine; the caller closes the session, or uses it in a ``with`` statement.

        Args:
            options: stand over those it was built with, for this session only, such as ``{"threads": 1}``.

        Raises:
            BackendUnavailableError: the backend's library is not here.
            ProviderError: it would run elsewhere than asked.
            BuildError: the library refused the artefact.
        """
        backend = self._find_backend()
        try:
            runner = backend.open(self.folder, self.manifest, dict(options or {}))
        except EngineryError:
            raise
        except Exception as error:
            mend = backend.diagnose(error, None) or "build the engine again on this machine"
            raise BuildError(f"{self.manifest.backend} cannot open {self.folder}: {error}", mend=mend) from error
        return Session(runner, self.manifest.inputs, self.manifest.outputs, lambda error: backend.diagnose(error, None))

    def _find_backend(self) -> Backend:
        """Return the backend; say loudly where its version is not the one that was verified and timed."""
        manifest = self.manifest
        there = f"open it with {manifest.interpreter}, of the environment {manifest.environment!r}"
        try:
            backend = backends.get_available(manifest.backend)
        except (BackendUnavailableError, UnknownNameError) as error:
            mend = f"{there}; or {error.mend}" if manifest.interpreter else error.mend
            raise BackendUnavailableError(f"{self.folder} cannot be opened: {error.message}", mend=mend) from error
        version = backend.probe().version
        if version != manifest.backend_version:
            _LOG.warning(
                "%s was built with %s %s and is opened with %s: verify it again, or %s",
                self.folder, manifest.backend, manifest.backend_version, version,
                there if manifest.interpreter else "build it again",
            )  # fmt: skip
        return backend


def load(path: str | Path) -> Engine:
    """Read an engine folder and check every file in it against the manifest; no artefact is opened.

    Args:
        path: the engine folder.

    Raises:
        EngineFolderError: there is no such folder.
        ManifestError: it holds no readable manifest.
        HashMismatchError: a file is not the one the manifest was written for.
    """
    folder = Path(path)
    manifest = storage.read_manifest(folder)
    storage.check_files(folder, manifest.files)
    return Engine(folder, manifest)


def build(
    graph: ir.Model,
    spec: BuildSpec,
    output: str | Path,
    *,
    backend: str = "onnxruntime",
    source: str = "",
    source_sha256: str = "",
    graph_sha256: str = "",
) -> Engine:
    """Build an engine folder from a graph; nothing stands at `output` until it is whole.

    Args:
        graph: as `enginery.graph.files.load` gives it; not changed.
        spec: shapes, precision and the backend's options.
        output: path of the engine folder; an engine that stands there is replaced.
        backend: its name.
        source: what the graph came from, for the manifest.
        source_sha256: hash of that.
        graph_sha256: hash of the graph file handed over.

    Raises:
        UnknownNameError: no such backend, or ``spec.shapes`` names no input of the graph.
        BackendUnavailableError: the backend's library is not here.
        PrecisionError: the backend cannot compute in ``spec.precision`` here.
        BuildError: the backend refused the graph; the mend is its diagnosis.
        OutputError: `output` cannot be written.
    """
    module = backends.get_available(backend)
    check_precision_offered(backend, spec.precision, module.capabilities(describe_machine(), graph).precisions)
    with_profiles(tensor_infos(graph.graph.inputs), spec.shapes)
    begin = time.perf_counter()
    with storage.new_folder(Path(output)) as folder:
        built = _build_artefact(module, backend, graph, spec, folder)
        files = storage.record_files(folder)
        record = BuildRecord(
            backend=backend,
            backend_version=module.probe().version or "unknown",
            precision=spec.precision,
            precision_built=built.precision_built,
            options=built.options,
            seconds=time.perf_counter() - begin,
            size_bytes=sum(file.bytes for file in files.values()),
            peak_memory_bytes=peak_memory_bytes(),
            notes=built.notes,
        )
        manifest = _manifest(
            record, built, files, spec.shapes, name=graph.graph.name or Path(output).stem, source=source,
            source_sha256=source_sha256, graph_sha256=graph_sha256,
        )  # fmt: skip
        storage.write_manifest(folder, manifest)
    return Engine(Path(output), manifest)


def with_profiles(inputs: Iterable[TensorInfo], shapes: Mapping[str, Shape]) -> tuple[TensorInfo, ...]:
    """Give each input the profile asked for, after checking that it fits the graph's own shape.

    A static dimension of the graph keeps its size. An input that no shape names has the sizes that the other inputs'
    profiles give to its symbolic names; where one of these has none, the input is left open (profile None).

    Raises:
        UnknownNameError: a shape names no input.
        BuildError: a shape has another rank than the input, or a size that the graph has fixed otherwise.
    """
    inputs = tuple(inputs)
    for name in shapes:
        if name not in {info.name for info in inputs}:
            raise UnknownNameError.from_choices("input", name, (info.name for info in inputs))
    profiled = [replace(info, profile=_profile(info, shapes.get(info.name))) for info in inputs]
    named = {dim.name: dim for info in profiled if info.profile is not None for dim in info.profile.dims if dim.name}
    return tuple(
        info if info.profile is not None else replace(info, profile=_shared_profile(info, named)) for info in profiled
    )


def _build_artefact(module: Backend, name: str, graph: ir.Model, spec: BuildSpec, folder: Path) -> Built:
    """Let a backend build, and turn its library's failure into one that says the mend."""
    try:
        return module.build(graph, spec, folder)
    except EngineryError:
        raise
    except Exception as error:
        if is_full(folder):  # the library's own words for it may be about the graph
            with writing(folder):
                raise OSError(errno.ENOSPC, "no space is left", str(folder)) from error
        mend = module.diagnose(error, graph) or "the text above is the library's own; check the graph with it"
        raise BuildError(f"{name} cannot build this graph: {error}", mend=mend) from error


def _manifest(
    record: BuildRecord,
    built: Built,
    files: Mapping[str, FileRecord],
    shapes: Mapping[str, Shape],
    *,
    name: str,
    source: str,
    source_sha256: str,
    graph_sha256: str,
) -> ManifestRecord:
    return ManifestRecord(
        backend=record.backend,
        backend_version=record.backend_version,
        enginery=__version__,
        name=name,
        inputs=with_profiles(built.inputs, shapes),
        outputs=built.outputs,
        precision=record.precision,
        precision_built=record.precision_built,
        options=record.options,
        source=source,
        source_sha256=source_sha256,
        graph_sha256=graph_sha256,
        machine=describe_machine(),
        files=files,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        build=record,
    )


def _shared_profile(info: TensorInfo, named: Mapping[str, Dim]) -> Shape | None:
    """Profile an input by the sizes that other inputs' profiles give to its symbolic names; None where one has none."""
    if info.shape is None:
        return None
    dims = [Dim.fixed(own) if isinstance(own, int) else named.get(own) for own in info.shape]
    known = tuple(dim for dim in dims if dim is not None)
    return Shape(known) if len(known) == len(dims) else None


def _profile(info: TensorInfo, asked: Shape | None) -> Shape | None:
    if info.shape is None:
        return asked
    if asked is None:
        return Shape.fixed(d for d in info.shape if isinstance(d, int)) if _static(info) else None
    if len(asked.dims) != len(info.shape):
        raise BuildError(
            f"the shape {asked} given for input {info.name!r} has {len(asked.dims)} dimensions, "
            f"the graph's has {len(info.shape)}: {show_sizes(info.shape)}",
            mend="give one range for each axis",
        )
    for axis, (dim, own) in enumerate(zip(asked.dims, info.shape, strict=True)):
        if isinstance(own, int) and (dim.dynamic or own not in dim):
            raise BuildError(
                f"input {info.name!r}, axis {axis}: {dim} was asked for, but the graph has fixed it at {own}",
                mend=f"ask for {own}, or export the model with that axis dynamic",
            )
    return Shape(tuple(Dim(d.min, d.opt, d.max, _name(own)) for d, own in zip(asked.dims, info.shape, strict=True)))


def _static(info: TensorInfo) -> bool:
    return all(isinstance(dim, int) for dim in info.shape or ())


def _name(own: int | str) -> str | None:
    return own if isinstance(own, str) and own != "?" else None
