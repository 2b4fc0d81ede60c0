"""The stages that make things: graphs and right answers by PyTorch, engines by Enginery, and their verification."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.h200.jobs import ERRORS, TIMED, Job, list_jobs
from benchmarks.h200.plan import TORCH, Run
from benchmarks.h200.sides import Side, SideError

__all__ = ["build", "describe", "export", "prepare_baselines"]

_THREADS = {"OMP_NUM_THREADS": "2"}


def describe(run: Run) -> None:
    """Say what the machine and the two interpreters are."""
    run.put("machine", "engines", lambda: run.ask("describe", "describe"))
    with run.side("describe-torch", TORCH) as side:
        run.put("machine", "torch", lambda: side.ask("versions", limit_s=120))


def export(run: Run) -> None:
    """Export every model and compute its right outputs, each in a process of its own, all at once."""
    run.graph("any").parent.mkdir(parents=True, exist_ok=True)
    missing = [model for model in run.models if not _exported(run, model)]
    run.in_parallel(len(missing), {model: partial(_export_one, run, model) for model in missing})


def _exported(run: Run, model: str) -> bool:
    known = run.store.found.get("models", {}).get(model)
    return bool(known) and run.graph(model).is_file() and all(run.case(model, b).is_file() for b in run.batches)


def _export_one(run: Run, model: str) -> None:
    with run.side(f"export-{model}", TORCH, **_THREADS) as side:
        run.put("models", model, lambda: _exported_and_answered(run, side, model))


def _exported_and_answered(run: Run, side: Side, model: str) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "tiny": run.tiny}
    found = side.ask("export", limit_s=240, output=run.graph(model), largest=run.largest, **asked)
    found["pytorch"] = side.ask("reference", limit_s=240, folder=run.cases(model), batches=run.batches, **asked)
    return {**found}


def prepare_baselines(run: Run) -> None:
    """Start the baselines' processes; they compile while engines are built, and are kept for the turns."""
    models = [model for model in TIMED if model in run.models and model not in run.torch]
    for model in models:
        run.torch[model] = Side(run.torch_python, TORCH, run.work / "logs" / f"baseline-{model}.log", _THREADS)
    run.in_parallel(len(models), {model: partial(_prepare_one, run, model) for model in models})


def _prepare_one(run: Run, model: str) -> None:
    for batch in (1, run.largest):
        for compiled in (False, True):
            kind = "compiled" if compiled else "eager"
            asked: dict[str, Any] = {"model": model, "batch": batch, "tiny": run.tiny, "compiled": compiled}
            run.put(
                "baselines", f"{model} b{batch} {kind}", partial(run.torch[model].ask, "prepare", limit_s=400, **asked)
            )


def build(run: Run) -> None:
    """Build the engines that are timed, few at once; then the others, many at once, each verified right away."""
    jobs = [job for job in list_jobs(run.models, run.convolutional, largest=run.largest) if not _built(run, job)]
    _derive_graphs(run, jobs)
    timed = {job.name: partial(_build_one, run, job) for job in jobs if job.timed}
    run.in_parallel(run.timed_jobs, timed)
    others = {job.name: partial(_build_one, run, job) for job in jobs if not job.timed}
    work: dict[str, Any] = {"baselines": partial(prepare_baselines, run), **others}
    run.in_parallel(run.jobs, work)


def _built(run: Run, job: Job) -> bool:
    known: Mapping[str, Any] = run.store.found.get("engines", {}).get(job.name, {})
    return (run.engine(job) / "engine.json").is_file() and "error" in known


def _derive_graphs(run: Run, jobs: list[Job]) -> None:
    """Write the graphs that take bytes, and those that are quantised."""
    if any(job.pixels for job in jobs):
        from benchmarks.h200.pixels import take_bytes  # noqa: PLC0415 - needs onnx_ir

        take_bytes(run.graph("resnet50"), run.graph("resnet50", "pixels"))
    quantised = {job.model: partial(_quantise_one, run, job.model) for job in jobs if job.precision == "int8"}
    run.in_parallel(len(quantised), quantised)


def _quantise_one(run: Run, model: str) -> None:
    middle = run.case(model, run.batches[1])
    asked = {"graph": run.graph(model), "output": run.graph(model, "int8"), "cases": middle, "name": "image"}
    run.put("quantised", model, partial(run.ask, f"quantise-{model}", "quantise", limit_s=240, **asked))


def _build_one(run: Run, job: Job) -> None:
    run.put("engines", job.name, partial(_built_and_verified, run, job))


def _built_and_verified(run: Run, job: Job) -> dict[str, Any]:
    kind = "pixels" if job.pixels else "int8" if job.precision == "int8" else ""
    graph = run.graph(job.model, kind)
    if not graph.is_file():
        raise SideError(f"there is no {graph.name}: what makes it failed")
    level = {} if job.timed or run.level < 0 or not run.real else {"optimization_level": run.level}
    asked = {"backend": run.backend, "precision": run.precision(job), "shapes": run.shapes(job), "options": level}
    engine = run.engine(job)
    with run.side(f"build-{job.name}") as side:
        found = side.ask("build", limit_s=500, graph=graph, output=engine, build_limit_s=480, **asked)
        if job.pixels:
            return {**found, **side.ask("verify_bytes", limit_s=240, engine=engine, graph=graph)}
        batches = list(run.batches) if ".." in job.batch else [int(job.batch)]
        cases = run.cases(job.model)
        found |= side.ask("verify", limit_s=240, engine=engine, cases=cases, batches=batches, options={})
    return {**found, "bound": ERRORS[job.precision]}
