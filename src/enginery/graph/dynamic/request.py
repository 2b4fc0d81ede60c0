"""Which axes shall vary and what they are called: ``--make-dynamic`` read and compared with a graph's inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Axis", "DynamicAxes", "parse_dynamic", "read_dynamic"]

_NAME = re.compile(r"[A-Za-z_]\w*")
_HELP = "write it as NAME, such as batch, for the first axis of every input, or as NAME=INPUT:AXIS,INPUT:AXIS"


@dataclass(frozen=True)
class Axis:
    """One axis of an input, counted from 0."""

    tensor: str
    index: int

    def __str__(self) -> str:
        return f"axis {self.index} of input {self.tensor!r}"


@dataclass(frozen=True)
class DynamicAxes:
    """Axes that have one name, and so one size in every call.

    Args:
        name: the symbolic name.
        axes: those that are fixed now.
        size: what they are fixed at; None where all are dynamic already.
        renamed: names that stand at some of the axes now.
        every_first: whether it was asked for as the first axis of every input, so that rows must not depend on
            each other.
    """

    name: str
    axes: tuple[Axis, ...]
    size: int | None
    renamed: tuple[str, ...] = ()
    every_first: bool = False

    @property
    def may_be_rows(self) -> bool:
        """Whether samples may stand along it: an axis of each input, the first one or of size 1."""
        once = len({axis.tensor for axis in self.axes}) == len(self.axes)
        return once and (self.size == 1 or all(axis.index == 0 for axis in self.axes))


def parse_dynamic(texts: Sequence[str]) -> dict[str, tuple[Axis, ...] | None]:
    """Read ``NAME`` and ``NAME=INPUT:AXIS,INPUT:AXIS`` texts; None stands for the first axis of every input.

    Raises:
        UsageError: a text cannot be read, or a name is given twice.

    Example:
        >>> parse_dynamic(["batch", "seq=ids:1,mask:1"])["seq"]
        (Axis(tensor='ids', index=1), Axis(tensor='mask', index=1))
    """
    found: dict[str, tuple[Axis, ...] | None] = {}
    for text in texts:
        name, equals, places = (part.strip() for part in text.partition("="))
        if not _NAME.fullmatch(name) or bool(equals) != bool(places):
            raise UsageError(f"{text!r} names no axis to make dynamic", mend=_HELP)
        if name in found:
            raise UsageError(f"the dimension {name!r} is made dynamic twice", mend="name all of its axes at once")
        found[name] = tuple(_axis(place, text) for place in places.split(",")) if places else None
    taken: dict[Axis, str] = {}
    for name, axes in found.items():
        for axis in axes or ():
            if taken.setdefault(axis, name) != name:
                raise UsageError(f"{axis} is to be both {taken[axis]!r} and {name!r}", mend="give it one name")
    return found


def read_dynamic(model: ir.Model, texts: Sequence[str]) -> tuple[DynamicAxes, ...]:
    """Compare what was asked for with the inputs of a graph.

    Raises:
        UsageError: a text cannot be read, an axis is not there, a name stands for something else already, or axes
            that shall share a name differ in size.
        UnknownNameError: there is no such input; the nearest is suggested.
    """
    asked = parse_dynamic(texts)
    named = {axis for axes in asked.values() for axis in axes or ()}
    groups = []
    for name, given in asked.items():
        axes = given or tuple(axis for axis in _first_axes(model) if axis not in named)
        if not axes:
            raise UsageError(f"no input has a first axis that could be {name!r}", mend="name an axis: " + _HELP)
        groups.append(_resolve(model, name, axes, every_first=given is None))
    return tuple(groups)


def _axis(place: str, text: str) -> Axis:
    tensor, _, index = (part.strip() for part in place.rpartition(":"))
    if not tensor or not re.fullmatch(r"\d+", index):
        raise UsageError(f"{place.strip()!r} in {text!r} is no axis of an input", mend=_HELP)
    return Axis(tensor, int(index))


def _first_axes(model: ir.Model) -> list[Axis]:
    return [Axis(value.name or "", 0) for value in model.graph.inputs if value.shape is not None and len(value.shape)]


def _resolve(model: ir.Model, name: str, axes: tuple[Axis, ...], *, every_first: bool) -> DynamicAxes:
    fixed: dict[Axis, int] = {}
    renamed: set[str] = set()
    for axis in axes:
        own = _own(model, axis)
        if isinstance(own, int):
            fixed[axis] = own
        elif own not in (None, name):
            renamed.add(str(own))
    _check_sizes(name, fixed, every_first=every_first)
    _check_name(model, name, axes)
    unnamed = [axis for axis in axes if _own(model, axis) is None]
    size = next(iter(fixed.values()), None)
    if size == 0:
        raise UsageError(f"{next(iter(fixed))} is 0, so nothing shows what depends on it", mend="name another axis")
    return DynamicAxes(name, (*fixed, *unnamed), size, tuple(sorted(renamed)), every_first)


def _own(model: ir.Model, axis: Axis) -> int | str | None:
    """Return what the graph says of an axis: its size, its name, or None."""
    inputs = {value.name or "": value for value in model.graph.inputs}
    if axis.tensor not in inputs:
        raise UnknownNameError.from_choices("input", axis.tensor, inputs)
    shape = inputs[axis.tensor].shape
    if shape is None:
        raise UsageError(f"input {axis.tensor!r} has no known shape, so every axis may vary", mend="leave it out")
    if axis.index >= len(shape):
        last = f"its axes are 0 to {len(shape) - 1}" if len(shape) else "it is a scalar"
        raise UsageError(f"there is no {axis}: its shape is {shape}", mend=last)
    own = shape[axis.index]
    return own if isinstance(own, int) else own.value or None


def _check_sizes(name: str, fixed: dict[Axis, int], *, every_first: bool) -> None:
    first = next(iter(fixed), None)
    for axis, size in fixed.items():
        if first is not None and size != fixed[first]:
            mend = f"name the axes that vary together, such as {name}={first.tensor}:0" if every_first else ""
            raise UsageError(
                f"{first} is {fixed[first]} and {axis} is {size}, so they cannot both be {name!r}, which has one size "
                "in a call",
                mend=mend or "give them two names",
            )


def _check_name(model: ir.Model, name: str, axes: tuple[Axis, ...]) -> None:
    for value in model.graph.inputs:
        for index, dim in enumerate(value.shape or ()):
            other = Axis(value.name or "", index)
            if not isinstance(dim, int) and dim.value == name and other not in axes:
                raise UsageError(
                    f"the name {name!r} is taken: {other} has it already",
                    mend=f"take another name, or name that axis too: {other.tensor}:{index}",
                )
