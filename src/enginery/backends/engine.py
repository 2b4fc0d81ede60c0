"""Engine folders: built by a backend, hashed and described by a manifest, checked before they are opened."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginery import __version__, backends, storage
from enginery.backends.asked import check_plan_offered
from enginery.backends.base import Definition, NetworkBuilder, WeightChanger
from enginery.backends.profiles import with_profiles
from enginery.backends.session import Session
from enginery.errors import (
    BackendUnavailableError,
    BuildError,
    EngineryError,
    SourceError,
    UnknownNameError,
    UsageError,
)
from enginery.graph.base import OpsetLimits, check_quantised, make_plan, plan_to_json, tensor_infos
from enginery.machine import describe_machine, peak_memory_bytes
from enginery.records import BuildRecord, FileRecord, ManifestRecord
from enginery.spec import BuildSpec, Option, PrecisionPlan
from enginery.staging import is_full, writing

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.base import Backend, Built

__all__ = ["Engine", "build", "load", "refit"]

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
            backend = backends.get_available(manifest.backend, to_run=True)
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
    graph: ir.Model | Definition,
    spec: BuildSpec,
    output: str | Path,
    *,
    backend: str = "onnxruntime",
    source: str = "",
    source_sha256: str = "",
    graph_sha256: str = "",
    notes: Iterable[str] = (),
) -> Engine:
    """Build an engine folder from a graph or a hand-built network; nothing stands at `output` until it is whole.

    Args:
        graph: as `enginery.graph.files.load` gives it, not changed; or what defines a network.
        spec: shapes, precision and the backend's options.
        output: path of the engine folder; an engine that stands there is replaced.
        backend: its name.
        source: what the graph came from, for the manifest.
        source_sha256: hash of that.
        graph_sha256: hash of the graph file handed over.
        notes: what a user should know of how the graph came about; they stand before the backend's own.

    Raises:
        UnknownNameError: no such backend, or ``spec.shapes`` names no input of the graph.
        BackendUnavailableError: the backend's library is not here.
        UsageError: a network was given, and the backend has no API to build one with.
        SourceError: the function that builds the network failed.
        PrecisionError: the backend cannot compute in ``spec.precision`` here, or in another one of its plan.
        PrecisionMismatchError: it built another precision than was asked for.
        BuildError: the backend does not read the graph's opset, or refused the graph; the mend is its diagnosis.
        OutputError: `output` cannot be written.
    """
    module = backends.get_available(backend)
    own = None if isinstance(graph, Definition) else graph
    offered = module.capabilities(describe_machine(), own)
    check_plan_offered(backend, spec, offered.precisions, offered.lacks)
    if (spec.profiles or spec.values) and not offered.profiles:
        what = "narrower profiles" if spec.profiles else "ranges of values"
        raise UsageError(f"{backend} takes no {what}: it is not built for ranges", mend="leave them out")
    if own is not None:
        _check_opset(backend, own, offered.opsets)
        with_profiles(tensor_infos(own.graph.inputs), spec.shapes)
    plan = _plan_text(own, spec)
    planned = json.loads(plan)["counts"]
    begin = time.perf_counter()
    with storage.new_folder(Path(output)) as folder:
        built = _build_artefact(module, backend, graph, spec, folder)
        (folder / storage.PLAN).write_text(plan, encoding="utf-8")
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
            notes=(*notes, *built.notes, *_quantised_unasked(built, planned)),
            parts=built.parts,
            planned=planned,
        )
        manifest = _manifest(
            record, built, files, spec, name=_name(graph) or Path(output).stem, source=source,
            source_sha256=source_sha256, graph_sha256=graph_sha256,
        )  # fmt: skip
        storage.write_manifest(folder, manifest)
    return Engine(Path(output), manifest)


def refit(
    engine: Engine, graph: ir.Model, output: str | Path, *, source: str, source_sha256: str, graph_sha256: str
) -> Engine:
    """Write an engine folder with the weights of another graph; what was verified and timed is asked for anew.

    Args:
        engine: built to take other weights.
        graph: the same graph with other weights, prepared alike.
        output: path of the new engine folder; the engine's own is allowed.
        source: what the graph came from.
        source_sha256: hash of that.
        graph_sha256: hash of the graph file.

    Raises:
        UsageError: the backend cannot change weights, or the engine was not built for it.
        BuildError: the graph's weights are not the engine's by name, size and type.
        BackendUnavailableError: the backend does not run here.
    """
    manifest = engine.manifest
    module = backends.get_available(manifest.backend, to_run=True)
    if not isinstance(module, WeightChanger):
        raise UsageError(f"{manifest.backend} cannot change an engine's weights", mend="build the engine again")
    if manifest.options.get("refit") != "yes" and graph_sha256 != manifest.graph_sha256:
        mend = f"give what it was built from ({manifest.source}), or build it with --option refit=yes"
        raise UsageError(f"{engine.folder} takes only the weights that it was built from", mend=mend)
    with storage.new_folder(Path(output)) as folder:
        with _diagnosed(module, manifest.backend, "the engine with these weights", graph, folder):
            module.refit(engine.folder, manifest, graph, folder)
        for name in manifest.files:
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(engine.folder / name, folder / name)
        changed = replace(
            manifest, source=source, source_sha256=source_sha256, graph_sha256=graph_sha256, verify=None, bench=None,
            files=storage.record_files(folder), created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        )  # fmt: skip
        storage.write_manifest(folder, changed)
    return Engine(Path(output), changed)


def _plan_text(graph: ir.Model | None, spec: BuildSpec) -> str:
    """Return the text of `enginery.storage.PLAN`: the precision of each node, before anything is built.

    Raises:
        UnknownNameError: the plan names a node that the graph does not have.
        GraphError: int8 was asked for, and nothing in the graph is quantised, or not what the plan says.
    """
    if graph is None:
        return plan_to_json(spec.plan or PrecisionPlan(spec.precision))
    plan = spec.plan or make_plan(graph, spec.precision)
    check_quantised(graph, plan)
    return plan_to_json(plan, graph)


def _quantised_unasked(built: Built, plan: Mapping[str, int]) -> tuple[str, ...]:
    """Say where a graph that was given quantised computes in INT8, though nobody asked for that."""
    number = built.precision_built.get("int8", 0)
    if not number or "int8" in plan:
        return ()
    return (f"the graph that was given is quantised, and {number} of its operators compute in int8: ask for int8",)


def _check_opset(backend: str, graph: ir.Model, limits: OpsetLimits) -> None:
    """Refuse what a backend would read wrongly: a wrong engine is worse than an error."""
    if refused := limits.refuses(graph):
        nearest = limits.nearest(graph.opset_imports.get("", limits.max_opset))
        mend = f"convert it first: enginery export MODEL -o converted.onnx --opset {nearest}; `enginery build` does so"
        raise BuildError(f"{backend} cannot build this graph: it {refused}", mend=mend)


def _name(graph: ir.Model | Definition) -> str | None:
    return graph.name if isinstance(graph, Definition) else graph.graph.name


def _build_artefact(module: Backend, name: str, graph: ir.Model | Definition, spec: BuildSpec, folder: Path) -> Built:
    """Let a backend build, and turn its library's failure into one that says the mend."""
    if isinstance(graph, Definition):
        return _build_network(module, name, graph, spec, folder)
    with _diagnosed(module, name, "this graph", graph, folder):
        return module.build(graph, spec, folder)


def _build_network(module: Backend, name: str, definition: Definition, spec: BuildSpec, folder: Path) -> Built:
    if not isinstance(module, NetworkBuilder):
        able = [other for other in backends.names() if isinstance(backends.get(other), NetworkBuilder)]
        message = f"backend {name!r} has no API of its own to build a network with"
        raise UsageError(message, mend=f"write the network for {' or '.join(able)}")
    try:
        with _diagnosed(module, name, f"the network {definition.name}", None, folder):
            built = module.build_network(definition, spec, folder)
    except SourceError as error:  # in the user's function; where the library refused a layer, the backend knows why
        mend = module.diagnose(error.__cause__, None) if isinstance(error.__cause__, Exception) else None
        raise (type(error)(error.message, mend=mend) if mend else error) from error.__cause__
    return replace(built, notes=(*built.notes, *definition.notes))


@contextlib.contextmanager
def _diagnosed(module: Backend, name: str, what: str, graph: ir.Model | None, folder: Path) -> Iterator[None]:
    """Turn a library's failure to build into one that says the mend."""
    try:
        yield
    except EngineryError:
        raise
    except Exception as error:
        if is_full(folder):  # the library's own words for it may be about the graph
            with writing(folder):
                raise OSError(errno.ENOSPC, "no space is left", str(folder)) from error
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            with writing(folder):
                raise
        mend = module.diagnose(error, graph) or "the text above is the library's own; check the model with it"
        raise BuildError(f"{name} cannot build {what}: {error}", mend=mend) from error


def _manifest(
    record: BuildRecord,
    built: Built,
    files: Mapping[str, FileRecord],
    spec: BuildSpec,
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
        inputs=with_profiles(built.inputs, spec.shapes),
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
        profiles=built.profiles,
        values=spec.values,
        target=built.target,
    )
