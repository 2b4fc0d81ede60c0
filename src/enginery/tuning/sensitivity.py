"""How a model bears a narrower type: which nodes are in danger by the values they see, and which harm the outputs.

The graph runs once in float32 with the tensors between its nodes as outputs, a part of them at a time. Then each group
of nodes alone computes lower, rounded in a float32 graph, and the outputs are held against the reference's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from enginery.graph import base
from enginery.graph.base import NodeStudy, Study
from enginery.progress import Progress
from enginery.records import DangerRecord, GroupSensitivityRecord, NodeSensitivityRecord, SensitivityRecord
from enginery.spec import PrecisionPlan
from enginery.tuning.dangers import SEVERITIES, dangers_of
from enginery.tuning.simulation import CHUNK_BYTES, Simulator
from enginery.tuning.watching import Seen

__all__ = ["group_nodes", "quantised_sensitivity", "sensitivity"]

_MOST_GROUPS = 32
_FEWEST_PARTS = 2


def sensitivity(
    simulator: Simulator,
    precision: str,
    *,
    measure: bool = True,
    most_groups: int = _MOST_GROUPS,
    chunk_bytes: int = CHUNK_BYTES,
    progress: Progress | None = None,
) -> SensitivityRecord:
    """Rank a graph's nodes by how they bear a narrower type.

    Args:
        simulator: of the graph, with the inputs to run it on.
        precision: ``fp16`` or ``bf16``.
        measure: whether to measure errors group by group as well.
        most_groups: how many groups at the most; modules are taken together until there are no more.
        chunk_bytes: how many bytes of tensors between nodes are outputs at one time.
        progress: told what is going on.

    Raises:
        GraphError: the types of the graph are not known.
    """
    begin = time.monotonic()
    progress = progress or Progress()
    study = base.study(simulator.model, precision)
    seen, runs = simulator.watch(study, chunk_bytes)
    whole = simulator.judge(PrecisionPlan(precision))
    named = group_nodes([node for node in study.nodes if node.lowers], most_groups)
    groups = _measure(simulator, precision, named, progress) if measure else ()
    nodes = _rank(study, seen, simulator.input_sizes(), named, groups)
    inner = sum(bool(node.outputs) and node.lowers and not set(node.outputs) & set(seen) for node in study.nodes)
    return SensitivityRecord(
        precision=precision,
        error=whole.error,
        total=len(study.nodes),
        lowered=sum(node.lowers for node in study.nodes),
        nodes=nodes,
        groups=groups,
        watched=len(seen),
        runs=runs,
        inputs=simulator.inputs,
        seconds=time.monotonic() - begin,
        notes=(f"nodes in subgraphs, whose tensors are not watched: {inner}",) if inner else (),
    )


def quantised_sensitivity(
    simulator: Simulator,
    plan: PrecisionPlan,
    graph_of: Callable[[PrecisionPlan], Path],
    *,
    most_groups: int = _MOST_GROUPS,
    progress: Progress | None = None,
) -> SensitivityRecord:
    """Rank the nodes of a quantised plan by the error when they alone are quantised.

    Args:
        simulator: of the float32 graph.
        plan: names every node that could be quantised.
        graph_of: makes the graph of a plan that names some of them.
        most_groups: how many groups at the most.
        progress: told what is going on.
    """
    begin = time.monotonic()
    progress = progress or Progress()
    study = base.study(simulator.model, "fp16")  # for the modules of nodes; the type does not matter
    inside = [node for node in study.nodes if node.name in plan.nodes]
    named = group_nodes(inside, most_groups)
    whole = simulator.judge_graph(graph_of(plan))
    found = []
    for name, nodes in named.items():
        alone = replace(plan, nodes={node: plan.nodes[node] for node in nodes}, reasons={})
        record = simulator.judge_graph(graph_of(alone), few=True)
        found.append(GroupSensitivityRecord(name, nodes, record.error, record.cosine))
        progress.changed()
    groups = tuple(sorted(found, key=lambda group: -_harm(group.error)))
    errors = {node: group for group in groups for node in group.nodes}
    rows = [
        NodeSensitivityRecord(node.name, node.operator, node.module, errors[node.name].name, None, (),
                              errors[node.name].error)
        for node in inside
    ]  # fmt: skip
    word = next(iter(plan.nodes.values()))
    return SensitivityRecord(
        word, whole.error, len(study.nodes), len(inside), tuple(sorted(rows, key=_order)), groups, 0, 0,
        simulator.inputs, time.monotonic() - begin,
    )  # fmt: skip


def group_nodes(nodes: Sequence[NodeStudy], most: int = _MOST_GROUPS) -> dict[str, tuple[str, ...]]:
    """Put nodes together by the module they came from; where nothing tells, by their place in the graph.

    Args:
        nodes: in the graph's order.
        most: how many groups there may be; each node is its own where they are no more.

    Returns:
        Names of the nodes by the name of their group.
    """
    if len(nodes) <= most:
        return {node.name: (node.name,) for node in nodes}
    groups = _by_module(nodes, most)
    largest = max(groups, key=lambda name: len(groups[name]), default="")
    if not groups or 2 * len(groups[largest]) <= len(nodes):
        return groups or by_place([node.name for node in nodes], most)
    room, inside = most - len(groups) + 1, set(groups.pop(largest))  # a module that holds nearly all tells nothing
    if room < _FEWEST_PARTS:
        return by_place([node.name for node in nodes], most)
    return _joined(groups, group_nodes([node for node in nodes if node.name in inside], room))


def _by_module(nodes: Sequence[NodeStudy], most: int) -> dict[str, tuple[str, ...]]:
    """Put nodes together by the deepest modules of which there are few enough; empty where none divides them."""
    deepest = max(len(node.module.split(".")) for node in nodes)
    for depth in range(deepest, 0, -1):
        groups: dict[str, list[str]] = {}
        for node in nodes:
            groups.setdefault(".".join(node.module.split(".")[:depth]), []).append(node.name)
        if len(groups) <= most and len(groups) > 1:
            return _without_module({name: tuple(names) for name, names in groups.items()}, most)
    return {}


def _without_module(groups: dict[str, tuple[str, ...]], most: int) -> dict[str, tuple[str, ...]]:
    """Cut the nodes of no module by their place: together they say nothing."""
    rest = groups.pop("", ())
    return _joined(groups, by_place(rest, max(most - len(groups), 1))) if rest else groups


def _joined(groups: Mapping[str, tuple[str, ...]], more: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Put groups together; a node may be called as a module is."""
    return {**groups, **{f"{name} (elsewhere)" if name in groups else name: nodes for name, nodes in more.items()}}


def by_place(names: Sequence[str], most: int) -> dict[str, tuple[str, ...]]:
    """Cut names, in the graph's order, into groups of neighbours.

    Example:
        >>> by_place(["a", "b", "c"], 2)
        {'a .. b': ('a', 'b'), 'c': ('c',)}
    """
    step = math.ceil(len(names) / most)
    cut = [tuple(names[at : at + step]) for at in range(0, len(names), step)]
    return {part[0] if len(part) == 1 else f"{part[0]} .. {part[-1]}": part for part in cut}


def _measure(
    simulator: Simulator, precision: str, named: Mapping[str, tuple[str, ...]], progress: Progress
) -> tuple[GroupSensitivityRecord, ...]:
    """Let each group alone compute lower; the most harmful first."""
    found = []
    for name, nodes in named.items():
        record = simulator.judge(PrecisionPlan("fp32", dict.fromkeys(nodes, precision)), few=True)
        found.append(GroupSensitivityRecord(name, nodes, record.error, record.cosine))
        progress.changed()
    return tuple(sorted(found, key=lambda group: -_harm(group.error)))


def _harm(error: float) -> float:
    return math.inf if math.isnan(error) else error


def _rank(
    study: Study,
    seen: Mapping[str, Seen],
    inputs: Mapping[str, tuple[int, ...]],
    named: Mapping[str, tuple[str, ...]],
    groups: Sequence[GroupSensitivityRecord],
) -> tuple[NodeSensitivityRecord, ...]:
    sizes = {**study.constants, **inputs, **{name: one.shape for name, one in seen.items()}}
    group_of = {node: name for name, nodes in named.items() for node in nodes}
    errors = {group.name: group.error for group in groups}
    rows = []
    for node in study.nodes:
        if node.lowers:
            dangers = dangers_of(node, study, seen, sizes)
            known = [seen[name].largest for name in (*node.inputs, *node.outputs) if name in seen]
            group = group_of[node.name]
            rows.append(
                NodeSensitivityRecord(
                    node.name, node.operator, node.module, group, max(known, default=None), dangers, errors.get(group)
                )
            )
    return tuple(sorted(rows, key=_order))


def _order(row: NodeSensitivityRecord) -> tuple[float, float]:
    return _severity(row.dangers), -_harm(row.error or 0.0)


def _severity(dangers: Sequence[DangerRecord]) -> int:
    return SEVERITIES.index(dangers[0].severity) if dangers else len(SEVERITIES)
