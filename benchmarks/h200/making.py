"""The stages that make what is compared: graphs and right answers by PyTorch, and PyTorch's own baselines."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.h200.jobs import TIMED
from benchmarks.h200.plan import TORCH, Run, on_gpu
from benchmarks.h200.sides import Side

__all__ = ["describe", "export", "prepare_baselines"]

_THREADS = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}


def describe(run: Run) -> None:
    """Say what the machine and the two interpreters are."""
    known = run.store.found.get("machine", {})
    if "engines" not in known:
        run.put("machine", "engines", lambda: run.ask("describe", "describe", limit_s=90))
    if "torch" not in known:
        with run.side("describe-torch", TORCH) as side:
            run.put("machine", "torch", lambda: side.ask("versions", limit_s=120))


def export(run: Run) -> None:
    """Export every model and compute its right outputs, each in a process of its own, all at once.

    Each tells in a file when it is done, so that another run may build meanwhile.
    """
    missing = [model for model in run.models if "failed" in (run.told(model, "cases") or {"failed": "not begun"})]
    gpus = {model: number % run.gpus for number, model in enumerate(missing)}
    run.in_parallel(len(missing), {model: partial(_export_one, run, model, gpu) for model, gpu in gpus.items()})


def _export_one(run: Run, model: str, gpu: int) -> None:
    with run.side(f"export-{model}", TORCH, **_THREADS, **on_gpu(gpu)) as side:
        asked: dict[str, Any] = {"model": model, "tiny": run.tiny}
        if not run.put("models", model, lambda: _graph(run, side, model, asked)):
            failed = run.store.found["models"][f"{model} failed"]
            for folder in ("graphs", "cases"):
                run.tell(model, folder, {"failed": failed})
        elif not run.put("references", model, lambda: _cases(run, side, model, asked)):
            run.tell(model, "cases", {"failed": run.store.found["references"][f"{model} failed"]})


def _graph(run: Run, side: Side, model: str, asked: dict[str, Any]) -> dict[str, Any]:
    run.graph(model).parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = side.ask("export", limit_s=300, output=run.graph(model), largest=run.largest, **asked)
    run.tell(model, "graphs", found)
    return found


def _cases(run: Run, side: Side, model: str, asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = side.ask("reference", limit_s=300, folder=run.cases(model), batches=run.batches, **asked)
    run.tell(model, "cases", found)
    return found


def prepare_baselines(run: Run, kinds: tuple[str, ...] = ("eager", "compiled")) -> None:
    """Start the baselines' processes; they compile while engines are built, and are kept for the turns."""
    wanted = {f"{model} {kind}": (model, kind) for kind in kinds for model in TIMED if model in run.models}
    missing = {label: asked for label, asked in wanted.items() if label not in run.torch}
    for label in missing:
        log = run.work / "logs" / f"baseline-{label.replace(' ', '-')}.log"
        run.torch[label] = Side(run.torch_python, TORCH, log, {**_THREADS, **on_gpu(0)}, run.left)
    run.in_parallel(len(missing), {label: partial(_prepare_one, run, *asked) for label, asked in missing.items()})


def _prepare_one(run: Run, model: str, kind: str) -> None:
    label = f"{model} {kind}"
    for batch in (1, run.largest):
        asked: dict[str, Any] = {"model": model, "batch": batch, "tiny": run.tiny, "compiled": kind == "compiled"}
        work = partial(run.torch[label].ask, "prepare", limit_s=300, **asked)
        if not run.put("baselines", f"{model} b{batch} {kind}", work) and not run.torch[label].alive:
            run.torch.pop(label).close()
            return
