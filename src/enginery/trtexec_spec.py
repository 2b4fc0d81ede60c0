"""What a line of trtexec's flags asks for, which library answers it, and what that library's trtexec would do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from enginery import backends, storage
from enginery.backends.tensorrt import foreign_plan
from enginery.backends.tensorrt.versions import LIBRARIES
from enginery.errors import BackendUnavailableError, UnknownNameError
from enginery.spec import Option, Shape

__all__ = ["Defaults", "Library", "TrtexecSpec", "choose_library", "defaults_of", "with_defaults"]

_DAY_S = 86400.0


@dataclass(frozen=True)
class TrtexecSpec:
    """What a line of trtexec's flags asks for.

    Args:
        onnx: path of the model to build from; empty where a plan is loaded.
        save: path of the plan to write; the engine folder goes beside it.
        load: path of a plan or an engine folder.
        backend: name of the library; empty to choose the one that is here.
        precision: of the whole graph.
        rest: precision of what an int8 graph does not quantise.
        nodes: precision of single nodes.
        shapes: the profile of each input; a name may hold one ``*``.
        profiles: narrower ones, for profile 1 and later.
        at: sizes that are measured; those that each profile is tuned for where an input is not named.
        types: element type that each input and output is said to have, by ``inputs`` and ``outputs``, in order.
        options: of the backend.
        files: raw bytes of inputs, by name.
        measure: whether queries are measured.
        only_load: measure the loading, and nothing else.
        only_version: read the plan's version, and nothing else.
        iterations, duration_s: how many queries at least, and for how long.
        warmup_ms: time of the queries before, which are not counted.
        idle_ms: between two queries.
        streams: queries at one time.
        threads: whether each has a thread.
        expose_dma: whether one query waits for the one before.
        transfers, spin, cuda_graph: None for what the installed version's trtexec does.
        average_runs, percentiles: of the report.
        dump_output, dump_profile, dump_layers: what is printed besides.
        export_output, export_profile, export_layers, export_times: paths of JSON files.
        in_process, limit_s: of the build.
        verbose: whether TensorRT's own log is shown, and what each figure means.
    """

    onnx: str = ""
    save: str = ""
    load: str = ""
    backend: str = ""
    precision: str = "tf32"
    rest: str = "fp32"
    nodes: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    profiles: tuple[Mapping[str, Shape], ...] = ()
    at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    types: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Option] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    measure: bool = True
    only_load: bool = False
    only_version: bool = False
    iterations: int = 10
    duration_s: float = 3.0
    warmup_ms: float = 200.0
    idle_ms: float = 0.0
    streams: int = 1
    threads: bool = False
    expose_dma: bool = False
    transfers: bool | None = None
    spin: bool | None = None
    cuda_graph: bool | None = None
    average_runs: int = 10
    percentiles: tuple[float, ...] = (90.0, 95.0, 99.0)
    dump_output: bool = False
    dump_profile: bool = False
    dump_layers: bool = False
    export_output: str = ""
    export_profile: str = ""
    export_layers: str = ""
    export_times: str = ""
    in_process: bool = False
    limit_s: float = _DAY_S
    verbose: bool = False


@dataclass(frozen=True)
class Library:
    """The library that builds and runs: its backend's name and its version, and what a user should know of it."""

    backend: str
    version: str
    label: str
    note: str = ""

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX."""
        return self.backend != next(iter(LIBRARIES))

    @property
    def major(self) -> int:
        """Major version of trtexec that belongs to it; TensorRT-RTX is taken for TensorRT 10, whose API it began with.

        Example:
            >>> Library("tensorrt", "8.6.1", "TensorRT").major
            8
        """
        return 10 if self.is_rtx else int(self.version.partition(".")[0])

    @property
    def number(self) -> str:
        """The version as trtexec's first and last lines write it.

        Example:
            >>> Library("tensorrt", "8.6.1", "TensorRT").number, Library("tensorrt", "10.6.0", "TensorRT").number
            ('v8601', 'v100600')
        """
        major, minor, patch = (*(int(number) for number in re.findall(r"\d+", self.version)[:3]), 0, 0)[:3]
        step = 1000 if major < 10 else 10000  # noqa: PLR2004 - NVIDIA's change of form
        return f"v{major * step + minor * 100 + patch}"


@dataclass(frozen=True)
class Defaults:
    """What a version's trtexec measures with where no flag says otherwise."""

    cuda_graph: bool
    spin: bool
    transfers: bool

    def __str__(self) -> str:
        words = {True: "on", False: "off"}
        return (
            f"CUDA graph {words[self.cuda_graph]}, spin-wait {words[self.spin]}, data transfers {words[self.transfers]}"
        )


def defaults_of(major: int) -> Defaults:
    """Return what trtexec of a major version measures with; TensorRT 11 turned all three around.

    Example:
        >>> str(defaults_of(8))
        'CUDA graph off, spin-wait off, data transfers on'
    """
    late = major >= 11  # noqa: PLR2004 - the version's own number
    return Defaults(cuda_graph=late, spin=late, transfers=not late)


def choose_library(spec: TrtexecSpec) -> Library:
    """Return the library to use: the one asked for, the one that wrote the plan, or the first that is here.

    Raises:
        UnknownNameError: there is no such library.
        BackendUnavailableError: none is here.
        EngineFolderError: the plan to load is no plan.
    """
    asked = spec.backend or (_writer(Path(spec.load)) if spec.load else "")
    if asked and asked not in LIBRARIES:
        raise UnknownNameError.from_choices("TensorRT library", asked, LIBRARIES)
    if asked:
        found = backends.get(asked).probe()
        if not found.version:
            raise BackendUnavailableError(f"{LIBRARIES[asked].label} is not here: {found.reason}", mend=found.mend)
        return Library(asked, found.version, LIBRARIES[asked].label)
    refused: list[str] = []
    for name, library in LIBRARIES.items():
        found = backends.get(name).probe()
        if found.available and found.version:
            note = _instead(library.label, found.version, refused) if refused else ""
            return Library(name, found.version, library.label, note)
        refused.append(found.reason)
    raise BackendUnavailableError(
        f"no TensorRT is here: {'; '.join(refused)}", mend=backends.get(next(iter(LIBRARIES))).probe().mend
    )


def _instead(label: str, version: str, refused: list[str]) -> str:
    return (
        f"{label} {version} BUILDS THIS, and not TensorRT ({'; '.join(refused)}): its engines run on GeForce and RTX "
        "GPUs, and in no other library; --backend names another"
    )


def _writer(path: Path) -> str:
    """Return the name of the backend that wrote a plan or an engine folder."""
    if storage.is_engine_folder(path):
        return storage.read_manifest(path).backend
    return foreign_plan.read_header(path).backend


def with_defaults(spec: TrtexecSpec, defaults: Defaults) -> TrtexecSpec:
    """Put what the version's trtexec does where the flags say nothing."""
    return replace(
        spec,
        transfers=defaults.transfers if spec.transfers is None else spec.transfers,
        spin=defaults.spin if spec.spin is None else spec.spin,
        cuda_graph=defaults.cuda_graph if spec.cuda_graph is None else spec.cuda_graph,
    )
