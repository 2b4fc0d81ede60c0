"""What goes wrong, one thing at a time: each of these must end in one of Enginery's errors, with a mend."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import enginery
from benchmarks.h200 import plans
from benchmarks.h200.odd_graphs import write_graph
from enginery.spec import PrecisionPlan
from enginery.storage import hash_file

__all__ = ["HANDLERS", "MISHAPS", "names"]

_SHAPES = {"x": enginery.Shape.parse("1..4..8x64")}
_PICTURES = {"x": enginery.Shape.parse("1..4..8x64x56x56")}


def artefact(folder: Path) -> Path:
    """Return the largest file of an engine folder that is no JSON: what its library wrote."""
    files = [path for path in folder.iterdir() if path.suffix != ".json"]
    return max(files, key=lambda path: path.stat().st_size)


def rewrite(folder: Path, change: Callable[[bytes], bytes]) -> None:
    """Change an engine's artefact, and its hash in the manifest, so that only the library can tell."""
    path = artefact(folder)
    path.write_bytes(change(path.read_bytes()))
    manifest = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    manifest["files"][path.name] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
    (folder / "engine.json").write_text(json.dumps(manifest), encoding="utf-8")


def _plain(folder: Path, backend: str, **asked: Any) -> Path:
    engine = folder / "plain.engine"
    enginery.build(write_graph("plain", folder), engine, backend=backend, shapes=_SHAPES, **asked)
    return engine


def _copied(folder: Path, engine: str) -> Path:
    """Return a copy of an engine, to be harmed."""
    copied = folder / "copied.engine"
    shutil.copytree(engine, copied)
    return copied


def _open_and_run(engine: Path, rows: int = 2) -> None:
    with enginery.load(engine) as session:
        session.run({"x": np.ones((rows, 64), np.float32)})


def cut_short(folder: Path, _: str, plain: str) -> None:
    """A plan that was cut short after it was written."""
    engine = _copied(folder, plain)
    path = artefact(engine)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _open_and_run(engine)


def cut_short_unnoticed(folder: Path, _: str, plain: str) -> None:
    """A plan that was cut short before its hash was taken."""
    engine = _copied(folder, plain)
    rewrite(engine, lambda content: content[: len(content) // 2])
    _open_and_run(engine)


def other_header(folder: Path, _: str, where: str) -> None:
    """A plan with some bytes of its header changed, as of another version or GPU; `where` is ``byte:engine``."""
    at, _, plain = where.partition(":")
    first = int(at)
    engine = _copied(folder, plain)
    rewrite(
        engine,
        lambda content: content[:first] + bytes(byte ^ 3 for byte in content[first : first + 4]) + content[first + 4 :],
    )
    _open_and_run(engine)


def other_machine(folder: Path, _: str, plain: str) -> None:
    """An engine folder whose manifest says that it was built on another GPU by another version."""
    engine = _copied(folder, plain)
    manifest = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
    manifest["backend_version"] = "8.4.1"
    if manifest.get("target"):
        manifest["target"] |= {"version": "8.4.1", "gpu": "NVIDIA T4", "compute_capabilities": ["7.5"]}
    (engine / "engine.json").write_text(json.dumps(manifest), encoding="utf-8")
    _open_and_run(engine)


def build_without_gpu(folder: Path, backend: str, _: str) -> None:
    """A build where no GPU is visible."""
    _plain(folder, backend)


def open_without_gpu(folder: Path, _: str, plain: str) -> None:
    """An engine opened where no GPU is visible."""
    _open_and_run(_copied(folder, plain))


def little_workspace(folder: Path, backend: str, _: str) -> None:
    """A builder with one MiB for the scratch memory of kernels that sort a great many boxes."""
    options = {"workspace_mib": 1, "timing_cache": "off"} if backend.startswith("tensorrt") else {}
    graph = write_graph("many_boxes", folder)
    enginery.build(graph, folder / "little.engine", backend=backend, options=options)


def built_wide(folder: Path, backend: str, asked: str) -> None:
    """A builder that is asked for half precision and never told so; `asked` is JSON of a graph and its shapes."""
    from enginery.backends.tensorrt import building  # noqa: PLC0415 - only where it is made to fail

    what = json.loads(asked)
    with mock.patch.object(building, "constrain", return_value=()):
        enginery.build(
            Path(what["graph"]), folder / "wide.engine", backend=backend, precision="fp16", in_process=True,
            shapes={name: enginery.Shape.parse(text) for name, text in what["shapes"].items()},
            options={"timing_cache": "off", "optimization_level": 0},
        )  # fmt: skip


def missing_plugin(folder: Path, backend: str, _: str) -> None:
    """A graph with a vendor's operator, and no plugin for it."""
    enginery.build(write_graph("plugin", folder), folder / "plugin.engine", backend=backend, shapes=_SHAPES)


def missing_library(folder: Path, backend: str, _: str) -> None:
    """A plugin library that is not there."""
    _plain(folder, backend, options={"plugins": str(folder / "libmagic.so")})


def outside_profile(folder: Path, _: str, plain: str) -> None:
    """More rows than the profile holds."""
    del folder
    _open_and_run(Path(plain), rows=9)


def not_a_number(folder: Path, backend: str, _: str) -> None:
    """A graph whose half-precision engine overflows; the comparison with the source must see it."""
    graph, engine = write_graph("overflow", folder), folder / "overflow.engine"
    plan = _halved(graph, folder / "simplified.onnx") if backend.startswith("tensorrt") else None
    source = graph if plan is None else folder / "simplified.onnx"
    enginery.build(source, engine, backend=backend, shapes=_PICTURES, plan=plan)
    record = enginery.verify(engine, graph)
    if not record.passed:
        raise enginery.EngineryError(
            f"verification failed: {record.reason}", mend="; ".join(record.notes) or "see above"
        )


def _halved(graph: Path, simplified: Path) -> PrecisionPlan:
    """Simplify a graph, and name every node for half precision: a flag alone would let the builder choose."""
    return PrecisionPlan("fp32", dict.fromkeys(plans.simplify(graph, simplified), "fp16"))


MISHAPS: dict[str, Callable[[Path, str, str], None]] = {
    function.__name__: function
    for function in (
        cut_short, cut_short_unnoticed, other_header, other_machine, build_without_gpu, open_without_gpu,
        little_workspace, built_wide, missing_plugin, missing_library, outside_profile, not_a_number,
    )
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names of all mishaps."""
    return tuple(MISHAPS)


def plain(state: dict[str, Any], *, folder: str, backend: str) -> str:
    """Build the small engine that the others harm copies of."""
    del state
    Path(folder).mkdir(parents=True, exist_ok=True)
    return str(_plain(Path(folder), backend))


def mishap(state: dict[str, Any], *, name: str, backend: str, detail: str) -> dict[str, Any]:
    """Let one thing go wrong; what it raises is told by the other end as an error of this request."""
    del state
    with tempfile.TemporaryDirectory(prefix="h200-") as folder:
        MISHAPS[name](Path(folder), backend, detail)
    return {"raised": False}


def header(state: dict[str, Any], *, engine: str) -> str:
    """Return the first 64 bytes of an engine's artefact in hexadecimal."""
    del state
    return artefact(Path(engine)).read_bytes()[:64].hex(" ", 4)


HANDLERS = {"plain": plain, "mishap": mishap, "header": header}
