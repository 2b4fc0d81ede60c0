"""The stages that prove things: odd outputs, partitions, one plan, the timing cache, kills, errors, environments."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.h200.build_logs import time_spent
from benchmarks.h200.jobs import Job
from benchmarks.h200.plan import TORCH, Run, on_gpu
from benchmarks.h200.sides import ROOT, SideError
from benchmarks.h200.store import keep_log

__all__ = ["cache", "dynamic_outputs", "environments", "errors", "killed", "large_cache", "partition", "same_plan"]

MAY_SUCCEED = ("other_machine",)
"""What a manifest says of a version need not matter."""


def dynamic_outputs(run: Run) -> None:
    """NonZero and NonMaxSuppression, beside ONNX Runtime."""
    for name in ("nonzero", "nms"):
        if name in run.store.found.get("dynamic_outputs", {}):
            continue
        asked = {"name": name, "backend": run.backend}
        run.put("dynamic_outputs", name, partial(run.ask, f"odd-{name}", "dynamic_output", limit_s=120, **asked))


def partition(run: Run) -> None:
    """One operator in the middle that TensorRT lacks."""
    if "error" in run.store.found.get("partition", {}):
        return
    options = {"partition": "auto"} if run.real else {}
    asked = {"backend": run.backend, "options": options}
    if run.put("partition", "run", partial(run.ask, "partition", "partition", limit_s=240, **asked)):
        run.store.put("partition", **run.store.found["partition"].pop("run"))


def cache(run: Run) -> None:
    """Build twice with one timing cache, then with one that says it is another GPU's or version's."""
    if "second_by_first" in run.store.found.get("cache", {}):
        return
    path = run.work / "own-timings" / "own.cache"
    if not _build_twice(run, "cache", "1", path):
        return
    run.put("cache", "others_unused", partial(_others_unused, run, path))
    if "killed_leaves_nothing" not in run.store.found["cache"]:
        killed(run, run.store.found["cache"]["first"]["build_s"] / 2)


def large_cache(run: Run) -> None:
    """Build twice for the largest batch, whose kernels take longer to time than to list."""
    if "second_by_first" not in run.store.found.get("large_cache", {}):
        _build_twice(run, "large_cache", str(run.largest), run.work / "own-timings-large" / "own.cache")


def _build_twice(run: Run, stage: str, batch: str, path: Path) -> bool:
    """Build ResNet-50 twice with a timing cache that is new at first; says whether both went well."""
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    for key in ("first", "second"):
        asked = {"graph": run.graph("resnet50"), "shapes": run.sizes("resnet50", batch), "precision": "fp16"}
        if not run.put(stage, key, partial(_cached_build, run, path, f"{stage}-{key}", **asked)):
            return False
    built = run.store.found[stage]
    run.store.put(stage, second_by_first=built["second"]["build_s"] / built["first"]["build_s"])
    return True


def _cached_build(
    run: Run, path: Path, label: str, *, graph: Path, shapes: dict[str, str], precision: str
) -> dict[str, Any]:
    options = {"timing_cache": str(path)} if run.real else {}
    kept = run.work / "cache" / label
    found: dict[str, Any] = run.ask(
        label, "build", limit_s=200, graph=graph, output=run.work / "engines" / f"{label}.engine", backend=run.backend,
        precision=precision if run.real else "fp32", shapes=shapes, options=options,
        variables={"ENGINERY_CACHE": str(kept), **(on_gpu(run.gpus - 1) if run.building else {})},
    )  # fmt: skip
    log = run.work / "logs" / f"build-{label}.log"
    keep_log(kept / "logs", log, most=8_000_000)
    spent = time_spent(log.read_text(encoding="utf-8")) if log.is_file() else {}
    return {**found, **spent, "cache_bytes": path.stat().st_size if path.is_file() else 0}


def _others_unused(run: Run, path: Path) -> bool:
    """Whether a cache that says another GPU, then another version, is told to be unused, on a small graph."""
    label = path.with_name(f"{path.name}.json")
    if not run.real:
        return True
    told = []
    plain = run.work / "plain" / "plain.onnx"
    asked = {
        "graph": plain,
        "shapes": {"x": "1..4..8x64"},
        "precision": "fp32",
    }  # fp16 may be slower: it is small
    for field, value in (("name", "NVIDIA T4"), ("version", "8.4.1")):
        was = json.loads(label.read_text(encoding="utf-8"))
        copy = path.with_name(f"{field}.cache")
        copy.write_bytes(path.read_bytes())
        copy.with_name(f"{copy.name}.json").write_text(json.dumps({**was, field: value}), encoding="utf-8")
        found = _cached_build(run, copy, f"cache-of-another-{field}", **asked)
        run.store.put("cache", **{f"label of {field}": was, f"notes of another {field}": found["notes"]})
        told.append(any("not used" in note for note in found["notes"]))
    return all(told)


def killed(run: Run, after_s: float = 40.0) -> None:
    """Kill a build with all its processes on the way; nothing may stand where its engine should."""
    if run.put("cache", "killed", partial(_killed, run, after_s if run.real else 0.5)):
        run.store.put("cache", **run.store.found["cache"].pop("killed"))


def _killed(run: Run, after_s: float) -> dict[str, Any]:
    output = run.work / "killed" / "killed.engine"
    shutil.rmtree(output.parent, ignore_errors=True)
    output.parent.mkdir()
    job = Job("resnet50", "fp16", "1")
    options = {"timing_cache": "off"} if run.real else {}
    with run.side("killed") as side:
        side.send(
            "build", graph=run.graph("resnet50"), output=output, backend=run.backend, precision=run.precision(job),
            shapes=run.shapes(job), options=options,
        )  # fmt: skip
        time.sleep(max(0.0, min(after_s, run.left() - 1)))
        ended = not side.waits
        side.kill()
    left = [str(path.relative_to(output.parent)) for path in output.parent.rglob("*")]
    found = {"left": left, "ended_before": ended, "after_s": after_s}
    try:
        run.ask("killed-verify", "layers", limit_s=60, engine=output)
    except SideError as error:
        if not error.name:
            raise
        nothing = error.name == "EngineFolderError" or error.mend is not None
        return {**found, "killed_leaves_nothing": nothing, "killed_said": str(error)}
    return {**found, "killed_leaves_nothing": False}


def errors(run: Run) -> None:
    """Let everything go wrong once; each must end in an error of Enginery's with a mend."""
    asked = {"folder": run.work / "plain", "backend": run.backend}
    done = run.store.found.get("errors", {})
    if "plain" not in done and not run.put("errors", "plain", partial(run.ask, "plain", "plain", limit_s=150, **asked)):
        return
    small = run.store.found["errors"]["plain"]
    if run.real and "header" not in done:
        run.put("errors", "header", partial(run.ask, "header", "header", limit_s=60, engine=small))
    work = {
        label: partial(run.put, "errors", label, partial(_mishap, run, label.split()[0], detail, variables))
        for label, detail, variables in _mishaps(run, small)
    }
    run.in_parallel(2, {label: one for label, one in work.items() if label not in done})
    found = [run.store.found["errors"].get(label) for label in work]
    run.store.put("errors", all_ours=all(one is not None and one["right"] for one in found))


def _mishaps(run: Run, small: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return what goes wrong: its label, what it needs to know, and variables of its environment."""
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("cut_short_unnoticed", small, {}), ("missing_plugin", "", {}), ("other_machine", small, {}),
        ("outside_profile", small, {}), ("not_a_number", "", {}), ("cut_short", small, {}),
    ]  # fmt: skip
    if "shapes" in (run.told("resnet50") or {}):
        what = json.dumps({"graph": str(run.graph("resnet50")), "shapes": run.shapes(Job("resnet50", "fp16", "1"))})
        asked += [("built_wide", what, {})] if run.real else []
    if run.real:
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        asked += [
            ("little_workspace", "", {}), ("build_without_gpu", "", hidden), ("open_without_gpu", small, hidden),
            ("missing_library", "", {}),
        ]  # fmt: skip
    return [*asked, *((f"other_header {at}", f"{at}:{small}", {}) for at in (0, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48))]


def _mishap(run: Run, name: str, detail: str, variables: dict[str, str]) -> dict[str, Any]:
    label = f"mishap-{name}-{detail.partition(':')[0]}" if name == "other_header" else f"mishap-{name}"
    try:
        with run.side(label, **variables) as side:
            side.ask("mishap", limit_s=120, name=name, backend=run.backend, detail=detail)
    except SideError as error:
        if run.left() <= 0:
            raise  # it says nothing of the mishap
        found = {"name": error.name, "message": error.message[:1500], "mend": error.mend, "log": error.log[-1500:]}
        expected = {"built_wide": error.name == "PrecisionMismatchError"}.get(name, bool(error.name))
        return {**found, "right": expected and bool(error.mend)}
    return {
        "name": "",
        "message": "nothing was raised",
        "mend": None,
        "right": name in MAY_SUCCEED or name == "other_header",
    }


def same_plan(run: Run) -> None:
    """Write graphs and plans with PyTorch, build them with TensorRT, and hold what its layers tell against them."""
    if not run.real or "differing" in run.store.found.get("same_plan", {}):
        return

    def follow() -> dict[str, Any]:
        with run.side("plans-torch", TORCH) as side:
            side.ask("plans", limit_s=120, folder=run.work / "plans")
        asked = {"folder": run.work / "plans", "backend": run.backend, "options": {"timing_cache": "off"}}
        found: dict[str, Any] = run.ask("plans", "follow_plans", limit_s=240, **asked)
        return found

    if run.put("same_plan", "run", follow):
        run.store.put("same_plan", **run.store.found["same_plan"].pop("run"))


def environments(run: Run) -> None:
    """`optimize` with TensorRT in its own interpreter beside ONNX Runtime and PyTorch in this one."""
    if run.python == run.torch_python or run.left() <= 0 or "optimize" in run.store.found.get("environments", {}):
        return

    def optimise() -> dict[str, Any]:
        import enginery  # noqa: PLC0415 - the other stages need none of it here
        from benchmarks.h200.models import make  # noqa: PLC0415
        from enginery.plain import to_plain  # noqa: PLC0415

        module, example = make("resnet50", tiny=run.tiny)
        job = Job("resnet50", "fp16", "1")
        result = enginery.optimize(
            module, example, shapes=run.shapes(job), precision=run.precision(job), max_error=1e-2, limit_s=2,
            output=run.work / "engines" / "optimised.engine", environments={"trt8": wrapper(run)},
        )  # fmt: skip
        print(result.table, flush=True)
        plain = to_plain(result.record)
        return {"chosen": plain["chosen"], "table": result.table, "seconds": plain["seconds"]}

    run.put("environments", "optimize", optimise)


def wrapper(run: Run) -> str:
    """Return an interpreter that finds this Enginery: an environment has its packages, and no variables of ours."""
    path = run.work / "trt8-python"
    last = on_gpu(run.proving_gpu) if run.building else {}
    lines = [f"export PYTHONPATH={ROOT / 'src'}", *(f"export {name}={value}" for name, value in last.items())]
    path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {run.python} "$@"', ""]), encoding="utf-8")
    path.chmod(0o755)
    return str(path)
