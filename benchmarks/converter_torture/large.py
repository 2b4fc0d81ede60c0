"""Cast a model of 2.9 GB to fp16, and measure time and memory, beside two library converters.

    python -m benchmarks.converter_torture.large --folder /tmp/large --output benchmarks/results/large_cast.json

The model is a chain of matrix products with random weights in a file beside the graph (`benchmarks.large_model`). Each
converter reads it from disk, converts it and writes the result, weights beside it again, in a process of its own; that
process and all its children are sampled about fifty times a second, as `benchmarks.large_model` tells. Needs Linux, and
about twice the model's size on disk.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx

from benchmarks.large_model import INTERVAL_S, PEAKS, WIDTH, measure, write_model

LAYERS = 11
_CALL = (
    "import onnx; from {module} import convert_float_to_float16 as convert; "
    "onnx.save(convert(onnx.load({source!r}), keep_io_types=True{more}), {target!r}, save_as_external_data=True)"
)


def commands(source: Path, target: Path) -> dict[str, list[str]]:
    """Return what is measured, by the converter's name; the libraries without a checkup that cannot pass 2 GB."""
    ours = [sys.executable, "-m", "enginery", "export", str(source), "--precision", "fp16", "-o", str(target)]
    places = {"source": str(source), "target": str(target), "more": ", disable_shape_infer=True"}
    modules = {
        "onnxconverter-common": "onnxconverter_common.float16",
        "onnxruntime.transformers": "onnxruntime.transformers.float16",
    }
    theirs = {name: [sys.executable, "-c", _CALL.format(module=one, **places)] for name, one in modules.items()}
    return {"enginery": ours, **theirs}


def check(path: Path) -> None:
    """See that what was written is valid, with all its types inferred, and holds its weights in float16."""
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    wide = [one.name for one in graph.initializer if one.data_type != onnx.TensorProto.FLOAT16]
    if wide:
        raise SystemExit(f"{path.name} still holds weights that are not float16: {', '.join(wide[:3])}")


def _cpu_seconds() -> float:
    """Return the processor's time that all processes took which this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, layers: int, width: int, only: Sequence[str]) -> dict[str, object]:
    """Measure every converter; what one writes is gone before the next begins."""
    source, made = folder / "source", folder / "made"
    source.mkdir(parents=True)
    weights = write_model(source / "model.onnx", layers, width)
    found: dict[str, dict[str, float | str]] = {}
    for name, command in commands(source / "model.onnx", made / "half.onnx").items():
        if only and name not in only:
            continue
        made.mkdir()
        before = _cpu_seconds()
        measured = {**measure(command), "cpu_seconds": round(_cpu_seconds() - before, 1)}
        found[name] = {**measured, **{f"{key[:-6]}_ratio": round(measured[key] / weights, 2) for key in PEAKS}}
        try:
            check(made / "half.onnx")
            found[name]["result"] = "valid"
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            found[name]["result"] = f"not valid: {' '.join(str(error).split())[:200]}"
        shutil.rmtree(made)
    return {"weights_bytes": weights, "layers": layers, "width": width, "interval_s": INTERVAL_S, "converters": found}


def main() -> None:
    """Measure, print, and write the result with the commit and the command line it belongs to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for the model and what is written")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--only", action="append", default=[], help="a converter; may be repeated")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    command = " ".join(["python -m benchmarks.converter_torture.large", *sys.argv[1:]])
    try:
        found = {"commit": commit, "command": command, **run(given.folder, given.layers, given.width, given.only)}
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    text = json.dumps(found, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
