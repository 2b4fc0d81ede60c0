"""What was asked: shapes, precision, limits. Frozen, and made before any work begins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from enginery.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CALIBRATION_METHODS",
    "DROPS",
    "HERE",
    "OBJECTIVES",
    "PRECISIONS",
    "QUANTISED",
    "BenchSpec",
    "BuildSpec",
    "Dim",
    "Example",
    "OptimizeSpec",
    "Option",
    "PrecisionPlan",
    "Shape",
    "SourceOptions",
    "SourceSpec",
    "VerifySpec",
    "as_shapes",
    "check_precision",
    "parse_examples",
    "parse_shapes",
    "show_sizes",
    "split_named",
]

Option: TypeAlias = str | int | float | bool
"""The value of one backend option; all of them survive a round trip through JSON."""

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""What a precision may be; ``best`` stands for all that the backends offer."""

QUANTISED = frozenset({"int8", "fp8"})
"""Precisions in which a node reads quantised numbers; the others are types of the numbers themselves."""

_BITS = {"fp32": 32, "tf32": 19, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8}

OBJECTIVES = ("latency", "throughput", "size")
"""What `optimize` may minimise or, for throughput, maximise."""

DROPS = ("top1", "agreement", "cosine")
"""Metrics whose fall may be bounded: the share of labels that are right, the share of rows whose highest score stands
where the reference's does (1 for the reference), the cosine to the reference (likewise 1)."""

CALIBRATION_METHODS = ("minmax", "entropy", "percentile")
"""How a range of INT8 may follow from the values seen."""

_MAX_SIZE = 2**31 - 1
_SHAPE_HELP = "write it as NAME=DIMxDIMx..., each DIM as 3, 1..8, 1..8..32 or batch:1..8..32"
_SHAPES_HELP = 'give a dict, such as {"input": "1..8..32x3x224x224"}, with a text or an enginery.Shape for each name'
_RANGE = re.compile(r"(?:(?P<name>[A-Za-z_]\w*):)?(?P<numbers>\d+(?:\.\.\d+){0,2})")


@dataclass(frozen=True)
class Dim:
    """One dimension: the sizes it may take, and the size to be fast at.

    Args:
        min: the smallest size, at least 0.
        opt: the size that the engine is tuned and timed for.
        max: the largest size.
        name: the symbolic name; dimensions of one name have one size in every call.

    Example:
        >>> Dim.parse("batch:1..8..32")
        Dim(min=1, opt=8, max=32, name='batch')
        >>> str(Dim.parse("1..32"))
        '1..32..32'
    """

    min: int
    opt: int
    max: int
    name: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.opt <= self.max:
            raise UsageError(
                f"dimension {self.min}..{self.opt}..{self.max} is not in the order min <= opt <= max",
                mend="write it as min..opt..max, for example 1..8..32",
            )
        if self.max > _MAX_SIZE:
            raise UsageError(f"dimension {self.max} is too large", mend=f"give {_MAX_SIZE} at the most")

    @classmethod
    def fixed(cls, size: int) -> Dim:
        """Return a dimension of one size."""
        return cls(size, size, size)

    @classmethod
    def parse(cls, text: str) -> Dim:
        """Read ``3``, ``1..32`` (tuned for the largest), ``1..8..32``, each with an optional ``name:``."""
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text.strip()!r} is not a dimension", mend=_SHAPE_HELP)
        numbers = [int(part) for part in match["numbers"].split("..")]
        low, high = numbers[0], numbers[-1]
        opt = numbers[1] if len(numbers) == 3 else high  # noqa: PLR2004 - min, opt, max
        return cls(low, opt, high, match["name"])

    @property
    def dynamic(self) -> bool:
        """Whether it may take more than one size."""
        return self.min != self.max

    def __contains__(self, size: int) -> bool:
        return self.min <= size <= self.max

    def __str__(self) -> str:
        sizes = f"{self.min}..{self.opt}..{self.max}" if self.dynamic else str(self.min)
        return f"{self.name}:{sizes}" if self.name else sizes


@dataclass(frozen=True)
class Shape:
    """The profile of one tensor: a `Dim` for each axis.

    Example:
        >>> shape = Shape.parse("1..8..32x3x224x224")
        >>> shape.at("opt")
        (8, 3, 224, 224)
    """

    dims: tuple[Dim, ...]

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read dimensions joined by ``x``; an empty text or ``scalar`` is a scalar's shape."""
        body = text.strip()
        if body in ("", "scalar"):
            return cls(())
        # A dimension's name may hold an x (max_len), so only an x after a size cuts.
        parts = re.split(r"(?<=[\d\s])x(?=[\d\sA-Za-z_])", body)
        return cls(tuple(Dim.parse(part) for part in parts))

    @classmethod
    def fixed(cls, sizes: Iterable[int]) -> Shape:
        """Return a shape with one size for each axis."""
        return cls(tuple(Dim.fixed(int(size)) for size in sizes))

    def at(self, which: Literal["min", "opt", "max"]) -> tuple[int, ...]:
        """Return the sizes at one end of the profile, or at the size it is tuned for."""
        return tuple(int(getattr(dim, which)) for dim in self.dims)

    @property
    def dynamic(self) -> bool:
        """Whether any dimension may take more than one size."""
        return any(dim.dynamic for dim in self.dims)

    def __str__(self) -> str:
        return show_sizes(self.dims)


def show_sizes(sizes: Iterable[object]) -> str:
    """Write sizes joined by ``x``; ``scalar`` where there are none.

    Example:
        >>> show_sizes(("batch", 3, 8)), show_sizes(())
        ('batchx3x8', 'scalar')
    """
    return "x".join(map(str, sizes)) or "scalar"


@dataclass(frozen=True)
class Example:
    """The name, element type and shape of one example input, as the command line gives it.

    Example:
        >>> Example.parse("input:float32[1,3,224,224]").shape
        (1, 3, 224, 224)
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Example:
        """Read ``NAME:DTYPE[SIZE,SIZE,...]``."""
        match = re.fullmatch(r"\s*([^:\s]+)\s*:\s*([a-z]+\d*)\s*\[([\d,\s]*)\]\s*", text)
        if match is None:
            raise UsageError(f"{text!r} is not an example input", mend='write it as "input:float32[1,3,224,224]"')
        name, dtype, sizes = match.groups()
        return cls(name, dtype, tuple(int(size) for size in sizes.split(",") if size.strip()))


class SourceOptions(TypedDict, total=False):
    """What a call may say of a trained model, by keyword; `SourceSpec` says what each is."""

    examples: Sequence[Example]
    signature: str | None
    weights: str | Path | None
    make_dynamic: Sequence[str]
    output_names: Sequence[str]


@dataclass(frozen=True)
class SourceSpec:
    """What is said of a trained model besides where it is.

    Args:
        examples: name, dtype and shape of each input, where the model itself does not know them.
        example_inputs: real inputs of one call: an array, a tuple of them, or a dict by name.
        signature: which function of a SavedModel; None where it has one, or for ``serving_default``.
        weights: path of a file of weights to load into what a factory returns.
        make_dynamic: axes that an ONNX model has fixed and that shall vary, each as ``NAME`` (the first axis of
            every input) or ``NAME=INPUT:AXIS,INPUT:AXIS``.
        output_names: what the outputs shall be called: a name for each, in order, or ``OLD=NEW`` for some.
        factory: the function that returned it, such as ``net.py:make``, for its label; set by `open_source`.
    """

    examples: tuple[Example, ...] = ()
    example_inputs: Any = None
    signature: str | None = None
    weights: str | None = None
    make_dynamic: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    factory: str = ""

    @classmethod
    def of(cls, example_inputs: Any = None, **said: Unpack[SourceOptions]) -> SourceSpec:
        """Make one of what a call says, lists or tuples alike.

        Raises:
            TypeError: there is no such option, as for any other function.

        Example:
            >>> SourceSpec.of(make_dynamic=["batch"]).make_dynamic
            ('batch',)
        """
        if unknown := sorted(set(said) - set(SourceOptions.__annotations__)):
            raise TypeError(f"got an unexpected keyword argument {unknown[0]!r}")
        weights = said.get("weights")
        return cls(
            examples=tuple(said.get("examples", ())),
            example_inputs=example_inputs,
            signature=said.get("signature"),
            weights=None if weights is None else str(weights),
            make_dynamic=tuple(said.get("make_dynamic", ())),
            output_names=tuple(said.get("output_names", ())),
        )


def parse_shapes(texts: Iterable[str]) -> dict[str, Shape]:
    """Read ``NAME=SHAPE`` texts; several may stand in one text, separated by ``,`` or ``;``.

    Raises:
        UsageError: a text has no name or no readable shape, or a name occurs twice.

    Example:
        >>> {name: str(shape) for name, shape in parse_shapes(["ids=1..4x8,mask=1..4x8"]).items()}
        {'ids': '1..4..4x8', 'mask': '1..4..4x8'}
    """
    return {name: Shape.parse(body) for name, body in split_named(texts, "shape", _SHAPE_HELP).items()}


def as_shapes(given: Mapping[str, Shape | str] | None, kind: str = "shape") -> dict[str, Shape]:
    """Return the shapes that a caller gave by name, each as a `Shape` or as its text.

    Args:
        given: as the caller gave them; None for none.
        kind: what one of them is, for messages.

    Raises:
        UsageError: a text cannot be read, or something else stands where a shape or a text should.

    Example:
        >>> {name: str(shape) for name, shape in as_shapes({"ids": "1..4x8", "mask": Shape.fixed((4, 8))}).items()}
        {'ids': '1..4..4x8', 'mask': '4x8'}
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"each {kind} goes by its input's name, and {given!r} has none", mend=_SHAPES_HELP)
    return {name: _as_shape(name, shape, kind) for name, shape in (given or {}).items()}


def _as_shape(name: str, shape: Any, kind: str) -> Shape:
    if isinstance(shape, Shape):
        return shape
    if not isinstance(shape, str):
        found = f"the {kind} of {name!r} is {shape!r}, neither a Shape nor a text"
        raise UsageError(found, mend=_SHAPES_HELP)
    try:
        return Shape.parse(shape)
    except UsageError as error:
        raise UsageError(f"the {kind} of {name!r}: {error.message}", mend=error.mend) from error


def split_named(texts: Iterable[str], kind: str, mend: str) -> dict[str, str]:
    """Cut ``INPUT=VALUE`` texts into names and values; several may stand in one text, separated by ``,`` or ``;``.

    Args:
        texts: as the command line gives them; the last ``=`` separates, for a name may hold one.
        kind: what a value is, for messages.
        mend: how to write it.

    Raises:
        UsageError: a text has no name, or a name occurs twice.

    Example:
        >>> split_named(["ids=1x8; mask=1x8"], "shape", "write NAME=SHAPE")
        {'ids': '1x8', 'mask': '1x8'}
    """
    found: dict[str, str] = {}
    for part in (piece for text in texts for piece in re.split(r"[;,]", text) if piece.strip()):
        name, equals, body = part.rpartition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{part.strip()!r} names no input", mend=mend)
        if name in found:
            raise UsageError(f"the {kind} of {name!r} is given twice", mend=f"give one {kind} for each input")
        found[name] = body
    return found


def parse_examples(texts: Iterable[str]) -> tuple[Example, ...]:
    """Read one example input from each text."""
    return tuple(Example.parse(text) for text in texts)


def check_precision(name: str) -> str:
    """Return the name of a precision, or ``best``; raise `UnknownNameError` for any other word."""
    known = (*PRECISIONS, "best")
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError.from_choices("precision", str(name), known)
    return name


@dataclass(frozen=True)
class PrecisionPlan:
    """Which precision each node computes in.

    Args:
        precision: of every node that is not named; one of `PRECISIONS`.
        nodes: precision of single nodes by name, such as ``{"/encoder/Softmax": "fp32"}``.
        reasons: why, for those nodes.

    Raises:
        UnknownNameError: there is no such precision.
        UsageError: `nodes` is no mapping.

    Example:
        >>> PrecisionPlan("fp16", {"/encoder/Softmax": "fp32"}).of("/encoder/Softmax")
        'fp32'
    """

    precision: str = "fp32"
    nodes: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        nodes: Any = self.nodes
        if not isinstance(nodes, Mapping):
            mend = 'give each its precision: {"/encoder/Softmax": "fp32"}'
            raise UsageError(f"the nodes of a precision plan are a {type(nodes).__name__}: {nodes!r}", mend=mend)
        for word in (self.precision, *nodes.values()):
            if not isinstance(word, str) or word not in PRECISIONS:
                raise UnknownNameError.from_choices("precision", str(word), PRECISIONS)

    def of(self, node: str) -> str:
        """Return the precision of a node by its name."""
        return self.nodes.get(node, self.precision)

    @property
    def words(self) -> tuple[str, ...]:
        """Every precision that it asks for, its own first."""
        return tuple(dict.fromkeys((self.precision, *self.nodes.values())))

    @property
    def narrowest(self) -> str:
        """One word for the whole: the narrowest precision that it asks for, its own where others are as narrow.

        Example:
            >>> PrecisionPlan("fp32", {"/encoder/MatMul": "bf16"}).narrowest
            'bf16'
        """
        return min(self.words, key=_BITS.__getitem__)


@dataclass(frozen=True)
class BuildSpec:
    """What one engine shall be.

    Args:
        shapes: the profile of each input by name; an input that is not named keeps the graph's own shape.
        precision: one of `PRECISIONS`.
        options: the backend's own options, such as ``{"threads": 2}``.
        profiles: narrower profiles inside `shapes`, each tuned for itself, on a backend that has several; each names
            the inputs whose range it narrows.
        values: the range of the values of each input that says shapes (a Reshape's sizes, say), as a `Shape` with a
            dimension for each of its elements.
        plan: precision of single nodes; None where all are `precision`.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    precision: str = "fp32"
    options: Mapping[str, Option] = field(default_factory=dict)
    profiles: tuple[Mapping[str, Shape], ...] = ()
    values: Mapping[str, Shape] = field(default_factory=dict)
    plan: PrecisionPlan | None = None


@dataclass(frozen=True)
class VerifySpec:
    """How close an engine must be to its source.

    Args:
        max_error: the largest allowed error of any output: relative L2 for floats, the share of
            elements that differ for every other type; infinity where only the other bounds count.
        seed: of the random inputs.
        repeats: how often the same input is run, to see that the outputs agree.
        max_rows: how many rows of a batch are run alone, to see that they agree with the batch.
        min_cosine: the smallest allowed cosine between an output and the reference's; None for no bound.
        max_drop: how far a metric of `DROPS` may fall below the reference's, such as ``{"top1": 0.005}``.
    """

    max_error: float = 1e-3
    seed: int = 0
    repeats: int = 3
    max_rows: int = 8
    min_cosine: float | None = None
    max_drop: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.max_error >= 0:
            raise UsageError(f"the largest error allowed is {self.max_error}", mend="give 0 or a number above it")
        if self.min_cosine is not None and not -1 <= self.min_cosine <= 1:
            raise UsageError(f"the smallest cosine allowed is {self.min_cosine}", mend="give a number from -1 to 1")
        for metric, drop in self.max_drop.items():
            if metric not in DROPS:
                raise UnknownNameError.from_choices("metric", metric, DROPS)
            if not 0 <= drop <= 1:
                raise UsageError(f"the largest drop of {metric} allowed is {drop}", mend="give a share from 0 to 1")
        if self.max_error == math.inf and self.min_cosine is None and not self.max_drop:
            mend = "give a largest error, a smallest cosine, or the largest drop of a metric"
            raise UsageError("no bound on the outputs is given", mend=mend)

    @classmethod
    def of(
        cls,
        max_error: float | None = None,
        *,
        min_cosine: float | None = None,
        max_drop: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> VerifySpec:
        """Make one of the bounds that were given: the largest error has its default only where no other bound is.

        Example:
            >>> VerifySpec.of().max_error, VerifySpec.of(min_cosine=0.98).max_error
            (0.001, inf)
        """
        others = min_cosine is not None or bool(max_drop)
        bound = max_error if max_error is not None else math.inf if others else cls.max_error
        return cls(max_error=bound, seed=seed, min_cosine=min_cosine, max_drop=dict(max_drop or {}))


@dataclass(frozen=True)
class BenchSpec:
    """When a benchmark has seen enough.

    Args:
        warmup_ms: time spent on calls that are not counted, before the first sample.
        turn_ms: time of one turn, when several candidates take turns.
        min_samples: samples at the least.
        stable_within: the benchmark stops when the 95 % confidence interval of the median is narrower
            than this share of the median on either side, in at least `min_turns` turns.
        min_turns: turns at the least.
        limit_s: time at the most, for one candidate.
    """

    warmup_ms: float = 200.0
    turn_ms: float = 300.0
    min_samples: int = 20
    stable_within: float = 0.01
    min_turns: int = 3
    limit_s: float = 10.0

    def __post_init__(self) -> None:
        _check_positive("the time limit", self.limit_s)


HERE = "here"
"""Name of this interpreter's own environment."""


@dataclass(frozen=True)
class OptimizeSpec:
    """What `optimize` was asked for; saved with its result.

    Args:
        shapes: the profile of each input by name.
        precision: one of `PRECISIONS`, or ``best`` for all that the backends offer.
        backends: names of backends; empty for every one that is here.
        objective: one of `OBJECTIVES`.
        max_latency_ms: reject a candidate whose median is above it; None for no bound.
        environments: other interpreters by name, each the path of a Python that has Enginery.
        simplify: whether the graph is simplified first.
        calibration: where the data lies that INT8 ranges follow from, or what it is; empty where there is none.
        calibration_method: how a range follows from the values seen.
        job_limit_s: time limit of one build, verification or timing turn in a worker.
        memory_limit_bytes: memory limit of one worker; None for nine tenths of what is free.
        search_limit_s: time after which one search of a plan between two precisions tries nothing more; 0 for none.
        resume: path of a folder that keeps what a search measures; one that was killed goes on from it.
        plan: precision of single nodes, for every candidate; None where `precision` says it all.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    precision: str = "fp32"
    backends: tuple[str, ...] = ()
    objective: str = "latency"
    max_latency_ms: float | None = None
    environments: Mapping[str, str] = field(default_factory=dict)
    simplify: bool = True
    calibration: str = ""
    calibration_method: str = "minmax"
    job_limit_s: float = 600.0
    memory_limit_bytes: int | None = None
    search_limit_s: float = 600.0
    resume: str | None = None
    plan: PrecisionPlan | None = None
    verify: VerifySpec = field(default_factory=VerifySpec)
    bench: BenchSpec = field(default_factory=BenchSpec)

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.objective not in OBJECTIVES:
            raise UnknownNameError.from_choices("objective", self.objective, OBJECTIVES)
        if self.calibration_method not in CALIBRATION_METHODS:
            raise UnknownNameError.from_choices("method of calibration", self.calibration_method, CALIBRATION_METHODS)
        _check_positive("the time limit", self.job_limit_s)
        if not 0 <= self.search_limit_s < math.inf:
            raise UsageError(f"the time limit of a search is {self.search_limit_s}", mend="give 0 or a number above it")
        if self.max_latency_ms is not None:
            _check_positive("the largest latency", self.max_latency_ms)
        plan: Any = self.plan
        if plan is not None and not isinstance(plan, PrecisionPlan):
            mend = "give a PrecisionPlan; enginery.graph.base.read_plan reads one from its file"
            raise UsageError(f"the precision plan is a {type(plan).__name__}: {plan!r}", mend=mend)
        if self.plan is not None and self.precision not in ("fp32", self.plan.precision, self.plan.narrowest):
            said = f"{self.precision} was asked for, and the precision plan says {self.plan.narrowest}"
            raise UsageError(said, mend="leave the precision out, or the plan")
        if HERE in self.environments:
            raise UsageError(f"{HERE!r} is this interpreter's own environment", mend="call the other one otherwise")


def _check_positive(what: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UsageError(f"{what} is {value}", mend="give a number above 0")
