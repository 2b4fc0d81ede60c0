"""The stage about precision: INT8 beside half precision, kept nodes beside none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.h200.clock import median_ratio, summary_ms
from benchmarks.h200.measuring import take_engines_turns
from benchmarks.h200.plan import Run
from benchmarks.h200.sides import SideError

__all__ = ["precisions"]


def precisions(run: Run) -> None:
    """Time what a precision is worth, and look up its error."""
    wide = "resnet50.{}.dynamic"
    for batch in (1, max(1, run.largest // 4), run.largest):
        names = {"fp16": wide.format("fp16"), "int8": wide.format("int8")}
        _put(run, "resnet50", batch, names)
    for batch in (1, run.largest):
        _put(run, "bert", batch, {"fp16": f"bert.fp16.b{batch}", "kept": f"bert.fp16.b{batch}.kept"})


def _put(run: Run, model: str, batch: int, names: Mapping[str, str]) -> None:
    if model in run.models:
        run.put("precisions", f"{model} b{batch}, {' and '.join(names)}", partial(_compared, run, model, batch, names))


def _compared(run: Run, model: str, batch: int, names: Mapping[str, str]) -> dict[str, Any]:
    """Return both engines' times in turns, by what the second beats the first, and what each is off by."""
    if missing := [name for name in names.values() if not run.is_built(name)]:
        raise SideError(f"not built: {', '.join(missing)}")
    turns, opened = take_engines_turns(run, {label: run.engine(name) for label, name in names.items()}, model, batch)
    first, second = names
    known = run.store.found.get("verified", {})
    return {
        "turns_ms": turns, "median_ms": summary_ms(turns), "opened": opened,
        "speed": median_ratio(turns[first], turns[second]),
        "error": {label: known.get(name, {}).get("error") for label, name in names.items()},
    }  # fmt: skip
