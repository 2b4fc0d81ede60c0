"""What OpenVINO's error texts probably mean, and what to do about each."""

from __future__ import annotations

import difflib
import re
from types import ModuleType
from typing import TYPE_CHECKING

from enginery import optional

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["diagnose"]

_OTHERWISE = "build with another backend"
_MEANINGS = {
    r"(?:No conversion rule found for|does not support the following ONNX) operations: (?P<ops>[^\n]+)": (
        "OpenVINO {version} does not know {ops}: run: pip install --upgrade openvino, or " + _OTHERWISE
    ),
    r"(?:externally stored data in file \(|external data: .*data_full_path: )(?P<file>[^,)]+)": (
        "the file of weights {file} is missing or cut short: copy it to the graph's folder"
    ),
    r"weights data in bin file|Incorrect weights in bin": (
        "model.bin is missing, cut short, or of another model: build the engine again"
    ),
    r"Could not open the file": "the file is gone: build the engine again",
    r"Unable to read the model|can't be parsed|Error during import of ONNX model": (
        "the file is no ONNX model, is cut short, or is not valid: try onnx.checker.check_model on it"
    ),
    r"While validating ONNX node '<Node\((?P<op>\w+)": (
        "OpenVINO {version} does not read this form of {op}, or the graph is not valid: try onnx.checker.check_model "
        "on it, or " + _OTHERWISE
    ),
    r"While validating node '(?:opset\d+::)?(?P<op>\w+)": (
        "the shapes or element types of what {op} was given do not fit together: compare those of the weights with "
        "what it takes"
    ),
    r"references undeclared parameters": (
        "list every parameter that the network uses: openvino.Model([outputs], [parameters], name)"
    ),
    r"Conversion failed|FrontEnd API failed": (
        "OpenVINO {version} does not read this form of an operator: " + _OTHERWISE
    ),
    r"[Uu]nsupported (?:data |element )?type|dynamic rank|data type.*not supported|ParameterMismatch": (
        "OpenVINO {version} does not take this element type here: " + _OTHERWISE
    ),
    r"bad_alloc|[Cc]annot allocate": "memory ran out: close other programs, or use a smaller shape",
}


def diagnose(error: Exception, graph: ir.Model | None) -> str | None:
    """Say what OpenVINO's text probably means and what to do; None where nothing is known of it.

    Example:
        >>> diagnose(RuntimeError("std::bad_alloc"), None)
        'memory ran out: close other programs, or use a smaller shape'
    """
    del graph
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return _nearest_operator(error.name or "", error.obj)
    for pattern, meaning in _MEANINGS.items():
        if match := re.search(pattern, str(error), re.DOTALL):
            return meaning.format_map({"version": optional.version("openvino"), **match.groupdict()})
    return None


def _nearest_operator(name: str, opset: ModuleType) -> str | None:
    near = difflib.get_close_matches(name, [known for known in vars(opset) if not known.startswith("_")], n=1)
    return f"did you mean {near[0]!r}?" if near else None
