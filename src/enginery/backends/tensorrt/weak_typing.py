"""Precision where TensorRT takes it from flags and layers, not from the graph: 8.5 and 8.6.

The graph stays float32, and a flag allows a narrower type everywhere: the builder lists and times the float32 kernels
too, and takes one where it is faster. Of a plan with both float32 and half, what it names otherwise and what multiplies
is pinned, layer by layer, and the builder obeys that or fails. Of a plan of half alone, what multiplies is pinned where
that is known to make the build shorter (decision 18).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from enginery.backends.tensorrt.node_names import NodeNames
from enginery.backends.tensorrt.versions import pin_layer, set_plan_flag
from enginery.errors import PrecisionError
from enginery.graph.base import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.versions import Api
    from enginery.spec import PrecisionPlan

__all__ = ["constrain", "is_plain"]

_FLAGS = {"fp16": "BuilderFlag.FP16", "int8": "BuilderFlag.INT8"}
_FLOAT32 = ("fp32", "tf32", "int8")  # what is dequantised is float32
_OBEY = "BuilderFlag.OBEY_PRECISION_CONSTRAINTS"
_PREFER = "BuilderFlag.PREFER_PRECISION_CONSTRAINTS"
_SHOWN = 3
# Layers that multiply: each has a half-precision kernel, and a library with typed graphs would take it.
_MULTIPLYING = frozenset({"CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY"})
# What residual networks are made of: TensorRT 8 times the kernels of each, and hands none to its other compiler.
_PLAIN = frozenset({
    "Add", "AveragePool", "Constant", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Identity", "MaxPool",
    "ReduceMean", "Relu", "Reshape",
})  # fmt: skip
# Kinds of layers whose types are not ours to set: they make sizes and constants, convert, or only bind a loop's ends.
_UNSET = frozenset({
    "ASSERTION", "CAST", "CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT", "CONSTANT", "DEQUANTIZE", "IDENTITY",
    "ITERATOR", "LOOP_OUTPUT", "NMS", "NON_ZERO", "PLUGIN", "PLUGIN_V2", "QUANTIZE", "RECURRENCE", "SHAPE",
    "TRIP_LIMIT",
})  # fmt: skip


def constrain(
    api: Api, network: Any, config: Any, plan: PrecisionPlan, graph: ir.Model, *, wider: bool = False
) -> tuple[str, ...]:
    """Set the flags and the precision of single layers that a plan asks for.

    Args:
        api: a library without typed networks.
        network: parsed from the float32 graph.
        config: its flags are changed.
        plan: what each node shall compute in.
        graph: what the network was parsed from, for the names of nodes.
        wider: float32 may stand in for half where the builder finds it faster: nothing is pinned for the build's sake.

    Returns:
        Notes for the user.

    Raises:
        PrecisionError: a precision that this version has no flag for.
    """
    used = list(dict.fromkeys((plan.precision, *plan.nodes.values())))
    for precision in used:
        if precision in _FLAGS:
            set_plan_flag(api, config, _FLAGS[precision])
        elif precision not in _FLOAT32:
            message = f"{api.library.label} {api.version} cannot compute in {precision}: that came with version 10"
            raise PrecisionError(message, mend="ask for fp16, or install a later version")
    if _is_mixed(plan):
        set_plan_flag(api, config, _OBEY)
    elif used == ["fp16"] and not wider and is_plain(graph):
        set_plan_flag(api, config, _PREFER)  # a layer without a kernel in half is the audit's to judge
    else:
        return ()
    return _pin_layers(api, network, plan, NodeNames(graph))


def is_plain(graph: ir.Model) -> bool:
    """Say whether a graph is made of dense convolutions and what goes with them alone.

    Pins and several threads make its build shorter. With attention pins make it longer, and with depthwise convolutions
    they are not known to help.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
        >>> is_plain(ir.from_onnx_text(text))
        False
    """
    nodes = list(all_nodes(graph))
    dense = all(node.attributes.get_int("group", 1) == 1 for node in nodes)
    return dense and {"Conv"} <= {node.op_type for node in nodes} <= _PLAIN


def _is_mixed(plan: PrecisionPlan) -> bool:
    """Say whether a plan has both fp16 and float32 nodes, so that layers must be told apart."""
    kinds = {_kind(precision) for precision in (plan.precision, *plan.nodes.values()) if precision != "int8"}
    return len(kinds) > 1


def _kind(precision: str) -> str:
    return "fp32" if precision in _FLOAT32 else precision


def _pin_layers(api: Api, network: Any, plan: PrecisionPlan, names: NodeNames) -> tuple[str, ...]:
    """Pin what computes otherwise than the plan's own word, and what multiplies; say which nodes have no layer."""
    trt = api.module
    types = {"fp32": trt.DataType.FLOAT, "fp16": trt.DataType.HALF}
    unseen = {node for node, precision in plan.nodes.items() if _kind(precision) != _kind(plan.precision)}
    unseen -= {node for node, precision in plan.nodes.items() if precision == "int8"}
    # Of the plan's own precision, layers that multiply are pinned, and the types between layers are the builder's.
    free = "fp16" if plan.precision == "fp16" else ""
    for layer, nodes in zip(_layers(network), names.of_network(api, network), strict=True):
        unseen.difference_update(nodes)
        outputs = _float_outputs(trt, layer)
        if not nodes or not outputs or _kind_of(layer) in _UNSET:
            continue
        wanted = {_kind(plan.of(node)) for node in nodes if plan.of(node) != "int8"}
        for precision in ("fp32", "fp16"):
            if precision in wanted and precision != free:
                pin_layer(api, layer, types[precision], outputs)
                break
            if precision in wanted and _kind_of(layer) in _MULTIPLYING:
                pin_layer(api, layer, types[precision], ())
                break
    return _without_layer(unseen)


def _without_layer(unseen: set[str]) -> tuple[str, ...]:
    """Say which nodes of a plan the parser has made no layer of."""
    if not unseen:
        return ()
    shown = ", ".join(sorted(unseen)[:_SHOWN]) + (" and more" if len(unseen) > _SHOWN else "")
    number = "1 node" if len(unseen) == 1 else f"{len(unseen)} nodes"
    follow = "which follows its neighbours" if len(unseen) == 1 else "which follow their neighbours"
    return (f"the parser made no layer to pin of {number} of the precision plan, {follow}: {shown}",)


def _layers(network: Any) -> Iterator[Any]:
    for at in range(network.num_layers):
        yield network.get_layer(at)


def _kind_of(layer: Any) -> str:
    return str(layer.type).rpartition(".")[2]


def _float_outputs(trt: Any, layer: Any) -> list[int]:
    """Return the outputs of a layer whose type may be set: floating-point tensors that are no sizes."""
    found = []
    for at in range(layer.num_outputs):
        tensor = layer.get_output(at)
        if tensor.dtype in (trt.DataType.FLOAT, trt.DataType.HALF) and not tensor.is_shape_tensor:
            found.append(at)
    return found
