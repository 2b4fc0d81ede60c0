"""A plan as a file that can be read, edited and given again: ``precision.json``.

Every node that computes on floating-point values has a line, in the graph's order::

    {
      "format": 1,
      "precision": "fp16",
      "counts": {"fp16": 40, "fp32": 1},
      "nodes": {
        "/conv1/Conv": {"precision": "fp16", "operator": "Conv", "module": "conv1"},
        "/Softmax": {"precision": "fp32", "operator": "Softmax", "reason": "its inputs reach 9e4"}
      }
    }

``operator``, ``module`` and ``counts`` are there to be read by people, and ignored when the file is given. A node that
has the plan's own precision and no reason is not named by the plan, so it follows its neighbours where it only moves
values. Instead of an object, a bare word may stand: ``"/Softmax": "fp32"``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.errors import UnknownNameError, UsageError
from enginery.graph.base import all_nodes, module_path
from enginery.graph.precision.plan import check_plan
from enginery.graph.precision.settle import settle_plan
from enginery.spec import PRECISIONS, PrecisionPlan
from enginery.storage import PLAN

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["plan_from_json", "plan_to_json", "read_plan"]

_FORMAT = 1
_NAMED = "named in the plan"
_FIELDS = ("format", "precision", "counts", "nodes")
_NODE_FIELDS = ("precision", "operator", "module", "reason")
_MEND = "write it as an engine's precision.json is written: docs/precision.md shows one"


def plan_to_json(plan: PrecisionPlan, model: ir.Model | None = None) -> str:
    """Write a plan as text that can be read and edited.

    Args:
        plan: what to write.
        model: whose nodes get a line each, with what they really take; None for the nodes that the plan names.

    Raises:
        UnknownNameError: the plan names a node that the graph does not have.

    Example:
        >>> plan_from_json(plan_to_json(PrecisionPlan("fp16", {"/Softmax": "fp32"}))).of("/Softmax")
        'fp32'
    """
    lines = _lines(plan) if model is None else _lines_of_graph(plan, model)
    counts = dict(sorted(Counter(str(line["precision"]) for line in lines.values()).items()))
    head = {"format": _FORMAT, "precision": plan.precision, "counts": counts}
    text = ",\n  ".join(f"{json.dumps(key)}: {_json(value)}" for key, value in head.items())
    nodes = ",\n    ".join(f"{_json(name)}: {_json(line)}" for name, line in lines.items())
    listed = f"{{\n    {nodes}\n  }}" if lines else "{}"
    return f'{{\n  {text},\n  "nodes": {listed}\n}}\n'


def plan_from_json(text: str) -> PrecisionPlan:
    """Read a plan's text.

    Raises:
        UsageError: it is no JSON, of another format, or has something else where a precision should stand.
        UnknownNameError: there is no such precision or field; the nearest is suggested.

    Example:
        >>> plan_from_json('{"precision": "fp16", "nodes": {"/Softmax": "fp32"}}').nodes
        {'/Softmax': 'fp32'}
    """
    said = _loaded(text)
    if not isinstance(said, Mapping):
        raise UsageError("the precision plan is no JSON object", mend=_MEND)
    _check_fields("the precision plan", said, _FIELDS)
    found = said.get("format", _FORMAT)
    if found != _FORMAT or isinstance(found, bool):  # true equals 1 in Python
        mend = "read it with the Enginery that wrote it, or make it anew"
        raise UsageError(
            f"the precision plan has format {found!r}, and this Enginery reads format {_FORMAT}", mend=mend
        )
    own = _word("every other node", said.get("precision"))
    nodes = said.get("nodes", {})
    if not isinstance(nodes, Mapping):
        raise UsageError('"nodes" of the precision plan is no JSON object', mend=_MEND)
    named: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, value in nodes.items():
        line = value if isinstance(value, Mapping) else {"precision": value}
        _check_fields(f"node {name!r} of the precision plan", line, _NODE_FIELDS)
        word, reason = _word(f"node {name!r}", line.get("precision")), str(line.get("reason", ""))
        if word != own or reason:
            named[name] = word
            reasons |= {name: reason} if reason else {}
    return PrecisionPlan(own, named, reasons)


def read_plan(path: str | Path, model: ir.Model | None = None) -> PrecisionPlan:
    """Read a plan from its file, or from the engine folder that holds it; see `enginery.graph.base.read_plan`."""
    path = Path(path)
    file = path / PLAN if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        mend = f"name a plan's file, such as {PLAN} of an engine folder"
        raise UsageError(f"the precision plan {file} cannot be read: {error}", mend=mend) from error
    try:
        plan = plan_from_json(text)
        if model is not None:
            check_plan(model, plan)
    except UsageError as error:
        raise type(error)(f"{file}: {error.message}", mend=error.mend) from error
    return plan


def _lines(plan: PrecisionPlan) -> dict[str, dict[str, str]]:
    return {name: _line(plan, word, plan.reasons.get(name, ""), named=True) for name, word in plan.nodes.items()}


def _lines_of_graph(plan: PrecisionPlan, model: ir.Model) -> dict[str, dict[str, str]]:
    settled = settle_plan(model, plan)
    return {
        node.name: _line(plan, *settled[node.name], node=node, named=node.name in plan.nodes)
        for node in all_nodes(model)
        if node.name in settled
    }


def _line(
    plan: PrecisionPlan, precision: str, reason: str, *, named: bool, node: ir.Node | None = None
) -> dict[str, str]:
    """Make a node's line; one that is named for the plan's own precision needs a reason, or it would not be named."""
    line = {"precision": precision}
    if node is not None:
        line["operator"] = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        line |= {"module": module} if (module := module_path(node)) else {}
    if named and not reason and precision == plan.precision:
        reason = _NAMED
    return line | ({"reason": reason} if reason else {})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise UsageError("the precision plan is nested too deeply to be read", mend=_MEND) from error
    except ValueError as error:
        raise UsageError(f"the precision plan is not JSON: {error}", mend=_MEND) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice in one object: which line counts, nobody could tell."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"{name!r} stands twice in the precision plan", mend="leave one of the two lines out")
        found[name] = value
    return found


def _word(whose: str, word: Any) -> str:
    if word is None:
        raise UsageError(f"{whose} has no precision in the precision plan", mend=f"give one of {', '.join(PRECISIONS)}")
    if word not in PRECISIONS:
        unknown = UnknownNameError.from_choices("precision", str(word), PRECISIONS)
        raise UnknownNameError(f"{unknown.message} of {whose}", mend=unknown.mend)
    return str(word)


def _check_fields(whose: str, said: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in said:
        if name not in known:
            raise UnknownNameError.from_choices(f"field of {whose}:", name, known)
