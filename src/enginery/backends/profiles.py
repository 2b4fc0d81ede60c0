"""The profile of each input: what was asked for, held against the shapes that the model itself has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from enginery.errors import BuildError, UnknownNameError
from enginery.records import TensorInfo
from enginery.spec import Dim, Shape, show_sizes

__all__ = ["with_profiles"]


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
