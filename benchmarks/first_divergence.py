r"""The first node that diverges, in networks with one planted danger and in a real transformer.

    python benchmarks/first_divergence.py --output benchmarks/results/first_divergence.json

Each network of `benchmarks/models/planted_dangers.py` is cast to float16 throughout, built on ONNX's reference
evaluator, which computes as the graph says, and compared with its float32 original: the node that is found has to be of
the planted module. MiniLM is built by OpenVINO in bf16, where the processor computes so, on real sentences: there the
error grows over many nodes, and the profile shows it. Every line that shows a smallest model is run again.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import enginery
from benchmarks.models.planted_dangers import DANGERS, planted
from enginery import backends, optional
from enginery.graph import base, files
from enginery.machine import describe_machine
from enginery.records import DivergenceRecord
from enginery.spec import VerifySpec, parse_shapes

MODELS = Path(__file__).parent / "models"
VERIFY_FAILED = 80


def main() -> None:
    """Run all, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    rows = {name: with_folder(find_planted, name) for name in DANGERS}
    rows["MiniLM in bf16 on OpenVINO"] = with_folder(find_in_transformer, "")
    for name, row in rows.items():
        print(f"{name}: {row.get('said', row)}")
    passed = all(row.get("passed", True) for row in rows.values())
    if asked.output is not None:
        git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        found = {
            "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
            "command": f"python benchmarks/first_divergence.py --output {asked.output}",
            "versions": {name: optional.version(name) for name in ("onnx", "onnxruntime", "openvino", "numpy")},
            "cpu": describe_machine().cpu,
            "passed": passed,
            "found": rows,
        }
        asked.output.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    sys.exit(0 if passed else 1)


def with_folder(find: Any, name: str) -> dict[str, Any]:
    """Call with a folder that goes when it is done."""
    with tempfile.TemporaryDirectory() as folder:
        row: dict[str, Any] = find(name, Path(folder))
        return row


def find_planted(name: str, folder: Path) -> dict[str, Any]:
    """Look for one planted danger."""
    model, feeds = planted(name)
    np.savez(folder / "inputs.npz", **feeds)
    files.save(model, folder / "model.onnx")
    files.save(base.apply_plan(model, base.make_plan(model, "fp16")), folder / "half.onnx")
    engine = enginery.build(folder / "half.onnx", folder / "half.engine", backend="reference", simplify=False)
    record = enginery.verify(
        engine.folder, folder / "half.onnx", against=folder / "model.onnx", data=folder / "inputs.npz", layers=True,
        spec=VerifySpec(max_error=0.01), output=folder / "divergence",
    )  # fmt: skip
    return described(record.divergence, record.error, lambda found: found.nodes[-1].module == "danger")


def find_in_transformer(_: str, folder: Path) -> dict[str, Any]:
    """Look for where the error of a real transformer passes the bound."""
    offered = backends.get("openvino").capabilities(describe_machine()).precisions
    if "bf16" not in offered:
        return {"said": "this processor does not compute in bf16"}
    source = f"{MODELS / 'minilm.py'}:minilm"
    names = ("input_ids", "attention_mask", "token_type_ids")
    shapes = parse_shapes([f"{name}=8x32" for name in names])
    engine = enginery.build(source, folder / "m.engine", backend="openvino", precision="bf16", shapes=shapes)
    record = enginery.verify(
        engine.folder, source, data=f"{MODELS / 'minilm.py'}:sentences", layers=True, output=folder / "divergence",
        spec=VerifySpec(max_error=3e-3),
    )  # fmt: skip
    return described(record.divergence, record.error, lambda found: found.kind == "gradual")


def described(found: DivergenceRecord | None, error: float, is_right: Any) -> dict[str, Any]:
    """Return what of a finding is kept, and whether the line that shows it does."""
    if found is None or found.smallest is None:
        return {"passed": False, "said": "nothing was found"}
    line = found.smallest.commands.replace("enginery ", f"{sys.executable} -m enginery ")
    again = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False).returncode  # noqa: S607
    return {
        "error of the outputs": finite(error),
        "kind": found.kind,
        "nodes": [node.name for node in found.nodes],
        "said": found.said,
        "second cut": found.confirmed,
        "profile": [[cut.place, cut.node, finite(cut.error), cut.good] for cut in found.cuts],
        "smallest": {"operators": dict(found.smallest.operators), "error": finite(found.smallest.error)},
        "builds": found.builds,
        "seconds": round(found.seconds, 1),
        "passed": bool(is_right(found)) and again == VERIFY_FAILED,
    }


def finite(error: float) -> float | str:
    """Return an error, or a word for one that is infinite."""
    return error if math.isfinite(error) else "NaN or Inf"


if __name__ == "__main__":
    main()
