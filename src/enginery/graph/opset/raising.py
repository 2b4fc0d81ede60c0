"""How single operators are raised where ONNX's version converter does not know how, or forgets something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.opset.nodes import CannotConvertError, constant_input, free_name, set_attribute
from enginery.graph.opset.schemas import attribute_value
from enginery.graph.passes.base import constant_value

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["keep_coordinates", "scan_by_rows"]

_SCALES = 2


def keep_coordinates(node: ir.Node, *, enlarges: bool) -> None:
    """Let a Resize that ONNX's version converter made of an older one, or of an Upsample, read the same places.

    Before opset 11 they were asymmetric, which the converter forgets.

    Args:
        node: changed in place.
        enlarges: whether scales that are computed at run time are 1 or more, as those of an Upsample must be.

    Raises:
        CannotConvertError: it takes the nearest element and may shrink: which one that was, nothing says.
    """
    if attribute_value(node, "mode", "nearest") == "nearest":
        known = not enlarges or constant_value(node.inputs[_SCALES]) is not None
        scales = constant_input(node, _SCALES, "scales") if known else np.ones(1)
        if scales is None or np.any(scales < 1):
            raise CannotConvertError("which element is the nearest, to smaller sizes, was not said before opset 11")
        set_attribute(node, "nearest_mode", "floor")
    set_attribute(node, "coordinate_transformation_mode", "asymmetric")


def scan_by_rows(node: ir.Node, taken: set[str]) -> None:
    """Write a Scan of opset 8, which scans each row of a batch, as a Scan over rows that scans in its body.

    Args:
        node: changed in place.
        taken: names of tensors in the model; those of new ones are added.

    Raises:
        CannotConvertError: it is given the length of each sequence.
    """
    import onnx_ir as ir

    lengths, given = node.inputs[0], node.inputs[1:]
    if lengths is not None:
        raise CannotConvertError(f"it is given the length of each sequence ({lengths.name!r}), up to opset 8 alone")
    body, stem = node.attributes["body"].as_graph(), node.name or node.outputs[0].name
    rows = [_row(value, free_name(f"{value.name}/row", taken)) for value in given if value is not None]
    attributes = [ir.AttrGraph("body", body), node.attributes["num_scan_inputs"]]
    if (directions := attribute_value(node, "directions", None)) is not None:
        attributes.append(ir.AttrInt64s("scan_input_directions", directions))
    inner = ir.Node("", "Scan", rows, attributes, num_outputs=len(body.outputs), name=f"{stem}/row")
    inner.metadata_props.update(node.metadata_props)
    for value, made, end in zip(inner.outputs, node.outputs, body.outputs, strict=True):
        value.name, value.type = free_name(f"{made.name or end.name}/row", taken), end.type
        value.shape = None if made.shape is None else ir.Shape(made.shape[1:])
    node.attributes.clear()
    node.attributes["body"] = ir.AttrGraph("body", ir.Graph(rows, inner.outputs, nodes=[inner], name=f"{stem}/rows"))
    node.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", len(rows))
    node.replace_input_with(0, None)
    for at, tensor in enumerate(given):
        node.replace_input_with(at, tensor)
    node.resize_inputs(len(given))


def _row(value: ir.Value, name: str) -> ir.Value:
    """Return what a body is given of one row of a tensor."""
    import onnx_ir as ir

    shape = None if value.shape is None else ir.Shape(value.shape[1:])
    return ir.Value(name=name, type=value.type, shape=shape)
