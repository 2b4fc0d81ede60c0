"""Bring a graph to another version of ONNX's operator set, or say which nodes stand in the way.

ONNX's own version converter takes whole models below 2 GB, forgets metadata, and lets nodes through whose form is not
that of the target. Here each node is converted by itself: where its operator did not change between the two opsets, it
stays as it is; down to opset 13 by rules of our own (`enginery.graph.opset.rules`) or by ONNX's definition of the
operator in terms of older ones; else by ONNX's converter, on the one node. Then every node that was touched must have
the form that the target's schema asks for. Whether the outputs are the same, the caller has to see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from enginery.errors import GraphError
from enginery.graph.base import OpsetLimits, all_graphs, subgraphs
from enginery.graph.checks import checker_problem
from enginery.graph.infer import infer_shapes
from enginery.graph.opset.bodies import convert_by_library, expand
from enginery.graph.opset.ir_versions import ir_version_of_opset, required_ir_version, with_ir_version
from enginery.graph.opset.nodes import CannotConvertError
from enginery.graph.opset.raising import keep_coordinates, scan_by_rows
from enginery.graph.opset.rules import EXPANDED, LOWERING, lower_by_schema
from enginery.graph.opset.schemas import DOMAINS, definition_kind, first_version, form_problem, schema_at, steps_down
from enginery.graph.passes.base import is_op
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.inline_functions import InlineFunctions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["convert_opset", "fit_opset"]

_LOWEST_OF_OURS = 13
_SUBGRAPHS = {"If": 1, "Loop": 1, "Scan": 9}  # since which version they only took more types
_SAYS_COORDINATES = 11  # since which version a Resize says where it reads
_SHOWN = 5


def fit_opset(model: ir.Model, limits: OpsetLimits) -> tuple[ir.Model, str]:
    """Bring a model to the nearest opset and IR version that a backend reads.

    Args:
        model: not changed.
        limits: what the backend reads.

    Returns:
        The model itself where it fits, else another one that shares its weights; and what was done in words, such as
        ``converted from opset 20 to 17``, empty where the operators are as they were.

    Raises:
        GraphError: nodes stand in the way; the message names them.

    Example:
        >>> import onnx_ir as ir
        >>> text = '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) {y = Gelu(x)}'
        >>> fitted, note = fit_opset(ir.from_onnx_text(text), OpsetLimits(max_opset=17))
        >>> note, fitted.opset_imports[""], sorted({node.op_type for node in fitted.graph})
        ('converted from opset 20 to 17', 17, ['Cast', 'Constant', 'Div', 'Erf', 'Mul', 'Sqrt', 'Sum'])
    """
    notes = []
    for domain, version in list(model.opset_imports.items()):
        if (target := limits.nearest(version, domain)) != version:
            model = convert_opset(model, target, domain=domain)
            notes.append(f"converted from opset {version} to {target}" + (f" of {domain}" if domain else ""))
    if limits.max_ir_version is not None and (model.ir_version or 0) > limits.max_ir_version:
        model = with_ir_version(model, limits.max_ir_version)
    return model, ", ".join(notes)


def convert_opset(model: ir.Model, target: int, *, domain: str = "") -> ir.Model:
    """Return the same model at another version of an operator set, and at the IR version that goes with it.

    Names and metadata of nodes, inputs, outputs, their dimensions, nodes of other domains and subgraphs stay;
    functions are inlined. A node that becomes several hands its metadata on to each.

    Args:
        model: not changed; the result shares its weights.
        target: the version to have.
        domain: whose; empty for ONNX's own.

    Raises:
        GraphError: the installed onnx does not know one of the versions, or nodes stand in the way; all are named.
    """
    own = model.opset_imports.get(domain, 0)
    if domain not in DOMAINS:
        raise GraphError(f"operators of {domain!r} cannot be converted from version {own} to {target}",
                         mend="export the model without them")  # fmt: skip
    _check_known(own, target, domain)
    if own == target:
        return model.clone()
    _check_functions(model, own, domain)
    copy, problems = _attempt(model, own, target, domain, fold=False)
    if problems and target < own:  # what stands in the way may be computed from constants
        copy, problems = _attempt(model, own, target, domain, fold=True)
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise GraphError(
            f"the graph cannot be brought from opset {own} to {target}: {'; '.join(problems[:_SHOWN])}{more}",
            mend=f"export the model with opset {target} in the first place",
        )
    copy.opset_imports[domain] = target
    if not domain:
        lowest = max(ir_version_of_opset(target), required_ir_version(copy))
        copy.ir_version = lowest if own < target else min(copy.ir_version or lowest, lowest)
    _check(copy, model, own, target)
    return copy


def _check_known(own: int, target: int, domain: str) -> None:
    from onnx import defs

    newest = max(schema.since_version for schema in defs.get_all_schemas() if schema.domain == domain)
    newest = defs.onnx_opset_version() if not domain else newest
    if target > newest:
        raise GraphError(f"there is no opset {target} in the installed onnx", mend=f"give {newest} at the most")
    if own > newest:
        raise GraphError(
            f"the graph has opset {own}, and the installed onnx knows up to {newest}",
            mend="run: pip install --upgrade onnx",
        )


def _check_functions(model: ir.Model, own: int, domain: str) -> None:
    for function in model.functions.values():
        if (found := function.opset_imports.get(domain, own)) != own:
            raise GraphError(
                f"the function {function.name} has opset {found}, and the graph {own}", mend="export the model again"
            )


def _attempt(model: ir.Model, own: int, target: int, domain: str, *, fold: bool) -> tuple[ir.Model, list[str]]:
    """Convert a copy; return it, and what stands in the way: with each name of a node, the reason."""
    copy = model.clone()
    if copy.functions:
        InlineFunctions().apply(copy)
    unused = _unused(copy)
    _infer(copy)
    taken = {value.name or "" for graph in all_graphs(copy) for node in graph for value in node.outputs}
    problems = _for_each(copy, domain, lambda node: _expand_new(node, own, target, taken)) if target < own else []
    if fold and not problems:
        FoldConstants().apply(copy)
        _infer(copy)
    problems = problems or _for_each(copy, domain, lambda node: _convert(node, own, target, taken))
    _remove_unused(copy, unused)
    return copy, problems


def _infer(model: ir.Model) -> None:
    """Infer types and shapes, which rules ask for; what the model says of its own outputs stays."""
    declared = [(value, value.shape, value.type) for value in model.graph.outputs]
    infer_shapes(model)
    for value, shape, kind in declared:
        value.shape, value.type = shape, kind


def _for_each(model: ir.Model, domain: str, change: Callable[[ir.Node], None]) -> list[str]:
    """Change every node of a domain, in all graphs; return what stands in the way."""
    problems = []
    for node in [node for graph in model.graphs() for node in graph if node.domain == domain]:
        shown = f"{node.op_type} {node.name!r}" if node.name else f"{node.op_type} that makes {_made(node)!r}"
        try:
            change(node)
        except CannotConvertError as error:
            problems.append(f"{shown}: {error}")
    return problems


def _expand_new(node: ir.Node, version: int, target: int, taken: set[str]) -> None:
    """Replace a node whose operator is not there yet at the target, or means another thing, by ONNX's definition."""
    schema = schema_at(node.op_type, version, node.domain, deprecated=True)
    wanted = schema_at(node.op_type, target, node.domain)
    if schema is None:
        raise CannotConvertError(f"opset {version} has no such operator")
    if wanted is not None:
        steps = steps_down(node.op_type, schema.since_version, wanted.since_version, node.domain)
        if not any((node.op_type, newer.since_version) in EXPANDED for _, newer in steps):
            return
    if definition_kind(schema) is None:
        raise CannotConvertError(f"it came with opset {first_version(node.op_type, node.domain)}")
    for new in expand(node, version, taken):
        for inner in [new, *(other for graph in subgraphs(new) for other in graph.all_nodes())]:
            if not inner.domain:
                _expand_new(inner, version, target, taken)


def _convert(node: ir.Node, version: int, target: int, taken: set[str]) -> None:
    """Convert a node from one opset to another, in place, or replace it."""
    schema = schema_at(node.op_type, version, node.domain, deprecated=True)
    wanted = schema_at(node.op_type, target, node.domain)
    node.version = None
    if schema is None or (wanted is None and target < version):
        raise CannotConvertError(f"opset {target if schema is not None else version} has no such operator")
    if wanted is not None and wanted.since_version == schema.since_version:
        return
    if wanted is None or target > version:
        made = _raised(node, version, target, taken)
    else:
        made = _lowered(node, schema.since_version, wanted.since_version, target, taken)
    for new in made:
        _check_form(new, target)


def _raised(node: ir.Node, version: int, target: int, taken: set[str]) -> list[ir.Node]:
    if version >= _SUBGRAPHS.get(node.op_type, target) or is_op(node, "Constant", "Identity"):
        return [node]
    if node.domain:
        raise CannotConvertError(f"opset {target} has it in another form")
    if is_op(node, "Scan"):
        scan_by_rows(node, taken)
        return [node]
    made = convert_by_library(node, version, target, taken)
    if version < _SAYS_COORDINATES <= target:
        for new in (new for new in made if is_op(new, "Resize")):
            keep_coordinates(new, enlarges=is_op(node, "Upsample"))
    return made


def _lowered(node: ir.Node, since: int, wanted: int, target: int, taken: set[str]) -> list[ir.Node]:
    """Take a node down version by version of its operator."""
    for older, newer in steps_down(node.op_type, since, wanted, node.domain):
        rule = LOWERING.get((node.op_type, newer.since_version)) if not node.domain else None
        if rule is None and newer.since_version <= _LOWEST_OF_OURS and not node.domain:
            if target >= _SUBGRAPHS.get(node.op_type, since + 1):
                return [node]
            return convert_by_library(node, newer.since_version, target, taken)
        if rule is None:
            lower_by_schema(node, older, newer)
            continue
        rule(node)
        if (node.domain, node.op_type) != (older.domain, older.name):
            break
    return [node]


def _check_form(node: ir.Node, target: int) -> None:
    schema = schema_at(node.op_type, target, node.domain)
    problem = f"opset {target} has no {node.op_type}" if schema is None else form_problem(node, schema)
    if problem:
        raise CannotConvertError(problem)


def _made(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


def _unused(model: ir.Model) -> set[str]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return {value.name or "" for value in values if not value.uses()}


def _remove_unused(model: ir.Model, kept: set[str]) -> None:
    """Remove constants whose last reader is gone, such as axes that became an attribute."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not value.uses() and name not in kept and not value.is_graph_output():
                del graph.initializers[name]
        for node in list(graph):
            if is_op(node, "Constant") and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                graph.remove(node)


def _check(converted: ir.Model, model: ir.Model, own: int, target: int) -> None:
    """Let ONNX's checker look at the result, where it took the original."""
    problem = checker_problem(converted)
    if problem and not checker_problem(model):
        raise GraphError(f"converted from opset {own} to {target}, the graph is not valid: {problem}",
                         mend=f"export the model with opset {target} in the first place")  # fmt: skip
