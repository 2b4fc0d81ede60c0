"""In the framework's process: the ways from TensorFlow to an ONNX file. `ROUTES` has them in the order of trial.

A frozen graph without its large weights comes first: it is the only one whose memory stays near that of the weights.
Where tf2onnx needs to see them, they follow. The last two fail where Keras compiles a convolution (``jit_compile``),
which leaves calls that tf2onnx writes into the file as they are, and where constants were captured.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enginery.errors import ExportError
from enginery.graph.base import save_model
from enginery.optional import require
from enginery.sources.tensorflow.freeze import allow_inlining, freeze
from enginery.sources.tensorflow.models import Loaded
from enginery.sources.tensorflow.weights import put_weights

__all__ = ["DEFAULT_OPSET", "HIGHEST_OPSET", "ROUTES", "Request", "Route", "routes_of"]

DEFAULT_OPSET = 18
HIGHEST_OPSET = 18  # of tf2onnx 1.17
_INLINE_BYTES = 1_800_000_000  # a message of protobuf holds 2 GB


@dataclass(frozen=True)
class Request:
    """One conversion: the shape of each input (None where a size is open), the opset, and the file to write."""

    shapes: Mapping[str, Sequence[int | None]]
    opset: int
    output: Path


Written = tuple[Sequence[str] | None, Sequence[str] | None]
"""The names of the inputs and outputs in the file, in the model's order; None where the file has that order."""


@dataclass(frozen=True)
class Route:
    """A way to ONNX.

    Args:
        label: what records call it.
        keras_only: whether it needs a Keras model.
        convert: what goes it.
        holds_weights: whether tf2onnx holds all weights, and each copy that it makes of a graph copies them.
    """

    label: str
    keras_only: bool
    convert: Callable[[Loaded, Request], Written]
    holds_weights: bool = True


def routes_of(model: Loaded) -> dict[str, str]:
    """Return the routes that a model can take, with what records call them."""
    return {
        name: route.label for name, route in ROUTES.items() if model.keras_model is not None or not route.keras_only
    }


def convert_frozen(model: Loaded, request: Request) -> Written:
    """Trace, inline every call, and let tf2onnx convert the graph without its large weights, which follow later."""
    import onnx_ir as ir

    tf2onnx = _tf2onnx()
    frozen = freeze(model.concrete(request.shapes))
    proto, _ = tf2onnx.convert.from_graph_def(
        frozen.graph, name=model.name, input_names=[*frozen.inputs, *frozen.weights], output_names=[*frozen.outputs],
        opset=request.opset, custom_op_handlers=_handlers(),
    )  # fmt: skip
    graph = ir.from_proto(proto)
    put_weights(graph, frozen.weights)
    save_model(graph, request.output)
    return frozen.inputs, frozen.outputs


def convert_whole(model: Loaded, request: Request) -> Written:
    """Trace, turn all variables into constants, inline every call, and let tf2onnx convert the graph.

    Raises:
        ExportError: the weights are too large for one message of protobuf.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf2onnx = _tf2onnx()
    if model.weight_bytes > _INLINE_BYTES:
        raise ExportError(f"a frozen graph holds less than 2 GB, the weights are {model.weight_bytes / 1e9:.1f} GB")
    frozen = convert_variables_to_constants_v2(model.concrete(request.shapes))
    graph = frozen.graph.as_graph_def()
    allow_inlining(graph)
    inputs, outputs = [tensor.name for tensor in frozen.inputs], [tensor.name for tensor in frozen.outputs]
    tf2onnx.convert.from_graph_def(
        graph, name=model.name, input_names=inputs, output_names=outputs, opset=request.opset,
        custom_op_handlers=_handlers(), output_path=str(request.output),
    )  # fmt: skip
    return inputs, outputs


def convert_keras(model: Loaded, request: Request) -> Written:
    """Let Keras export the model itself."""
    import tensorflow as tf

    _tf2onnx()
    specs = [tf.TensorSpec(request.shapes[spec.name], spec.dtype, name=spec.name) for spec in model.inputs]
    assert model.pack is not None  # noqa: S101 - it is a Keras model
    model.keras_model.export(
        str(request.output), format="onnx", verbose=False, input_signature=[model.pack(specs)],
        opset_version=request.opset,
    )  # fmt: skip
    return None, None


def convert_function(model: Loaded, request: Request) -> Written:
    """Let tf2onnx trace the function itself; it keeps large weights beside the graph."""
    import tensorflow as tf

    tf2onnx = _tf2onnx()
    large = model.weight_bytes > _INLINE_BYTES
    specs = [
        tf.TensorSpec(request.shapes[spec.name], spec.dtype, name=f"input_{i}") for i, spec in enumerate(model.inputs)
    ]
    written = request.output.with_suffix(".zip") if large else request.output
    tf2onnx.convert.from_function(
        tf.function(model.call, autograph=False), specs, opset=request.opset,
        custom_op_handlers=_handlers(), large_model=large, output_path=str(written),
    )  # fmt: skip
    if large:
        _unpack(written, request.output)
    return None, None


ROUTES: dict[str, Route] = {
    "frozen": Route("tf2onnx (frozen graph)", keras_only=False, convert=convert_frozen, holds_weights=False),
    "whole": Route("tf2onnx (frozen graph with all weights)", keras_only=False, convert=convert_whole),
    "keras": Route("keras.Model.export (onnx)", keras_only=True, convert=convert_keras),
    "function": Route("tf2onnx (function)", keras_only=False, convert=convert_function),
}


def _tf2onnx() -> Any:
    return require("tf2onnx.convert", extra="tensorflow", why="to convert a TensorFlow model to ONNX") and require(
        "tf2onnx", extra="tensorflow", why="to convert a TensorFlow model to ONNX"
    )


def _handlers() -> dict[str, Any]:
    """Return what tf2onnx lacks: Erfc(x), which GELU uses, as 1 - Erf(x)."""
    from tf2onnx.utils import make_name, map_onnx_to_numpy_type

    def erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
        del arguments
        output = node.output[0]
        one = np.array(1, map_onnx_to_numpy_type(context.get_dtype(output)))
        node.type = "Erf"
        constant = context.make_const(make_name(f"{name}/one"), one)
        context.insert_new_node_on_output("Sub", output, name=f"{name}/Sub", inputs=[constant.output[0], output])

    return {"Erfc": (erfc, [])}


def _unpack(archive: Path, output: Path) -> None:
    """Unpack what tf2onnx writes for a large model: the graph, and a file for each large weight beside it."""
    with zipfile.ZipFile(archive) as files:
        files.extractall(output.parent)
    (output.parent / "__MODEL_PROTO.onnx").replace(output)
    archive.unlink()
