"""Which contestants `optimize` tries: every backend in every sensible way, beside plain ONNX Runtime.

A hand-built network is tried on its own backend, beside what the converters make of the source it is compared with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enginery import backends
from enginery.backends.base import Design
from enginery.errors import EngineryError, UnknownNameError
from enginery.graph.base import OpsetLimits
from enginery.plain import from_plain
from enginery.records import GraphRecord, MachineRecord
from enginery.spec import HERE, PRECISIONS, OptimizeSpec, Option, PrecisionPlan
from enginery.worker import Worker

__all__ = [
    "BASELINE",
    "GRAPH",
    "NETWORK",
    "PLAIN",
    "Contestant",
    "arrange_candidates",
    "list_candidates",
    "probe_environments",
]

GRAPH, PLAIN, NETWORK = "graph", "plain", "network"
"""What a contestant is built from: the graph with shapes and simplified, the untouched one, a hand-built network."""

BASELINE = "onnxruntime"
"""The backend that everybody has; with its default options on the untouched graph it is what users have today."""

_PROBE_LIMIT_S = 120.0

Probes = Mapping[str, Mapping[str, Any] | EngineryError]
"""What the job ``probe`` found in each environment, or why it found nothing."""


@dataclass(frozen=True)
class Contestant:
    """One way to run the model, to be built, verified and timed.

    Args:
        label: short and unique.
        role: ``candidate`` or ``baseline``.
        backend: its name.
        environment: name of the environment it runs in; `HERE` for this one.
        precision: one of `enginery.spec.PRECISIONS`.
        options: the backend's own.
        python: the environment's interpreter; None for this one.
        design: what it is built from: `GRAPH`, `PLAIN` or `NETWORK`.
        opsets: which graphs its backend reads there; None where that is not known.
        engine: an engine folder that was built before; None where it is to be built.
        missing: why it cannot be tried at all; empty where it can.
        plan: precision of single nodes of the design; None where all are `precision`.
        origin: name of the float design that a quantised one was made from; empty for any other.
        int8_form: how its backend best reads INT8, as `enginery.backends.base.Capabilities` says.
        int8_rest: the precision of what is not INT8 then.
    """

    label: str
    role: str
    backend: str
    environment: str = HERE
    precision: str = "fp32"
    options: Mapping[str, Option] = field(default_factory=dict)
    python: str | None = None
    design: str = GRAPH
    opsets: OpsetLimits | None = None
    engine: Path | None = None
    missing: str = ""
    plan: PrecisionPlan | None = None
    origin: str = ""
    int8_form: str = "symmetric"
    int8_rest: str = "fp32"


def list_candidates(
    graph: GraphRecord, machine: MachineRecord, spec: OptimizeSpec, *, folder: Path, network: Design | None = None
) -> tuple[Contestant, ...]:
    """List the contestants: the baseline, then the candidates of this environment, then those of others.

    Args:
        graph: what will be built.
        machine: what is here.
        spec: which backends, precision and environments were asked for.
        folder: for the workers that look into other environments.
        network: a hand-built network that shall be tried beside the graph.

    Raises:
        UnknownNameError: a backend was named that no environment knows.
    """
    builder = network.backend if network is not None else ""
    return arrange_candidates(graph, machine, spec, probe_environments(spec.environments, folder, graph), builder)


def probe_environments(
    environments: Mapping[str, str], folder: Path, graph: GraphRecord | None = None
) -> dict[str, dict[str, Any] | EngineryError]:
    """Ask each environment's interpreter what is in it; one that cannot answer is told by its error.

    Args:
        environments: name to the path of a Python.
        folder: where each worker gets a folder of its own.
        graph: what will be built; with it each backend says in which sets of options.
    """
    return {
        name: _probe(name, python, folder / f"probe-{at}", graph)
        for at, (name, python) in enumerate(environments.items())
    }


def _probe(name: str, python: str, folder: Path, graph: GraphRecord | None) -> dict[str, Any] | EngineryError:
    try:
        with Worker(f"@{name}", folder=folder, python=python) as worker:
            found: dict[str, Any] = worker.call("probe", {"graph": graph}, limit_s=_PROBE_LIMIT_S)
    except EngineryError as error:
        return error
    return found


def arrange_candidates(
    graph: GraphRecord, machine: MachineRecord, spec: OptimizeSpec, probes: Probes, builder: str = ""
) -> tuple[Contestant, ...]:
    """List the contestants, given what the other environments hold; see `list_candidates`.

    A hand-built network is among them where `builder` names the backend that builds it.
    """
    _check_names(spec.backends, probes)
    opsets = backends.get(BASELINE).capabilities(machine).opsets
    baseline = Contestant(f"{BASELINE}, plain", "baseline", BASELINE, design=PLAIN, opsets=opsets)
    found = [baseline, *_own(graph, machine, spec, probes)]
    by_hand = replace(spec, backends=(builder,)) if builder else None
    if by_hand is not None:
        found += map(_hand_built, _own(graph, machine, by_hand, probes))
    for name, probe in probes.items():
        python = spec.environments[name]
        if isinstance(probe, EngineryError):
            found.append(Contestant(f"@{name}", "candidate", "", name, python=python, missing=str(probe)))
        else:
            found += _foreign(name, python, probe, spec)
            found += map(_hand_built, _foreign(name, python, probe, by_hand)) if by_hand is not None else ()
    return tuple(found)


def _hand_built(contestant: Contestant) -> Contestant:
    """Let a contestant be built from the network instead; its row says so."""
    name, _, rest = contestant.label.partition(" ")
    return replace(contestant, label=f"{name}, hand-built {rest}".strip(), design=NETWORK)


def _check_names(asked: Sequence[str], probes: Probes) -> None:
    known = {*backends.names(), *(name for probe in probes.values() for name in _backends_of(probe))}
    for name in asked:
        if name not in known:
            raise UnknownNameError.from_choices("backend", name, known)


def _own(graph: GraphRecord, machine: MachineRecord, spec: OptimizeSpec, probes: Probes) -> Iterator[Contestant]:
    for name in spec.backends or backends.available():
        if name not in backends.names():
            continue
        backend = backends.get(name)
        found = backend.probe()
        if found.usable:
            offered = backend.capabilities(machine)
            yield from _precise(
                name, offered.precisions, spec, backend.variants(graph, machine), opsets=offered.opsets,
                int8=(offered.int8_form, offered.int8_rest), by_name=offered.by_name,
            )  # fmt: skip
        elif not _elsewhere(name, probes):
            missing = f"{found.reason}; {found.mend}" if found.mend else found.reason
            yield Contestant(name, "candidate", name, precision=_shown_precision(spec), missing=missing)


def _elsewhere(name: str, probes: Probes) -> bool:
    """Say whether any other environment has a backend; then it is no loss that this one has not."""
    return any(_backends_of(probe).get(name, {}).get("available", False) for probe in probes.values())


def _foreign(environment: str, python: str, probe: Mapping[str, Any], spec: OptimizeSpec) -> Iterator[Contestant]:
    rows = _backends_of(probe)
    asked = spec.backends or tuple(name for name, row in rows.items() if row["candidate"])
    for name in asked:
        row = rows.get(name)
        if row is not None and row["available"]:
            opsets = from_plain(OpsetLimits, row["opsets"]) if row.get("opsets") else None
            # An older Enginery tells no variants; and the same version in another Python would only be tried twice.
            variants = [{}] if _same_here(name, row) else row.get("variants") or [{}]
            yield from _precise(
                name, frozenset(row["precisions"]), spec, variants, environment=environment, python=python,
                opsets=opsets, int8=(row.get("int8_form", "symmetric"), row.get("int8_rest", "fp32")),
                by_name=frozenset(row.get("by_name", ())),
            )  # fmt: skip


def _same_here(name: str, row: Mapping[str, Any]) -> bool:
    found = backends.get(name).probe() if name in backends.names() else None
    return found is not None and found.usable and found.version == row.get("version")


def _precise(
    name: str,
    offered: frozenset[str],
    spec: OptimizeSpec,
    variants: Sequence[Mapping[str, Option]],
    *,
    environment: str = HERE,
    python: str | None = None,
    opsets: OpsetLimits | None = None,
    int8: tuple[str, str] = ("symmetric", "fp32"),
    by_name: frozenset[str] = frozenset(),
) -> Iterator[Contestant]:
    """Yield one contestant for each precision and each set of options."""
    for precision in _wanted(spec, offered - by_name):
        lacking = [word for word in (precision, *(spec.plan.words if spec.plan else ())) if word not in offered]
        if lacking:
            missing = f"it cannot compute in {lacking[0]} here; it offers {', '.join(sorted(offered))}"
            label = _label(name, precision, {}, environment)
            yield Contestant(label, "candidate", name, environment, precision, python=python, missing=missing)
            continue
        for options in variants:
            label = _label(name, precision, options, environment)
            yield Contestant(
                label, "candidate", name, environment, precision, options, python, plan=spec.plan, opsets=opsets,
                int8_form=int8[0], int8_rest=int8[1],
            )  # fmt: skip


def _wanted(spec: OptimizeSpec, worth: Collection[str]) -> list[str]:
    """Return the precisions to try: that of the plan, the one asked for, or all that are worth it."""
    if spec.plan is not None:
        return [spec.plan.narrowest]
    return [p for p in PRECISIONS if p in worth] if spec.precision == "best" else [spec.precision]


def _label(name: str, precision: str, options: Mapping[str, Option], environment: str) -> str:
    words = [name]
    words += [precision] if precision != "fp32" else []
    words += [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in options.items()]
    words += [f"@{environment}"] if environment != HERE else []
    return " ".join(words)


def _backends_of(probe: Mapping[str, Any] | EngineryError) -> Mapping[str, Any]:
    rows: Mapping[str, Any] = {} if isinstance(probe, EngineryError) else probe["backends"]
    return rows


def _shown_precision(spec: OptimizeSpec) -> str:
    return spec.precision if spec.precision != "best" else "fp32"
