"""Enginery's cast and two libraries' converters, each as a function from a model in float32 to one in a narrower type.

All three keep the types of inputs and outputs, so that their results can be fed and compared alike; everything else
is left as each library has it by default.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable

import onnx

__all__ = ["CONVERTERS", "Converter"]

Converter = Callable[[onnx.ModelProto, str], tuple[onnx.ModelProto, tuple[str, ...]]]


def enginery(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Cast by a uniform plan; what it says of weights comes with the result."""
    import onnx_ir as ir  # noqa: PLC0415 - a converter imports its own library alone

    from enginery.graph.base import apply_plan, make_plan, normalise  # noqa: PLC0415

    graph, notes = ir.from_proto(model), []
    normalise(graph)
    cast = apply_plan(graph, make_plan(graph, precision), say=notes.append)
    return ir.to_proto(cast), tuple(notes)


def onnxconverter_common(model: onnx.ModelProto, _: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Convert with the library of ONNX's own organisation; its warnings are its notes."""
    from onnxconverter_common.float16 import convert_float_to_float16  # noqa: PLC0415

    with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        # One that holds float16 already is refused by default; the message says to ask so.
        converted = convert_float_to_float16(model, keep_io_types=True, check_fp16_ready=False)
    return converted, tuple(str(one.message) for one in said)


def onnxruntime(model: onnx.ModelProto, _: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Convert with ONNX Runtime's tools for transformers."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    with warnings.catch_warnings(record=True) as said, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        converted = convert_float_to_float16(model, keep_io_types=True)
    return converted, tuple(str(one.message) for one in said)


CONVERTERS: dict[str, Converter] = {
    "enginery": enginery, "onnxconverter-common": onnxconverter_common, "onnxruntime.transformers": onnxruntime,
}  # fmt: skip
"""Those other than Enginery's know fp16 alone."""
