"""How fast `best` is on this CPU with INT8 among its candidates: ResNet-50 and the 6-layer MiniLM, batch 1, 2 threads.

    python benchmarks/precision_speed.py --output benchmarks/results/precision_speed.json

`optimize` chooses among all precisions that the backends offer, bound by the cosine on real data that calibration did
not see. Then the chosen engine, the engine of each backend and precision with default options, ONNX Runtime in float32
and PyTorch eager take short turns; a ratio is the median over the rounds of the ratios inside a round, so that what
else the machine does hits both alike. Each is a process of its own (eager: this one), and rests a moment after its
turn, for worker threads spin on. In each round the order is another one, so that each follows every other equally
often. All processes are started anew several times, forwards and backwards, for two of the same engine differ by some
percent, by where their memory happens to lie; `best` and a single candidate may well be the same engine.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
EAGER = "PyTorch eager"
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


@dataclass(frozen=True)
class Schedule:
    """How often all processes are started anew, the rounds after each start, and the seconds of one turn."""

    openings: int
    rounds: int
    turn_s: float


def turns(subject: Subject, engines: Mapping[str, Path], folder: Path, schedule: Schedule) -> dict[str, Any]:
    """Let all take turns; return each one's medians, and its ratios to the baseline inside each round."""
    feeds = {name: array[:1] for name, array in subject.data.items()}
    save_cases([Case("timed", feeds)], folder / "cases")
    medians: dict[str, list[float]] = {label: [] for label in (*engines, EAGER)}
    orders = balanced_orders(list(medians))
    for opening in range(schedule.openings):
        started = dict(reversed(list(engines.items())) if opening // 2 % 2 else engines)
        with opened(subject, started, feeds, folder / f"opening-{opening}", schedule.turn_s) as contestants:
            for at in range(schedule.rounds):
                for label in orders[(opening * schedule.rounds + at) % len(orders)]:
                    medians[label].append(statistics.median(contestants[label]()))
                    time.sleep(REST_S * (3 if label == EAGER else 1))
    return {label: _summary(found, medians) for label, found in medians.items()}


@contextlib.contextmanager
def opened(
    subject: Subject, engines: Mapping[str, Path], feeds: Feeds, folder: Path, turn_s: float
) -> Iterator[dict[str, Callable[[], list[float]]]]:
    """Start a process for each engine; yield what gives each one's samples of one turn, in milliseconds."""
    timed = {"cases": folder.parent / "cases", "case": "timed", "warmup_ms": WARM_UP_MS, "seconds": turn_s}
    workers = {label: Worker(label, folder=folder / f"worker-{at}") for at, label in enumerate(engines)}
    given = {name: torch.from_numpy(array) for name, array in feeds.items()}

    def eager() -> None:
        with torch.inference_mode():
            subject.module(**given) if len(given) > 1 else subject.module(*given.values())

    def turn(worker: Worker) -> list[float]:
        samples: list[float] = worker.call("time", {**timed, "min_calls": 3}, limit_s=120)["samples_ms"]
        return samples

    torch.set_num_threads(THREADS)
    eager_timer = call_timer(eager)
    try:
        for label, worker in workers.items():
            worker.start()
            worker.call("open", {"engine": engines[label].absolute(), "options": {}}, limit_s=120)
        yield {
            **{label: functools.partial(turn, worker) for label, worker in workers.items()},
            EAGER: lambda: list(eager_timer(WARM_UP_MS, turn_s, 3)),
        }
    finally:
        for worker in workers.values():
            worker.close()


def balanced_orders(labels: Sequence[str]) -> list[list[str]]:
    """Return orders in which each label comes at each place, and behind each other one, equally often.

    E. J. Williams, "Experimental designs balanced for the estimation of residual effects of treatments" (1949): a
    zigzag 0, n-1, 1, n-2, ..., shifted by 0 to n-1; for an odd n the same again backwards.
    """
    count = len(labels)
    zigzag = [at // 2 if at % 2 == 0 else count - 1 - at // 2 for at in range(count)]
    forward = [[labels[(place + shift) % count] for place in zigzag] for shift in range(count)]
    return forward if count % 2 == 0 else [*forward, *(order[::-1] for order in forward)]


def _summary(found: list[float], medians: Mapping[str, list[float]]) -> dict[str, float]:
    paired = _paired(medians)
    return {
        "median_ms": round(statistics.median(found), 3),
        "least_ms": round(min(found), 3),
        "times_baseline": round(paired(BASELINE, found), 3),
        "times_baseline_by_least": round(min(medians[BASELINE]) / min(found), 3),
        "times_eager": round(paired(EAGER, found), 3),
        "best_times_this": round(1 / paired("best", found), 3),
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
    parser.add_argument("--openings", type=int, default=12, help="how often all processes are started anew")
    parser.add_argument("--rounds", type=int, default=7, help="after each start; 7 contestants have 14 orders")
    parser.add_argument("--turn", type=float, default=0.25, help="seconds of one turn")
    parser.add_argument(
        "--limit", type=float, default=3.0, help="seconds that optimize times one candidate; 0 chooses nothing"
    )
    asked = parser.parse_args()
    schedule = Schedule(asked.openings, asked.rounds, asked.turn)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE)  # noqa: S607
    found: dict[str, Any] = {
        "commit": commit.stdout.strip(), "command": " ".join(["python", *sys.argv]), "threads": THREADS,
        **asdict(schedule), "niceness": os.nice(0), "load_average": [os.getloadavg()[0]],
        "models": {},
    }  # fmt: skip
    for subject in (one for one in subjects() if one.name.startswith(asked.only)):
        with tempfile.TemporaryDirectory() as name:
            engines, said = build_all(subject, Path(name), asked.limit)
            print(subject.name, "chosen:", said["chosen"], flush=True)
            timed = turns(subject, engines, Path(name), schedule)
        singles = {label: row["best_times_this"] for label, row in timed.items() if label not in ("best", EAGER)}
        nearest = min(singles, key=singles.__getitem__)
        row = {
            **said, "at_least": subject.at_least, "engines": timed, "best_single": nearest,
            "best_times_best_single": singles[nearest],
        }  # fmt: skip
        found["models"][subject.name] = row
        found["load_average"].append(os.getloadavg()[0])
        for label, one in timed.items():
            print(f"  {label:20s}", json.dumps(one), flush=True)
        if asked.output is not None:
            asked.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
