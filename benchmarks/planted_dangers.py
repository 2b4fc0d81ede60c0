r"""Six networks that float16 breaks, each in one place: what is found, what is kept, and what comes of it.

    python benchmarks/planted_dangers.py --output benchmarks/results/planted_dangers.json

For each network of `benchmarks/models/planted_dangers.py`: how far plain float16 is off (rounded in a float32 graph on
ONNX Runtime, on ONNX's reference evaluator, which stores every number as the graph says, and on ONNX Runtime itself,
whose CPU keeps float32 between nodes that it has no float16 kernel for); what the sensitivity names; which nodes the
search keeps; and how far the plan is off in the same three. Where ONNX Runtime alone is broken by plain float16, the
whole race is run as well, with every plan built and verified by it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.models.planted_dangers import DANGERS, planted
from enginery import optional
from enginery.backends.base import Design
from enginery.graph import base, files
from enginery.inputs.base import Case, save_cases
from enginery.machine import describe_machine
from enginery.records import SensitivityRecord, VerifyRecord
from enginery.spec import BenchSpec, OptimizeSpec, PrecisionPlan, VerifySpec
from enginery.tuning import race
from enginery.tuning.candidates import GRAPH, Contestant
from enginery.tuning.search import Outcome, search_plan
from enginery.tuning.sensitivity import sensitivity
from enginery.tuning.simulation import Simulator
from enginery.tuning.words import kept_words

BOUND = VerifySpec(max_error=3e-3, repeats=1, max_rows=0)
SHARE = 0.05
SHORT = BenchSpec(warmup_ms=20, turn_ms=50, limit_s=1.0)

Arrays = Mapping[str, np.ndarray[Any, Any]]


def main() -> None:
    """Run all, print a line for each, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    rows = {name: run(name) for name in DANGERS}
    for name, row in rows.items():
        kept = f"{row['kept_count']} of {row['nodes']} nodes kept ({row['kept_share']:.1%})"
        errors = ", ".join(
            f"{where} {shown(row['fp16'][where])} -> {shown(row['plan'][where])}" for where in row["plan"]
        )
        print(f"{name}: {kept}; {errors}; {'ok' if row['passed'] else 'FAILED'}")
    if asked.output is not None:
        git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        found = {
            "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
            "command": f"python benchmarks/planted_dangers.py --output {asked.output}",
            "versions": {name: optional.version(name) for name in ("onnxruntime", "onnx", "numpy")},
            "cpu": describe_machine().cpu,
            "max_error": BOUND.max_error,
            "max_share_kept": SHARE,
            "passed": all(row["passed"] for row in rows.values()),
            "dangers": rows,
        }
        asked.output.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    sys.exit(0 if all(row["passed"] for row in rows.values()) else 1)


def run(name: str) -> dict[str, Any]:
    """Plant one danger, look for it, and mend it."""
    model, feeds = planted(name)
    expected = on_onnxruntime(model, feeds)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files.save(model, folder / "graph.onnx")
        save_cases([Case("opt", dict(feeds))], folder / "cases")
        save_cases([Case("opt", {"y": expected})], folder / "expected")
        with Simulator(
            folder / "graph.onnx",
            cases=folder / "cases",
            expected=folder / "expected",
            folder=folder / "own",
            spec=BOUND,
        ) as simulator:
            ranking = sensitivity(simulator, "fp16")
            found = search_plan(ranking, lambda plan: outcome(simulator.judge(plan)), None)
            plan = found.plan
            if plan is None or found.kept is None:
                raise SystemExit(f"{name}: no plan holds {BOUND.max_error:g}")
            errors = {
                which: {
                    "rounded": finite(simulator.judge(one).error),
                    "reference evaluator": distance(on_reference(base.apply_plan(model, one), feeds), expected),
                    "onnxruntime": distance(on_onnxruntime(base.apply_plan(model, one), feeds), expected),
                }
                for which, one in (("fp16", PrecisionPlan("fp16")), ("plan", plan))
            }
        seconds = time.perf_counter() - begin
        raced = run_race(folder) if not within(errors["fp16"]["onnxruntime"]) else None
    row = {
        "nodes": ranking.total,
        "named": named(ranking),
        **errors,
        "kept": dict(plan.reasons),
        "kept_count": len(found.kept),
        "kept_share": len(found.kept) / ranking.total,
        "words": kept_words(plan, found.kept, ranking),
        "steps": len(found.steps),
        "seconds": round(seconds, 1),
        "race on onnxruntime": raced,
    }
    broken = not within(errors["fp16"]["rounded"]) and not within(errors["fp16"]["reference evaluator"])
    mended = all(within(error) for error in errors["plan"].values()) and 0 < row["kept_share"] <= SHARE
    return {**row, "passed": broken and mended and (raced is None or raced["passed"])}


def run_race(folder: Path) -> dict[str, Any]:
    """Let ONNX Runtime build float16, and whatever the search tries after it."""
    contestants = [
        Contestant("onnxruntime", "candidate", "onnxruntime"),
        Contestant(
            "onnxruntime fp16", "candidate", "onnxruntime", precision="fp16", options={"allow_precision": "fp32"}
        ),
    ]
    found = race.race(
        contestants, designs={GRAPH: Design(folder / "graph.onnx", "planted", "0", "1")}, cases=folder / "cases",
        expected=folder / "expected", bench_case="opt", reference="onnxruntime fp32", inputs="the planted ones",
        spec=OptimizeSpec(precision="best", verify=BOUND, bench=SHORT), folder=folder / "race",
    )  # fmt: skip
    rows = {row.label: row for row in found.records}
    (search,) = found.searches
    mixed = rows[search.found[0]].verify
    if mixed is None:
        raise SystemExit(f"{search.label}: its plan was not verified")
    built = [step for step in search.steps if step.what == "built"]
    return {
        "fp16": rows["onnxruntime fp16"].status,
        "kept": list(search.kept),
        "words": search.words,
        "built": len(built),
        "error": finite(mixed.error),
        "passed": rows["onnxruntime fp16"].status == "rejected"
        and mixed.passed
        and len(search.kept) <= SHARE * search.total,
    }


def named(ranking: SensitivityRecord) -> dict[str, list[str]]:
    """Return what the sensitivity says of the nodes in certain or likely danger, by name."""
    return {
        row.name: [danger.text for danger in row.dangers]
        for row in ranking.nodes
        if row.dangers and row.dangers[0].severity != "possible"
    }


def outcome(record: VerifyRecord) -> Outcome:
    """Return what the search asks of a comparison."""
    return Outcome(record.passed, record.reason, record.error, record.cosine, record.seconds)


def on_onnxruntime(model: ir.Model, feeds: Arrays) -> np.ndarray[Any, Any]:
    """Run a graph on ONNX Runtime with all its optimisations."""
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    output: np.ndarray[Any, Any] = session.run(None, dict(feeds))[0]
    return output


def on_reference(model: ir.Model, feeds: Arrays) -> np.ndarray[Any, Any]:
    """Run a graph on ONNX's reference evaluator."""
    with np.errstate(all="ignore"):
        output: np.ndarray[Any, Any] = ReferenceEvaluator(ir.to_proto(model)).run(None, dict(feeds))[0]
    return output


def distance(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float | str:
    """Return the relative L2 error; a word where the outputs are not finite."""
    if not np.isfinite(actual).all():
        return "NaN or Inf"
    return float(np.linalg.norm(actual.astype(np.float64) - expected) / np.linalg.norm(expected))


def finite(error: float) -> float | str:
    """Return an error, or a word for one that is infinite."""
    return error if math.isfinite(error) else "NaN or Inf"


def within(error: float | str) -> bool:
    """Say whether an error is within the bound."""
    return not isinstance(error, str) and error <= BOUND.max_error


def shown(error: float | str) -> str:
    """Write an error."""
    return error if isinstance(error, str) else f"{error:.1e}"


if __name__ == "__main__":
    main()
