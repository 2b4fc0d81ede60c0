"""The shapes asked for, written into a graph: fixed sizes and symbolic names, consistently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import all_graphs, tensor_info
from enginery.graph.infer import infer_shapes
from enginery.spec import Dim, Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["apply_shapes"]

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class _Axis:
    """One axis of an input: what the graph says of it, and what was asked for."""

    tensor: str
    axis: int
    own: int | str | None
    asked: Dim

    def __str__(self) -> str:
        return f"input {self.tensor!r}, axis {self.axis}"


def apply_shapes(model: ir.Model, shapes: Mapping[str, Shape]) -> ir.Model:
    """Return a copy of a graph with the shapes asked for; weights are shared, `model` is not changed.

    A single size given for a dynamic axis fixes it, and all axes of the same symbolic name with it. A range keeps
    the axis dynamic, under the name given with it, else the graph's own, else ``batch`` for axis 0 and ``dim1``,
    ``dim2``, ... for the others. Shapes further down are renamed and inferred anew, the outputs' too.

    Args:
        model: the graph.
        shapes: a shape for each input by name; an input without one keeps its own.

    Raises:
        UnknownNameError: a shape names no input; the nearest name is suggested.
        GraphError: a shape has another rank than its input, asks for another size than the graph has fixed, asks a
            fixed axis to vary, or gives one symbolic name two ranges.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, ["n", 3])
        >>> node = ir.node("Relu", [x])
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> fixed = apply_shapes(ir.Model(graph, ir_version=10), {"x": Shape.parse("4x3")})
        >>> fixed.graph.inputs[0].shape.numpy()
        (4, 3)
    """
    copy = model.clone()
    inputs = {value.name or "": value for value in copy.graph.inputs}
    for name in shapes:
        if name not in inputs:
            raise UnknownNameError.from_choices("input", name, inputs)
    axes = [axis for name, shape in shapes.items() for axis in _axes(inputs[name], shape)]
    fixed, names = _resolve(axes)
    if not axes:
        return copy
    for axis in axes:
        _write(inputs[axis.tensor], axis.axis, _target(axis, fixed, names))
    _rename(copy, fixed, {old: new for old, new in names.items() if isinstance(old, str)})
    _infer(copy)
    return copy


def _axes(value: ir.Value, shape: Shape) -> Iterator[_Axis]:
    """Pair the axes of an input with what was asked for, after checking that they can be had."""
    name = value.name or ""
    if value.shape is None:
        own: list[int | str | None] = [None] * len(shape.dims)
    else:
        own = [dim if isinstance(dim, int) else dim.value or None for dim in value.shape]
    if len(own) != len(shape.dims):
        found = "x".join(map(str, tensor_info(value).shape or ())) or "scalar"
        raise GraphError(
            f"the shape {shape} given for input {name!r} has {len(shape.dims)} dimensions, the graph's has {len(own)}: "
            f"{found}",
            mend="give one size or range for each axis",
        )
    for index, (mine, asked) in enumerate(zip(own, shape.dims, strict=True)):
        axis = _Axis(name, index, mine, asked)
        if isinstance(mine, int):
            _check_static(axis, mine)
        else:
            yield axis


def _check_static(axis: _Axis, size: int) -> None:
    if axis.asked.dynamic:
        raise GraphError(
            f"{axis}: {axis.asked} was asked for, but the graph has fixed it at {size}",
            mend=f"export the model with axis {axis.axis} of {axis.tensor!r} dynamic, or ask for {size}",
        )
    if size not in axis.asked:
        mend = f"ask for {size}, or export the model with that axis dynamic"
        raise GraphError(f"{axis}: {axis.asked} was asked for, but the graph has fixed it at {size}", mend=mend)


def _resolve(axes: list[_Axis]) -> tuple[dict[str, int], dict[str | _Axis, str]]:
    """Decide each axis: the sizes of the graph's symbols that become fixed, and the names of those that stay.

    Names are found by the graph's symbol, or by the axis where the graph has none.
    """
    fixed: dict[str, int] = {}
    names: dict[str | _Axis, str] = {}
    first: dict[str, _Axis] = {}
    for axis in axes:
        if isinstance(axis.own, str):
            _agree(first.setdefault(axis.own, axis), axis, axis.own)
            if not axis.asked.dynamic:
                fixed[axis.own] = axis.asked.min
            elif axis.asked.name or axis.own not in names:
                _check_one_name(names, axis)
                names[axis.own] = axis.asked.name or names.get(axis.own) or _name_of(axis.own)
        elif axis.asked.dynamic and axis.asked.name:
            names[axis] = axis.asked.name
    ranges: dict[str, _Axis] = {}
    for axis in axes:
        key = axis.own if isinstance(axis.own, str) else axis
        if key in names:
            _agree(ranges.setdefault(names[key], axis), axis, names[key])
    for axis in axes:
        if axis.own is None and axis.asked.dynamic and axis not in names:
            names[axis] = _default_name(axis, axes, ranges)
            ranges.setdefault(names[axis], axis)
    return fixed, names


def _name_of(symbol: str) -> str:
    """Return a symbol of the graph as a name; ONNX allows any text there."""
    return symbol


def _check_one_name(names: Mapping[str | _Axis, str], axis: _Axis) -> None:
    symbol, given = axis.own, axis.asked.name
    before = names.get(symbol or "")
    if given and before not in (None, symbol, given):
        raise GraphError(
            f"{axis}: the name {given!r} was given to a dimension that the graph calls {symbol!r}, which was named "
            f"{before!r} elsewhere",
            mend="give both the same name",
        )


def _agree(first: _Axis, axis: _Axis, name: str) -> None:
    mine, other = axis.asked, first.asked
    if (mine.min, mine.opt, mine.max) != (other.min, other.opt, other.max):
        raise GraphError(
            f"{first} was asked to be {other} and {axis} to be {mine}, but both are {name!r}, which has one size",
            mend="give both the same range, or other names",
        )


def _default_name(axis: _Axis, axes: list[_Axis], ranges: Mapping[str, _Axis]) -> str:
    """Name an axis that nobody named. Only the batch is taken to be shared between inputs."""
    name = f"dim{axis.axis}" if axis.axis else "batch"
    other = ranges.get(name)
    if other is not None and other.axis == 0 == axis.axis:
        mine, its = axis.asked, other.asked
        shared = (mine.min, mine.opt, mine.max) == (its.min, its.opt, its.max)
        return name if shared else f"{axis.tensor}_{name}"
    twin = any(a.axis == axis.axis and a.tensor != axis.tensor and a.own is None for a in axes)
    return f"{axis.tensor}_{name}" if other is not None or (twin and axis.axis) else name


def _target(axis: _Axis, fixed: Mapping[str, int], names: Mapping[str | _Axis, str]) -> int | str:
    if isinstance(axis.own, str):
        return fixed[axis.own] if axis.own in fixed else names[axis.own]
    return names[axis] if axis.asked.dynamic else axis.asked.min


def _write(value: ir.Value, axis: int, target: int | str) -> None:
    import onnx_ir as ir

    dims: list[int | str | ir.SymbolicDim | None] = list(value.shape) if value.shape is not None else [None] * (axis)
    dims.extend([None] * (axis + 1 - len(dims)))
    dims[axis] = target
    value.shape = ir.Shape(dims)


def _rename(model: ir.Model, fixed: Mapping[str, int], names: Mapping[str, str]) -> None:
    """Replace the symbols of the graph everywhere: by their sizes, or by their new names."""
    import onnx_ir as ir

    done: set[ir.Value] = set()
    for graph in all_graphs(model):
        outputs = [value for node in graph for value in node.outputs]
        for value in (*graph.inputs, *outputs, *graph.outputs):
            if value.shape is not None and value not in done:
                done.add(value)
                value.shape = ir.Shape([_replaced(dim, fixed, names) for dim in value.shape])


def _replaced(dim: int | ir.SymbolicDim, fixed: Mapping[str, int], names: Mapping[str, str]) -> int | str | None:
    """Replace symbols in one dimension; an expression of them, such as ``2*n + 1``, is computed where it can be."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in fixed:
        return fixed[dim.value]
    if dim.value in names:
        return names[dim.value]
    symbols = set(_SYMBOL.findall(dim.value))
    if symbols and symbols <= fixed.keys():
        found = dim.evaluate({symbol: fixed[symbol] for symbol in symbols})
        return found if isinstance(found, int) else None
    return _SYMBOL.sub(lambda match: str(fixed.get(match[0], names.get(match[0], match[0]))), dim.value)


def _infer(model: ir.Model) -> None:
    """Infer shapes anew. Names that no input has say nothing, so they give way to what is inferred."""
    import onnx_ir as ir

    known = {dim.value for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    before = {value: value.shape for value in model.graph.outputs if value.shape is not None}
    for value, shape in before.items():
        value.shape = ir.Shape([dim if isinstance(dim, int) or dim.value in known else None for dim in shape])
    infer_shapes(model)
    for value, shape in before.items():
        if value.shape is not None:
            value.shape = ir.Shape([_fuller(a, b) for a, b in zip(value.shape, shape, strict=True)])


def _fuller(inferred: int | ir.SymbolicDim, before: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    unknown = not isinstance(inferred, int) and (inferred.value is None or inferred.value.startswith("unk__"))
    return before if unknown else inferred
