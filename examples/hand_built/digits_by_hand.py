"""The digits network of ``examples/digits``, built layer by layer with OpenVINO's own operators.

Its weights are those of the trained ONNX file, which it is also compared with:

    enginery optimize examples/hand_built/digits_by_hand.py:digits --shapes image=batch:1..8..32x1x8x8
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

import enginery

TRAINED = Path(__file__).parents[1] / "digits" / "digits.onnx"
Weights = Mapping[str, np.ndarray]


@enginery.network(backend="openvino", weights=TRAINED, reference=TRAINED)
def digits(opset: Any, weights: Weights) -> openvino.Model:
    """Build the network: three convolutions, two poolings, two layers; any batch of 8x8 images."""
    image = opset.parameter([-1, 1, 8, 8], dtype=np.float32, name="image")
    x = convolve(opset, image, weights, "features.0")
    x = halve(opset, convolve(opset, x, weights, "features.3"))
    x = halve(opset, convolve(opset, x, weights, "features.7"))
    x = opset.reshape(x, np.array([0, -1]), special_zero=True)
    x = opset.relu(connect(opset, x, weights, "classifier.1"))
    scores = connect(opset, x, weights, "classifier.4", name="scores")
    return openvino.Model([scores], [image], "digits")


def convolve(opset: Any, x: Any, weights: Weights, layer: str) -> Any:
    """Return a 3x3 convolution with bias and ReLU; the weights are of shape (out, in, 3, 3)."""
    kernel, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
    same = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}
    return opset.relu(opset.add(opset.convolution(x, kernel, **same), bias.reshape(1, -1, 1, 1)))


def halve(opset: Any, x: Any) -> Any:
    """Return the maximum of each 2x2 patch."""
    return opset.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)


def connect(opset: Any, x: Any, weights: Weights, layer: str, *, name: str = "") -> Any:
    """Return a fully connected layer, called `name`; PyTorch's weights are of shape (out, in)."""
    product = opset.matmul(x, weights[f"{layer}.weight"], transpose_a=False, transpose_b=True)
    return opset.add(product, weights[f"{layer}.bias"], name=name)
