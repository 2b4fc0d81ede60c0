"""The shapes asked for, written into a graph: fixed sizes and symbolic names, consistently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.errors import GraphError, UnknownNameError
from enginery.graph.base import all_graphs, axis_name, tensor_info
from enginery.graph.infer import infer_shapes
from enginery.spec import Dim, Shape, as_shapes, show_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["apply_shapes", "rename_symbols"]

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class _Axis:
    """One axis of an input: what the graph says of it, and what was asked for."""

    tensor: str
    axis: int
    own: int | str | None
    asked: Dim

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.asked.min, self.asked.opt, self.asked.max

    def __str__(self) -> str:
        return f"input {self.tensor!r}, axis {self.axis}"


def apply_shapes(model: ir.Model, shapes: Mapping[str, Shape | str]) -> ir.Model:
    """Return a copy of a graph with the shapes asked for; weights are shared, `model` is not changed.

    A single size given for a dynamic axis fixes it, and all axes of the same symbolic name with it. A range keeps
    the axis dynamic, under the name given with it, else the graph's own, else ``batch`` for axis 0 and ``dim1``,
    ``dim2``, ... for the others. Shapes further down are renamed and inferred anew, the outputs' too.

    Args:
        model: the graph.
        shapes: a shape for each input by name, or its text; an input without one keeps its own.

    Raises:
        UnknownNameError: a shape names no input; the nearest name is suggested.
        GraphError: a shape has another rank than its input, asks for another size than the graph has fixed, asks a
            fixed axis to vary, or gives one symbolic name two ranges.

    Example:
        >>> import onnx_ir as ir
        >>> x = ir.val("x", ir.DataType.FLOAT, ["n", 3])
        >>> node = ir.node("Relu", [x])
        >>> graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
        >>> fixed = apply_shapes(ir.Model(graph, ir_version=10), {"x": "4x3"})
        >>> fixed.graph.inputs[0].shape.numpy()
        (4, 3)
    """
    asked = as_shapes(shapes)
    copy = model.clone()
    inputs = {value.name or "": value for value in copy.graph.inputs}
    for name in asked:
        if name not in inputs:
            raise UnknownNameError.from_choices("input", name, inputs)
    axes = [axis for name, shape in asked.items() for axis in _axes(inputs[name], shape)]
    targets = _targets(axes)
    _replace_symbols(copy, {key: target for key, target in targets.items() if isinstance(key, str)})
    for axis, target in targets.items():
        if isinstance(axis, _Axis):
            _write(inputs[axis.tensor], axis.axis, target)
    if axes:
        _infer(copy)
    return copy


def rename_symbols(model: ir.Model, names: Mapping[str, str]) -> ir.Model:
    """Return a copy of a graph in which symbolic names have given way to others, wherever they stand."""
    copy = model.clone()
    _replace_symbols(copy, names)
    return copy


def _axes(value: ir.Value, shape: Shape) -> Iterator[_Axis]:
    """Pair the axes of an input with what was asked for, after checking that they can be had."""
    name = value.name or ""
    if value.shape is None:
        own: list[int | str | None] = [None] * len(shape.dims)
    else:
        own = [dim if isinstance(dim, int) else dim.value or None for dim in value.shape]
    if len(own) != len(shape.dims):
        found = show_sizes(tensor_info(value).shape or ())
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


def _targets(axes: list[_Axis]) -> dict[str | _Axis, int | str]:
    """Decide what becomes of each symbol of the graph, and of each axis without one: a size or a name."""
    groups: dict[str | _Axis, list[_Axis]] = {}
    for axis in axes:
        groups.setdefault(axis.own if isinstance(axis.own, str) else axis, []).append(axis)
    targets: dict[str | _Axis, int | str] = {}
    owners: dict[str, _Axis] = {}
    for key, group in groups.items():
        for axis in group:
            _agree(group[0], axis, str(group[0].own))
        name = _given_name(group) or group[0].own
        if not group[0].asked.dynamic:
            targets[key] = group[0].asked.min
        elif isinstance(name, str):
            targets[key] = name
            _agree(owners.setdefault(name, group[0]), group[0], name)
    for axis in (group[0] for key, group in groups.items() if key not in targets):
        name = _default_name(axis, axes, owners)
        targets[axis] = name
        owners.setdefault(name, axis)
    return targets


def _given_name(group: list[_Axis]) -> str | None:
    """Return the name given to the axes that share one symbol of the graph, or None."""
    named = [axis for axis in group if axis.asked.name]
    for axis in named:
        if axis.asked.name != named[0].asked.name:
            raise GraphError(
                f"{named[0]} was named {named[0].asked.name!r} and {axis} {axis.asked.name!r}, "
                f"but the graph calls both {axis.own!r}",
                mend="give both the same name",
            )
    return named[0].asked.name if named else None


def _agree(first: _Axis, axis: _Axis, name: str) -> None:
    if first.sizes != axis.sizes:
        raise GraphError(
            f"{first} was asked to be {first.asked} and {axis} to be {axis.asked}, but both are {name!r}, "
            "which has one size in a call",
            mend="give both the same range, or other names",
        )


def _default_name(axis: _Axis, axes: list[_Axis], owners: Mapping[str, _Axis]) -> str:
    """Name an axis that nobody named. Only the batch is taken to be shared between inputs, where its range is."""
    name, alone = axis_name(axis.axis), axis_name(axis.axis, axis.tensor)
    owner = owners.get(name)
    if axis.axis == 0:
        return name if owner is None or (owner.axis == 0 and owner.sizes == axis.sizes) else alone
    twins = {other.tensor for other in axes if other.axis == axis.axis and other.own is None and other.asked.dynamic}
    return name if owner is None and len(twins) == 1 else alone


def _write(value: ir.Value, axis: int, target: int | str) -> None:
    import onnx_ir as ir

    dims: list[int | str | ir.SymbolicDim | None] = list(value.shape) if value.shape is not None else [None] * axis
    dims.extend([None] * (axis + 1 - len(dims)))
    dims[axis] = target
    value.shape = ir.Shape(dims)


def _replace_symbols(model: ir.Model, targets: Mapping[str, int | str]) -> None:
    """Replace the symbols of the graph everywhere: by their sizes, or by their new names."""
    import onnx_ir as ir

    done: set[ir.Value] = set()
    for graph in all_graphs(model):
        outputs = [value for node in graph for value in node.outputs]
        for value in (*graph.inputs, *outputs, *graph.outputs):
            if value.shape is not None and value not in done:
                done.add(value)
                value.shape = ir.Shape([_replaced(dim, targets) for dim in value.shape])


def _replaced(dim: int | ir.SymbolicDim, targets: Mapping[str, int | str]) -> int | str | None:
    """Replace symbols in one dimension; an expression of them, such as ``2*n + 1``, is computed where it can be."""
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value in targets:
        return targets[dim.value]
    symbols = set(_SYMBOL.findall(dim.value))
    sizes = {symbol: size for symbol in symbols if isinstance(size := targets.get(symbol), int)}
    if symbols and symbols == sizes.keys():
        found = dim.evaluate(sizes)
        return found if isinstance(found, int) else None
    return _SYMBOL.sub(lambda match: str(targets.get(match[0], match[0])), dim.value)


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
    return inferred if isinstance(inferred, int) or inferred.value is not None else before
