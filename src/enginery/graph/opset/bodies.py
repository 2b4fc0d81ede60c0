"""One node as a model of its own: for ONNX's definition of it by other operators, and for its version converter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.graph.opset.nodes import CannotConvertError, free_name
from enginery.graph.opset.schemas import default_value, definition_kind, schema_at
from enginery.graph.passes.base import constant_value, is_op

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["convert_by_library", "expand"]

_SMALL_BYTES = 1024
_IR_VERSION = 10
_PLAIN = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
_OWN_DOMAIN = "definition"


def expand(node: ir.Node, version: int, taken: set[str]) -> list[ir.Node]:
    """Replace a node by ONNX's own definition of it at an opset.

    Args:
        node: an operator that ONNX defines as a function, at `version`.
        version: the opset of the definition.
        taken: names of tensors in the model; those of new ones are added.

    Returns:
        The nodes that stand in its place.

    Raises:
        CannotConvertError: ONNX has no definition of it for these types.
    """
    from onnx import inliner, shape_inference

    try:
        body = inliner.inline_local_functions(_with_definition(node, version))
        body = shape_inference.infer_shapes(body)
    except CannotConvertError:
        raise
    except Exception as error:
        raise CannotConvertError(f"ONNX's definition of it does not fit: {str(error).strip()}") from error
    nodes = _put_in_place(node, body, taken)
    for new in nodes:
        if (is_op(new, "Constant") and not new.attributes) or any(one.is_ref() for one in new.attributes.values()):
            raise CannotConvertError(f"ONNX's definition of it leaves an attribute of its {new.op_type} open")
        if is_op(new, "CastLike"):
            _say_type(new)
    return nodes


def convert_by_library(node: ir.Node, version: int, target: int, taken: set[str]) -> list[ir.Node]:
    """Replace a node by what ONNX's version converter makes of it alone, with its shapes and small constants.

    Args:
        node: at opset `version`.
        version: its opset.
        target: the opset to have.
        taken: names of tensors in the model; those of new ones are added.

    Raises:
        CannotConvertError: the converter refuses it.
    """
    from onnx import shape_inference, version_converter

    alone = _alone(node, version)
    try:
        converted = version_converter.convert_version(alone, target)
    except Exception as error:
        reason = str(error).rpartition(" failed: ")[2]  # what comes before is a place in onnx's own code
        raise CannotConvertError(f"onnx's version converter says: {reason}") from error
    return _put_in_place(node, shape_inference.infer_shapes(converted), taken)


def _say_type(node: ir.Node) -> None:
    """Turn CastLike into Cast, which every backend knows, where the type is known."""
    import onnx_ir as ir

    like = node.inputs[1]
    if like is None or like.dtype is None:
        return
    node.op_type = "Cast"
    node.replace_input_with(1, None)
    node.resize_inputs(1)
    node.attributes["to"] = ir.AttrInt64("to", like.dtype.value)


def _with_definition(node: ir.Node, version: int) -> onnx.ModelProto:
    """Make a model of one node that calls ONNX's definition of it as a function of the model's own."""
    import onnx
    import onnx_ir as ir
    from onnx import helper

    model = _alone(node, version)
    schema: Any = schema_at(node.op_type, version, node.domain, deprecated=True)
    kind = definition_kind(schema)
    if kind == "for types":
        types = [b"" if value is None else ir.to_proto(value).type.SerializeToString() for value in node.inputs]
        text = schema.get_context_dependent_function(model.graph.node[0].SerializeToString(), types)
        function = onnx.FunctionProto.FromString(text)
    elif kind == "one":
        function = onnx.FunctionProto()
        function.CopyFrom(schema.function_body)
    else:
        raise CannotConvertError("ONNX defines it by no other operators")
    model.graph.node[0].domain = function.domain = _OWN_DOMAIN
    for name in schema.attributes:  # what is left out has the schema's default, which a function does not know
        if name not in node.attributes and (default := default_value(schema, name)) is not None:
            model.graph.node[0].attribute.append(helper.make_attribute(name, default))
    del function.opset_import[:]
    function.opset_import.append(helper.make_opsetid("", version))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(_OWN_DOMAIN, 1))
    return model


def _alone(node: ir.Node, version: int) -> onnx.ModelProto:
    """Make a model of one node. Its large inputs are inputs of the model, its small constants are initializers."""
    import onnx_ir as ir
    from onnx import helper, numpy_helper

    if any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    ):
        raise CannotConvertError("it holds a subgraph")
    inputs, initializers = {}, {}
    for value in node.inputs:
        if value is None or value.name in inputs or value.name in initializers:
            continue
        constant = constant_value(value)
        if (
            constant is not None
            and constant.nbytes <= _SMALL_BYTES
            and value.dtype is not None
            and constant.dtype.name in _PLAIN
        ):
            initializers[value.name] = numpy_helper.from_array(np.asarray(constant), value.name)
        elif value.type is None:
            raise CannotConvertError(f"the type of its input {value.name!r} is not known")
        else:
            inputs[value.name] = ir.to_proto(value)
    outputs = [ir.to_proto(value) for value in node.outputs if value.name]
    graph = helper.make_graph([ir.to_proto(node)], "alone", list(inputs.values()), outputs, list(initializers.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)], ir_version=_IR_VERSION)


def _put_in_place(node: ir.Node, made: onnx.ModelProto, taken: set[str]) -> list[ir.Node]:
    """Let the nodes of a small model stand where `node` stood, under names that are free, with its metadata."""
    import onnx_ir as ir

    body = ir.from_proto(made).graph
    given = {value.name: value for value in node.inputs if value is not None}
    outputs = list(body.outputs)
    for value in (*body.inputs, *body.initializers.values()):
        if value.name in given:
            ir.convenience.replace_all_uses_with(value, given[value.name])
        else:
            _as_node(value, body)
    nodes = list(body)
    body.outputs.clear()
    body.remove(nodes)
    first = next(value.name for value in node.outputs if value.name)
    for at, new in enumerate(nodes):
        new.name = node.name if len(nodes) == 1 else f"{node.name or first}/{at}_{new.op_type}"
        new.metadata_props.update(node.metadata_props)
        for value in new.outputs:
            if value.name and value not in outputs:
                value.name = free_name(f"{first}/{value.name}", taken)
    named = [value for value in node.outputs if value.name]
    graph = node.graph
    assert graph is not None  # noqa: S101 - it was found in one
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, named, outputs)
    return nodes


def _as_node(value: ir.Value, body: ir.Graph) -> None:
    """Turn an initializer into a Constant node."""
    import onnx_ir as ir

    if value.const_value is None:
        raise CannotConvertError(f"its conversion reads {value.name!r}, which nothing makes")
    tensor = ir.Tensor(value.const_value.numpy(), dtype=value.const_value.dtype, name=value.name)
    made = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)])
    made.outputs[0].type, made.outputs[0].shape = ir.TensorType(tensor.dtype), tensor.shape
    made.outputs[0].name = value.name
    ir.convenience.replace_all_uses_with(value, made.outputs[0])
    if len(body) and (first := body[0]) is not None:
        body.insert_before(first, made)
