"""Between a graph and its build: bring it to the opset that the backend reads, and see that it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.backends.base import Design
from enginery.errors import EngineryError, GraphError, InputError, OutputError, UsageError
from enginery.evaluation import Evaluator
from enginery.graph.base import OpsetLimits
from enginery.progress import Progress
from enginery.records import TensorInfo
from enginery.spec import Dim, Shape

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from enginery.inputs.base import Range
    from enginery.tuning.candidates import Contestant

__all__ = ["Fitter", "check_conversion", "fit_contestants", "small_feeds", "with_open_dims"]

Feeds = dict[str, "np.ndarray[Any, Any]"]


class Fitter:
    """Converts designs to what backends read; what several of them need is made once.

    Args:
        folder: for the converted graphs, and to evaluate in.
        shapes: the profile of each input, for the inputs that outputs are compared on.
        progress: told what is going on.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Shape], progress: Progress) -> None:
        self._folder = folder
        self._shapes = shapes
        self._progress = progress
        self._made: dict[tuple[Path, tuple[Any, ...]], Design | GraphError] = {}

    def fit(self, design: Design, limits: OpsetLimits) -> Design:
        """Return the design where a backend of such limits reads it, else one that was converted, with a note.

        A hand-built network is returned as it is.

        Raises:
            GraphError: nodes stand in the way, and are named; or the converted graph computes something else.
        """
        from enginery.graph import files

        if design.path.suffix != ".onnx":
            return design
        model = files.load(design.path)
        if not limits.refuses(model):
            return design
        targets = {domain: limits.nearest(version, domain) for domain, version in model.opset_imports.items()}
        key = design.path, (*sorted(targets.items()), limits.max_ir_version)
        if key not in self._made:
            self._made[key] = self._convert(design, model, limits)
        found = self._made[key]
        if isinstance(found, GraphError):
            raise found
        return found

    def _convert(self, design: Design, model: ir.Model, limits: OpsetLimits) -> Design | GraphError:
        from enginery.graph import files
        from enginery.graph.opset.convert import fit_opset

        try:
            fitted, note = fit_opset(model, limits)
            notes = []
            if note:
                with Evaluator(self._folder) as evaluator:
                    unchecked = check_conversion(model, fitted, self._shapes, evaluator, self._progress)
                notes = [f"{note} ({unchecked})" if unchecked else note]
        except GraphError as error:
            return error
        path = self._folder / f"{design.path.stem}-{len(self._made)}-opset{fitted.opset_imports.get('', 0)}.onnx"
        files.save_shared(fitted, path)
        return replace(design, path=path, graph_sha256=files.hash_model(path), notes=(*design.notes, *notes))


def fit_contestants(
    contestants: Sequence[Contestant], designs: Mapping[str, Design], fitter: Fitter
) -> tuple[list[Contestant], dict[str, Design]]:
    """Let each contestant take a design that its backend reads; one that cannot has the reason as ``missing``.

    Returns:
        The contestants, and the designs with the converted ones among them.
    """
    found, all_designs = [], dict(designs)
    for contestant in contestants:
        if contestant.missing or contestant.opsets is None:
            found.append(contestant)
            continue
        try:
            fitted = fitter.fit(designs[contestant.design], contestant.opsets)
        except GraphError as error:
            found.append(replace(contestant, missing=str(error)))
            continue
        name = contestant.design if fitted is designs[contestant.design] else fitted.path.stem
        all_designs[name] = fitted
        found.append(replace(contestant, design=name))
    return found, all_designs


def check_conversion(
    original: ir.Model, converted: ir.Model, shapes: Mapping[str, Shape], evaluator: Evaluator, progress: Progress
) -> str:
    """See that a converted graph computes what the original does, on up to two small inputs.

    Returns:
        Why outputs could not be compared, which is also told to `progress`; empty where they were.

    Raises:
        GraphError: the outputs differ, or the converted graph does not run.
    """
    from enginery.graph.agree import difference, is_quantised
    from enginery.graph.base import all_nodes
    from enginery.graph.passes.base import is_random

    versions = _changed_versions(original, converted)
    mend = f"export the model with opset {converted.opset_imports.get('', 0)} in the first place"
    try:
        if any(is_random(node) for node in all_nodes(original)):
            raise InputError("the graph draws random numbers")
        feeds = small_feeds(original, shapes)
        expected = evaluator.run(original, feeds)
    except OutputError:
        raise
    except EngineryError as error:
        unchecked = f"outputs are not compared, only the structure is checked: {error.message}"
        progress.say(f"{versions}: {unchecked}")
        return unchecked
    try:
        found = evaluator.run(converted, feeds)
    except OutputError:
        raise
    except EngineryError as error:
        message = f"converted from {versions}, the graph does not run: {error.message}"
        raise GraphError(message, mend=mend) from error
    if said := difference(expected, found, quantised=is_quantised(original)):
        raise GraphError(f"converted from {versions}, the graph computes something else: {said}", mend=mend)
    return ""


def _changed_versions(original: ir.Model, converted: ir.Model) -> str:
    """Say which opsets differ: ``opset 20 to 17``, or ``opset 5 to 3 of ai.onnx.ml``."""
    pairs = [(domain, own, converted.opset_imports.get(domain, own)) for domain, own in original.opset_imports.items()]
    said = [f"opset {a} to {b}" + (f" of {domain}" if domain else "") for domain, a, b in pairs if a != b]
    return " and ".join(said)


def small_feeds(graph: ir.Model, shapes: Mapping[str, Shape], limits: Mapping[str, Range] | None = None) -> list[Feeds]:
    """Make inputs at one small shape, and at another where the graph's inputs may vary.

    Raises:
        InputError: values cannot be made up: a sequence, or an unknown rank.
        UsageError: an axis varies that nobody gave sizes for.
    """
    from enginery.backends.profiles import with_profiles
    from enginery.graph.base import tensor_infos
    from enginery.inputs.generated import index_limits, random_case

    inputs = with_open_dims(with_profiles(tensor_infos(graph.graph.inputs), shapes))
    limits = index_limits(graph) if limits is None else limits
    one, other = (random_case(_small(inputs, more), "min", seed=more, ranges=limits).feeds for more in (0, 1))
    same = all(array.shape == other[name].shape for name, array in one.items())
    return [dict(one)] if same else [dict(one), dict(other)]


def with_open_dims(inputs: Sequence[TensorInfo], say: Callable[[str], None] = lambda _: None) -> tuple[TensorInfo, ...]:
    """Give a dynamic first axis that nobody sized the sizes 1 and 2 to be tried at; refuse to guess any other."""
    return tuple(info if info.profile is not None else _opened(info, say) for info in inputs)


def _opened(info: TensorInfo, say: Callable[[str], None]) -> TensorInfo:
    if info.shape is None:
        return info
    unsized = [axis for axis, dim in enumerate(info.shape) if isinstance(dim, str)]
    opened = ["1..64..128" if axis else "1..8..32" for axis in range(len(info.shape))]
    shown = "x".join(opened[axis] if axis in unsized else str(dim) for axis, dim in enumerate(info.shape))
    if unsized != [0]:
        names = ", ".join(f"{axis} ({info.shape[axis]})" for axis in unsized)
        raise UsageError(
            f"input {info.name!r} has dynamic axes {names} and no sizes for them",
            mend=f"say which sizes to build, verify and time, for example --shapes {info.name}={shown}",
        )
    say(
        f"input {info.name!r} has a dynamic axis 0 and no sizes for it: verified at 1 and 2, timed at 1; "
        f"give --shapes {info.name}={shown} for others"
    )
    name = str(info.shape[0]) if info.shape[0] != "?" else None
    dims = (Dim(1, 1, 2, name), *(Dim.fixed(dim) for dim in info.shape[1:] if isinstance(dim, int)))
    return replace(info, profile=Shape(dims))


def _small(inputs: Sequence[TensorInfo], more: int) -> tuple[TensorInfo, ...]:
    """Move the small end of every profile up by `more`, so that two small and different shapes can be tried."""
    return tuple(
        replace(info, profile=Shape(tuple(replace(dim, min=min(dim.min + more, dim.opt)) for dim in info.profile.dims)))
        if info.profile is not None
        else info
        for info in inputs
    )
