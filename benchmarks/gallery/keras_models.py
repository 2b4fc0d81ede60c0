"""Keras models with random weights and settled statistics, each as a ``.keras`` or ``.h5`` file or a SavedModel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from keras import layers

from benchmarks.gallery.entry import Made

__all__ = ["as_h5", "as_keras", "as_saved_model"]

_SMALL = 1e-3
_FROM_PIXELS = ("EfficientNetB0", "ConvNeXtTiny", "MobileNetV3Small")  # they begin with their own scaling of 0 to 255


def as_keras(name: str) -> Callable[[Path], Made]:
    """Return a maker that writes a ``.keras`` file."""
    return _writer(name, "model.keras", lambda model, path: model.save(path))


def as_h5(name: str) -> Callable[[Path], Made]:
    """Return a maker that writes an ``.h5`` file."""
    return _writer(name, "model.h5", lambda model, path: model.save(path))


def as_saved_model(name: str) -> Callable[[Path], Made]:
    """Return a maker that writes a SavedModel folder, as Keras exports one."""
    return _writer(name, "saved_model", lambda model, path: model.export(path, verbose=False))


def _writer(name: str, file: str, write: Callable[[Any, Path], None]) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        keras.utils.set_random_seed(0)
        model = _MODELS[name]()
        _settle(model, from_pixels=name in _FROM_PIXELS)
        write(model, folder / file)
        return Made(folder / file)

    return make


def _settle(model: Any, *, from_pixels: bool) -> None:
    """Draw anew what begins as nothing, and give every batch normalisation the statistics of one batch."""
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if 0 < np.abs(weight.numpy()).max() < _SMALL:  # the scales of ConvNeXt's branches
            weight.assign(random.normal(0, 0.3, weight.shape))
    normalised = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]  # noqa: SLF001
    if not normalised:
        return
    momenta = [layer.momentum for layer in normalised]
    for layer in normalised:
        layer.momentum = 0.0  # what it keeps is then the last batch
    shape = (8, *model.inputs[0].shape[1:])
    pictures = random.uniform(0, 255, shape) if from_pixels else random.normal(0, 1, shape)
    model({"image": pictures.astype("float32")}, training=True)
    for layer, momentum in zip(normalised, momenta, strict=True):
        layer.momentum = momentum


def _application(name: str, size: int = 224, **options: Any) -> Callable[[], Any]:
    """Return a factory of one of Keras's own applications at its full depth and width."""

    def make() -> Any:
        picture = keras.Input((size, size, 3), name="image")
        return getattr(keras.applications, name)(
            weights=None, input_tensor=picture, classifier_activation=None, **options
        )

    return make


def _vision_transformer(width: int = 64, depth: int = 3, patch: int = 16, size: int = 64) -> Any:
    """Patches, learned positions, MultiHeadAttention and dense layers (Dosovitskiy et al. 2021)."""
    count = (size // patch) ** 2
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, patch, patch)(image)
    x = layers.Reshape((count, width))(x)
    positions = keras.initializers.RandomNormal(0, 0.5)  # a bias for each patch, as a layer that Keras itself knows
    x = layers.EinsumDense("btc,cd->btd", (count, width), bias_axes="td", bias_initializer=positions)(x)
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, width // 4)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(image, layers.Dense(100, name="scores")(x))


def _tagger(words: int = 500, width: int = 32) -> Any:
    """An LSTM in both directions and a GRU over embedded words."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(words, width, embeddings_initializer=keras.initializers.RandomNormal(0, 1))(ids)
    x = layers.Bidirectional(layers.LSTM(width, return_sequences=True))(x)
    x = layers.GRU(width, return_sequences=True)(x)
    return keras.Model(ids, layers.Dense(9, name="tags")(x))


def _unet(widths: tuple[int, ...] = (16, 32, 64)) -> Any:
    """Down and up again, with what was seen on the way down (Ronneberger et al. 2015)."""
    image = keras.Input((64, 64, 3), name="image")
    seen, x = [], image
    for at, width in enumerate(widths):
        x = layers.MaxPooling2D()(x) if at else x
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(x)))
        seen.append(x)
    for width, skip in zip(reversed(widths[:-1]), reversed(seen[:-1]), strict=True):
        x = layers.Conv2DTranspose(width, 2, 2)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(layers.Concatenate()([x, skip]))
    return keras.Model(image, layers.Conv2D(5, 1, name="scores")(x))


_MODELS: dict[str, Callable[[], Any]] = {
    "ResNet50": _application("ResNet50"),
    "MobileNetV2": _application("MobileNetV2"),
    "EfficientNetB0": _application("EfficientNetB0"),
    "ConvNeXtTiny": _application("ConvNeXtTiny"),
    "MobileNetV3Small": _application("MobileNetV3Small"),
    "ViT": _vision_transformer,
    "LSTM": _tagger,
    "U-Net": _unet,
}
