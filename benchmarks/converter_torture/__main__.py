"""Cast many graphs to fp16 and bf16, by Enginery and by two library converters, and show what each passes.

    python -m benchmarks.converter_torture --exports FOLDER --output benchmarks/results/converter_torture.json
    python -m benchmarks.converter_torture --set random --random 1000

The sets are ONNX's tests of single operators, the light models inside onnx, the gallery's models and random graphs.
Each result must convert, pass ONNX's checker with strict type inference, load on ONNX Runtime, run, and be close to
float32. The libraries are ``onnxconverter-common`` and ``onnxruntime.transformers``, which both must be installed; they
know fp16 alone. The gallery's models are exported into the folder of ``--exports`` the first time, which takes a while.

Leaves with 1 where Enginery's result is not valid, does not load or run, is off for no known reason, or where a library
passes something that Enginery does not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.converter_torture.cases import SETS, Options
from benchmarks.converter_torture.judge import STAGES, TOLERANCE
from benchmarks.converter_torture.table import markdown, passes, summary
from benchmarks.converter_torture.work import ROOT, run_set, work

PRECISIONS = ("fp16", "bf16")
_LIBRARIES = ("enginery", "onnx", "onnx-ir", "onnxruntime", "onnxconverter-common")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sets that were asked for."""
    asked = _parser().parse_args(arguments)
    options = Options(asked.exports or Path("exports"), asked.random)
    if asked.export_gallery:
        from benchmarks.converter_torture.exports import export_missing  # noqa: PLC0415 - it imports every framework

        export_missing(asked.export_gallery)
        return 0
    if asked.work:
        name, precision, begin, path = asked.work
        work(name, precision, int(begin), Path(path), options)
        return 0
    names = asked.set or [name for name in SETS if name != "gallery" or asked.exports]
    if "gallery" in names:
        from benchmarks.converter_torture.exports import export_all  # noqa: PLC0415

        export_all(options.exports)
    results = _run(names, asked.precision or PRECISIONS, options)
    print(markdown(results))
    if asked.output:
        given = " ".join(map(shlex.quote, sys.argv[1:] if arguments is None else arguments))
        _add(asked.output, results, f"python -m benchmarks.converter_torture {given}")
    return int(any(_failed(found) for precisions in results.values() for found in precisions.values()))


def _run(names: Sequence[str], precisions: Sequence[str], options: Options) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        for precision in precisions:
            begin = time.monotonic()
            found = results[name][precision] = summary(list(run_set(name, precision, options)))
            print(f"{name} in {precision}: {found['graphs']} graphs, {time.monotonic() - begin:.0f} s", flush=True)
            for row in found["not_all"]:
                why = [row[key] for key in ("told", "rounding", "planned", "not_planned", "died") if row.get(key)]
                print(f"  {row['name']}: {row['reason']} {why or ''}", flush=True)
            for lost in found["only_others_pass"]:
                print(f"  only {lost['converter']} passes {lost['stage']!r} with {lost['name']}", flush=True)
    return results


def _add(path: Path, results: dict[str, dict[str, Any]], command: str) -> None:
    """Write results, each with what it belongs to, beside those of other sets and precisions that are there."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"sets": {}}
    for name, precisions in results.items():
        for precision, one in precisions.items():
            known = found["sets"].setdefault(name, {})
            known[precision] = {"command": command, **_circumstances(), **one}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _failed(found: dict[str, Any]) -> bool:
    wrong = [row for row in found["not_all"] if not all(passes(row, stage) for stage in (*STAGES[:-1], "explained"))]
    return bool(wrong or found["only_others_pass"])


def _circumstances() -> dict[str, Any]:
    """Return what the results belong to: commit, libraries and tolerances."""
    from enginery.optional import version  # noqa: PLC0415 - a worker needs none of it

    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--", "src/enginery/graph"], capture_output=True, text=True, check=False
    ).stdout
    return {
        "commit": commit + ("+changes" if changes.strip() else ""),
        "versions": {name: version(name) for name in _LIBRARIES},
        "tolerance": TOLERANCE,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.converter_torture", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--set", action="append", choices=[*SETS], help="may be repeated; default: all")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="may be repeated; default: both")
    parser.add_argument("--exports", type=Path, help="a folder for the gallery's graphs; without it, none of them")
    parser.add_argument("--random", type=int, default=300, help="how many random graphs (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a JSON file for the results; other sets in it stay")
    parser.add_argument("--export-gallery", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
