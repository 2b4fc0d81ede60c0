"""A precision plan on OpenVINO: one low type for the whole model, and marks on the operators that are kept out of it.

OpenVINO takes no types from the graph. A hint says what it may compute in; quantisers in the graph say what is INT8;
and an operator that is marked as precise keeps float32, unless OpenVINO makes it part of another one. So every layer is
read back, and what was kept in vain is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from enginery.backends.openvino_layers import read_layers
from enginery.backends.precision import Ran, computes
from enginery.errors import PrecisionError, PrecisionMismatchError
from enginery.graph.base import all_nodes, settle_plan
from enginery.spec import PrecisionPlan

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["HINTS", "check_kept", "low_word", "mark_kept", "owners_of", "read_ran"]

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""OpenVINO's words for what it may compute in."""

_LOW = ("fp16", "bf16")
_FULL = ("fp32", "tf32")
_MARK = "precise_0"  # the key of OpenVINO's own attribute; a model file keeps it, and is compiled by it
_UNMARKED = ("Constant", "Parameter", "Result")
_SHOWN = 4


def low_word(plan: PrecisionPlan) -> str:
    """Return the one low floating-point precision of a plan; ``fp32`` where it has none.

    Raises:
        PrecisionError: it has two.
    """
    found = [word for word in plan.words if word in _LOW]
    if len(found) > 1:
        raise PrecisionError(
            f"the plan has nodes in {' and '.join(sorted(found))}, and OpenVINO computes a model in one of them",
            mend="give all of these nodes one precision, or build with another backend",
        )
    return found[0] if found else "fp32"


def owners_of(model: Any, graph: ir.Model) -> dict[str, str]:
    """Return the node of the graph that each of OpenVINO's operators came from, by the operator's name.

    An operator belongs to the node whose tensor it makes; one that makes none, to the node that reads what it makes.
    Operators in the bodies of an If or a Loop are left out.
    """
    makers = {value.name: node.name or "" for node in graph.graph for value in node.outputs if value.name}
    owners: dict[str, str] = {}
    for op in reversed(model.get_ordered_ops()):
        if op.get_type_name() in _UNMARKED:
            continue
        named = [makers[name] for output in op.outputs() for name in output.get_names() if name in makers]
        readers = {
            owners.get(target.get_node().get_friendly_name(), "")
            for output in op.outputs()
            for target in output.get_target_inputs()
        }
        owner = named[0] if named else next(iter(readers)) if len(readers) == 1 else ""
        if owner:
            owners[op.get_friendly_name()] = owner
    return owners


def mark_kept(model: Any, plan: PrecisionPlan, owners: Mapping[str, str], graph: ir.Model) -> None:
    """Mark the operators of nodes that a plan keeps in float32 beside a lower type.

    Args:
        model: an `openvino.Model`, changed in place; the marks hold in the file that it is saved to.
        plan: what each node shall compute in.
        owners: as `owners_of` gives them.
        graph: what the model was read from.

    Raises:
        PrecisionError: such a node is none of OpenVINO's operators, as those in the body of an If.
    """
    if low_word(plan) == "fp32":
        return
    settled = settle_plan(graph, plan)
    named = (node.name or "" for node in all_nodes(graph) if computes(node.op_type))
    kept = {name for name in named if name in settled and plan.of(name) in _FULL}
    if lost := sorted(kept - set(owners.values())):
        raise PrecisionError(
            f"OpenVINO cannot keep {_listed(lost)} in fp32: what is in a subgraph, or folded away, takes no mark",
            mend=f"build {low_word(plan)} without keeping these, or with another backend",
        )
    for op in model.get_ordered_ops():
        if owners.get(op.get_friendly_name()) in kept:
            op.get_rt_info()[_MARK] = True


def read_ran(
    compiled: Any, plan: PrecisionPlan, owners: Mapping[str, str], graph: ir.Model
) -> tuple[tuple[Ran, ...], tuple[str, ...]]:
    """Say how each layer computes and in what it was asked to, and which nodes were kept in vain.

    Args:
        compiled: an `openvino.CompiledModel`.
        plan: what each node shall compute in.
        owners: as `owners_of` gives them.
        graph: what the model was read from.
    """
    found: list[Ran] = []
    precisions: dict[str, str] = {}
    for layer in read_layers(compiled):
        nodes = dict.fromkeys(owners[name] for name in layer.names if name in owners)
        precisions |= dict.fromkeys(nodes, layer.precision)
        if not layer.precision:
            continue
        words = {plan.of(node) for node in nodes}
        found.append(
            Ran(", ".join(nodes), layer.kind, _asked(words, layer.precision, heavy=layer.heavy), layer.precision)
        )
    if low_word(plan) == "fp32":  # what computes low then is the graph's own type
        return tuple(found), ()
    kept = [node for node in graph.graph if plan.of(node.name or "") in _FULL and node.name in owners.values()]
    broken = [node.name or "" for node in kept if _computed_in(node, precisions) in _LOW]
    return tuple(found), tuple(broken)


def _computed_in(node: ir.Node, precisions: Mapping[str, str]) -> str:
    """Return what a node computes in; one that no layer names is part of the layer that reads it."""
    seen: set[ir.Node] = set()
    while node.name not in precisions and node not in seen:
        seen.add(node)
        readers = [use.node for value in node.outputs for use in value.uses()]
        node = readers[0] if len(set(readers)) == 1 else node
    return precisions.get(node.name or "", "")


def check_kept(broken: Iterable[str], low: str, allowed: Collection[str]) -> tuple[str, ...]:
    """Refuse an engine in which nodes that should stay in float32 do not, unless that is allowed.

    Raises:
        PrecisionMismatchError: names the nodes.
    """
    names = list(broken)
    if not names:
        return ()
    said = f"OpenVINO computes in {low} what the plan keeps in fp32, as part of other layers: {_listed(names)}"
    if low not in allowed:
        mend = f"keep the neighbours in fp32 too, take another backend, or allow it: --option allow_precision={low}"
        raise PrecisionMismatchError(said, mend=mend)
    return (said,)


def _asked(words: set[str], built: str, *, heavy: bool) -> str:
    """Return what a layer was asked to compute in; what it does where that is not one thing."""
    if "int8" in words:
        return "int8" if heavy else built
    return next(iter(words)) if len(words) == 1 and words <= {*_LOW, "fp32"} else built


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
