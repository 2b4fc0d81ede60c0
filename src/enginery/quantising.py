"""Between a graph and its build: put INT8 into it, by ranges seen on the user's data and kept for the next time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import storage
from enginery.backends.base import Capabilities, Design
from enginery.caches import cache_folder
from enginery.errors import GraphError, ManifestError, UnknownNameError, UsageError
from enginery.graph.base import Ranges
from enginery.plain import from_json, to_json
from enginery.progress import Progress
from enginery.records import TensorInfo
from enginery.spec import CALIBRATION_METHODS, QUANTISED, BuildSpec, PrecisionPlan, Shape

if TYPE_CHECKING:
    import numpy as np

    from enginery.tuning.candidates import Contestant

    Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

__all__ = [
    "Calibration", "Quantiser", "check_calibrated", "check_calibration", "make_quantiser", "quantise_contestants",
    "quantised",
]  # fmt: skip

_REASON = "all that can read it do"
_NO_KERNEL = "it could read INT8, and its backend has no kernel for such a convolution"
_FORMAT = "1"  # of the ranges that are kept; a change of how they are found changes it


@dataclass(frozen=True)
class Calibration:
    """The data that ranges follow from.

    Args:
        data: a path or a Python loader, as `enginery.inputs.recorded.load_data` takes it; or what a loader returns,
            such as a torch DataLoader.
        method: how a range follows from the values: ``minmax``, ``entropy`` or ``percentile``.
        examples: inputs that are known to be like real ones, to hold the data against; None where there are none.
    """

    data: Any
    method: str = "minmax"
    examples: Feeds | None = None


class Quantiser:
    """Quantises designs for backends; data is run once for each graph, and never twice for the same data.

    Args:
        calibration: the data.
        shapes: the profile of each input.
        folder: for the quantised graphs.
        progress: told what is going on.
    """

    def __init__(self, calibration: Calibration, shapes: Mapping[str, Shape], folder: Path, progress: Progress) -> None:
        self._calibration, self._shapes = calibration, shapes
        self._folder, self._progress = folder, progress
        self._ranges: dict[Path, Ranges] = {}
        self._made: dict[tuple[Path, str, tuple[str, ...]], Design] = {}
        self._hashes: dict[tuple[TensorInfo, ...], str] = {}

    def quantise(self, design: Design, plan: PrecisionPlan, form: str) -> Design:
        """Return a design in which a plan's int8 or fp8 nodes read such numbers; made once for each plan.

        Args:
            design: a graph in float32.
            plan: names its nodes.
            form: of the numbers, a name of `enginery.graph.precision.forms.FORMS`.

        Raises:
            DataError: no range follows from the data.
            GraphError: the graph, or a node of the plan, cannot be quantised.
        """
        from enginery.graph import base, files

        nodes = tuple(sorted(name for name, precision in plan.nodes.items() if precision in QUANTISED))
        key = design.path, form, nodes
        if key not in self._made:
            model = files.load(design.path)
            ranges = self.ranges(design)
            said: list[str] = []
            quantised = base.quantize(model, ranges, nodes=nodes, form=form, say=said.append)
            path = self._folder / f"{design.path.stem}-{form}-{len(self._made)}.onnx"
            files.save_shared(quantised, path)
            sha256 = files.hash_model(path)
            self._made[key] = replace(design, path=path, graph_sha256=sha256, notes=(*design.notes, *said))
        return self._made[key]

    def ranges(self, design: Design) -> Ranges:
        """Return the ranges of a design's tensors: those of an earlier run, or seen now.

        Raises:
            DataError: no range follows from the data.
        """
        if design.path not in self._ranges:
            kept = self._kept(design)
            found = self._read(kept) if kept is not None else None
            self._ranges[design.path] = found or self._see(design, kept)
        return self._ranges[design.path]

    def _see(self, design: Design, kept: Path | None) -> Ranges:
        from enginery.graph import base, files

        calibration = self._calibration
        ranges = base.calibrate(
            files.load(design.path), self._batches(design), method=calibration.method, examples=calibration.examples,
            say=self._progress.say,
        )  # fmt: skip
        if kept is not None:
            storage.write_text(kept, to_json(ranges) + "\n")
        return ranges

    def _read(self, path: Path) -> Ranges | None:
        """Read what an earlier run kept; None where there is nothing, or nothing that can be read."""
        if not path.exists():
            return None
        try:
            found = from_json(Ranges, path.read_text(encoding="utf-8"))
        except ManifestError as error:
            self._progress.say(f"calibration: {path} is damaged, and the data is run again: {error.message}")
            return None
        self._progress.say(f"calibration: ranges of {found.batches} batches, kept from an earlier run")
        return found

    def _inputs(self, design: Design) -> tuple[TensorInfo, ...]:
        from enginery.backends.profiles import with_profiles
        from enginery.graph import base, files

        return with_profiles(base.tensor_infos(files.load(design.path).graph.inputs), self._shapes)

    def _batches(self, design: Design) -> Iterator[Feeds]:
        from enginery.inputs.recorded import stream_data

        for case in stream_data(self._calibration.data, self._inputs(design), labels=False, say=self._progress.say):
            yield case.feeds

    def _kept(self, design: Design) -> Path | None:
        """Return where ranges of this graph and this data are kept; None for data that can be read only once."""
        data = self._calibration.data
        if isinstance(data, Iterator):
            return None
        inputs = self._inputs(design)
        if inputs not in self._hashes:
            self._hashes[inputs] = _hash_batches(self._batches(design))
        text = "\n".join((_FORMAT, design.graph_sha256, self._hashes[inputs], self._calibration.method))
        return cache_folder("ranges") / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def check_calibration(data: Any, method: str, words: Collection[str], weight_bits: int | None = None) -> None:
    """Refuse what no build could use, before a long export.

    Args:
        data: to calibrate with; None where none was given.
        method: how ranges shall follow from it.
        words: the precisions that were asked for, ``best`` perhaps.
        weight_bits: of weights that shall be stored in so many bits.

    Raises:
        UnknownNameError: there is no such method.
        UsageError: data, method or bits were given for nothing.
    """
    if method not in CALIBRATION_METHODS:
        raise UnknownNameError.from_choices("method of calibration", method, CALIBRATION_METHODS)
    if data is None and method != CALIBRATION_METHODS[0]:
        mend = "give the data too: --calibration PATH, or calibration=... in Python"
        raise UsageError(f"{method!r} says how to calibrate, and there is no data to calibrate with", mend=mend)
    low = QUANTISED & set(words)
    if data is not None and not low and "best" not in words:
        mend = "ask for int8 or fp8, or leave the calibration data out"
        asked = " and ".join(dict.fromkeys(words))
        raise UsageError(f"data to calibrate with was given, and {asked} needs none", mend=mend)
    if weight_bits is not None and low:
        mend = "leave one of the two out"
        said = f"{weight_bits} bits for weights alone, and {min(low)} for weights and activations"
        raise UsageError(f"both were asked for: {said}", mend=mend)


def check_calibrated(graph: Path, precision: str, plan: PrecisionPlan | None) -> None:
    """Raise `GraphError` where INT8 or FP8 is asked for, and a graph that nobody gave data for has no such nodes."""
    from enginery.graph import base

    model = base.load_model(graph)
    if plan is not None:
        base.check_quantised(model, plan)
    elif precision in QUANTISED:
        base.make_plan(model, precision)


def make_quantiser(  # noqa: PLR0917 - what a build knows
    data: Any,
    method: str,
    examples: Feeds | None,
    shapes: Mapping[str, Shape],
    folder: Path,
    progress: Progress,
) -> Quantiser | None:
    """Return what quantises by a user's data; None where none was given."""
    return None if data is None else Quantiser(Calibration(data, method, examples), shapes, folder, progress)


def quantised(
    design: Design, spec: BuildSpec, offered: Capabilities, quantiser: Quantiser | None, weight_bits: int | None = None
) -> tuple[Design, BuildSpec]:
    """Return what a backend shall build for a spec: with INT8 or FP8 in the graph, and the plan that says where.

    Args:
        design: a graph.
        spec: the precision, and the plan where there is one.
        offered: of the backend; it says in which form it reads INT8.
        quantiser: of the user's data; None where there is none.
        weight_bits: 8 or 4 to store the weights of matrix products in so many bits, whatever they compute in.

    Raises:
        UsageError: a network that is built by hand was to be quantised.
        GraphError: INT8 or FP8 was asked for, and there is neither data nor a quantised graph.
    """
    if quantiser is None and weight_bits is None:
        return design, spec
    if design.path.suffix != ".onnx":
        mend = "leave calibration data and weight bits out: what it computes in, its own functions say"
        raise UsageError("a network that is built by hand is no graph that could be quantised", mend=mend)
    low = QUANTISED & {spec.precision, *(spec.plan.words if spec.plan else ())}
    if quantiser is None or not low:
        return _with_small_weights(design, weight_bits or 8), spec
    form = "fp8" if "fp8" in low else offered.int8_form
    plan = _whole_plan(design, spec.plan, spec.precision, offered.int8_rest, form)
    return quantiser.quantise(design, plan, form), replace(spec, plan=plan)


def quantise_contestants(
    contestants: Sequence[Contestant], designs: Mapping[str, Design], quantiser: Quantiser | None, progress: Progress
) -> tuple[list[Contestant], dict[str, Design]]:
    """Let each contestant for int8 or fp8 take a quantised design; one that cannot has the reason as ``missing``.

    Without data they are left out, with a word, unless the graph is quantised already.

    Args:
        contestants: with designs that their backends read.
        designs: what they are built from, by name.
        quantiser: of the user's data; None where there is none.
        progress: told what is left out.

    Returns:
        The contestants, and the designs with the quantised ones among them.

    Raises:
        DataError: no range follows from the data.
    """
    found: list[Contestant] = []
    left_out: list[str] = []
    all_designs = dict(designs)
    for contestant in contestants:
        design = designs[contestant.design]
        if contestant.missing or contestant.precision not in QUANTISED or _is_quantised(design):
            found.append(contestant)
        elif quantiser is None:
            left_out.append(contestant.label)
        else:
            found.append(_quantised_contestant(contestant, design, quantiser, all_designs))
    if left_out:
        progress.say(f"not tried, for want of calibration data: {', '.join(left_out)}; give it with --calibration")
    return found, all_designs


def _quantised_contestant(
    contestant: Contestant, design: Design, quantiser: Quantiser, designs: dict[str, Design]
) -> Contestant:
    form = "fp8" if contestant.precision == "fp8" else contestant.int8_form
    try:
        plan = _whole_plan(design, contestant.plan, contestant.precision, contestant.int8_rest, form)
        made = quantiser.quantise(design, plan, form)
    except GraphError as error:
        return replace(contestant, missing=str(error))
    designs[made.path.stem] = made
    return replace(contestant, plan=plan, design=made.path.stem, origin=contestant.design)


def _is_quantised(design: Design) -> bool:
    from enginery.graph import base, files

    if design.path.suffix != ".onnx":
        return True  # built by hand: its author says what it computes in
    return any(node.op_type == "QuantizeLinear" for node in base.all_nodes(files.load(design.path)))


def _whole_plan(design: Design, plan: PrecisionPlan | None, precision: str, rest: str, form: str) -> PrecisionPlan:
    """Return a plan that names every node to quantise: what it says of nodes that it does not name, said of each."""
    if plan is not None and plan.precision not in QUANTISED:
        return plan
    full = _full_plan(design, precision if plan is None else plan.precision, rest, form)
    if plan is None:
        return full
    reasons = {name: reason for name, reason in full.reasons.items() if name not in plan.nodes}
    return PrecisionPlan(full.precision, {**full.nodes, **plan.nodes}, {**reasons, **plan.reasons})


def _full_plan(design: Design, precision: str, rest: str, form: str) -> PrecisionPlan:
    """Return the plan in which every node of a design is int8 (or fp8) that can be, and for which there are kernels."""
    from enginery.graph import base, files

    graph = files.load(design.path)
    nodes = dict.fromkeys(base.quantisable(graph, form))
    if precision == "fp8" and rest == "fp16":
        rest = "bf16"  # the scales of weights, largest / 448, are often too small for fp16
    left = [name for name in base.quantisable(graph) if name not in nodes]
    return PrecisionPlan(
        rest, {**dict.fromkeys(nodes, precision), **dict.fromkeys(left, rest)},
        {**dict.fromkeys(nodes, _REASON), **dict.fromkeys(left, _NO_KERNEL)},
    )  # fmt: skip


def _with_small_weights(design: Design, bits: int) -> Design:
    from enginery.graph import base, files

    said: list[str] = []
    nothing = Ranges("minmax", {}, 0)
    model = base.quantize(files.load(design.path), nothing, form=f"weights{bits}", say=said.append)
    path = design.path.with_name(f"{design.path.stem}-weights{bits}.onnx")
    files.save_shared(model, path)
    return replace(design, path=path, graph_sha256=files.hash_model(path), notes=(*design.notes, *said))


def _hash_batches(batches: Iterable[Feeds]) -> str:
    import numpy as np

    digest = hashlib.sha256()
    for feeds in batches:
        for name, array in sorted(feeds.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
