"""What TensorRT will not build, asked before a build: the parser reads the graph, and nothing is built."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from enginery.backends.tensorrt.building import Construction
from enginery.backends.tensorrt.optimization_profiles import check_profiles, narrowed
from enginery.backends.tensorrt.options import read_options
from enginery.backends.tensorrt.parsing import (
    parse_file,
    refuse_uint8_quantisation,
    type_notes,
    unsupported_nodes,
)
from enginery.backends.tensorrt.sharing import REST, owners, takes
from enginery.backends.tensorrt.versions import Api, runs_type
from enginery.errors import EngineryError
from enginery.graph.base import apply_plan, make_plan, save_model, tensor_infos, type_name
from enginery.records import FindingRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import BuildSpec

__all__ = ["examine"]


def examine(api: Api, graph: ir.Model, spec: BuildSpec) -> tuple[FindingRecord, ...]:
    """Say what of a graph this version will not build.

    The parser's list of operators is asked first; what that lists wrongly is known. Where all are there, the parser
    reads the graph, as it would for a build, which finds what it refuses in single nodes. What it takes and the
    builder refuses shows only in a build, and the last finding says so.

    Args:
        api: the library.
        graph: with names for its nodes; it is not changed.
        spec: of the build.
    """
    severity = "moved" if read_options(spec.options)["partition"] == "auto" else "refused"
    found = [*_profiles(graph, spec), *_tensors(api, graph), *_nodes(api, graph, severity)]
    if not any(finding.severity in ("refused", "moved") for finding in found):
        found += _parsed(api, graph, spec, severity)
    if not any(finding.severity in ("refused", "moved") for finding in found):
        text = f"the parser of {api.library.label} {api.version} takes all of it; only a build proves that it builds"
        found.append(FindingRecord("note", "", text))
    return tuple(found)


def _profiles(graph: ir.Model, spec: BuildSpec) -> Iterator[FindingRecord]:
    try:
        inputs = tensor_infos(graph.graph.inputs)
        check_profiles(inputs, spec.shapes, narrowed(inputs, spec).profiles)
    except EngineryError as error:
        yield FindingRecord("refused", "", error.message, error.mend)


def _tensors(api: Api, graph: ir.Model) -> Iterator[FindingRecord]:
    """Look at the element types of inputs and outputs, which no partition changes."""
    for kind, values in (("input", graph.graph.inputs), ("output", graph.graph.outputs)):
        for value in values:
            if value.dtype is not None and not runs_type(api, value.dtype.name):
                text = f"{kind} {value.name!r} is {type_name(value.type)}, which {api.library.label} has no tensors for"
                mend = f"cut that end off the graph, or leave it to another backend: --option partition=auto ({REST})"
                yield FindingRecord("unsure", value.name or "", text, mend)


def _nodes(api: Api, graph: ir.Model, severity: str) -> Iterator[FindingRecord]:
    """Look at operators and types by name; a node inside a subgraph counts for the one that holds it."""
    unknown = set(unsupported_nodes(api, graph))
    for node, every in owners(graph):
        bad = [one for one in every if one in unknown]
        mend = "" if severity == "moved" else f"--option partition=auto leaves it to {REST}; or rewrite it"
        if bad:
            what = ", ".join(dict.fromkeys(f"{one.domain}.{one.op_type}" if one.domain else one.op_type for one in bad))
            text = f"{node.name!r} ({node.op_type}) cannot be built: {api.library.label} {api.version} has no {what}"
            yield FindingRecord(severity, node.name or "", text, mend)
        elif not takes(api, node, set()):
            text = f"{node.name!r} ({node.op_type}) works on types that {api.library.label} {api.version} has not"
            yield FindingRecord(severity, node.name or "", text, mend)


def _parsed(api: Api, graph: ir.Model, spec: BuildSpec, severity: str) -> Iterator[FindingRecord]:
    """Let the parser read the graph as for a build, and tell what it says by node."""
    try:
        refuse_uint8_quantisation(api, graph)
        construction = Construction.begin(api, spec)
        plan = spec.plan or make_plan(graph, spec.precision)
        notes: list[str] = []
        typed = apply_plan(graph, plan, say=notes.append) if api.is_typed else graph
        with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
            path = Path(folder) / "model.onnx"
            save_model(typed, path)
            construction.kept.append(parse_file(api, construction.network, path, typed, construction.log))
        notes += type_notes(api, construction.network, graph)
        yield from (FindingRecord("note", "", note) for note in notes)
    except EngineryError as error:
        subjects = [
            node.name or ""
            for node, every in owners(graph)
            if any(one.name and repr(one.name) in error.message for one in every)
        ]
        for name in subjects:
            lines = [line.strip() for line in error.message.splitlines()]
            yield FindingRecord(
                severity, name, next((line for line in lines if repr(name) in line), error.message), error.mend
            )
        if not subjects:
            yield FindingRecord("refused", "", error.message, error.mend)
