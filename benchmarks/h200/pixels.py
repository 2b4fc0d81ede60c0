"""A graph that takes bytes: the cast and the normalisation in front of a graph that takes normalised pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

__all__ = ["MEAN", "SCALE", "take_bytes"]

MEAN, SCALE = 128.0, 1 / 32
"""A picture is ``(bytes - MEAN) * SCALE``."""


def take_bytes(graph: Path, output: Path) -> None:
    """Write a graph whose one input is uint8, of the same name and shape, normalised on the device.

    Args:
        graph: with one float32 input.
        output: path of the new one.
    """
    model = ir.load(graph)
    old = model.graph.inputs[0]
    name = old.name
    bytes_in = ir.Value(name=name, type=ir.TensorType(ir.DataType.UINT8), shape=old.shape)
    old.name = f"{name}_normalised"
    mean, scale = (
        ir.Value(name=key, const_value=ir.tensor(np.array(number, np.float32), name=key))
        for key, number in (("pixels_mean", MEAN), ("pixels_scale", SCALE))
    )
    for weight in (mean, scale):
        weight.type, weight.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        model.graph.initializers.add(weight)
    cast = ir.Node("", "Cast", [bytes_in], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name="pixels_cast")
    centred = ir.Node("", "Sub", [cast.outputs[0], mean], name="pixels_centre")
    scaled = ir.Node("", "Mul", [centred.outputs[0], scale], name="pixels_scale_node")
    for place, node in enumerate((cast, centred, scaled)):
        model.graph.insert_before(model.graph[place], node)
    old.replace_all_uses_with(scaled.outputs[0])
    model.graph.inputs[0] = bytes_in
    ir.save(model, output)
