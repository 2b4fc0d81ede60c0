"""A network that a user built with OpenVINO's own operators: its inputs and outputs, named, sized and typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from enginery.errors import BuildError, SourceError
from enginery.graph.base import axis_name
from enginery.records import TensorInfo
from enginery.spec import Shape

__all__ = ["check_model", "name_ports", "network_types", "newest_opset", "read_ports"]

_NAME_OUTPUT = 'name the last operator, as in opset.relu(x, name="scores")'
_NAME_INPUT = 'name it, as in opset.parameter([-1, 3, 32, 32], name="image")'


def newest_opset(ov: ModuleType) -> Any:
    """Return the newest module of operators that is whole: OpenVINO ships the next one while it still is a beginning.

    Example:
        >>> from types import SimpleNamespace as Module
        >>> library = Module(opset9=Module(parameter=1, age=9), opset10=Module(parameter=1, age=10), opset11=Module())
        >>> newest_opset(library).age
        10
    """
    numbers = [int(name[5:]) for name in vars(ov) if name.startswith("opset") and name[5:].isdigit()]
    modules = (getattr(ov, f"opset{number}") for number in sorted(numbers, reverse=True))
    return next(module for module in modules if hasattr(module, "parameter"))


def check_model(made: Any, kind: type, name: str) -> Any:
    """Return what the user's function made, where it is a model.

    Raises:
        SourceError: it is something else.
    """
    if isinstance(made, kind):
        return made
    said = "nothing" if made is None else f"a {type(made).__qualname__}"
    mend = f'end it with: return openvino.Model([scores], [image], "{name}")'
    raise SourceError(f"the network {name} returned {said}, not an openvino.Model", mend=mend)


def name_ports(model: Any) -> None:
    """Give every input and output its tensor name, in place: its own, else the friendly name that the user gave.

    Raises:
        BuildError: one has neither, or two have the same.
    """
    for kind, ports, mend in (("input", model.inputs, _NAME_INPUT), ("output", model.outputs, _NAME_OUTPUT)):
        names: list[str] = []
        for at, port in enumerate(ports):
            name = _given_name(port)
            if name is None:
                raise BuildError(f"{kind} {at} of the network has no name", mend=mend)
            if name in names:
                raise BuildError(f"two {kind}s of the network are called {name!r}", mend="give each a name of its own")
            if name not in port.get_names():
                port.get_tensor().set_names({name})
            names.append(name)


def read_ports(model: Any, ov: ModuleType, shapes: Mapping[str, Shape]) -> tuple[tuple[TensorInfo, ...], ...]:
    """Describe the inputs and the outputs of a model whose ports are named.

    A dynamic axis of an input is called as `shapes` calls it, else ``image_batch``. An axis of an output has the name
    of the input's axis that it follows, where OpenVINO can tell, else ``?``.

    Returns:
        The inputs and the outputs, without profiles.
    """
    symbols: dict[str, Any] = {}
    for port in model.inputs:
        name = _given_name(port) or ""
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic:
            continue
        for axis in (axis for axis in range(len(shape)) if shape[axis].is_dynamic):
            dim = shape[axis]
            dim.set_symbol(symbols.setdefault(_axis_name(name, axis, shapes), ov.Symbol()))
            shape[axis] = dim
        port.get_node().set_partial_shape(shape)
    model.validate_nodes_and_infer_types()
    return _infos(model.inputs, symbols), _infos(model.outputs, symbols)


def network_types(model: Any) -> set[str]:
    """Return the floating-point types that a network names itself, as ONNX calls them."""
    ours = {"f16": "FLOAT16", "bf16": "BFLOAT16"}
    found = {port.get_element_type().get_type_name() for node in model.get_ops() for port in node.outputs()}
    return {ours[name] for name in found & set(ours)}


def _given_name(port: Any) -> str | None:
    """Return a port's name; None where it has only the one that OpenVINO made up."""
    node = port.get_node()
    own = sorted(port.get_names() - {node.get_name()})
    if own:
        return str(own[0])
    nodes = [node, *(value.get_node() for value in node.input_values())]
    given = [one.get_friendly_name() for one in nodes if one.get_friendly_name() != one.get_name()]
    return given[0] if given else None


def _axis_name(name: str, axis: int, shapes: Mapping[str, Shape]) -> str:
    dims = shapes[name].dims if name in shapes else ()
    asked = dims[axis].name if axis < len(dims) else None
    return asked or axis_name(axis, name)


def _infos(ports: Iterable[Any], symbols: Mapping[str, Any]) -> tuple[TensorInfo, ...]:
    infos = []
    for port in ports:
        shape = port.get_partial_shape()
        dims = None if shape.rank.is_dynamic else tuple(_dim(dim, symbols) for dim in shape)
        infos.append(TensorInfo(_given_name(port) or "", _dtype(port.get_element_type()), dims))
    return tuple(infos)


def _dim(dim: Any, symbols: Mapping[str, Any]) -> int | str:
    if dim.is_static:
        return int(dim.get_length())
    own = dim.get_symbol()
    return next((name for name, symbol in symbols.items() if own is not None and own == symbol), "?")


_DTYPES = {
    "boolean": "bool", "f16": "float16", "f32": "float32", "f64": "float64", "i8": "int8", "i16": "int16",
    "i32": "int32", "i64": "int64", "u8": "uint8", "u16": "uint16", "u32": "uint32", "u64": "uint64",
    "bf16": "bfloat16", "f8e4m3": "float8e4m3fn", "f8e5m2": "float8e5m2", "f8e8m0": "float8e8m0",
    "f4e2m1": "float4e2m1", "i4": "int4", "u4": "uint4", "u2": "uint2", "string": "string",
}  # fmt: skip


def _dtype(kind: Any) -> str:
    name = kind.get_type_name()
    if name not in _DTYPES:
        raise BuildError(f"the network has an input or output of type {name}", mend="give it a type with elements")
    return _DTYPES[name]
