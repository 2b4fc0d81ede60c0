"""TensorRT's words for element types, formats and kinds of layers, in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["computed_in", "is_compute", "precision_word", "tensor_text"]

# In this order: a word may hold another, as BF16 holds F16.
_TYPES = (
    ("bf16", r"BF16|BFloat16"), ("fp16", r"FP16|Half|Float16"), ("fp8", r"FP8|E4M3"), ("fp4", r"FP4|E2M1"),
    ("fp32", r"FP32|Float32|Float"), ("uint8", r"UInt8"), ("int8", r"Int8"), ("int4", r"Int4"), ("int32", r"Int32"),
    ("int64", r"Int64"), ("bool", r"Bool"),
)  # fmt: skip
_PATTERNS = tuple((word, re.compile(rf"(?<![A-Za-z0-9])(?:{text})(?![A-Za-z0-9])", re.IGNORECASE))
                  for word, text in _TYPES)  # fmt: skip
_FLOATING = ("fp32", "fp16", "bf16", "fp8", "fp4")
_LOW = ("fp16", "bf16", "fp8", "fp4", "int8")
_WIDTHS = {"two": "2", "four": "4", "eight": "8", "sixteen": "16", "thirty-two": "32"}
_WIDE = re.compile(r"(two|four|eight|sixteen|thirty-two) wide channel vectorized row major", re.IGNORECASE)
_LAST = re.compile(r"channel major(?: where channel % (\d+) == 0)?", re.IGNORECASE)
_MOVING = frozenset({
    "assertion", "cast", "concat", "concatenation", "condition", "conditionalinput", "conditionaloutput", "constant",
    "copy", "dequantize", "expand", "gather", "identity", "input", "iterator", "loopoutput",
    "noop", "padding", "quantize", "recurrence", "reformat", "reshape", "scatter", "shape", "shapecall",
    "devicetoshapehost", "shapehosttodevice", "shuffle", "signal", "slice", "squeeze", "transpose", "triplimit",
    "unsqueeze", "wait",
})  # fmt: skip
"""Kinds that compute nothing, in lower case and without underscores."""

_REGIONS = ("Myelin", "ForeignNode")
_NOT_TOLD = "N/A"  # 8.6 tells no tensor's type where shapes are dynamic
_WEIGHTS = ("Weights", "ConvWeights")
_KERNELS = (("int8", r"i8i8|int8"), ("bf16", r"bf16"), ("fp16", r"f16f16|fp16|h\d+|half"), ("tf32", r"tf32"),
            ("fp32", r"f32f32|fp32|s\d+gemm"))  # fmt: skip
_KERNEL_PATTERNS = tuple((word, re.compile(rf"(?:^|_)(?:{text})", re.IGNORECASE)) for word, text in _KERNELS)
"""What a kernel's name says that it multiplies in, the narrowest first: its sums may be wider."""


def precision_word(text: str) -> str:
    """Return our word for the element type in a text of TensorRT's; empty where there is none.

    Example:
        >>> precision_word("Row major linear FP16 format"), precision_word("Half NC/2HW2"), precision_word("Float")
        ('fp16', 'fp16', 'fp32')
    """
    return next((word for word, pattern in _PATTERNS if pattern.search(text)), "")


def tensor_text(tensor_said: Mapping[str, Any]) -> str:
    """Say a tensor's element type and format, such as ``fp16 CHW2``, from either form of TensorRT's JSON.

    Empty where TensorRT does not tell, as 8.6 where shapes are dynamic.

    Example:
        >>> tensor_text({"Format/Datatype": "Two wide channel vectorized row major FP16 format"})
        'fp16 CHW2'
        >>> tensor_text({"Format": "Row major linear", "Datatype": "Half"})
        'fp16 linear'
    """
    said = str(tensor_said.get("Format/Datatype", ""))
    if said.startswith(_NOT_TOLD):
        return ""
    if "Datatype" in tensor_said:
        said = f"{tensor_said['Datatype']} {tensor_said.get('Format', '')}"
    word = precision_word(said)
    rest = next(pattern for name, pattern in _PATTERNS if name == word).sub("", said) if word else said
    return f"{word} {_format(rest)}".strip()


def _format(text: str) -> str:
    """Shorten the words for a format; what is not known is kept."""
    text = re.sub(r"\s+", " ", re.sub(r"\bformat\b\.?", "", text)).strip(" .")
    if match := _WIDE.search(text):
        return f"CHW{_WIDTHS[match[1].lower()]}"
    if match := _LAST.search(text):
        return f"HWC{match[1] or ''}"
    return "linear" if text.lower() in ("row major linear", "row major") else text


def is_compute(kind: str) -> bool:
    """Say whether a kind of layer computes; the others move data, make shapes or wait."""
    return kind.lower().replace("_", "") not in _MOVING


def computed_in(said: Mapping[str, Any], kind: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> str:
    """Return the precision that a layer computes in; empty where it computes nothing, or nothing tells.

    A quantised input says int8; else the type of its weights where that is narrow, else of its first floating-point
    tensor; where no tensor is told, its weights or its kernel's name. That name tells TF32 from float32. Of a region
    that TensorRT compiles as a whole, tensors inside are not told: float32 at its edges proves nothing, a narrower
    type does.
    """
    if not is_compute(kind):
        return ""
    words = [word.split(" ")[0] for word in (*inputs, *outputs)]
    entering = [word.split(" ")[0] for word in inputs]
    if any(region in kind or region in str(said.get("Name", "")) for region in _REGIONS):
        return next((word for word in _LOW if word in words), "")
    if "int8" in entering:
        return "int8"
    held = _held(said)
    if held in _LOW:
        return held
    kernel = str(said.get("TacticName", ""))
    found = next((word for word in words if word in _FLOATING), "") or held or _in_name(kernel)
    return "tf32" if found == "fp32" and "tf32" in kernel.lower() else found


def _held(said: Mapping[str, Any]) -> str:
    """Return the precision of a layer's weights; empty where it has none."""
    weights: Mapping[str, Any] = next((said[key] for key in _WEIGHTS if isinstance(said.get(key), Mapping)), {})
    return precision_word(str(weights.get("Type", "")))


def _in_name(kernel: str) -> str:
    """Return the precision that stands in a kernel's name; empty where none does."""
    return next((word for word, pattern in _KERNEL_PATTERNS if pattern.search(kernel)), "")
