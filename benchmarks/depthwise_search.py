"""A network that plain INT8 spoils, brought back by the search: which nodes it keeps, and what is left of the loss.

    python benchmarks/depthwise_search.py --output benchmarks/results/depthwise_search.json

The network and its data are those of `benchmarks/models/depthwise.py`. The bound is half a percent of top-1 accuracy on
rows that neither training nor calibration saw.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import enginery
from enginery.records import CandidateRecord, OptimizeRecord, SearchRecord

MODEL = Path(__file__).parent / "models" / "depthwise.py"
BOUND = 0.005
LOSS = 0.03
"""What plain INT8 loses at the least, for the network to be worth searching."""


def main() -> None:
    """Optimise once, print what was found, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = enginery.optimize(
            f"{MODEL}:depthwise", shapes={"image": "1..32..64x1x8x8"}, data=f"{MODEL}:heldout",
            calibration=f"{MODEL}:calibration", precision="int8", max_drop={"top1": BOUND}, limit_s=3.0,
            output=Path(folder) / "depthwise.engine",
        )  # fmt: skip
    found = summary(result.record)
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = {
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "command": f"python benchmarks/depthwise_search.py --output {asked.output}",
        **found,
    }
    print(json.dumps(found, indent=2, allow_nan=False))
    if asked.output is not None:
        asked.output.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    sys.exit(0 if found["passed"] else 1)


def summary(record: OptimizeRecord) -> dict[str, Any]:
    """Return accuracies before and after each search, and its steps."""
    rows = {row.label: row for row in record.candidates}
    searches = [searched(search, rows) for search in record.searches]
    return {
        "words": record.words,
        "max_drop": BOUND,
        "searches": searches,
        "passed": bool(searches) and all(one["naive_drop"] > LOSS and one["drop"] <= BOUND for one in searches),
    }


def searched(search: SearchRecord, rows: dict[str, CandidateRecord]) -> dict[str, Any]:
    """Return what one search began and ended with."""
    naive, mixed = rows[search.label].verify, rows[search.found[0]].verify if search.found else None
    if naive is None or mixed is None or naive.accuracy is None or naive.reference_accuracy is None:
        raise SystemExit(f"{search.label}: {search.words}")
    if mixed.accuracy is None:
        raise SystemExit(f"{search.label}: the data has no labels")
    return {
        "began": search.label,
        "ended": search.found[0],
        "fp32": round(naive.reference_accuracy, 5),
        "naive": round(naive.accuracy, 5),
        "searched": round(mixed.accuracy, 5),
        "naive_drop": round(naive.reference_accuracy - naive.accuracy, 5),
        "drop": round(naive.reference_accuracy - mixed.accuracy, 5),
        "kept": dict(search.reasons),
        "could_be_int8": search.sensitivity.lowered if search.sensitivity is not None else None,
        "words": search.words,
        "steps": [f"{step.what}: {step.action} -> {'holds' if step.holds else step.reason}" for step in search.steps],
        "seconds": round(search.seconds, 1),
    }


if __name__ == "__main__":
    main()
