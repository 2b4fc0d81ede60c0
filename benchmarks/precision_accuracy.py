"""What INT8 and fp16 cost in accuracy on real data: digits, sentences, and a network that plain INT8 spoils.

    python benchmarks/precision_accuracy.py --output benchmarks/results/precision_accuracy.json

- the digits network of the examples: top-1 on the held-out digits, float32 against INT8 by each backend
- the pretrained MiniLM: cosine of the embeddings of sentences that calibration did not see, INT8 by each backend, and
  typed fp16 with every operator's result rounded to fp16 (`enginery.graph.base.emulate`), since no CPU here computes
  in it
- the depthwise network of models/depthwise.py, trained here: top-1 of plain INT8, all nodes that can
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "models"))

import depthwise  # noqa: E402
import minilm  # noqa: E402
import real_data  # noqa: E402

from enginery import steps  # noqa: E402
from enginery.evaluation import Evaluator  # noqa: E402
from enginery.graph import base  # noqa: E402
from enginery.spec import PrecisionPlan, parse_shapes  # noqa: E402

BACKENDS = ("onnxruntime", "openvino")
ROWS = 8
CALIBRATION_SENTENCES = 40
Feeds = Mapping[str, np.ndarray[Any, Any]]


def run(model: Path, folder: Path, backend: str, batches: Sequence[Feeds], **asked: Any) -> np.ndarray[Any, Any]:
    """Build an engine and return its first output for all batches, joined."""
    engine = steps.build(model, folder / f"{backend}.engine", backend=backend, **asked)
    with engine.open() as session:
        return np.concatenate([next(iter(session.run(feeds).values())) for feeds in batches])


def share_right(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the share of rows whose largest score is the label's, in percent."""
    return round(100 * float((scores.argmax(axis=1) == labels).mean()), 2)


def classify(model: Path, folder: Path, images: Any, labels: Any, calibration: Any) -> dict[str, Any]:
    """Return top-1 in percent, of float32 and of INT8 by each backend."""
    batches = [{"image": images[at : at + 30]} for at in range(0, len(images), 30)]
    shapes = parse_shapes(["image=1..30..64x1x8x8"])
    found: dict[str, Any] = {"rows": len(images)}
    found["fp32"] = share_right(run(model, folder, "onnxruntime", batches, shapes=shapes), labels)
    for backend in BACKENDS:
        scores = run(model, folder, backend, batches, shapes=shapes, precision="int8", calibration=calibration)
        found[f"int8 {backend}"] = share_right(scores, labels)
    found["largest_drop"] = round(found["fp32"] - min(found[f"int8 {backend}"] for backend in BACKENDS), 2)
    return found


def digits(folder: Path) -> dict[str, Any]:
    """Measure the digits network of the examples, calibrated on half of what it is not measured on."""
    example = HERE.parent / "examples" / "digits"
    held = np.load(example / "heldout.npz")
    images, _, _, _ = depthwise.digits()
    return classify(example / "digits.onnx", folder, held["image"], held["labels"], [{"image": images[:256].numpy()}])


def naive_depthwise(folder: Path) -> dict[str, Any]:
    """Train the depthwise network and measure plain INT8."""
    net, example = depthwise.depthwise()
    path, held = folder / "depthwise.onnx", depthwise.heldout()
    shapes = parse_shapes(["image=1..32..64x1x8x8"])
    steps.export(net, path, example_inputs=example, shapes=shapes, simplify=True)
    return classify(path, folder, held["image"], held["labels"], [depthwise.calibration()])


def cosines(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return mean and least cosine between rows."""
    found = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return {"mean": round(float(found.mean()), 6), "least": round(float(found.min()), 6)}


def embeddings(folder: Path) -> dict[str, Any]:
    """Measure MiniLM on sentences that calibration did not see."""
    module, example = minilm.minilm()
    texts = real_data.sentences()
    seen, unseen = texts[:CALIBRATION_SENTENCES], [*texts[CALIBRATION_SENTENCES:], *minilm.TEXTS]
    tested = unseen[: len(unseen) // ROWS * ROWS]
    batches = [real_data.tokens(tested[at : at + ROWS]) for at in range(0, len(tested), ROWS)]
    calibration = [real_data.tokens(seen[at : at + ROWS]) for at in range(0, len(seen), ROWS)]
    shapes = parse_shapes([f"{name}=1..8..8x64" for name in real_data.INPUTS])
    path = folder / "minilm.onnx"
    steps.export(module, path, example_inputs=example, shapes=shapes, simplify=True)
    reference = run(path, folder, "onnxruntime", batches, shapes=shapes)
    found: dict[str, Any] = {"sentences": len(tested), "calibration_sentences": len(seen)}
    for backend in BACKENDS:
        scores = run(path, folder, backend, batches, shapes=shapes, precision="int8", calibration=calibration)
        found[f"int8 {backend}"] = cosines(scores, reference)
    rounded = base.emulate(base.load_model(path), PrecisionPlan("fp16"))
    with Evaluator(folder) as evaluator:
        outputs = [next(iter(one.values())) for one in evaluator.run(rounded, batches)]
    found["fp16 rounded after every operator"] = cosines(np.concatenate(outputs), reference)
    return found


def main() -> None:
    """Measure all three and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE)  # noqa: S607
    found: dict[str, Any] = {"commit": commit.stdout.strip(), "command": "python benchmarks/precision_accuracy.py"}
    with tempfile.TemporaryDirectory() as name:
        for measure in (digits, naive_depthwise, embeddings):
            found[measure.__name__] = measure(Path(name))
            print(measure.__name__, json.dumps(found[measure.__name__]), flush=True)
    if asked.output is not None:
        asked.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
