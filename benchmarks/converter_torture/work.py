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
from benchmarks.converter_torture.explain import planned_verdict, rounding_error
from benchmarks.converter_torture.judge import LEVEL, Original, Verdict, judge, original, short

__all__ = ["Row", "run_set", "work"]

ROOT = Path(__file__).parents[2]
_LOST = 0.5
"""Where rounding alone may cost more than this, it is no explanation: the values are gone."""

_LEVEL, _LOWER_LEVEL = "all", "extended"
Row = dict[str, Any]
"""A verdict as plain data, with ``name`` and ``converter``; ``invalid`` stands for an original the checker refuses."""


def run_set(name: str, precision: str, options: Options) -> Iterator[Row]:
    """Yield a row for each graph and converter.

    Where the process dies, the pair that was under way is tried once more at a lower level of ONNX Runtime's
    optimisation, and where that dies too, that is its verdict; then the next process goes on.
    """
    begin, level = 0, _LEVEL
    while True:
        status, rows = _call(name, precision, begin, level, options)
        for row in rows:
            if "passed" in row:
                yield row if level == _LEVEL else {**row, "died": f"ONNX Runtime dies of it at its level {_LEVEL!r}"}
        if status == 0 and level == _LEVEL:
            return
        begun = [row for row in rows if "at" in row]
        if not begun or (status and "passed" in rows[-1]):
            raise SystemExit(f"the process for {name} in {precision} left with {status} before a graph")
        lost = begun[-1]
        if status and level != _LEVEL:
            yield {**asdict(Verdict(reason=f"the process died with {status}")), **lost}
        retried = status != 0 and level == _LEVEL
        begin, level = (lost["at"], _LOWER_LEVEL) if retried else (lost["at"] + 1, _LEVEL)


def _call(name: str, precision: str, begin: int, level: str, options: Options) -> tuple[int, list[Row]]:
    """Work in a new process; return how it left, and what it wrote."""
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        path = Path(folder) / "rows.jsonl"
        command = [
            sys.executable, "-m", "benchmarks.converter_torture", "--work", name, precision, str(begin), str(path),
            "--exports", str(options.exports), "--random", str(options.count),
        ]  # fmt: skip
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", LEVEL: level}
        status = subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode
        return status, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def work(name: str, precision: str, begin: int, path: Path, options: Options) -> None:
    """Write a line when a graph and converter begins, and one with its verdict, from the pair `begin` on.

    At another level of optimisation than its own, that pair alone.
    """
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
                    if os.environ.get(LEVEL, _LEVEL) != _LEVEL:
                        return


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
    row = {**asdict(verdict), "told": list(told)}
    if "runs" in verdict.passed and "close" not in verdict.passed:
        row |= _explained(case, verdict, known, precision, ours=converter == "enginery")
    return row


def _explained(case: Case, verdict: Verdict, known: Mapping[str, Any], precision: str, *, ours: bool) -> Row:
    """See why a graph is off: whether by no more than rounding costs, and, of ours, which plan mends it."""
    row = {}
    allowed = rounding_error(case.make(), known["feeds"], known["right"], precision)
    if verdict.error is not None and verdict.error <= allowed < _LOST:
        row["rounding"] = f"rounding every tensor to {precision} is allowed {allowed:.2g}"
    if ours:
        planned, kept = planned_verdict(case.make(), known["feeds"], known["right"], precision)
        is_mended = "close" in planned.passed
        row |= {"planned": f"close with {kept}"} if is_mended else {"not_planned": f"{planned.reason}; {kept}"}
    return row


def _look_at(case: Case) -> Mapping[str, Any]:
    model = case.make()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return {"invalid": short(error)}
    feeds = case.feeds()
    right: Original = original(model, feeds)
    return {"invalid": "", "feeds": feeds, "right": right}
