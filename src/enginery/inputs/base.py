"""What every part of this stage, and other stages, share: a case, a range of values, the shapes of a profile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from enginery.errors import InputRankError, InputShapeError, UsageError
from enginery.records import TensorInfo
from enginery.spec import split_named

__all__ = [
    "Array",
    "Case",
    "Range",
    "Which",
    "dim_name",
    "load_cases",
    "parse_ranges",
    "resolve_shapes",
    "save_cases",
]

Array: TypeAlias = np.ndarray[Any, Any]
Which: TypeAlias = Literal["min", "opt", "max"]

_RANGE_HELP = "write it as NAME=LOW..HIGH, for example input=0..1 or ids=0..30521"


@dataclass(frozen=True, eq=False)
class Case:
    """The inputs of one call, and what they are called in a record.

    Args:
        name: ``min``, ``opt`` or ``max`` for the sizes of a profile, ``data 0`` and so on for recorded data.
        feeds: an array for each input by name; a sequence is a list of arrays. Nobody writes into them.
        labels: the right class of each row, int64 of shape (rows,); None where nobody knows it.
    """

    name: str
    feeds: dict[str, Any]
    labels: Array | None = None


@dataclass(frozen=True)
class Range:
    """The values an input may take, both ends included.

    Args:
        low: the smallest value.
        high: the largest value, at least `low`.

    Raises:
        UsageError: the ends are in the wrong order, or not finite.

    Example:
        >>> Range.parse("-1..1"), str(Range(0, 30521))
        (Range(low=-1, high=1), '0..30521')
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise UsageError(f"the range {self.low}..{self.high} is not in the order low <= high", mend=_RANGE_HELP)

    @classmethod
    def parse(cls, text: str) -> Range:
        """Read ``LOW..HIGH``, or one number for a constant; a number without a point or exponent is whole."""
        low, dots, high = text.partition("..")
        first = _number(low, text)
        return cls(first, _number(high, text) if dots else first)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


def parse_ranges(texts: Iterable[str]) -> dict[str, Range]:
    """Read ``NAME=LOW..HIGH`` texts; several may stand in one text, separated by ``,`` or ``;``.

    Raises:
        UsageError: a text has no name or no readable range, or a name occurs twice.

    Example:
        >>> {name: str(found) for name, found in parse_ranges(["input=0..1,ids=0..9"]).items()}
        {'input': '0..1', 'ids': '0..9'}
    """
    return {name: Range.parse(body) for name, body in split_named(texts, "range", _RANGE_HELP).items()}


def resolve_shapes(
    inputs: Sequence[TensorInfo], which: Which, sizes: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Choose one shape for each input at one end of the profile, or at the size it is tuned for.

    An input with a profile takes its sizes, a static dimension its own. A dynamic dimension without a profile takes
    the size that a profile of another input gives to the same symbolic name, else ``sizes[name]``, else 1: right for
    a batch, and the least that can be tried for anything else.

    Args:
        inputs: with the profile of each where it has one.
        which: ``min``, ``opt`` or ``max``.
        sizes: for symbolic names that no profile sizes.

    Returns:
        The shape of each input by name; dimensions of one symbolic name have one size.

    Raises:
        InputRankError: an input has neither a profile nor a known rank.
        InputShapeError: two profiles give different sizes to one symbolic name.

    Example:
        >>> resolve_shapes([TensorInfo("ids", "int64", ("batch", 16))], "opt", {"batch": 4})
        {'ids': (4, 16)}
    """
    sized = _profile_sizes(inputs, which)
    known = {**(sizes or {}), **{name: size for name, (size, _) in sized.items()}}
    return {info.name: _shape(info, which, known) for info in inputs}


def dim_name(info: TensorInfo, axis: int) -> str | None:
    """Return the symbolic name of an input's dimension, from its shape or else from its profile; None without one."""
    declared = None if info.shape is None else info.shape[axis]
    if isinstance(declared, str) and declared != "?":
        return declared
    return info.profile.dims[axis].name if info.profile is not None else None


def save_cases(cases: Iterable[Case], folder: str | Path) -> None:
    """Write cases into a new folder that `load_cases` reads: npz files beside an index, whole or not at all.

    Every element type survives (bfloat16, float8, int4 and strings too), and so do sequences and None. No pickles.

    Raises:
        DataError: a value is none of these.
        OutputError: the folder cannot be written, or holds other things.
    """
    from enginery.inputs.case_files import write

    write(cases, Path(folder))


def load_cases(folder: str | Path) -> tuple[Case, ...]:
    """Read the cases that `save_cases` wrote, in their order; the caller owns the arrays.

    Raises:
        DataError: the folder holds no cases, or they are damaged.
    """
    from enginery.inputs.case_files import read

    return read(Path(folder))


def _number(text: str, whole: str) -> float:
    try:
        return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text) else float(text)
    except ValueError as error:
        raise UsageError(f"{whole.strip()!r} is not a range", mend=_RANGE_HELP) from error


def _profile_sizes(inputs: Sequence[TensorInfo], which: Which) -> dict[str, tuple[int, str]]:
    """Return the size each symbolic name has in the profiles, and the input that says so."""
    sized: dict[str, tuple[int, str]] = {}
    for info in inputs:
        for axis, size in enumerate(info.profile.at(which) if info.profile is not None else ()):
            name = dim_name(info, axis)
            if name is None:
                continue
            first, where = sized.setdefault(name, (size, info.name))
            if first != size:
                raise InputShapeError(
                    f"the {which} size of {name} is {first} for input {where!r} and {size} for input {info.name!r}",
                    mend=f"give every {name} the same range: a call has one size for it",
                )
    return sized


def _shape(info: TensorInfo, which: Which, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if info.profile is not None:
        return info.profile.at(which)
    if info.shape is None:
        raise InputRankError(
            f"the number of dimensions of input {info.name!r} is unknown",
            mend=f"give its shape: --shapes {info.name}=...",
        )
    return tuple(dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in info.shape)
