"""The forms that quantised numbers take, by what reads them, and the numbers themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["FORMS", "Form", "Scaled", "least_scale", "scale_activation", "scale_bias", "scale_weight"]

_LARGEST = {"INT8": 127.0, "INT4": 7.0, "FLOAT8E4M3FN": 448.0}
_UNSIGNED = 255.0
_BIAS_STEPS = 2.0**30
"""How many steps of its product a bias may be: half of what 32 bits hold, the rest is for the sum it is added to."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Form:
    """How the numbers are written that a node reads.

    Args:
        activation: element type of what is no weight; UINT8 has a zero point, the others are symmetric; empty where
            activations stay as they are.
        weight: element type of weights, symmetric.
        multiplied: element type of activations that are multiplied by activations (attention) where they may be
            negative; empty where it is that of all. A zero point on such an operand keeps OpenVINO from computing
            attention as one kernel of integers.
        both_branches: of a sum, whether the branch that a convolution ends is quantised too. TensorRT has it at hand
            in full; OpenVINO and ONNX Runtime compute the sum with that convolution only where both are integers.
        before_pooling: whether what only a MaxPool reads, and all behind it read quantised, is quantised before it:
            the numbers come out the same, and the pooling is of integers.
        whole: whether biases and what a convolution or sum makes are quantised too, for a library that computes
            nothing in integers unless all around a node is.
        few_depthwise: whether of depthwise convolutions only those of three by three before a Relu are quantised, where
            nothing names the nodes: for others TensorRT 8.6 has no INT8 kernel, and computes them in float32.
        block: how many numbers of a weight share a scale; 0 where all of an output channel do.
        lowest_opset: that has these types.
    """

    activation: str = "INT8"
    weight: str = "INT8"
    multiplied: str = ""
    both_branches: bool = False
    before_pooling: bool = False
    whole: bool = False
    few_depthwise: bool = False
    block: int = 0
    lowest_opset: int = 13


FORMS = {
    "symmetric": Form(),
    "symmetric8": Form(few_depthwise=True),
    "asymmetric": Form(activation="UINT8", multiplied="INT8", both_branches=True, before_pooling=True),
    "whole": Form(activation="UINT8", both_branches=True, whole=True),
    "fp8": Form(activation="FLOAT8E4M3FN", weight="FLOAT8E4M3FN", lowest_opset=19),
    "weights8": Form(activation=""),
    "weights4": Form(activation="", weight="INT4", block=32, lowest_opset=21),
}
"""By name: ``symmetric`` for TensorRT (``symmetric8`` for its versions 8), ``asymmetric`` for OpenVINO, ``whole`` for
ONNX Runtime on CPUs, ``fp8`` for GPUs that compute in it, ``weights8`` and ``weights4`` for the weights of matrix
products alone."""


@dataclass(frozen=True)
class Scaled:
    """What a DequantizeLinear reads besides a tensor, and a weight's numbers.

    Args:
        scale: float32, one or one for each channel (or block).
        zero: the zero points, integers in the same number.
        numbers: a weight as integers, or float32 on the type's grid's scale; None for an activation.
        axis: over which scales run; None for one scale.
    """

    scale: Array
    zero: Array
    numbers: Array | None = None
    axis: int | None = None


def scale_activation(low: float, high: float, kind: str) -> Scaled:
    """Choose scale and zero point for an activation's range; zero itself is always exact.

    Example:
        >>> scale_activation(-1.0, 1.5, "UINT8").zero
        array(102, dtype=int32)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if kind != "UINT8":
        largest = max(-low, high)
        return Scaled(np.array(largest / _LARGEST[kind] if largest else 1.0, np.float32), np.array(0, np.int32))
    scale = np.array((high - low) / _UNSIGNED if high > low else 1.0, np.float32)
    return Scaled(scale, np.array(round(-low / float(scale)), np.int32))


def scale_weight(weight: Array, axis: int | None, kind: str, block: int = 0, least: Array | None = None) -> Scaled:
    """Choose scales for a weight, and quantise it: symmetric, for each channel or block of numbers.

    Args:
        weight: float32.
        axis: of its output channels; None for one scale.
        kind: element type of the numbers.
        block: how many numbers share a scale; 0 where all of a channel do.
        least: what no scale may be below, one number or one for each channel; see `least_scale`.
    """
    if block:
        return _scale_blocks(weight, kind, block)
    others = tuple(at for at in range(weight.ndim) if at != axis)
    largest = np.abs(weight).max(axis=others if axis is not None else None, keepdims=axis is not None)
    scale = _filled((largest / _LARGEST[kind]).astype(np.float32), least)
    numbers = _rounded(weight / scale, kind)
    return Scaled(scale.reshape(-1) if axis is not None else scale, np.zeros(scale.size, np.int32), numbers, axis)


def least_scale(bias: Array, scale: float) -> Array:
    """Return the least scales of a weight with which a bias can be written in units of the product's own scale.

    Libraries clip a bias beyond 32 bits without a word: a channel of weights near zero would lose it.

    Args:
        bias: one number for each channel.
        scale: of the activation.

    Example:
        >>> least_scale(np.float32([0.0, 2.0**20]), 0.5)[1]
        np.float32(0.001953125)
    """
    largest = np.abs(np.where(np.isfinite(bias), bias, 0).astype(np.float64))
    return np.asarray(np.maximum(largest / _BIAS_STEPS, _TINY) / scale, np.float32)


def scale_bias(bias: Array, scale: Array) -> Array:
    """Return a bias in units of the product's own scale, as 32-bit integers."""
    limit = 2.0**31 - 1
    return np.clip(np.rint(bias.astype(np.float64) / scale), -limit, limit).astype(np.int32)


def _filled(scale: Array, least: Array | None) -> Array:
    """Give channels of zeros, or of what float32 hardly holds, the finest scale of the others; keep to the least."""
    usable = scale >= _TINY
    if usable.any():
        scale = np.where(usable, scale, scale[usable].min())
    else:
        scale = np.ones_like(scale) if least is None else np.full_like(scale, least.max())
    if least is None:
        return scale
    return np.maximum(scale, least.reshape(scale.shape) if least.size == scale.size else least.max())


def _scale_blocks(weight: Array, kind: str, block: int) -> Scaled:
    """Give each `block` numbers along the first axis of a matrix a scale; the last may hold fewer."""
    depth, width = weight.shape
    count = -(-depth // block)
    padded = np.zeros((count * block, width), np.float32)
    padded[:depth] = weight
    largest = np.abs(padded.reshape(count, block, width)).max(axis=1)
    scale = np.where(largest > 0, largest / _LARGEST[kind], 1.0).astype(np.float32)
    numbers = _rounded(weight / np.repeat(scale, block, axis=0)[:depth], kind)
    return Scaled(scale, np.zeros(scale.shape, np.int32), numbers, 0)


def _rounded(numbers: Array, kind: str) -> Array:
    if kind.startswith("FLOAT8"):
        return numbers
    return np.clip(np.rint(numbers), -_LARGEST[kind], _LARGEST[kind]).astype(np.int32)
