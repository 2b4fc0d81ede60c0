"""Take a model of 2.5 GiB through export, simplify and build, and measure what the memory holds meanwhile.

    python benchmarks/large_model.py --folder /tmp/large --output benchmarks/results/large_model.json

The model is a chain of matrix products with random weights in a file beside the graph. Each command runs in a process
of its own; that process and its workers are sampled about fifty times a second. For each, three sizes are told:

- resident: what each process has in memory, files it maps included (VmRSS); of one process, and summed over all;
- proportional: the same, with a page that several processes map divided among them (Pss), so that its sum counts no
  page twice;
- anonymous: what no file stands behind, which only the process can give back.

Needs Linux, and about five times the model's size on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil

INTERVAL_S = 0.02
WIDTH = 8192
LAYERS = 10


def write_model(path: Path, layers: int, width: int) -> int:
    """Write ``y = relu(... relu(x w0) ...)``, one weight after another; return the bytes of all weights."""
    data = path.with_name(f"{path.name}.data")
    generator = np.random.default_rng(0)
    scale = np.float32((2 / width) ** 0.5)
    nodes, weights = [], []
    with data.open("wb") as file:
        for layer in range(layers):
            tensor = onnx.TensorProto(name=f"w{layer}", data_type=onnx.TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = onnx.TensorProto.EXTERNAL
            places = {"location": data.name, "offset": file.tell(), "length": 4 * width * width}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            for _ in range(width):
                file.write((generator.standard_normal(width, np.float32) * scale).tobytes())
            source = f"x{layer}" if layer else "x"
            nodes.append(onnx.helper.make_node("MatMul", [source, f"w{layer}"], [f"m{layer}"], name=f"product{layer}"))
            target = f"x{layer + 1}" if layer < layers - 1 else "y"
            nodes.append(onnx.helper.make_node("Relu", [f"m{layer}"], [f"i{layer}"]))
            nodes.append(onnx.helper.make_node("Identity", [f"i{layer}"], [target]))  # something to simplify
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["batch", width]) for name in "xy")
    graph = onnx.helper.make_graph(nodes, "chain", [x], [y], initializer=weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return data.stat().st_size


def memory(process: psutil.Process) -> dict[str, int]:
    """Read what one process holds: resident, proportional and anonymous bytes."""
    fields = {}
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, size, *_ = line.split()
        fields[key.rstrip(":")] = int(size) * 1024
    return {"resident": fields["Rss"], "proportional": fields["Pss"], "anonymous": fields["Anonymous"]}


def tree(root: psutil.Process) -> Iterator[dict[str, int]]:
    """Read what a process and all its children hold; one that has just ended is left out."""
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error, OSError):
            yield memory(process)


def measure(command: list[str]) -> dict[str, float]:
    """Run a command; return its seconds and the peaks over its life."""
    begin = time.perf_counter()
    running = subprocess.Popen(command)
    root, peaks, samples = psutil.Process(running.pid), dict.fromkeys(PEAKS, 0), 0
    while running.poll() is None:
        next_s = time.perf_counter() + INTERVAL_S
        with contextlib.suppress(psutil.NoSuchProcess):
            found = list(tree(root))
            now = {f"{kind}_sum_bytes": sum(one[kind] for one in found) for kind in KINDS}
            now["resident_process_bytes"] = max((one["resident"] for one in found), default=0)
            peaks = {key: max(peaks[key], now[key]) for key in peaks}
            samples += 1
        time.sleep(max(next_s - time.perf_counter(), 0))
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {running.returncode}")
    seconds = time.perf_counter() - begin
    return {**peaks, "seconds": round(seconds, 1), "samples_per_s": round(samples / seconds, 1)}


KINDS = ("resident", "proportional", "anonymous")
PEAKS = ("resident_process_bytes", *(f"{kind}_sum_bytes" for kind in KINDS))


def commands(model: Path, folder: Path) -> dict[str, list[str]]:
    """Return what is measured, by a short name."""
    enginery = [sys.executable, "-m", "enginery"]
    return {
        "export": [*enginery, "export", str(model), "-o", str(folder / "exported.onnx")],
        "export --simplify": [*enginery, "export", str(model), "--simplify", "-o", str(folder / "simple.onnx")],
        **{
            f"build {backend}": [*enginery, "build", str(model), "--backend", backend, "-o", str(folder / "engine")]
            for backend in ("onnxruntime", "openvino")
        },
    }


def run(folder: Path, layers: int, width: int) -> dict[str, object]:
    """Measure every command; what one writes is gone before the next begins."""
    source, made = folder / "source", folder / "made"
    source.mkdir(parents=True)
    weights = write_model(source / "model.onnx", layers, width)
    found = {}
    for name, command in commands(source / "model.onnx", made).items():
        made.mkdir()
        found[name] = measure(command)
        found[name] |= {f"{key[:-6]}_ratio": round(found[name][key] / weights, 2) for key in PEAKS}
        shutil.rmtree(made)
    shutil.rmtree(source)
    return {"weights_bytes": weights, "layers": layers, "width": width, "interval_s": INTERVAL_S, "commands": found}


def main() -> None:
    """Measure, print, and write the result with the commit and the command line it belongs to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for the model and what is built")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    given = parser.parse_args()
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    try:
        found = {
            "commit": commit,
            "command": " ".join(["python", *sys.argv]),
            **run(given.folder, given.layers, given.width),
        }
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    text = json.dumps(found, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
