"""Takes the stages one after another, and shows what holds.

    python benchmarks/h200_tensorrt.py --python310 /tmp/gpu_lab/bin/python310 --output OUT --commit ID
    python benchmarks/h200_tensorrt.py --dry-run-here          # tiny models on ONNX Runtime: tries the script itself

Run it with an interpreter that has PyTorch; the one with TensorRT is named. A later run with the same ``--work`` goes
on from what is there, so stages may be taken in several runs.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.h200 import making, measuring, proving
from benchmarks.h200.bounds import BOUNDS, bounds_text, judge, model_bounds
from benchmarks.h200.jobs import BATCHES
from benchmarks.h200.plan import Run, Stage
from benchmarks.h200.store import Store

__all__ = ["STAGES", "main"]

MODELS = ("resnet50", "vit", "bert", "mobilenet", "convnext", "detector", "minilm")
CONVOLUTIONAL = ("resnet50", "mobilenet", "convnext", "detector")

STAGES: tuple[Stage, ...] = (
    Stage("machine", making.describe, 15),
    Stage("export", making.export, 75),
    Stage("build", making.build, 270),
    Stage("latency", measuring.latency, 35),
    Stage("pipeline", measuring.pipeline, 60),
    Stage("pytorch", measuring.pytorch, 45),
    Stage("threads", measuring.threads, 30),
    Stage("memory", measuring.memory, 15),
    Stage("breakdown", measuring.breakdown, 30),
    Stage("dynamic_outputs", proving.dynamic_outputs, 30),
    Stage("partition", proving.partition, 30),
    Stage("cache", proving.cache, 90),
    Stage("errors", proving.errors, 60),
    Stage("environments", proving.environments, 90),
)
"""In the order they are taken; each says the seconds it is thought to take on the H200."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; leaves with 1 where a bound does not hold, a trial's figures left out."""
    asked = _parser().parse_args(arguments)
    begin = time.monotonic()
    run = _run(asked, begin)
    command = shlex.join(["python", "benchmarks/h200_tensorrt.py", *(sys.argv[1:] if arguments is None else arguments)])
    commands = [*run.store.found.get("about", {}).get("commands", []), command]
    run.store.put("about", commit=asked.commit, commands=commands, trial=asked.dry_run_here, models=run.models)
    chosen = [name for text in asked.stage for name in text.split(",")] or [stage.name for stage in STAGES]
    _check(chosen, [stage.name for stage in STAGES], "stage")
    try:
        for stage in STAGES:
            if stage.name in chosen:
                stage.take(run)
    finally:
        run.close()
        _pack_logs(run.work / "logs", asked.output)
    judged = judge(run.store.found, [*model_bounds(run.models, run.convolutional), *BOUNDS])
    run.store.put("bounds", **{row.bound.what: [row.found, row.bound.limit, row.verdict] for row in judged})
    print(f"\n{bounds_text(judged)}\n{time.monotonic() - begin:.0f} s; results in {asked.output}")
    return int(not asked.dry_run_here and any(row.verdict == "FAIL" for row in judged))


def _run(asked: argparse.Namespace, begin: float) -> Run:
    models = tuple(name for text in asked.only for name in text.split(",")) or MODELS
    _check(models, MODELS, "model")
    trial = asked.dry_run_here
    work = asked.work or Path(tempfile.gettempdir()) / ("h200-trial" if trial else "h200")
    return Run(
        work=work, store=Store(work, asked.output), python=asked.python310 or sys.executable,
        torch_python=sys.executable, backend="onnxruntime" if trial else "tensorrt", models=models,
        convolutional=tuple(name for name in models if name in CONVOLUTIONAL),
        batches=(1, 3, 8) if trial else BATCHES, deadline=begin + asked.budget, tiny=trial,
        jobs=2 if trial else asked.jobs,
        timed_jobs=1 if trial else asked.timed_jobs, level=asked.level,
    )  # fmt: skip


def _check(words: Sequence[str], known: Sequence[str], kind: str) -> None:
    for word in words:
        if word not in known:
            raise SystemExit(f"there is no {kind} {word!r}; there are {', '.join(known)}")


def _pack_logs(logs: Path, output: Path) -> None:
    if logs.is_dir():
        part = output / "logs.part"
        with tarfile.open(part, "w:xz") as archive:
            archive.add(logs, "logs")
        shutil.move(part, output / "logs.tar.xz")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("h200-results"), help="folder for results.json and the logs"
    )
    parser.add_argument("--work", type=Path, help="folder for graphs and engines (default: one below the system's own)")
    parser.add_argument("--python310", help="the interpreter that has TensorRT (default: this one)")
    parser.add_argument("--only", action="append", default=[], help=f"models, joined by commas: {', '.join(MODELS)}")
    parser.add_argument(
        "--stage", action="append", default=[], help=f"joined by commas: {', '.join(stage.name for stage in STAGES)}"
    )
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which nothing more is begun")
    parser.add_argument("--commit", default="unknown", help="of the sources that are run, for the results")
    parser.add_argument("--jobs", type=int, default=12, help="engines built at once that are not timed")
    parser.add_argument("--timed-jobs", type=int, default=3, help="engines built at once that are timed")
    parser.add_argument("--level", type=int, default=-1, help="optimisation level of engines that are not timed")
    parser.add_argument("--dry-run-here", action="store_true", help="try the script: tiny models on ONNX Runtime")
    return parser
