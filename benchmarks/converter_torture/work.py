"""One set in one precision, by every converter, in a process of its own that may crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx

from benchmarks.converter_torture.cases import SETS, Case, Options
from benchmarks.converter_torture.converters import CONVERTERS
from benchmarks.converter_torture.judge import Original, Verdict, judge, original, short

__all__ = ["Row", "run_set", "work"]

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
"""A verdict as plain data, with ``name`` and ``converter``; ``invalid`` stands for an original the checker refuses."""


def run_set(name: str, precision: str, options: Options) -> Iterator[Row]:
    """Yield a row for each graph and converter; a crash is that pair's verdict, and the next process goes on."""
    begin = 0
    while True:
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            path = Path(folder) / "rows.jsonl"
            command = [
                sys.executable, "-m", "benchmarks.converter_torture", "--work", name, precision, str(begin), str(path),
                "--exports", str(options.exports), "--random", str(options.count),
            ]  # fmt: skip
            status = subprocess.run(
                command, cwd=ROOT, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
            ).returncode
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        yield from (row for row in rows if "passed" in row)
        if status == 0:
            return
        begun = [row for row in rows if "at" in row]
        if not begun or "passed" in rows[-1]:
            raise SystemExit(f"the process for {name} in {precision} left with {status} before a graph")
        lost = begun[-1]
        yield {**asdict(Verdict(reason=f"the process died with {status}")), **lost}
        begin = lost["at"] + 1


def work(name: str, precision: str, begin: int, path: Path, options: Options) -> None:
    """Write a line when a graph and converter begins, and one with its verdict, from the pair `begin` on."""
    warnings.simplefilter("ignore")
    names = list(CONVERTERS) if precision == "fp16" else ["enginery"]
    with path.open("w", encoding="utf-8") as file:
        for at, case in enumerate(SETS[name](options)):
            if (at + 1) * len(names) <= begin:
                continue
            known: dict[str, Any] = {}
            for number, converter in enumerate(names, at * len(names)):
                if number >= begin:
                    print(json.dumps({"at": number, "name": case.name, "converter": converter}), file=file, flush=True)
                    row = {"name": case.name, "converter": converter, **_verdict(case, converter, precision, known)}
                    print(json.dumps(row), file=file, flush=True)


def _verdict(case: Case, converter: str, precision: str, known: dict[str, Any]) -> Row:
    """Judge one pair; what is known of the original is kept for the next converter."""
    if not known:
        known.update(_look_at(case))
    if known["invalid"]:
        return {"passed": [], "invalid": known["invalid"]}
    try:
        converted, told = CONVERTERS[converter](case.make(), precision)
    except Exception as error:  # noqa: BLE001 - whatever a converter raises is its verdict
        return asdict(Verdict(reason=f"convert: {short(error)}"))
    verdict = judge(converted, known["feeds"], known["right"], precision)
    return {**asdict(verdict), "told": list(told)}


def _look_at(case: Case) -> Mapping[str, Any]:
    model = case.make()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return {"invalid": short(error)}
    feeds = case.feeds()
    right: Original = original(model, feeds)
    return {"invalid": "", "feeds": feeds, "right": right}
