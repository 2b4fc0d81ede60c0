"""The framework's own process: what it can do with a model, and ``python -m enginery.sources.tensorflow.jobs``.

TensorFlow's memory, log and crashes stay here. The loaded model lives in the worker's state from job to job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import SourceError, UnknownNameError
from enginery.machine import peak_memory_bytes
from enginery.optional import versions
from enginery.sources.blame import explain
from enginery.sources.tensorflow.models import Loaded, load
from enginery.sources.tensorflow.routes import ROUTES, Request, routes_of
from enginery.worker_loop import Job, serve

if TYPE_CHECKING:
    from enginery.inputs.base import Case

__all__ = ["JOBS", "main"]

_VARIABLES = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",  # errors only
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF2ONNX_CATCH_ERRORS": "false",  # else it copies all weights before each of its optimisations, to go back to
}
_COPIED_BYTES = 2**25  # weights up to this size may be copied, so that an optimisation that fails is left out
_MADE_BY = ("tensorflow", "keras", "tf2onnx")


def describe(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model, and say what it takes and returns, which routes it can take, and in which versions."""
    model = _model(state, arguments)
    return {
        "name": model.name,
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": list(model.outputs),
        "layers": list(model.layers),
        "routes": routes_of(model),
        "versions": versions(*_MADE_BY),
        "framework": _framework(),
    }


def convert(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model as ONNX at ``output`` by one ``route``, with ``shapes`` and ``opset``."""
    if arguments["route"] not in ROUTES:
        raise UnknownNameError.from_choices("route", arguments["route"], ROUTES)
    request = Request(arguments["shapes"], arguments["opset"], Path(arguments["output"]))
    model = _model(state, arguments)
    route = ROUTES[arguments["route"]]
    if not route.holds_weights or model.weight_bytes <= _COPIED_BYTES:
        os.environ.pop("TF2ONNX_CATCH_ERRORS", None)  # tf2onnx looks whether it is there, whatever it says
    else:
        os.environ["TF2ONNX_CATCH_ERRORS"] = _VARIABLES["TF2ONNX_CATCH_ERRORS"]
    inputs, outputs = route.convert(model, request)
    return {"inputs": inputs, "outputs": outputs, "peak_memory_bytes": peak_memory_bytes()}


def run(state: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """Run the model on the inputs in the folder ``cases``; its outputs go into the folder ``output``."""
    from enginery.inputs.base import Case, load_cases, save_cases

    model = _model(state, arguments)
    found = []
    for case in load_cases(Path(arguments["cases"])):
        outputs = _call(model, _tensors(model, case), arguments["label"])
        found.append(Case(case.name, {name: _array(value) for name, value in zip(model.outputs, outputs, strict=True)}))
    save_cases(found, Path(arguments["output"]))


def time_calls(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Warm up for ``warmup_ms``, then time calls for ``seconds`` and at least ``min_calls`` times."""
    import tensorflow as tf

    from enginery.benchmark.base import call_timer
    from enginery.inputs.base import load_cases

    model = _model(state, arguments)
    if state.get("timed") != arguments["cases"]:
        state["timed"], state["tensors"] = arguments["cases"], _tensors(model, load_cases(Path(arguments["cases"]))[0])
    tensors, function = state["tensors"], model.compiled
    wait = tf.test.experimental.sync_devices if tf.config.list_physical_devices("GPU") else None

    def call() -> None:
        function(*tensors)
        if wait is not None:
            wait()

    timer = call_timer(call)
    return {"samples_ms": timer(arguments["warmup_ms"], arguments["seconds"], arguments["min_calls"])}


JOBS: dict[str, Job] = {"describe": describe, "convert": convert, "run": run, "time": time_calls}


def main() -> None:
    """Set TensorFlow up for this process alone, and take jobs until the parent has no more."""
    os.environ.update(_VARIABLES)
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    serve(JOBS)


def _model(state: dict[str, Any], arguments: Mapping[str, Any]) -> Loaded:
    if "model" not in state:
        path, kind = Path(arguments["path"]), arguments["kind"]
        state["model"] = load(path, kind, arguments["signature"], arguments["label"])
    model: Loaded = state["model"]
    return model


def _framework() -> str:
    import tensorflow as tf

    return f"TensorFlow {tf.__version__}"


def _tensors(model: Loaded, case: Case) -> list[Any]:
    import tensorflow as tf

    return [tf.constant(case.feeds[spec.name], dtype=spec.dtype) for spec in model.inputs]


def _call(model: Loaded, tensors: Sequence[Any], label: str) -> Sequence[Any]:
    try:
        outputs: Sequence[Any] = model.compiled(*tensors)
    except Exception as error:
        shapes = ", ".join(f"{tensor.dtype.name} {tuple(tensor.shape)}" for tensor in tensors)
        raise SourceError(f"{label} fails on these inputs: {explain(error)}", mend=f"check them: {shapes}") from error
    return outputs


def _array(value: Any) -> Any:
    import numpy as np

    array = np.asarray(value.numpy())
    if array.dtype.kind != "O":
        return array
    words = np.empty(array.shape, object)
    words.reshape(-1)[:] = [word.decode("utf-8", "replace") for word in array.reshape(-1)]
    return words


if __name__ == "__main__":
    main()
