"""The profiles of a part, from the profiles of the whole: how large the tensors at its cuts are."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from enginery.backends.base import Backend
from enginery.backends.profiles import with_profiles
from enginery.dtypes import DTYPES, numpy_dtype
from enginery.errors import BuildError
from enginery.graph.base import sizes_of, tensor_infos, with_outputs
from enginery.machine import describe_machine
from enginery.records import ManifestRecord, TensorInfo
from enginery.spec import BuildSpec, Dim, Option, Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PartSizes"]

Sizes = Mapping[str, tuple[int, ...]]
_ENDS: tuple[Literal["min", "opt", "max"], ...] = ("min", "opt", "max")


class PartSizes:
    """Finds sizes of tensors inside a graph at the ends of its profiles, each once.

    Args:
        graph: the whole.
        spec: of the whole; where it leaves the sizes of an input open, nothing is said of the tensors inside.
        rest: a backend that runs the graph where sizes cannot be inferred.
        options: for that backend.
    """

    def __init__(self, graph: ir.Model, spec: BuildSpec, rest: Backend, options: Mapping[str, Option]) -> None:
        self._graph = graph
        self._rest, self._options = rest, options
        self._inputs = with_profiles(tensor_infos(graph.graph.inputs), spec.shapes)
        self._narrow = tuple(
            with_profiles(tensor_infos(graph.graph.inputs), {**spec.shapes, **profile}) for profile in spec.profiles
        )
        self._known: dict[tuple[tuple[str, tuple[int, ...]], ...], dict[str, tuple[int, ...]]] = {}
        self._names: frozenset[str] = frozenset()

    @property
    def narrower(self) -> tuple[dict[str, Shape], ...]:
        """The narrower profiles of the whole, each with all of its inputs."""
        return tuple(
            {info.name: info.profile for info in inputs if info.profile is not None} for inputs in self._narrow
        )

    def cut_at(self, names: Iterable[str]) -> None:
        """Say which tensors sizes will be asked for, so that they are found together."""
        self._names = frozenset(names) - {info.name for info in self._inputs}

    def profiles(self, names: Sequence[str]) -> tuple[dict[str, Shape], tuple[dict[str, Shape], ...]]:
        """Return the profile of each tensor by name, and the narrower ones.

        A range holds the sizes at min, opt and max of the whole. Where sizes of inputs were not given, only what is
        fixed has one.

        Raises:
            BuildError: the size of a tensor can neither be inferred nor measured.
        """
        return self._profile(names, self._inputs), tuple(self._profile(names, inputs) for inputs in self._narrow)

    def bytes_of(self, infos: Sequence[TensorInfo]) -> int | None:
        """Return the bytes of some tensors at the opt sizes; None where these are not known."""
        if any(info.dtype not in DTYPES or info.dtype == "string" for info in infos):
            return None
        if all(info.shape is not None and all(isinstance(dim, int) for dim in info.shape) for info in infos):
            found: Mapping[str, Sequence[int | str]] = {info.name: info.shape or () for info in infos}
        elif any(info.profile is None for info in self._inputs):
            return None
        else:
            inferred = sizes_of(self._graph, [info.name for info in infos], _at(self._inputs, "opt"))
            found = {name: sizes for name, sizes in inferred.items() if sizes is not None}
        if len(found) < len(infos):
            return None
        return sum(math.prod(map(int, found[info.name])) * numpy_dtype(info.dtype).itemsize for info in infos)

    def _profile(self, names: Sequence[str], inputs: tuple[TensorInfo, ...]) -> dict[str, Shape]:
        own = {info.name: info.profile for info in inputs}
        found = {name: profile for name in names if (profile := own.get(name)) is not None}
        if inside := [name for name in names if name not in own]:
            if any(profile is None for profile in own.values()):
                return found
            ends = [self._sizes(inputs, end) for end in _ENDS]
            for name in inside:
                low, opt, high = (sizes[name] for sizes in ends)
                found[name] = Shape(tuple(_dim(*three) for three in zip(low, opt, high, strict=True)))
        return found

    def _sizes(self, inputs: tuple[TensorInfo, ...], end: Literal["min", "opt", "max"]) -> dict[str, tuple[int, ...]]:
        given = _at(inputs, end)
        known = self._known.setdefault(tuple(sorted(given.items())), {})
        missing = sorted(self._names - known.keys())
        if missing:
            inferred = sizes_of(self._graph, missing, given)
            known.update({name: sizes for name, sizes in inferred.items() if sizes is not None})
            if unknown := [name for name in missing if name not in known]:
                known.update(self._measure(unknown, given, end))
        return known

    def _measure(self, names: Sequence[str], given: Sizes, end: str) -> Sizes:
        """Run the graph up to some tensors, on zeros: none of their sizes depends on data."""
        graph = with_outputs(self._graph, names)
        inputs, outputs = tensor_infos(graph.graph.inputs), tensor_infos(graph.graph.outputs)
        feeds = {info.name: np.zeros(given[info.name], numpy_dtype(info.dtype)) for info in inputs}
        try:
            with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
                built = self._rest.build(graph, BuildSpec(options=self._options), Path(folder))
                runner = self._rest.open(Path(folder), _manifest(inputs, outputs, built.options), {})
                try:
                    found = runner.infer(feeds)
                finally:
                    runner.close()
        except Exception as error:
            raise BuildError(
                f"the sizes of {', '.join(names)} at the {end} shape are not known: ONNX cannot infer them, and the "
                f"graph up to there does not run: {error}",
                mend="export the model again with the shapes of its tensors",
            ) from error
        return {name: found[name].shape for name in names}


def _at(inputs: tuple[TensorInfo, ...], end: Literal["min", "opt", "max"]) -> dict[str, tuple[int, ...]]:
    return {info.name: info.profile.at(end) for info in inputs if info.profile is not None}


def _dim(low: int, opt: int, high: int) -> Dim:
    """Make a range of three sizes; what shrinks while the inputs grow is turned around."""
    return Dim(min(low, opt, high), opt, max(low, opt, high))


def _manifest(
    inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...], options: Mapping[str, Option]
) -> ManifestRecord:
    """Make a manifest of an engine that is never kept."""
    return ManifestRecord(
        backend="", backend_version="", enginery="", name="", inputs=inputs, outputs=outputs, precision="fp32",
        precision_built={}, options=options, source="", source_sha256="", graph_sha256="", machine=describe_machine(),
        files={}, created="",
    )  # fmt: skip
