"""The stages that prove things: data-dependent outputs, partitions, the timing cache, kills, errors, environments."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.h200.jobs import Job
from benchmarks.h200.plan import Run
from benchmarks.h200.sides import ROOT, SideError

__all__ = ["cache", "dynamic_outputs", "environments", "errors", "partition"]

MAY_SUCCEED = ("little_workspace", "other_machine")
"""A builder may find kernels that need no scratch memory; and what a manifest says of a version need not matter."""


def dynamic_outputs(run: Run) -> None:
    """NonZero and NonMaxSuppression, beside ONNX Runtime."""
    for name in ("nonzero", "nms"):
        asked = {"name": name, "backend": run.backend}
        run.put("dynamic_outputs", name, partial(run.ask, f"odd-{name}", "dynamic_output", limit_s=120, **asked))


def partition(run: Run) -> None:
    """One operator in the middle that TensorRT lacks."""
    options = {"partition": "auto"} if run.real else {}
    asked = {"backend": run.backend, "options": options}
    if run.put("partition", "run", partial(run.ask, "partition", "partition", limit_s=240, **asked)):
        run.store.put("partition", **run.store.found["partition"].pop("run"))


def cache(run: Run) -> None:
    """Build twice with one timing cache, then with one that says it is another GPU's; then kill a build half-way."""
    path = run.work / "timings" / "own.cache"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    built: dict[str, Any] = {}
    for key in ("first", "second"):
        if not run.put("cache", key, partial(_cached_build, run, path, key)):
            return
        built[key] = run.store.found["cache"][key]["build_s"]
    run.store.put("cache", second_by_first=built["second"] / built["first"])
    run.put("cache", "others_unused", partial(_others_unused, run, path))
    run.put("cache", "killed", partial(_killed, run, built["first"]))
    run.store.put("cache", **run.store.found["cache"].pop("killed", {}))


def _cached_build(run: Run, path: Path, key: str, model: str = "resnet50") -> dict[str, Any]:
    job = Job(model, "fp16", "1")
    options = {"timing_cache": str(path)} if run.real else {}
    found: dict[str, Any] = run.ask(
        f"cache-{key}", "build", limit_s=400, build_limit_s=380, graph=run.graph(model),
        output=run.work / "engines" / f"cache-{key}.engine", backend=run.backend, precision=run.precision(job),
        shapes=run.shapes(job), options=options,
    )  # fmt: skip
    return {**found, "cache_bytes": path.stat().st_size if path.is_file() else 0}


def _others_unused(run: Run, path: Path) -> bool:
    """Whether a cache that says another GPU, then another version, is told to be unused, on a small model."""
    label = path.with_name(f"{path.name}.json")
    if not run.real:
        return True
    told = []
    for field, value in (("name", "NVIDIA T4"), ("version", "8.4.1")):
        was = json.loads(label.read_text(encoding="utf-8"))
        label.write_text(json.dumps({**was, field: value}), encoding="utf-8")
        copy, content = path.with_name(f"{field}.cache"), path.read_bytes()
        copy.write_bytes(content)
        shutil.copy(label, copy.with_name(f"{copy.name}.json"))
        label.write_text(json.dumps(was), encoding="utf-8")
        found = _cached_build(run, copy, f"of-another-{field}", "minilm" if "minilm" in run.models else "resnet50")
        run.store.put("cache", **{f"notes of another {field}": found["notes"]})
        told.append(any("not used" in note for note in found["notes"]))
    return all(told)


def _killed(run: Run, first_s: float) -> dict[str, Any]:
    """Kill a build's whole process group half-way; nothing may stand where its engine should."""
    output = run.work / "killed" / "killed.engine"
    shutil.rmtree(output.parent, ignore_errors=True)
    output.parent.mkdir()
    job = Job("resnet50", "fp16", "1")
    with run.side("killed") as side:
        side.send(
            "build", graph=run.graph("resnet50"), output=output, backend=run.backend, precision=run.precision(job),
            shapes=run.shapes(job), options={"timing_cache": "off"} if run.real else {}, build_limit_s=300,
        )  # fmt: skip
        time.sleep(max(1.0, first_s / 2))
        side.kill()
    left = [str(path.relative_to(output.parent)) for path in output.parent.rglob("*")]
    try:
        run.ask("killed-verify", "layers", limit_s=60, engine=output)
    except SideError as error:
        return {"killed_leaves_nothing": error.name == "EngineFolderError" or error.mend is not None, "left": left,
                "killed_said": str(error)}  # fmt: skip
    return {"killed_leaves_nothing": False, "left": left}


def errors(run: Run) -> None:
    """Let everything go wrong once; each must end in an error of Enginery's with a mend."""
    small = run.engine(Job("resnet50", "fp16", "1"))
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("cut_short", "", {}), ("cut_short_unnoticed", "", {}), ("other_machine", "", {}), ("missing_plugin", "", {}),
        ("outside_profile", "", {}), ("not_a_number", "", {}), ("little_workspace", str(run.graph("resnet50")), {}),
        *(("other_header", str(at), {}) for at in range(0, 64, 4)),
    ]  # fmt: skip
    if run.real:
        asked += [
            ("missing_library", "", {}),
            ("build_without_gpu", "", hidden),
            ("open_without_gpu", str(small), hidden),
        ]
        run.put("errors", "header", partial(run.ask, "header", "header", limit_s=60, engine=small))
    work = {}
    for name, detail, variables in asked:
        label = f"{name} {detail}" if name == "other_header" else name
        work[label] = partial(run.put, "errors", label, partial(_mishap, run, name, detail, variables))
    run.in_parallel(run.jobs, work)
    found = [run.store.found["errors"].get(label) for label in work]
    run.store.put("errors", all_ours=all(one is not None and one["right"] for one in found))


def _mishap(run: Run, name: str, detail: str, variables: dict[str, str]) -> dict[str, Any]:
    label = f"mishap-{name}-{Path(detail).name}"
    try:
        with run.side(label, **variables) as side:
            side.ask("mishap", limit_s=240, name=name, backend=run.backend, detail=detail)
    except SideError as error:
        found = {"name": error.name, "message": error.message[:1500], "mend": error.mend}
        return {**found, "right": bool(error.name) and bool(error.mend)}
    return {
        "name": "",
        "message": "nothing was raised",
        "mend": None,
        "right": name in MAY_SUCCEED or name == "other_header",
    }


def environments(run: Run) -> None:
    """`optimize` with TensorRT in its own interpreter beside ONNX Runtime and PyTorch in this one."""
    if run.python == run.torch_python:
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
    path.write_text(f'#!/bin/sh\nexport PYTHONPATH={ROOT / "src"}\nexec {run.python} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)
