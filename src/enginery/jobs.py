"""What a worker can do: the table of jobs, and ``python -m enginery.jobs``, the process that takes them.

A job takes the worker's state and plain arguments, and returns a record or plain data. The state holds the opened
session between jobs, so that a warm worker can be timed, turn after turn, without opening its engine again.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery import backends
from enginery.backends.base import Definition, Design
from enginery.errors import UnknownNameError, WorkerError
from enginery.machine import describe_machine
from enginery.plain import from_plain
from enginery.records import DryRunRecord, GraphRecord, ManifestRecord, VerifyRecord
from enginery.spec import BuildSpec, VerifySpec
from enginery.worker_loop import Job, serve

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.session import Session
    from enginery.inputs.base import Case

__all__ = ["JOBS", "build_arguments", "main", "read_design"]


def build_arguments(design: Design, *, backend: str, spec: BuildSpec, output: Path) -> dict[str, Any]:
    """Return the arguments of the job ``build``; paths become absolute, for a worker works in its own folder."""
    return {**design.as_arguments(), "backend": backend, "spec": spec, "output": Path(output).absolute()}


def read_design(design: Path) -> ir.Model | Definition:
    """Read what an engine is built from: an ONNX graph, or the description of a hand-built network."""
    from enginery.graph import files
    from enginery.sources.network_files import load_definition

    return load_definition(design) if design.suffix == ".json" else files.load(design)


def probe(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Say what is in this interpreter: the machine's record, and whether each backend is here and what it takes.

    With the record of a ``graph``, each backend also says in which sets of options it would try that.
    """
    del state
    graph = from_plain(GraphRecord, arguments["graph"]) if arguments.get("graph") else None
    rows = {name: _probe_backend(name, graph) for name in backends.names()}
    return {"machine": describe_machine(), "backends": rows}


def build(state: dict[str, Any], arguments: Mapping[str, Any]) -> ManifestRecord:
    """Build an engine folder at ``output`` from the file ``design``, and return its manifest."""
    del state
    from enginery.backends import engine

    built = engine.build(
        read_design(Path(arguments["design"])),
        from_plain(BuildSpec, arguments["spec"]),
        Path(arguments["output"]),
        backend=arguments["backend"],
        source=arguments["source"],
        source_sha256=arguments["source_sha256"],
        graph_sha256=arguments["graph_sha256"],
        notes=arguments["notes"],
    )
    return built.manifest


def examine(state: dict[str, Any], arguments: Mapping[str, Any]) -> DryRunRecord:
    """Say what would become of a build of the file ``design``; nothing is built."""
    del state
    from enginery.backends.dry_run import dry_run
    from enginery.graph import files

    return dry_run(
        files.load(arguments["design"]),
        from_plain(BuildSpec, arguments["spec"]),
        backend=arguments["backend"],
        source=arguments["source"],
        notes=arguments["notes"],
    )


def open_engine(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Open the engine folder ``engine`` with ``options`` and keep the session; ``load_ms`` is checking and opening."""
    from enginery.backends import engine

    close(state, {})
    begin = time.perf_counter()
    session = engine.load(Path(arguments["engine"])).open(arguments["options"])
    load_ms = (time.perf_counter() - begin) * 1e3
    state["session"] = session
    return {"placement": session.placement, "load_ms": load_ms}


def verify(state: dict[str, Any], arguments: Mapping[str, Any]) -> VerifyRecord:
    """Compare the opened engine with the outputs in the folder ``expected``, on the inputs in the folder ``cases``."""
    from enginery.inputs.base import load_cases
    from enginery.verification.compare import compare

    expected = {case.name: case.feeds for case in load_cases(Path(arguments["expected"]))}
    cases = load_cases(Path(arguments["cases"]))
    return compare(
        _session(state),
        cases,
        [expected[case.name] for case in cases],
        spec=from_plain(VerifySpec, arguments["spec"]),
        reference=arguments["reference"],
        inputs=arguments["inputs"],
    )


def first(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Time one call by itself: right after opening, it is the first one, which no sample counts."""
    session, feeds = _session(state), _feeds(state, arguments)
    begin = time.perf_counter()
    session.run(feeds)
    return {"ms": (time.perf_counter() - begin) * 1e3}


def time_calls(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Warm up for ``warmup_ms``, then time calls for ``seconds`` and at least ``min_calls`` times.

    ``parts_ms`` has the mean of each part, where two backends share the engine.
    """
    from enginery.benchmark.clock import sample, warm_up

    session, feeds = _session(state), _feeds(state, arguments)
    warm_up(lambda: session.run(feeds), arguments["warmup_ms"])
    session.timings()  # forgets the warm-up
    samples = sample(lambda: session.run(feeds), arguments["seconds"], arguments["min_calls"])
    return {"samples_ms": samples, "parts_ms": dict(session.timings())}


def run(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run the opened engine on the inputs in the folder ``cases``; its outputs go into the folder ``output``."""
    from enginery.inputs.base import Case, load_cases, save_cases

    cases = load_cases(Path(arguments["cases"]))
    outputs = [Case(case.name, _session(state).run(case.feeds)) for case in cases]
    save_cases(outputs, Path(arguments["output"]))
    return {"cases": [case.name for case in outputs]}


def evaluate(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run the ONNX file ``graph`` as it stands, not optimised, on the inputs in ``cases``; outputs go to ``output``.

    ONNX Runtime runs it, or the reference evaluator where the graph is newer than ONNX Runtime.
    """
    from enginery.backends.onnxruntime import open_graph

    close(state, {})
    path = Path(arguments["graph"])
    backend = "reference" if _is_too_new(path) else "onnxruntime"
    with _open_reference(path) if backend == "reference" else open_graph(path) as session:
        return {**run({"session": session}, arguments), "backend": backend}


def watch(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run the ONNX file ``graph`` as it stands on ``cases``, and say what values each output took.

    Only numbers go back, so that no more than the outputs of one call are ever held.
    """
    from enginery.inputs.base import load_cases
    from enginery.tuning.watching import Seen, look, merge

    close(state, {})
    found: dict[str, Seen] = {}
    with _open_as_it_stands(Path(arguments["graph"])) as session:
        for case in load_cases(Path(arguments["cases"])):
            for name, array in session.run(case.feeds).items():
                seen = look(array, arguments["limits"])
                found[name] = merge(found[name], seen) if name in found else seen
    return found


def judge(state: dict[str, Any], arguments: Mapping[str, Any]) -> VerifyRecord:
    """Compare the ONNX file ``graph``, run as it stands, with the outputs in ``expected``, as `verify` does."""
    close(state, {})
    with _open_as_it_stands(Path(arguments["graph"])) as session:
        return verify({"session": session}, arguments)


def close(state: dict[str, Any], arguments: Mapping[str, Any]) -> None:
    """Close the opened engine, where there is one."""
    del arguments
    session: Session | None = state.pop("session", None)
    if session is not None:
        session.close()


JOBS: dict[str, Job] = {
    "probe": probe,
    "build": build,
    "examine": examine,
    "open": open_engine,
    "verify": verify,
    "first": first,
    "time": time_calls,
    "run": run,
    "evaluate": evaluate,
    "watch": watch,
    "judge": judge,
    "close": close,
}


def main() -> None:
    """Take jobs until the parent has no more; then close what is open."""
    serve(JOBS)


def _open_as_it_stands(graph: Path) -> contextlib.AbstractContextManager[Session]:
    from enginery.backends.onnxruntime import open_graph

    return _open_reference(graph) if _is_too_new(graph) else open_graph(graph)


def _is_too_new(graph: Path) -> bool:
    from enginery.graph import files

    return bool(backends.get("onnxruntime").capabilities(describe_machine()).opsets.refuses(files.load(graph)))


@contextlib.contextmanager
def _open_reference(graph: Path) -> Iterator[Session]:
    from enginery.backends import engine
    from enginery.graph import files

    with tempfile.TemporaryDirectory(prefix="enginery-") as folder:
        built = engine.build(files.load(graph), BuildSpec(), Path(folder) / "reference.engine", backend="reference")
        with built.open() as session:
            yield session


def _probe_backend(name: str, graph: GraphRecord | None) -> dict[str, Any]:
    backend = backends.get(name)
    found = backend.probe()
    machine = describe_machine()
    offered = backend.capabilities(machine) if found.usable else None
    variants = backend.variants(graph, machine) if found.usable and graph is not None else ({},)
    return {
        "candidate": backends.table()[name].candidate,
        "available": found.usable,
        "version": found.version,
        "reason": found.reason,
        "mend": found.mend,
        "precisions": sorted(offered.precisions) if offered is not None else [],
        "by_name": sorted(offered.by_name) if offered is not None else [],
        "opsets": offered.opsets if offered is not None else None,
        **({"int8_form": offered.int8_form, "int8_rest": offered.int8_rest} if offered is not None else {}),
        "variants": variants,
    }


def _session(state: Mapping[str, Any]) -> Session:
    if "session" not in state:
        raise WorkerError("no engine is open in this worker", mend="do the job 'open' first")
    session: Session = state["session"]
    return session


def _feeds(state: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of one case; read once, so that a turn does not begin with reading files."""
    from enginery.inputs.base import load_cases

    key = arguments["cases"], arguments["case"]
    if state.get("feeds_of") != key:
        cases: dict[str, Case] = {case.name: case for case in load_cases(Path(key[0]))}
        if key[1] not in cases:
            raise UnknownNameError.from_choices("case", key[1], cases)
        state["feeds_of"], state["feeds"] = key, dict(cases[key[1]].feeds)
    feeds: dict[str, Any] = state["feeds"]
    return feeds


if __name__ == "__main__":
    main()
