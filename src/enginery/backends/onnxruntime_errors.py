"""What ONNX Runtime's error texts probably mean, and what to do about each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from enginery import optional
from enginery.graph.base import tensor_infos

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["diagnose"]

_UPGRADE = "run: pip install --upgrade onnxruntime"
_MEANINGS = {
    r"Opset (?P<opset>\d+) is under development.*till opset (?P<max>\d+)": (
        "ONNX Runtime {version} reads opset {max} at most and the graph has {opset}: export it with --opset {max}, "
        f"or {_UPGRADE}"
    ),
    r"Unsupported model IR version: (?P<ir>\d+), max supported IR version: (?P<max>\d+)": (
        "ONNX Runtime {version} reads IR version {max} at most and the file has {ir}: export it with an older --opset, "
        f"or {_UPGRADE}"
    ),
    r"Could not find an implementation for (?P<op>\w+)\((?P<since>\d+)\)": (
        "this provider has no kernel for {op} (as of opset {since}) on {types}: cast around it to float32, or build "
        "with another backend"
    ),
    r"Type '(?P<type>[^']+)' of input parameter \((?P<name>[^)]*)\) of operator \((?P<op>\w+)\)": (
        "ONNX does not allow {type} for {op} at this opset: cast its input to another type, or export with a newer "
        "--opset"
    ),
    r"(?P<domain>[\w.]+):(?P<op>\w+)\(-?\d+\) is not a registered function/op": (
        "{op} is a custom operator of the domain {domain!r}, which ONNX Runtime does not know: export the model "
        "without it"
    ),
    r"No Op registered for (?P<op>\w+) with domain_version of (?P<opset>\d+)": (
        "opset {opset} has no operator {op}: the exporter wrote the wrong opset version, or a custom operator "
        "without its domain"
    ),
    r"External data path|get file size|[Ee]xternal (?:data|initializer).*(?:does not exist|[Cc]annot|[Ff]ailed)": (
        "the weights are in a file beside the graph that is missing or cut short: copy it to the same folder"
    ),
    r"NO_SUCHFILE": "the file is gone: build the engine again",
    r"INVALID_PROTOBUF": "the file is no ONNX model, or is cut short: export it again",
    r"bad_alloc|[Ff]ailed to allocate": "memory ran out: close other programs, or use a smaller shape",
    r"INVALID_GRAPH|Invalid model|ShapeInferenceError|Type Error": (
        "the graph is not valid ONNX: find the fault with onnx.checker.check_model(path, full_check=True)"
    ),
}


def diagnose(error: Exception, graph: ir.Model | None) -> str | None:
    """Say what ONNX Runtime's text probably means and what to do; None where nothing is known of it.

    Example:
        >>> diagnose(RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model failed"), None)
        'the file is no ONNX model, or is cut short: export it again'
    """
    for pattern, meaning in _MEANINGS.items():
        if match := re.search(pattern, str(error), re.DOTALL):
            found = {"version": optional.version("onnxruntime") or "", **match.groupdict()}
            return meaning.format_map({**found, "types": _input_types(graph, found.get("op", ""))})
    return None


def _input_types(graph: ir.Model | None, op: str) -> str:
    node = next((node for node in graph.graph if node.op_type == op), None) if graph is not None else None
    if node is None:
        return "the types it has here"
    return ", ".join(info.dtype for info in tensor_infos(value for value in node.inputs if value is not None))
