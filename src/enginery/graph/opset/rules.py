"""How single operators are lowered: from the form that an opset brought to the form before it.

A rule changes its node in place, and may put constants before it. What it cannot express raises `CannotConvertError`.
Operators without a rule are lowered by `lower_by_schema`: what is new must have its default value, and goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from enginery.graph.opset.nodes import (
    CannotConvertError,
    allow_values,
    constant_input,
    constant_ints,
    drop_attribute,
    fixed_dim,
    rank_of,
    set_attribute,
    set_constant,
    trim_inputs,
)
from enginery.graph.opset.schemas import attribute_value, default_value
from enginery.graph.passes.base import constant_value

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["EXPANDED", "LOWERING", "lower_by_schema"]

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
)  # fmt: skip
_SAME_OF_ONE_ELEMENT = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")
_IMAGE_RANK = 4
_OLD_GRID_MODES = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}


def lower_by_schema(node: ir.Node, older: onnx.defs.OpSchema, newer: onnx.defs.OpSchema) -> None:
    """Lower a node by one version of its operator where that only added things: these must have their defaults.

    Args:
        node: in the form of `newer`; changed in place.
        older: a version of its operator.
        newer: the version that followed.

    Raises:
        CannotConvertError: the node uses what is new.
    """
    for name in [name for name in node.attributes if name not in older.attributes]:
        drop_attribute(node, name, default_value(newer, name), newer.since_version)
    for name in newer.attributes:
        default = default_value(newer, name)
        if name in older.attributes and name not in node.attributes and default != default_value(older, name):
            set_attribute(node, name, default)
    trim_inputs(node)
    if len(node.inputs) > older.max_input:
        raise CannotConvertError(f"its input {len(older.inputs)} came with opset {newer.since_version}")
    if len([value for value in node.outputs if value.name]) > older.max_output:
        raise CannotConvertError(f"its further outputs came with opset {newer.since_version}")


def _lower_reduction(node: ir.Node) -> None:
    """Bring axes from the second input into an attribute."""
    axes = constant_ints(node, 1, "axes")
    keeps = bool(attribute_value(node, "noop_with_empty_axes", 0))
    node.attributes.pop("noop_with_empty_axes", None)
    if not axes and keeps:
        if node.op_type not in _SAME_OF_ONE_ELEMENT:
            raise CannotConvertError("noop_with_empty_axes without axes came with opset 18")
        node.op_type = "Identity"
        node.attributes.clear()
    elif axes:
        set_attribute(node, "axes", axes)
    node.resize_inputs(1)


def _lower_split(node: ir.Node) -> None:
    """Say the sizes of the parts where only their number is given."""
    count = attribute_value(node, "num_outputs", None)
    node.attributes.pop("num_outputs", None)
    if count is None or (len(node.inputs) > 1 and node.inputs[1] is not None):
        return
    size = fixed_dim(node, 0, attribute_value(node, "axis", 0))
    part = -(-size // count)
    parts = [part] * (count - 1) + [size - part * (count - 1)]
    if parts[-1] < 0:
        raise CannotConvertError(f"{size} elements cannot be split into {count} parts")
    set_constant(node, 1, np.array(parts, np.int64), "split")


def _lower_pad_axes(node: ir.Node) -> None:
    """Write the pads of all axes where only those of some are given."""
    axes = constant_ints(node, 3, "axes")
    if axes is None:
        trim_inputs(node)
        return
    rank = rank_of(node)
    axes = [axis % rank for axis in axes]
    if axes != list(range(rank)):
        pads = constant_ints(node, 1, "pads")
        if pads is None:
            raise CannotConvertError("it has no pads")
        full = np.zeros((2, rank), np.int64)
        full[:, axes] = np.array(pads).reshape(2, -1)
        set_constant(node, 1, full.reshape(-1), "pads")
    node.resize_inputs(3)
    trim_inputs(node)


def _lower_pad_mode(node: ir.Node) -> None:
    allow_values(node, "mode", "constant", ("constant", "reflect", "edge"), 19)


def _lower_resize_axes(node: ir.Node) -> None:
    """Write the scales or sizes of all axes where only those of some are given."""
    for name, old in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        drop_attribute(node, name, old, 18)
    axes = attribute_value(node, "axes", None)
    node.attributes.pop("axes", None)
    if axes is None:
        return
    if attribute_value(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise CannotConvertError("axes beside tf_crop_and_resize came with opset 18")
    rank = rank_of(node)
    axes = [axis % rank for axis in axes]
    scales = constant_input(node, 2, "scales")
    if scales is not None and scales.size:
        full = np.ones(rank, np.float32)
        full[axes] = scales
        set_constant(node, 2, full, "scales")
        return
    sizes = constant_ints(node, 3, "sizes")
    if sizes is None:
        raise CannotConvertError("it has neither scales nor sizes")
    others = [axis for axis in range(rank) if axis not in axes]
    full_sizes = np.zeros(rank, np.int64)
    full_sizes[axes] = sizes
    full_sizes[others] = [fixed_dim(node, 0, axis) for axis in others]
    set_constant(node, 3, full_sizes, "sizes")


def _lower_resize_mode(node: ir.Node) -> None:
    mode = attribute_value(node, "coordinate_transformation_mode", "half_pixel")
    if mode == "half_pixel_symmetric":
        raise CannotConvertError(f"coordinate_transformation_mode={mode} came with opset 19")


def _lower_scatter(node: ir.Node) -> None:
    allow_values(node, "reduction", "none", ("none", "add", "mul"), 18)


def _lower_pool(node: ir.Node) -> None:
    """Drop dilations that dilate nothing."""
    dilations = attribute_value(node, "dilations", None)
    if dilations is not None and any(step != 1 for step in dilations):
        raise CannotConvertError(f"dilations={list(dilations)} came with a later opset")
    node.attributes.pop("dilations", None)
    drop_attribute(node, "ceil_mode", 0, 18) if node.op_type == "LpPool" else None


def _lower_cast(node: ir.Node) -> None:
    """Drop what matters for 8-bit floats only, which an older opset does not have."""
    node.attributes.pop("saturate", None)


def _lower_quantize(node: ir.Node) -> None:
    """Drop blocks of no size and an output type that the zero point says as well."""
    drop_attribute(node, "block_size", 0, 21)
    kind = attribute_value(node, "output_dtype", 0)
    node.attributes.pop("output_dtype", None)
    zero = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - the third is the zero point
    if not kind:
        return
    if zero is None:
        raise CannotConvertError("an output_dtype without a zero point came with opset 21")
    if zero.dtype is None or zero.dtype.value != kind:
        raise CannotConvertError("its output_dtype is not known to be its zero point's")


def _lower_dft(node: ir.Node) -> None:
    """Bring the axis from the third input into the attribute; its default was another one."""
    axes = constant_input(node, 2, "axis")
    axis = -2 if axes is None else int(axes.reshape(-1)[0])
    if axis < 0:
        axis += rank_of(node)
    set_attribute(node, "axis", axis)
    node.resize_inputs(min(len(node.inputs), 2))
    trim_inputs(node)


def _lower_grid_sample(node: ir.Node) -> None:
    """Name the mode as it was named, for pictures only."""
    if rank_of(node) != _IMAGE_RANK:
        raise CannotConvertError("its input has not 4 dimensions, which came with opset 20")
    set_attribute(node, "mode", _OLD_GRID_MODES[attribute_value(node, "mode", "linear")])


def _lower_roi_align(node: ir.Node) -> None:
    mode = attribute_value(node, "coordinate_transformation_mode", "half_pixel")
    if mode != "output_half_pixel":
        raise CannotConvertError(f"coordinate_transformation_mode={mode} came with opset 16")
    node.attributes.pop("coordinate_transformation_mode", None)


def _lower_batch_normalization(node: ir.Node) -> None:
    drop_attribute(node, "training_mode", 0, 14)
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise CannotConvertError("its further outputs mean another thing before opset 14")
    node.resize_outputs(1)


def _lower_mod(node: ir.Node) -> None:
    value = node.inputs[0]
    whole = value is not None and value.dtype is not None and value.dtype.is_integer()
    if not whole and not attribute_value(node, "fmod", 0):
        raise CannotConvertError("fmod=0 of floats came with opset 28")


def _lower_reshape(node: ir.Node) -> None:
    """Drop the attribute that says what a zero means where no zero is."""
    keeps = attribute_value(node, "allowzero", 0)
    shape = constant_value(node.inputs[1])
    if keeps and (shape is None or not shape.all()):
        raise CannotConvertError("allowzero=1 with a shape that may hold a zero came with opset 14")
    node.attributes.pop("allowzero", None)


def _lower_softmax(node: ir.Node) -> None:
    """Name the axis where it is the last; before opset 13, all axes from it on were taken together."""
    rank = rank_of(node)
    axis = attribute_value(node, "axis", -1) % max(rank, 1)
    if axis != rank - 1:
        raise CannotConvertError(f"axis={axis} of {rank} means another thing before opset 13")
    set_attribute(node, "axis", axis)


LOWERING: dict[tuple[str, int], Callable[[ir.Node], None]] = {
    **{(name, 18): _lower_reduction for name in _REDUCTIONS},
    ("Split", 18): _lower_split,
    ("Pad", 18): _lower_pad_axes,
    ("Pad", 19): _lower_pad_mode,
    ("Resize", 18): _lower_resize_axes,
    ("Resize", 19): _lower_resize_mode,
    ("ScatterElements", 18): _lower_scatter,
    ("ScatterND", 18): _lower_scatter,
    ("AveragePool", 19): _lower_pool,
    ("LpPool", 18): _lower_pool,
    ("Cast", 19): _lower_cast,
    ("CastLike", 19): _lower_cast,
    ("QuantizeLinear", 21): _lower_quantize,
    ("DFT", 20): _lower_dft,
    ("GridSample", 20): _lower_grid_sample,
    ("RoiAlign", 16): _lower_roi_align,
    ("BatchNormalization", 14): _lower_batch_normalization,
    ("Mod", 28): _lower_mod,
    ("Reshape", 14): _lower_reshape,
    **{(name, 13): _lower_softmax for name in ("Hardmax", "LogSoftmax", "Softmax")},
}
"""Operator and the opset whose form is left: what brings a node to the form before it."""

EXPANDED = frozenset({("GroupNormalization", 21)})
"""Those that mean another thing before; they are replaced by ONNX's own definition of them."""
