"""How fast `best` is on this CPU with INT8 among its candidates: ResNet-50 and the 6-layer MiniLM, batch 1, 2 threads.

    python benchmarks/precision_speed.py --output benchmarks/results/precision_speed.json

`optimize` chooses among all precisions that the backends offer, bound by the cosine on real data that calibration did
not see. Then the chosen engine, the best engine of each backend and precision with default options, ONNX Runtime in
float32 and PyTorch eager take short turns, A B C A B C; a ratio is the median over the rounds of the ratios inside a
round, so that what else the machine does hits both alike. Each is a process of its own, and rests a moment after its
turn, for worker threads spin on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "models"))

import minilm  # noqa: E402
import real_data  # noqa: E402
import resnet50  # noqa: E402
import torch  # noqa: E402

import enginery  # noqa: E402
from enginery import steps  # noqa: E402
from enginery.benchmark.base import call_timer  # noqa: E402
from enginery.inputs.base import Case, save_cases  # noqa: E402
from enginery.spec import parse_shapes  # noqa: E402
from enginery.worker import Worker  # noqa: E402

THREADS = 2
REST_S = 0.1
WARM_UP_MS = 30.0
SINGLES = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
SINGLES_BY_HAND = (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8"))
BEST_BY_HAND = "openvino int8"
BASELINE = "onnxruntime fp32"
Feeds = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Subject:
    """A model, its shapes, real data to verify and to calibrate with, and the ratio to reach."""

    name: str
    module: torch.nn.Module
    example: dict[str, torch.Tensor]
    shapes: list[str]
    data: Feeds
    calibration: list[Feeds]
    at_least: float


def subjects() -> list[Subject]:
    """Return both models."""
    pictures = real_data.photographs(24)
    texts = real_data.sentences()
    encoder, example = minilm.minilm()
    length = 128
    net, _ = resnet50.resnet50()
    return [
        Subject(
            "ResNet-50", net, {"image": torch.from_numpy(pictures[:1])}, ["image=1x3x224x224"],
            {"image": pictures[:8]}, [{"image": one[None]} for one in pictures[8:]], 3.3,
        ),
        Subject(
            "MiniLM, 6 layers, 128 tokens", encoder, {name: one[:1] for name, one in example.items()},
            [f"{name}=1x{length}" for name in real_data.INPUTS], real_data.tokens(texts[:8], length),
            [real_data.tokens([text], length) for text in texts[8:72]], 3.0,
        ),
    ]  # fmt: skip


def build_all(subject: Subject, folder: Path, limit_s: float) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return engine folders by label, ``best`` the one that `optimize` chose, and what it said.

    With a limit of 0 nothing is chosen, and `BEST_BY_HAND` stands for it.
    """
    shapes, graph = parse_shapes(subject.shapes), folder / "model.onnx"
    steps.export(subject.module, graph, example_inputs=subject.example, shapes=shapes)
    engines: dict[str, Path] = {}
    for backend, precision in SINGLES if limit_s else SINGLES_BY_HAND:
        label = f"{backend} {precision}"
        engines[label] = folder / f"{label.replace(' ', '-')}.engine"
        steps.build(
            graph, engines[label], backend=backend, precision=precision, shapes=shapes, options={"threads": THREADS},
            calibration=subject.calibration if precision == "int8" else None,
        )  # fmt: skip
    if not limit_s:
        return {"best": engines.pop(BEST_BY_HAND), **engines}, {"chosen": f"{BEST_BY_HAND}, by hand"}
    held = folder / "held.npz"
    np.savez(held, **subject.data)
    result = enginery.optimize(
        graph, shapes=shapes, precision="best", min_cosine=0.98, data=held, calibration=subject.calibration,
        output=folder / "best.engine", limit_s=limit_s, search_limit_s=0,
    )  # fmt: skip
    rows = {row.label: row for row in result.record.candidates}
    said = {
        "chosen": result.record.chosen,
        "candidates_p50_ms": {label: row.bench.p50_ms for label, row in rows.items() if row.bench is not None},
        "reasons": {label: row.reason for label, row in rows.items()},
    }
    return {"best": result.engine, **engines}, said


def turns(subject: Subject, engines: Mapping[str, Path], folder: Path, rounds: int, turn_s: float) -> dict[str, Any]:
    """Let all take turns; return each one's medians, and its ratios to the baseline inside each round."""
    feeds = {name: array[:1] for name, array in subject.data.items()}
    save_cases([Case("timed", feeds)], folder / "cases")
    medians: dict[str, list[float]] = {label: [] for label in (*engines, "PyTorch eager")}
    workers = {label: Worker(label, folder=folder / f"worker-{at}") for at, label in enumerate(engines)}
    timed = {"cases": folder / "cases", "case": "timed", "warmup_ms": WARM_UP_MS, "seconds": turn_s, "min_calls": 3}
    given = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def eager() -> None:
        with torch.inference_mode():
            subject.module(**given) if len(given) > 1 else subject.module(*given.values())

    torch.set_num_threads(THREADS)
    eager_timer = call_timer(eager)
    try:
        for label, worker in workers.items():
            worker.start()
            worker.call("open", {"engine": engines[label].absolute(), "options": {}}, limit_s=120)
        for _ in range(rounds):
            for label, worker in workers.items():
                samples = worker.call("time", timed, limit_s=120)["samples_ms"]
                medians[label].append(statistics.median(samples))
                time.sleep(REST_S)
            medians["PyTorch eager"].append(statistics.median(eager_timer(WARM_UP_MS, turn_s, 3)))
            time.sleep(3 * REST_S)
    finally:
        for worker in workers.values():
            worker.close()
    return {label: _summary(found, medians) for label, found in medians.items()}


def _summary(found: list[float], medians: Mapping[str, list[float]]) -> dict[str, float]:
    paired = _paired(medians)
    return {
        "median_ms": round(statistics.median(found), 3),
        "least_ms": round(min(found), 3),
        "times_baseline": round(paired(BASELINE, found), 3),
        "times_baseline_by_least": round(min(medians[BASELINE]) / min(found), 3),
        "times_eager": round(paired("PyTorch eager", found), 3),
        "times_best": round(1 / paired("best", found), 3),
    }


def _paired(medians: Mapping[str, list[float]]) -> Callable[[str, list[float]], float]:
    """Return what gives the median over the rounds of the ratio of one contestant to another."""

    def ratio(label: str, found: list[float]) -> float:
        return statistics.median(one / other for one, other in zip(medians[label], found, strict=True))

    return ratio


def main() -> None:
    """Measure both models, print a line for each engine, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", default="", help="measure the models whose names begin so")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--turn", type=float, default=0.25, help="seconds of one turn")
    parser.add_argument(
        "--limit", type=float, default=3.0, help="seconds that optimize times one candidate; 0 chooses nothing"
    )
    asked = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE)  # noqa: S607
    found: dict[str, Any] = {
        "commit": commit.stdout.strip(), "command": " ".join(["python", *sys.argv]), "threads": THREADS,
        "rounds": asked.rounds, "turn_s": asked.turn, "niceness": os.nice(0), "load_average": [os.getloadavg()[0]],
        "models": {},
    }  # fmt: skip
    for subject in (one for one in subjects() if one.name.startswith(asked.only)):
        with tempfile.TemporaryDirectory() as name:
            engines, said = build_all(subject, Path(name), asked.limit)
            print(subject.name, "chosen:", said["chosen"], flush=True)
            timed = turns(subject, engines, Path(name), asked.rounds, asked.turn)
        singles = [row["times_best"] for label, row in timed.items() if label not in ("best", "PyTorch eager")]
        row = {**said, "at_least": subject.at_least, "engines": timed, "best_single_over_best": max(singles)}
        found["models"][subject.name] = row
        found["load_average"].append(os.getloadavg()[0])
        for label, one in timed.items():
            print(f"  {label:20s}", json.dumps(one), flush=True)
        if asked.output is not None:
            asked.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
