"""In the framework's process: a Keras file or a SavedModel as a function of named tensors."""

from __future__ import annotations

import functools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginery.errors import (
    CorruptModelError,
    CustomOperatorError,
    SignatureError,
    SourceError,
    UnknownNameError,
    UnsafeModelError,
)
from enginery.optional import require
from enginery.sources.blame import explain

__all__ = ["Loaded", "TensorSpec", "load"]

_DEFAULT_SIGNATURE = "serving_default"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, IndexError)
_BY_HAND = "or give file.py:factory, a function that builds it and loads its weights"


@dataclass(frozen=True)
class TensorSpec:
    """One input: its name, NumPy's name of its element type, and its sizes, None where one is open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model as a function of named tensors.

    Args:
        name: what the model calls itself.
        inputs: in the order in which `call` takes them.
        outputs: names, in the order in which `call` returns them.
        call: takes and returns flat sequences of TensorFlow's tensors.
        weight_bytes: of all variables.
        layers: names of Keras layers, nested ones too; empty where they are not known.
        keras_model: the Keras model; None for a SavedModel.
        pack: puts flat values into the structure that the Keras model takes.
        kept: what has to live as long as the function does.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    call: Callable[..., Sequence[Any]]
    weight_bytes: int
    layers: tuple[str, ...] = ()
    keras_model: Any = None
    pack: Callable[[Sequence[Any]], Any] | None = None
    kept: Any = None

    def concrete(self, shapes: Mapping[str, Sequence[int | None]]) -> Any:
        """Trace the function with the given shape of each input, and return TensorFlow's concrete function."""
        import tensorflow as tf

        specs = [tf.TensorSpec(shapes[spec.name], spec.dtype, name=f"input_{i}") for i, spec in enumerate(self.inputs)]
        return tf.function(self.call, autograph=False).get_concrete_function(*specs)

    @functools.cached_property
    def compiled(self) -> Any:
        """The function as a user would run it: traced once, with the model's own shapes."""
        return self.concrete({spec.name: spec.shape for spec in self.inputs})


def load(path: Path, kind: str, signature: str | None, label: str) -> Loaded:
    """Load a model; no code that it brings along is run.

    Args:
        path: a ``.keras`` or ``.h5`` file, or the folder of a SavedModel.
        kind: ``keras`` or ``saved_model``.
        signature: which function of a SavedModel.
        label: what messages call it.

    Raises:
        CorruptModelError: it is damaged.
        UnsafeModelError: loading it would run code that it brings along.
        SignatureError: a SavedModel without signatures.
        UnknownNameError: it has no signature of that name.
        CustomOperatorError: it needs operators that TensorFlow does not have.
        SourceError: it cannot be loaded for another reason.
    """
    require("tensorflow", extra="tensorflow", why=f"to load {label}")
    return _load_keras(path, label) if kind == "keras" else _load_saved_model(path, signature, label)


def _load_keras(path: Path, label: str) -> Loaded:
    keras = require("keras", extra="tensorflow", why=f"to load {label}")
    try:
        model = keras.saving.load_model(path, compile=False)  # its safe mode stands: no code in a file is run
    except Exception as error:
        raise _keras_error(error, label, keras.__version__) from error
    if not getattr(model, "inputs", None):
        raise SourceError(
            f"{label} has no input shape: it was saved before it was built",
            mend="call it once on real inputs, or begin it with keras.Input(shape=...), and save it again",
        )
    return keras_function(model)


def _keras_error(error: Exception, label: str, version: str) -> SourceError:
    """Turn what Keras raises for a file that it cannot load into an error that says what to do."""
    text = str(error)
    if "safe_mode" in text or "unsafe_deserialization" in text:
        return UnsafeModelError(
            f"{label} holds a Lambda layer, whose Python code would be run to load it",
            mend=f"replace the layer by one of Keras's own or a registered class, {_BY_HAND} if you trust it",
        )
    if isinstance(error, _BROKEN) or "Please ensure the file is an accessible" in text:
        return CorruptModelError(f"{label} is damaged or cut short: {_first_line(error)}", mend="save or copy it again")
    if "No model config found" in text:
        return SourceError(
            f"{label} holds weights and no model", mend=f"save the model itself: model.save('model.keras'), {_BY_HAND}"
        )
    if "Could not locate" in text or "Unknown layer" in text or "Unknown object" in text:
        return SourceError(
            f"{label} needs a class of its own that is not here: {_missing_class(text)}",
            mend=f"export it as a SavedModel where the class is: model.export('folder'), {_BY_HAND}",
        )
    return SourceError(
        f"{label} cannot be loaded by Keras {version}: {explain(error)}", mend=f"save it again, {_BY_HAND}"
    )


def _missing_class(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    found = (line for line in lines if "Could not locate" in line or "Unknown" in line)
    return next(found, lines[-1]).removeprefix("Exception encountered: ").partition(". ")[0][:200]


def _first_line(error: Exception) -> str:
    """Return what a library says of a broken file, without its advice and its own lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def keras_function(model: Any) -> Loaded:
    """Name the inputs of a Keras model after its input layers, its outputs after the layers or keys that they have."""
    import keras

    struct = getattr(model, "_inputs_struct", None)
    if struct is None:  # a Sequential model holds its struct inside
        struct = model.inputs[0] if len(model.inputs) == 1 else list(model.inputs)
    names = unique([_input_name(tensor) for tensor in keras.tree.flatten(struct)])
    inputs = tuple(
        TensorSpec(name, keras.backend.standardize_dtype(tensor.dtype), tuple(tensor.shape))
        for name, tensor in zip(names, keras.tree.flatten(struct), strict=True)
    )

    def pack(values: Sequence[Any]) -> Any:
        return keras.tree.pack_sequence_as(struct, list(values))

    def call(*tensors: Any) -> Sequence[Any]:
        flat: Sequence[Any] = keras.tree.flatten(model(pack(tensors), training=False))
        return flat

    weight_bytes = sum(_bytes(variable.dtype, variable.shape) for variable in model.weights)
    outputs = tuple(_apart(unique(_output_names(model)), {spec.name for spec in inputs}))
    return Loaded(model.name, inputs, outputs, call, weight_bytes, tuple(_layers(model)), model, pack)


def _input_name(tensor: Any) -> str:
    history = getattr(tensor, "_keras_history", None)  # a tensor without a name of its own is called keras_tensor_7
    return str(history.operation.name if history is not None else tensor.name)


def _output_names(model: Any) -> list[str]:
    import keras

    struct = getattr(model, "_outputs_struct", None)
    if isinstance(struct, dict) and not any(keras.tree.is_nested(value) for value in struct.values()):
        return sorted(struct)  # as keras.tree flattens a dict
    names = list(getattr(model, "output_names", None) or ())
    flat = keras.tree.flatten(model.outputs)
    if len(names) == len(flat):
        return names
    if len(flat) == 1 and getattr(model, "layers", None):
        return [model.layers[-1].name]
    return [f"output_{place}" for place in range(len(flat))]


def _layers(model: Any) -> list[str]:
    inner = model._flatten_layers(include_self=False, recursive=True)  # noqa: SLF001 - layers within layers
    return list(dict.fromkeys([model.name, *(layer.name for layer in inner)]))


def _load_saved_model(path: Path, signature: str | None, label: str) -> Loaded:
    import tensorflow as tf

    try:
        found = tf.saved_model.load(str(path))
    except Exception as error:
        raise _saved_model_error(error, label, tf.__version__) from error
    signatures = {name: one for name, one in found.signatures.items() if not name.startswith("__")}
    name = _choose(signatures, signature, label)
    chosen = signatures[name]
    specs = chosen.structured_input_signature[1]
    inputs = tuple(
        TensorSpec(key, spec.dtype.name, _sizes(spec.shape, key, label))
        for key in ordered(specs)
        for spec in (specs[key],)
    )
    outputs = ordered(chosen.structured_outputs)

    def call(*tensors: Any) -> Sequence[Any]:
        results = chosen(**{spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)})
        return [results[key] for key in outputs]

    weight_bytes = sum(_bytes(variable.dtype.name, variable.shape) for variable in chosen.variables)
    named = tuple(_apart(outputs, {spec.name for spec in inputs}))
    return Loaded(path.name, inputs, named, call, weight_bytes, kept=found)


def _choose(signatures: Mapping[str, Any], asked: str | None, label: str) -> str:
    if not signatures:
        raise SignatureError(
            f"{label} has no signature that can be called",
            mend="save it again with one: model.export('folder') in Keras, or "
            "tf.saved_model.save(module, 'folder', signatures=function.get_concrete_function(...))",
        )
    if asked is not None and asked not in signatures:
        raise UnknownNameError.from_choices("signature", asked, signatures)
    if asked is None and len(signatures) > 1 and _DEFAULT_SIGNATURE not in signatures:
        raise SignatureError(
            f"{label} has {len(signatures)} signatures, and none is called {_DEFAULT_SIGNATURE!r}",
            mend=f"name one: --signature {' or '.join(sorted(signatures))}",
        )
    return asked or (next(iter(signatures)) if len(signatures) == 1 else _DEFAULT_SIGNATURE)


def _sizes(shape: Any, name: str, label: str) -> tuple[int | None, ...]:
    if shape.rank is None:
        raise SignatureError(
            f"input {name!r} of {label} has no known number of dimensions",
            mend="save it again with a signature whose tf.TensorSpec gives a shape; None stands for an open size",
        )
    return tuple(shape.as_list())


def _saved_model_error(error: Exception, label: str, version: str) -> SourceError:
    import tensorflow as tf

    text = str(error)
    if "Op type not registered" in text:
        name = text.partition("Op type not registered ")[2].split()[0].strip("'\"")
        return CustomOperatorError(
            f"{label} needs the operator {name}, which TensorFlow {version} does not have",
            mend="export it again without that operator, or as a function of TensorFlow's own",
        )
    if isinstance(error, (*_BROKEN, tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.OutOfRangeError)):
        said = _first_line(error)
        return CorruptModelError(f"{label} is damaged or incomplete: {said}", mend="save or copy it again")
    return SourceError(f"{label} cannot be loaded by TensorFlow {version}: {explain(error)}", mend="save it again")


def ordered(names: Iterable[str]) -> list[str]:
    """Sort names, and the numbers in them by their size: a signature is a map, which has no order of its own.

    Example:
        >>> ordered(["output_10", "output_2", "aux"])
        ['aux', 'output_2', 'output_10']
    """
    return sorted(names, key=lambda name: [(part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", name)])


def unique(names: Sequence[str]) -> list[str]:
    """Number names that occur twice.

    Example:
        >>> unique(["out", "out", "aux"])
        ['out', 'out_1', 'aux']
    """
    found: list[str] = []
    for name in names:
        place, candidate = 0, name
        while candidate in found:
            place += 1
            candidate = f"{name}_{place}"
        found.append(candidate)
    return found


def _apart(outputs: Sequence[str], inputs: set[str]) -> list[str]:
    """In a graph, an input and an output cannot have one name."""
    return [f"{name}_output" if name in inputs else name for name in outputs]


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    import math

    import tensorflow as tf

    return math.prod(int(size) for size in shape) * int(tf.as_dtype(dtype).size)
