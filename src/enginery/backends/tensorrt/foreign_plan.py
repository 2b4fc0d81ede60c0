"""A plan that another tool wrote, made into an engine folder: what it says of itself, and what it cannot say.

A plan is code for the GPU, and one of TensorRT's version-compatible plans brings code for the host as well: one from a
stranger is not to be loaded. What it was built from, and with which options, no plan tells.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginery import __version__, backends, storage
from enginery.backends.tensorrt.building import ARTEFACT
from enginery.backends.tensorrt.options import listed, read_options
from enginery.backends.tensorrt.tensors import ELEMENTS
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api
from enginery.errors import BackendUnavailableError, BuildError, EngineFolderError
from enginery.machine import describe_machine
from enginery.plain import to_json
from enginery.records import BuildRecord, FileRecord, LayerRecord, ManifestRecord, TensorInfo
from enginery.spec import Dim, Option, Shape
from enginery.storage import LAYERS

__all__ = ["UNKNOWN", "PlanHeader", "adopt", "read_header", "read_infos"]

UNKNOWN = "unknown"
"""The precision that a plan of another tool was asked for."""

_MAGIC = dict(zip((b"ftrt", b"vtrt"), LIBRARIES, strict=True))
_HEADER_BYTES = 28
_VERSION_AT = 24


@dataclass(frozen=True)
class PlanHeader:
    """What the first bytes of a plan say.

    Args:
        backend: name of the backend whose library wrote it.
        version: of that library, such as ``1.7.1.116``; empty where the plan is older than 8.6, which did not say.
    """

    backend: str
    version: str


def read_header(path: Path) -> PlanHeader:
    """Read which library wrote a plan; nothing of the plan is run.

    Raises:
        EngineFolderError: there is no such file, or it is no plan.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
    except OSError as error:
        raise EngineFolderError(
            f"{path} cannot be read: {error.strerror}", mend="name a plan or an engine folder"
        ) from error
    backend = _MAGIC.get(head[:4])
    if backend is None or len(head) < _HEADER_BYTES:
        raise EngineFolderError(
            f"{path} does not begin as a TensorRT plan does ({head[:4]!r})",
            mend="name the file that --saveEngine wrote; some tools put text of their own before the plan",
        )
    numbers = head[_VERSION_AT:_HEADER_BYTES]
    return PlanHeader(backend, ".".join(str(number) for number in numbers) if any(numbers[:2]) else "")


def adopt(path: Path, output: Path, *, backend: str, options: Mapping[str, Option] | None = None) -> ManifestRecord:
    """Make an engine folder around a plan that another tool wrote.

    Args:
        path: the plan; copied as it is.
        output: path of the engine folder.
        backend: name of the library to read it with.
        options: of the session, such as ``plugins``; ``version_compatible`` lets the plan run the code it brings.

    Raises:
        EngineFolderError: it is no plan, or the other library's.
        BackendUnavailableError: there is no GPU here: only on one does a plan say what its tensors are.
        BuildError: TensorRT refused the plan; the message has its own words.
    """
    header = read_header(path)
    label = LIBRARIES[header.backend].label
    if header.backend != backend:
        raise EngineFolderError(
            f"{path} was written by {label} {header.version}", mend=f"load it with {header.backend}"
        )
    found = backends.get(backend).probe()
    if not found.usable:
        raise BackendUnavailableError(
            f"{path}, written by {label} {header.version or 'before 8.6'}, cannot be opened here: {found.reason}",
            mend=found.mend,
        )
    api, values = load_api(backend), read_options(options or {})
    opened = _open(api, path, values)
    with storage.new_folder(output) as folder:
        shutil.copyfile(path, folder / ARTEFACT)
        (folder / LAYERS).write_text(to_json(opened.layers) + "\n", encoding="utf-8")
        manifest = _manifest(path, header, opened, storage.record_files(folder), values)
        storage.write_manifest(folder, manifest)
    return manifest


@dataclass(frozen=True)
class _Opened:
    """What a plan says of itself once it is opened."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    profiles: tuple[dict[str, Shape], ...]
    layers: tuple[LayerRecord, ...]


def _open(api: Api, path: Path, options: Mapping[str, Option]) -> _Opened:
    """Deserialise a plan, and read its tensors, its profiles and its layers."""
    import onnx_ir as ir

    from enginery.backends.tensorrt.inspection import read_layers
    from enginery.backends.tensorrt.log import BuildLog
    from enginery.backends.tensorrt.plugins import load_plugins
    from enginery.backends.tensorrt.runtime import deserialize

    log = BuildLog(api)
    load_plugins(api, listed(options["plugins"]), log.logger)
    engine = deserialize(api, path, log, host_code=bool(options["version_compatible"]))
    unknown = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    return _Opened(*read_infos(api, engine), read_layers(api, engine, unknown))


def read_infos(
    api: Api, engine: Any
) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], tuple[dict[str, Shape], ...]]:
    """Return an opened engine's inputs with the first profile, its outputs, and the profiles after the first.

    Raises:
        BuildError: a tensor holds elements that no array holds.
    """
    trt = api.module
    names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
    given = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    inputs = tuple(_info(engine, name, _profile(engine, name, 0)) for name in given)
    outputs = tuple(_info(engine, name, None) for name in names if name not in given)
    profiles = tuple(
        {name: shape for name in given if (shape := _profile(engine, name, index)) is not None}
        for index in range(1, engine.num_optimization_profiles)
    )
    return inputs, outputs, profiles


def _info(engine: Any, name: str, profile: Shape | None) -> TensorInfo:
    kind = engine.get_tensor_dtype(name).name
    if kind not in ELEMENTS:
        raise BuildError(f"tensor {name!r} of the plan holds {kind}, which no array holds", mend="cast it in the model")
    shape = tuple(size if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(engine.get_tensor_shape(name)))
    return TensorInfo(name, ELEMENTS[kind], shape, profile=profile)


def _profile(engine: Any, name: str, index: int) -> Shape | None:
    """Return the sizes of an input in one profile; None for one whose values say shapes."""
    if engine.is_shape_inference_io(name):
        return None
    low, opt, high = engine.get_tensor_profile_shape(name, index)
    return Shape(tuple(Dim(*sizes) for sizes in zip(low, opt, high, strict=True)))


def _manifest(
    path: Path, header: PlanHeader, opened: _Opened, files: Mapping[str, FileRecord], options: Mapping[str, Option]
) -> ManifestRecord:
    from enginery.backends.tensorrt.inspection import count

    digest = files[ARTEFACT].sha256
    built = count(opened.layers)
    note = "another tool built this plan: what from, in which precision asked for, and with which options is not known"
    record = BuildRecord(
        backend=header.backend, backend_version=header.version or UNKNOWN, precision=UNKNOWN, precision_built=built,
        options=options, seconds=0.0, size_bytes=sum(file.bytes for file in files.values()), notes=(note,),
    )  # fmt: skip
    return ManifestRecord(
        backend=header.backend, backend_version=backends.get(header.backend).probe().version or UNKNOWN,
        enginery=__version__, name=path.stem, inputs=opened.inputs, outputs=opened.outputs, precision=UNKNOWN,
        precision_built=built, options=options, source=str(path), source_sha256=digest, graph_sha256="",
        machine=describe_machine(), files=files, build=record, profiles=opened.profiles,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip
