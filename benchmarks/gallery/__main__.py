"""Take every model of the gallery through export, simplification, build and verification, and show a table.

    python -m benchmarks.gallery                         # all of them, on ONNX Runtime
    python -m benchmarks.gallery --only bert --only cnn  # by name or family
    python -m benchmarks.gallery --backend tensorrt_rtx  # built ahead of time, in fp32 and fp16, with no GPU
    python -m benchmarks.gallery --backend onnxruntime --backend openvino --output benchmarks/results/gallery.json

No weights are downloaded. Leaves with 1 where an entry failed that was not expected to.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gallery.processes import ROOT, run_entry, run_together, work, work_together
from benchmarks.gallery.result import Result, share_passed
from benchmarks.gallery.table import gallery_text

if TYPE_CHECKING:
    from benchmarks.gallery.entry import Entry

CATALOGUE = "benchmarks.gallery.catalogue"
LIMIT_S = 900.0


def load(catalogue: str) -> tuple[Entry, ...]:
    """Return the entries of a catalogue, a module by its dotted name."""
    entries: tuple[Entry, ...] = importlib.import_module(catalogue).ENTRIES
    return entries


def choose(entries: Sequence[Entry], only: Sequence[str]) -> list[Entry]:
    """Return the entries whose name, family or source is listed; all where nothing is.

    Raises:
        SystemExit: a word fits no entry.
    """
    known = {word for entry in entries for word in (entry.name, entry.family, entry.source)}
    for word in only:
        if word not in known:
            raise SystemExit(f"no entry, family or source is called {word!r}; --list shows them")
    return [entry for entry in entries if not only or {entry.name, entry.family, entry.source} & set(only)]


def run(entries: Sequence[Entry], backends: Sequence[str], *, limit_s: float, catalogue: str) -> list[Result]:
    """Try every entry on every backend, and print a line for each."""
    results = []
    for at, entry in enumerate(entries, 1):
        for backend in backends:
            begin = time.monotonic()
            result = run_entry(entry, backend, limit_s=limit_s, catalogue=catalogue)
            results.append(result)
            print(f"{at}/{len(entries)} {_line(result)}, {time.monotonic() - begin:.0f} s", flush=True)
    return results


def run_in_one(entries: Sequence[Entry], backends: Sequence[str], *, limit_s: float, catalogue: str) -> list[Result]:
    """Try every entry on every backend, in one process for each backend, and print a line for each."""
    results = []
    for backend in backends:
        for result in run_together(entries, backend, limit_s=limit_s, catalogue=catalogue):
            results.append(result)
            print(f"{len(results)}/{len(entries) * len(backends)} {_line(result)}", flush=True)
    return results


def _line(result: Result) -> str:
    error = "" if result.error is None else f", error {result.error:.1e}"
    reason = f" ({result.reason})" if result.reason else ""
    return f"{result.name} on {result.backend}: {result.status}{error}{reason}"


def as_json(results: Sequence[Result], command: str) -> dict[str, Any]:
    """Return everything that was found, with what made it."""
    from enginery.machine import describe_machine  # noqa: PLC0415 - a listing needs none of it
    from enginery.optional import version  # noqa: PLC0415
    from enginery.plain import to_plain  # noqa: PLC0415

    libraries = ("enginery", "torch", "transformers", "tensorflow", "keras", "tf2onnx", "onnx", "onnxscript")
    backends = list(dict.fromkeys(result.backend for result in results))
    return {
        "command": command,
        "commit": _commit(),
        "machine": to_plain(describe_machine()),
        "versions": {name: found for name in (*libraries, *backends) if (found := version(name))},
        "passed": {
            backend: round(share_passed(result for result in results if result.backend == backend), 4)
            for backend in backends
        },
        "results": [asdict(result) for result in results],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gallery; leaves with 1 where an entry failed unexpectedly."""
    asked = _parser().parse_args(arguments)
    entries = load(asked.catalogue)
    backends = asked.backend or ["onnxruntime"]
    if asked.work:
        name, folder = asked.work
        work(next(entry for entry in entries if entry.name == name), Path(folder), backends[0])
        return 0
    if asked.work_together:
        work_together(entries, Path(asked.work_together), backends[0])
        return 0
    chosen = choose(entries, asked.only)
    if asked.list:
        print("\n".join(f"{entry.name:28} {entry.family:20} {entry.source}" for entry in chosen))
        return 0
    take = run_in_one if asked.together else run
    results = take(chosen, backends, limit_s=asked.limit, catalogue=asked.catalogue)
    print("\n" + gallery_text(results, _style()))
    if asked.output:
        command = shlex.join(
            ["python", "-m", "benchmarks.gallery", *(sys.argv[1:] if arguments is None else arguments)]
        )
        asked.output.write_text(json.dumps(as_json(results, command), indent=1) + "\n", encoding="utf-8")
    return int(any(result.status == "failed" for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a name, family or source; may be repeated")
    parser.add_argument("--backend", action="append", help="may be repeated; default: onnxruntime")
    parser.add_argument("--list", action="store_true", help="list the entries and leave")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for one entry (default: %(default)g)")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--together", action="store_true", help="all in one process: faster, and told at the end")
    parser.add_argument("--catalogue", default=CATALOGUE, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--work-together", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


def _style() -> Any:
    from enginery.reports.layout import Style  # noqa: PLC0415 - a listing needs none of it

    return Style(width=max(120, shutil.get_terminal_size((200, 24)).columns))


def _commit() -> str:
    """Return the commit that was run, with ``+changes`` where files of the package differ from it."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--", "src"], capture_output=True, text=True, check=False
    ).stdout
    return commit + ("+changes" if changes.strip() else "")


if __name__ == "__main__":
    sys.exit(main())
