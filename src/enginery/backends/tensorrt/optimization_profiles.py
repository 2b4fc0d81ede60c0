"""Optimisation profiles: the first takes the whole range asked for, each further one is narrower and tuned for itself.

An input whose values are sizes of other tensors (a Reshape's second input) has a range of values besides its shape:
`enginery.spec.BuildSpec.values`, written as a shape with an axis for each element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from enginery.backends.profiles import with_profiles
from enginery.backends.tensorrt.options import read_options
from enginery.errors import BuildError, UnknownNameError, UsageError
from enginery.records import TensorInfo
from enginery.spec import BuildSpec, Dim, Shape

__all__ = ["add_profiles", "check_profiles", "narrowed"]

_ENDS: tuple[Literal["min", "opt", "max"], ...] = ("min", "opt", "max")


def check_profiles(
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, Shape],
    profiles: Sequence[Mapping[str, Shape]] = (),
) -> tuple[dict[str, Shape], ...]:
    """Return the shape of every input in every profile: the widest first, then each of `profiles`.

    Args:
        inputs: as the network has them.
        shapes: the whole range of each input.
        profiles: narrower ranges; what one does not name keeps its whole range.

    Raises:
        UnknownNameError: a profile names no input.
        BuildError: an input has open axes and no range, a range lies outside the whole one, or two inputs give
            different ranges to one axis. The message names input, axis and values.

    Example:
        >>> x = TensorInfo("x", "float32", ("batch", 4))
        >>> whole, small = check_profiles([x], {"x": Shape.parse("1..32x4")}, [{"x": Shape.parse("1..1x4")}])
        >>> str(whole["x"]), str(small["x"])
        ('batch:1..32..32x4', 'batch:1x4')
    """
    whole = _ranges(inputs, shapes)
    found = [whole]
    for number, narrower in enumerate(profiles, 1):
        for name in narrower:
            if name not in whole:
                raise UnknownNameError.from_choices(f"input of profile {number}:", name, whole)
        ranges = _ranges(inputs, {**shapes, **narrower})
        for name, shape in ranges.items():
            _check_inside(number, name, shape, whole[name])
        found.append(ranges)
    for number, ranges in enumerate(found):
        _check_agreement(number, ranges)
    return tuple(found)


def narrowed(inputs: Sequence[TensorInfo], spec: BuildSpec) -> BuildSpec:
    """Add the profiles that ``narrow=ends`` asks for: one size each, at the smallest, the best and the largest shapes.

    Kernels for one size are faster than those for a range; the wide profile stays, so that every size runs.

    Args:
        inputs: as the network has them.
        spec: what was asked for; where all sizes are fixed there is nothing to add.

    Raises:
        UsageError: the values of an input are sizes too, which the shapes of the others do not fix.
        EngineryError: as for `check_profiles` and `enginery.backends.tensorrt.options.read_options`.

    Example:
        >>> x = TensorInfo("x", "float32", ("batch", 4))
        >>> spec = BuildSpec({"x": Shape.parse("1..32x4")}, options={"narrow": "ends"})
        >>> [str(shapes["x"]) for shapes in narrowed([x], spec).profiles]
        ['batch:1x4', 'batch:32x4']
    """
    if read_options(spec.options)["narrow"] == "none":
        return spec
    if spec.values:
        raise UsageError(
            f"narrow=ends fixes shapes, and {', '.join(map(repr, spec.values))} holds sizes of a range of its own",
            mend="leave it out, or give each profile by --profile",
        )
    whole, *others = check_profiles(inputs, spec.shapes, spec.profiles)
    found: list[Mapping[str, Shape]] = []
    for end in _ENDS if any(shape.dynamic for shape in whole.values()) else ():
        fixed = {name: _fixed(shape, end) for name, shape in whole.items()}
        if fixed not in (*others, *found):
            found.append(fixed)
    return replace(spec, profiles=(*spec.profiles, *found))


def _fixed(shape: Shape, end: Literal["min", "opt", "max"]) -> Shape:
    sizes = zip(shape.at(end), shape.dims, strict=True)
    return Shape(tuple(Dim(size, size, size, dim.name) for size, dim in sizes))


def add_profiles(
    builder: Any,
    network: Any,
    config: Any,
    *,
    ranges: Sequence[Mapping[str, Shape]],
    values: Mapping[str, Shape],
) -> None:
    """Add a profile for each of `ranges` to a configuration, where the network has any open axis or shape input.

    Args:
        builder: makes the profiles.
        network: whole; which inputs hold sizes is known only then.
        config: takes the profiles.
        ranges: as `check_profiles` gives them.
        values: the range of the values of each input that holds sizes.

    Raises:
        UnknownNameError: `values` names an input that holds no sizes.
        BuildError: an input that holds sizes has no range of values, or TensorRT refused a profile.
    """
    tensors = [network.get_input(at) for at in range(network.num_inputs)]
    holding = [tensor.name for tensor in tensors if tensor.is_shape_tensor]
    for name in values:
        if name not in holding:
            raise UnknownNameError.from_choices("input that holds sizes", name, holding)
    if not holding and not any(-1 in tuple(tensor.shape) for tensor in tensors):
        return
    for number, shapes in enumerate(ranges):
        profile = builder.create_optimization_profile()
        for tensor in tensors:
            if tensor.is_shape_tensor:
                profile.set_shape_input(tensor.name, *_value_ends(tensor, values))
            if -1 in tuple(tensor.shape):
                profile.set_shape(tensor.name, *(shapes[tensor.name].at(end) for end in _ENDS))
        if config.add_optimization_profile(profile) < 0:
            said = ", ".join(f"{name}={shape}" for name, shape in shapes.items())
            raise BuildError(f"TensorRT refused profile {number}: {said}", mend="give every input min <= opt <= max")


def _ranges(inputs: Sequence[TensorInfo], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    profiled = with_profiles(inputs, shapes)
    open_inputs = [info for info in profiled if info.profile is None]
    if open_inputs:
        said = "; ".join(_open_axes(info) for info in open_inputs)
        mend = ",".join(f"{info.name}={_suggestion(info)}" for info in open_inputs)
        raise BuildError(
            f"no range was given for open axes, and an engine is built for ranges: {said}",
            mend=f"give one for each, such as --shapes {mend}",
        )
    return {info.name: info.profile for info in profiled if info.profile is not None}


def _open_axes(info: TensorInfo) -> str:
    if info.shape is None:
        return f"input {info.name!r} has no shape at all"
    axes = [f"{axis} ({dim})" for axis, dim in enumerate(info.shape) if isinstance(dim, str)]
    return f"input {info.name!r}, ax{'es' if len(axes) > 1 else 'is'} {', '.join(axes)}"


def _suggestion(info: TensorInfo) -> str:
    dims = info.shape or ("batch",)
    return "x".join(str(dim) if isinstance(dim, int) else "1..8..32" for dim in dims)


def _check_inside(number: int, name: str, shape: Shape, whole: Shape) -> None:
    for axis, (dim, outer) in enumerate(zip(shape.dims, whole.dims, strict=True)):
        if dim.min not in outer or dim.max not in outer:
            raise BuildError(
                f"profile {number}, input {name!r}, axis {axis}: {dim} lies outside the whole range {outer}",
                mend=f"stay within {outer.min}..{outer.max}, or widen --shapes",
            )


def _check_agreement(number: int, ranges: Mapping[str, Shape]) -> None:
    """Refuse two ranges for axes of one name: at each end all inputs must fit together."""
    seen: dict[str, tuple[str, int, Dim]] = {}
    for name, shape in ranges.items():
        for axis, dim in enumerate(shape.dims):
            if dim.name is None:
                continue
            first, at, other = seen.setdefault(dim.name, (name, axis, dim))
            if (dim.min, dim.opt, dim.max) != (other.min, other.opt, other.max):
                raise BuildError(
                    f"profile {number}: axis {dim.name!r} is {_said(other)} for input {first!r} (axis {at}) and "
                    f"{_said(dim)} for input {name!r} (axis {axis})",
                    mend="give both the same range",
                )


def _said(dim: Dim) -> str:
    return f"{dim.min}..{dim.opt}..{dim.max}"


def _value_ends(tensor: Any, values: Mapping[str, Shape]) -> tuple[tuple[int, ...], ...]:
    """Return the smallest, the best and the largest values of an input that holds sizes."""
    name, shape = tensor.name, tuple(tensor.shape)
    count = 1 if not shape else int(shape[0])
    example = "x".join(["1..4..8"] * max(count, 1))
    if name not in values:
        raise BuildError(
            f"input {name!r} holds the sizes of other tensors, and has no range of values",
            mend=f"give one for each of its {count} elements: --values {name}={example}",
        )
    given = values[name]
    if len(given.dims) != count:
        raise BuildError(
            f"input {name!r} has {count} elements, and {len(given.dims)} ranges of values were given: {given}",
            mend=f"give one for each: --values {name}={example}",
        )
    return given.at("min"), given.at("opt"), given.at("max")
