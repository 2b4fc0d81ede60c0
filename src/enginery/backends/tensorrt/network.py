"""A network that a user built with TensorRT's own API: its inputs and outputs, named, sized and typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.backends.base import Built, Definition
from enginery.backends.tensorrt.building import Construction
from enginery.backends.tensorrt.optimization_profiles import check_profiles, narrowed
from enginery.backends.tensorrt.versions import Api, element_type
from enginery.errors import BuildError, SourceError
from enginery.graph.base import axis_name
from enginery.records import TensorInfo
from enginery.spec import BuildSpec, PrecisionPlan, Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["build_network"]

_MADE_UP = "(Unnamed"
"""What TensorRT calls a tensor or a layer that nobody named begins so."""


def build_network(api: Api, definition: Definition, spec: BuildSpec, folder: Path) -> Built:
    """Let a user's function fill an empty network, and build it.

    Weights that the function gives to TensorRT are not copied before the engine is built: the definition holds them.

    Args:
        api: the library, whose empty network the function gets.
        definition: the function and its weights.
        spec: shapes, precision and options. In a typed network (from 10 on) every layer computes in the types that
            the function gave it; before that, the precision asked for is allowed everywhere.
        folder: takes the engine; empty.

    Raises:
        SourceError: the function raised, or returned something.
        BuildError: an input or output has no name, or TensorRT refused the network.
        UnknownNameError: ``spec.shapes`` names no input.
    """
    construction = Construction.begin(api, spec)
    network = construction.network
    made = definition.define(network)
    if made is not None:
        raise SourceError(
            f"the network {definition.name} returned a {type(made).__qualname__}, and TensorRT's are filled in place",
            mend="mark the outputs with network.mark_output(tensor), and return nothing",
        )
    inputs = [network.get_input(at) for at in range(network.num_inputs)]
    outputs = [network.get_output(at) for at in range(network.num_outputs)]
    if not outputs:
        raise BuildError(
            f"the network {definition.name} has no output", mend="mark each with network.mark_output(tensor)"
        )
    _check_names("input", inputs, 'name it: network.add_input("image", dtype, shape)')
    _check_names("output", outputs, 'name the tensor before it is marked: layer.get_output(0).name = "scores"')
    taken = tuple(_info(api, tensor, spec.shapes) for tensor in inputs)
    ranges = check_profiles(taken, spec.shapes, narrowed(taken, spec).profiles)
    given = tuple(_info(api, tensor, None) for tensor in outputs)
    return construction.finish(_no_graph(), PrecisionPlan(spec.precision), ranges, (taken, given), folder)


def _check_names(kind: str, tensors: Iterable[Any], mend: str) -> None:
    """Refuse tensors without a name of their own: callers give and get arrays by name."""
    seen: set[str] = set()
    for at, tensor in enumerate(tensors):
        if not tensor.name or tensor.name.startswith(_MADE_UP):
            raise BuildError(f"{kind} {at} of the network has no name", mend=mend)
        if tensor.name in seen:
            raise BuildError(f"two {kind}s of the network are called {tensor.name!r}", mend="give each its own name")
        seen.add(tensor.name)


def _info(api: Api, tensor: Any, shapes: Mapping[str, Shape] | None) -> TensorInfo:
    """Describe a tensor; a dynamic axis of an input is called as TensorRT or `shapes` calls it, else made up.

    Which input's axis an output's follows TensorRT does not tell before it runs: such an axis is ``?``.
    """
    asked = shapes[tensor.name].dims if shapes and tensor.name in shapes else ()
    dims: list[int | str] = []
    for axis, size in enumerate(tuple(tensor.shape)):
        own = tensor.get_dimension_name(axis) or (asked[axis].name if axis < len(asked) else None)
        made_up = "?" if shapes is None else axis_name(axis, tensor.name)
        dims.append(int(size) if size >= 0 else (own or made_up))
    return TensorInfo(tensor.name, element_type(api, tensor.dtype), tuple(dims))


def _no_graph() -> ir.Model:
    """Return an empty graph: a hand-built network came from no ONNX nodes."""
    import onnx_ir as ir

    return ir.Model(ir.Graph([], [], nodes=[], name="by hand"), ir_version=10)
