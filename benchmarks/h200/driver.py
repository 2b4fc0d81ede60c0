"""Takes the stages one after another, and shows what holds.

    python benchmarks/h200_tensorrt.py --python310 /opt/trt86/bin/python --output OUT --commit ID
    python benchmarks/h200_tensorrt.py --dry-run-here          # tiny models on ONNX Runtime: tries the script itself

Run it with an interpreter that has PyTorch; the one with TensorRT is named. A later run with the same ``--work`` goes
on from what is there, so stages may be taken in several runs; ``--stage export`` may run on while another run builds.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.h200 import making, measuring, precisions, proving, yard
from benchmarks.h200.bounds import BOUNDS, Judged, bounds_text, judge, model_bounds
from benchmarks.h200.jobs import BATCHES
from benchmarks.h200.plan import Run, Stage
from benchmarks.h200.sides import end_descendants
from benchmarks.h200.store import Store

__all__ = ["STAGES", "main"]

MODELS = ("resnet50", "vit", "bert", "mobilenet", "convnext", "detector", "minilm")
CONVOLUTIONAL = ("resnet50", "mobilenet", "convnext", "detector")

STAGES: tuple[Stage, ...] = (
    Stage("export", making.export, 60),
    Stage("build", yard.build, 235),
    Stage("latency", measuring.latency, 20),
    Stage("pytorch", measuring.pytorch, 45),
    Stage("pipeline", measuring.pipeline, 45),
    Stage("precisions", precisions.precisions, 30),
    Stage("verify", yard.verify, 15),
    Stage("errors", proving.errors, 1),
    Stage("dynamic_outputs", proving.dynamic_outputs, 1),
    Stage("partition", proving.partition, 1),
    Stage("same_plan", proving.same_plan, 1),
    Stage("cache", proving.cache, 55),
    Stage("large_cache", proving.large_cache, 140),
    Stage("threads", measuring.threads, 15),
    Stage("memory", measuring.memory, 15),
    Stage("breakdown", measuring.breakdown, 25),
    Stage("machine", making.describe, 1),
    Stage("environments", proving.environments, 60),
)
"""In the order they are taken; each says the seconds it is thought to take on the H200. What takes one second was
done while engines were built."""

_GRACE_S = 8.0
"""Seconds after the budget by which the results are packed and the process ends, whatever it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; leaves with 1 where a bound does not hold, a trial's figures left out."""
    asked = _parser().parse_args(arguments)
    begin = time.monotonic()
    run = _run(asked, begin)
    command = shlex.join(["python", "benchmarks/h200_tensorrt.py", *(sys.argv[1:] if arguments is None else arguments)])
    commands = [*run.store.found.get("about", {}).get("commands", []), command]
    run.store.put("about", commit=asked.commit, commands=commands, trial=asked.dry_run_here, models=run.models)
    chosen = _chosen(asked)
    pack = partial(_pack_all, run, asked.output)
    guard = threading.Timer(asked.budget + _GRACE_S, _give_up, (run, pack))
    guard.daemon = True
    guard.start()
    try:
        for stage in STAGES:
            if stage.name in chosen:
                stage.take(run)
                if stage.name == "build":
                    pack()
    finally:
        run.close()
        pack()
    _show(run, asked.output, time.monotonic() - begin)
    guard.cancel()
    judged = _judged(run)
    return int(not asked.dry_run_here and any(row.verdict == "FAIL" for row in judged))


def _judged(run: Run) -> list[Judged]:
    return judge(run.store.found, [*model_bounds(run.models, run.convolutional), *BOUNDS])


def _show(run: Run, output: Path, seconds: float) -> None:
    judged = _judged(run)
    run.store.put("bounds", **{row.bound.what: [row.found, row.bound.limit, row.verdict] for row in judged})
    print(f"\n{bounds_text(judged)}\n{seconds:.0f} s; results in {output}", flush=True)


def _give_up(run: Run, pack: Callable[[], None]) -> None:
    """End everything: a step did not end by itself when its time was up."""
    run.store.put("stages", budget="spent; the script ended itself")
    run.close()
    pack()
    _show(run, run.store.paths[-1].parent, math.nan)
    end_descendants(os.getpid())
    os._exit(3)


def _run(asked: argparse.Namespace, begin: float) -> Run:
    models = tuple(name for text in asked.only for name in text.split(",")) or MODELS
    _check(models, MODELS, "model")
    trial = asked.dry_run_here
    chosen = _chosen(asked)
    work = asked.work or Path(tempfile.gettempdir()) / ("h200-trial" if trial else "h200")
    # Exports alone may go on beside another run on the same work, whose results are not to be written over.
    folders = [asked.output] if chosen == ["export"] else [work, asked.output]
    return Run(
        work=work, store=Store(*folders), python=asked.python310 or sys.executable, torch_python=sys.executable,
        backend="onnxruntime" if trial else "tensorrt", models=models,
        convolutional=tuple(name for name in models if name in CONVOLUTIONAL),
        batches=(1, 3, 8) if trial else BATCHES, tiny=trial, jobs=asked.jobs, gpus=asked.gpus, pattern=asked.engines,
        arrays=dict(pair.split("=", 1) for pair in asked.arrays), deadline=begin + asked.budget,
        build_until=begin + asked.build_until, build_end=begin + asked.build_end,
        without=tuple(asked.without), quick=tuple(asked.quick), alone=asked.alone,
    )  # fmt: skip


def _chosen(asked: argparse.Namespace) -> list[str]:
    known = [stage.name for stage in STAGES]
    chosen = [name for text in asked.stage for name in text.split(",")] or known
    _check(chosen, known, "stage")
    return chosen


def _check(words: Sequence[str], known: Sequence[str], kind: str) -> None:
    for word in words:
        if word not in known:
            raise SystemExit(f"there is no {kind} {word!r}; there are {', '.join(known)}")


def _pack_all(run: Run, output: Path) -> None:
    for name in ("logs", "fixtures"):
        _pack(run.work / name, output)


def _pack(folder: Path, output: Path) -> None:
    if folder.is_dir():
        part = output / f"{folder.name}.part"
        with tarfile.open(part, "w:xz", preset=1) as archive:
            archive.add(folder, folder.name)
        shutil.move(part, output / f"{folder.name}.tar.xz")


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
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which all is ended")
    parser.add_argument("--build-until", type=float, default=1800, help="seconds after which no build is begun")
    parser.add_argument("--build-end", type=float, default=2000, help="seconds after which every build is ended")
    parser.add_argument("--commit", default="unknown", help="of the sources that are run, for the results")
    parser.add_argument(
        "--jobs", type=int, default=4, help="engines built at once on the first GPU: they time their kernels in turns"
    )
    parser.add_argument("--engines", default="*", metavar="PATTERN", help="build those alone, such as '*.int8.*'")
    parser.add_argument("--without", action="append", default=[], metavar="PATTERN", help="leave those out")
    parser.add_argument(
        "--quick", action="append", default=[], metavar="PATTERN", help="build those without regard to speed"
    )
    parser.add_argument("--alone", action="store_true", help="let nothing go on beside the builds of one GPU")
    parser.add_argument("--gpus", type=int, default=1, help="builds are spread over them; the first is timed on")
    parser.add_argument(
        "--arrays", action="append", default=[], metavar="NAME=VALUE",
        help="a variable with which the interpreter that has TensorRT finds PyTorch, for arrays of the device",
    )  # fmt: skip
    parser.add_argument("--dry-run-here", action="store_true", help="try the script: tiny models on ONNX Runtime")
    return parser
