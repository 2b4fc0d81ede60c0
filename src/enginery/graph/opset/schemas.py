"""What ONNX's schemas say of an operator at an opset, and whether a node has that form."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = [
    "DOMAINS",
    "attribute_value",
    "default_value",
    "definition_kind",
    "first_version",
    "form_problem",
    "schema_at",
    "steps_down",
]

DOMAINS = ("", "ai.onnx.ml")
"""Those whose operators ONNX describes by schemas."""


@functools.cache
def _history() -> dict[tuple[str, str], dict[int, onnx.defs.OpSchema]]:
    from onnx import defs

    found: dict[tuple[str, str], dict[int, onnx.defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), {})[schema.since_version] = schema
    return found


def schema_at(op: str, version: int, domain: str = "", *, deprecated: bool = False) -> onnx.defs.OpSchema | None:
    """Return what an operator is at an opset; None where it is not there, or deprecated unless that is asked for.

    Example:
        >>> schema_at("ReduceMean", 17).since_version, schema_at("Gelu", 17)
        (13, None)
    """
    versions = _history().get((domain, op), {})
    since = max((since for since in versions if since <= version), default=None)
    return None if since is None or (versions[since].deprecated and not deprecated) else versions[since]


def first_version(op: str, domain: str = "") -> int:
    """Return the version of the operator set that brought an operator.

    Example:
        >>> first_version("GridSample")
        16
    """
    return min(_history()[domain, op])


def steps_down(op: str, newest: int, oldest: int, domain: str = "") -> list[tuple[Any, Any]]:
    """Return (older, newer) for each step from version `newest` of an operator to version `oldest`."""
    versions = _history()[domain, op]
    passed = sorted((since for since in versions if oldest <= since <= newest), reverse=True)
    return [(versions[older], versions[newer]) for newer, older in itertools.pairwise(passed)]


def attribute_value(node: ir.Node, name: str, default: Any) -> Any:
    """Return an attribute's value in Python's types, lists for several; `default` where it is not set."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    value = attribute.value
    return list(value) if isinstance(value, tuple) else value


def default_value(schema: onnx.defs.OpSchema, name: str) -> Any:
    """Return what an attribute is where it is not set; None where that is nothing."""
    from onnx import helper

    proto = schema.attributes[name].default_value
    if not proto.type:
        return None
    value = helper.get_attribute_value(proto)
    return value.decode() if isinstance(value, bytes) else value


def definition_kind(schema: Any) -> str | None:
    """Say how ONNX defines an operator by others: by ``one`` function, by one ``for types`` given, or not at all."""
    if schema is None:
        return None
    return "for types" if schema.has_context_dependent_function else "one" if schema.has_function else None


def form_problem(node: ir.Node, schema: onnx.defs.OpSchema) -> str:
    """Say what of a node is not of the form that a schema asks for; empty where all is.

    Numbers of inputs and outputs, names of attributes, and element types are looked at.
    """
    inputs, outputs = list(node.inputs), [value for value in node.outputs if value.name]
    while inputs and inputs[-1] is None:
        inputs.pop()
    if not schema.min_input <= len(inputs) <= schema.max_input:
        return f"it has {len(inputs)} inputs, and opset {schema.since_version} takes {_range(schema)}"
    if len(outputs) > schema.max_output:
        return f"it has {len(outputs)} outputs, and opset {schema.since_version} {schema.max_output} at most"
    for name in node.attributes:
        if name not in schema.attributes:
            return f"opset {schema.since_version} has no attribute {name} for it"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            return f"opset {schema.since_version} wants an attribute {name} for it"
    return _type_problem(inputs, schema.inputs) or _type_problem(list(node.outputs), schema.outputs)


def _range(schema: onnx.defs.OpSchema) -> str:
    return (
        str(schema.max_input) if schema.min_input == schema.max_input else f"{schema.min_input} to {schema.max_input}"
    )


def _type_problem(values: list[ir.Value | None], formals: Any) -> str:
    for at, value in enumerate(values):
        formal = formals[min(at, len(formals) - 1)]
        kind = None if value is None or value.type is None else _type_text(value.type)
        if value is not None and kind is not None and kind not in formal.types:
            return f"it does not take {kind} for {formal.name} ({value.name!r})"
    return ""


def _type_text(kind: ir.TypeProtocol) -> str | None:
    import onnx_ir as ir

    if isinstance(kind, ir.SequenceType | ir.OptionalType):
        inner = _type_text(kind.elem_type)
        word = "seq" if isinstance(kind, ir.SequenceType) else "optional"
        return None if inner is None else f"{word}({inner})"
    if not isinstance(kind, ir.TensorType) or kind.dtype.name == "UNDEFINED":
        return None
    return f"tensor({kind.dtype.name.lower()})"
