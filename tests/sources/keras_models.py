"""Small models of Keras's, written in one process of TensorFlow's: ``python keras_models.py FOLDER``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

SIZE = 12


def picture_model():
    """Convolutions (a depthwise one too, which Keras compiles), settled batch normalisation, GELU, two outputs."""
    import keras
    import numpy as np

    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, name="stem")(image)
    x = layers.BatchNormalization(momentum=0.0, name="norm")(x)
    x = layers.Activation("gelu", name="act")(x)
    x = layers.Conv2D(8, 3, groups=8, padding="same", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, [layers.Dense(4, name="scores")(x), layers.Dense(2, name="box")(x)], name="small")
    model(np.random.default_rng(0).standard_normal((8, SIZE, SIZE, 3), np.float32), training=True)
    return model


def token_model():
    """Two integer inputs of open length, and attention."""
    import keras

    layers = keras.layers
    ids = keras.Input((None,), dtype="int32", name="ids")
    kinds = keras.Input((None,), dtype="int32", name="kinds")
    x = layers.Embedding(50, 16, name="words")(ids) + layers.Embedding(2, 16, name="types")(kinds)
    x = layers.LayerNormalization(name="norm")(x + layers.MultiHeadAttention(2, 8, name="attention")(x, x))
    return keras.Model({"ids": ids, "kinds": kinds}, {"vectors": x}, name="tokens")


def lambda_model():
    """A layer whose code is marshalled into the file."""
    import keras

    x = keras.Input((3,), name="x")
    return keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0, name="double")(x))


def custom_model():
    """A layer of a class that the reader does not have."""
    import keras

    class Doubled(keras.layers.Layer):
        def call(self, x):
            return x * 2.0

    x = keras.Input((3,), name="x")
    return keras.Model(x, Doubled(name="double")(x), name="custom")


def save_modules(folder: Path) -> None:
    """Write SavedModels of bare modules: one without signatures, one with two of which none is the default."""
    import tensorflow as tf

    class Scale(tf.Module):
        def __init__(self):
            super().__init__()
            self.factor = tf.Variable(3.0)

        @tf.function
        def __call__(self, x):
            return {"scaled": self.factor * x}

    module = Scale()
    tf.saved_model.save(module, str(folder / "unsigned"))
    one = module.__call__.get_concrete_function(tf.TensorSpec([None, 2], tf.float32, name="x"))
    other = module.__call__.get_concrete_function(tf.TensorSpec([None, 5], tf.float32, name="wide"))
    tf.saved_model.save(module, str(folder / "two"), signatures={"narrow": one, "broad": other})


def main(folder: Path) -> None:
    """Write every model, and what the first gives for some inputs."""
    import keras
    import numpy as np

    small = picture_model()
    small.save(folder / "small.keras")
    small.save(folder / "small.h5")
    small.save_weights(folder / "only.weights.h5")
    small.export(str(folder / "small"), verbose=False)
    images = np.random.default_rng(1).standard_normal((3, SIZE, SIZE, 3), np.float32)
    scores, box = small(images, training=False)
    np.savez(folder / "expected.npz", images=images, scores=scores.numpy(), box=box.numpy())
    plain = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2, name="y")], name="plain")
    plain.save(folder / "plain.keras")
    token_model().save(folder / "tokens.keras")
    lambda_model().save(folder / "lambda.keras")
    custom_model().save(folder / "custom.keras")
    save_modules(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
