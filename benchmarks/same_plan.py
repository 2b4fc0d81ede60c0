"""One plan file on three libraries: which nodes compute low, read back from each, and where they differ.

    python benchmarks/same_plan.py --output benchmarks/results/same_plan.json

The graphs are a CNN, a transformer encoder and a graph with an If. A plan is written as the file that an engine holds,
and read again by every build:

- ONNX Runtime: from the graph that it optimised. On a CPU without fp16 kernels it computes in float32 what is fp16 in
  the graph; the tensors that it cast away tell which operators these are. Once without optimisation, where every
  operator is still to be seen, and once with it (but for its blocked layout, which loses names), where the fusions are
  listed. INT8 only shows with it; the form of INT8 that it is quick with also quantises what lies between two such
  nodes, which is told apart.
- TensorRT-RTX: from the layers of the typed network, as its own API tells them; needs no GPU.
- TensorRT 8.6: from the precisions that are set on the layers of the float32 network, which TensorRT-RTX's parser makes
  of the graph: a layer that is not pinned to float32 may compute low. The builder itself needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
from models.plan_cases import Case, cases

from enginery import storage
from enginery.backends import engine
from enginery.backends.precision import computes, own_name, read_ran
from enginery.backends.tensorrt.layer_types import is_compute
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.node_names import NodeNames
from enginery.backends.tensorrt.parsing import new_builder, parse_file
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api
from enginery.backends.tensorrt.weak_typing import constrain
from enginery.graph.base import all_nodes, load_model, make_plan, read_plan, save_model
from enginery.spec import BuildSpec, PrecisionPlan

BITS = {"fp32": 32, "fp16": 16, "int8": 8}
_FLAGS = ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
UNMARKED = "its own"


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Build a case everywhere from one file, and hold the sets of low nodes against each other."""
    signed = case.graphs.get("symmetric", case.graphs.get(""))
    whole = case.graphs.get("whole", signed)
    written = engine.build(
        signed, BuildSpec(precision=case.plan.narrowest, plan=case.plan), folder / "plan", backend="null"
    )
    plan = read_plan(written.folder, signed)
    plain, optimised = (on_onnxruntime(whole, plan, folder, level) for level in ("none", "extended"))
    found = {
        "onnxruntime": plain[0],
        "tensorrt_rtx": on_rtx(signed, plan, folder),
        "tensorrt 8.6": on_tensorrt_8(signed, plan, folder),
    }
    if "int8" in plan.words:  # without its optimiser ONNX Runtime has no quantised operators
        found["onnxruntime"] = optimised[0]
    lines = json.loads((written.folder / storage.PLAN).read_text(encoding="utf-8"))["nodes"]
    computing = {node.name for node in all_nodes(signed) if computes(node.op_type)}
    planned = {name: line["precision"] for name, line in lines.items() if name in computing}
    quantised = "int8" in plan.words
    fused = {node: nodes for nodes in optimised[1].values() for node in nodes} if quantised else {}
    by_form = (set(make_plan(whole, "int8").nodes) if quantised else set()) - set(plan.nodes)
    return {
        "planned": _counted(planned),
        "read_back": {
            name: _counted({node: words.get(node, "none") for node in planned}) for name, words in found.items()
        },
        "differing": {name: _differing(planned, words, fused, by_form) for name, words in found.items()},
        "by_fusion": {node: fused[node] for node in _differing(planned, found["onnxruntime"], {}, by_form)},
        "by_form": sorted(by_form),
        "fusions_of_onnxruntime": optimised[1],
    }


def _counted(words: Mapping[str, str]) -> dict[str, int]:
    return dict(sorted(Counter(words.values()).items()))


def _differing(
    planned: Mapping[str, str], words: Mapping[str, str], fused: Mapping[str, list[str]], by_form: Collection[str]
) -> dict[str, str]:
    """Return the nodes that compute in something else than planned, and what that is.

    Args:
        planned: by node.
        words: as read back, by node.
        fused: what each node was fused with, which may tell its precision instead.
        by_form: nodes that are quantised in the graph besides.
    """
    found = {}
    for node, word in planned.items():
        built = words.get(node, "none")
        others = {planned.get(other) for other in fused.get(node, ())}
        if built != word and built not in others and not (node in by_form and built == "int8"):
            found[node] = f"{word}, built {built}"
    return found


def on_onnxruntime(
    graph: ir.Model, plan: PrecisionPlan, folder: Path, level: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return what each node computes in as ONNX Runtime's own graph tells, and the nodes that it made one of."""
    options = {"allow_precision": "fp32", "optimization": level}
    spec = BuildSpec(precision=plan.narrowest, plan=plan, options=options)
    built = engine.build(graph, spec, folder / f"ort_{level}", backend="onnxruntime")
    made = _optimised(built.folder / "model.onnx", folder / f"optimised_{level}.onnx", level)
    typed = load_model(built.folder / "model.onnx")
    makers = {value.name or "": node for node in all_nodes(typed) for value in node.outputs}
    known = {node.name for node in all_nodes(graph)}
    ends = {own_name(value.name or "") for node in all_nodes(made) for value in node.outputs}
    found: dict[str, str] = {}
    fused: dict[str, list[str]] = {}
    for one in read_ran(made):
        tensors = [name for name in one.outputs if name in makers] or _further(made, one.outputs, makers)
        nodes = [name for name in _behind(tensors, makers, ends) if name in known]
        found |= dict.fromkeys(nodes, one.asked)
        if len(nodes) > 1:
            fused[f"{one.operator} {nodes[-1]}"] = nodes
    return found, fused


def _optimised(path: Path, target: Path, level: str) -> ir.Model:
    """Return the graph that ONNX Runtime makes of a file."""
    asked = onnxruntime.SessionOptions()
    asked.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, {"none": "ORT_DISABLE_ALL", "extended": "ORT_ENABLE_EXTENDED"}[level]
    )
    asked.log_severity_level = 3
    asked.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(path), asked, providers=["CPUExecutionProvider"])
    return ir.load(target)


def _further(made: ir.Model, outputs: Iterable[str], makers: Mapping[str, ir.Node]) -> list[str]:
    """Return the first tensors of the original graph behind some that the optimiser made, past what only moves data."""
    values = {own_name(value.name or ""): value for node in all_nodes(made) for value in node.outputs}
    waiting = [values[name] for name in outputs if name in values]
    while waiting:
        value = waiting.pop()
        readers = [use.node for use in value.uses() if not computes(use.node.op_type)]
        named = [own_name(other.name or "") for node in readers for other in node.outputs]
        if found := [name for name in named if name in makers]:
            return found
        waiting += [other for node in readers for other in node.outputs]
    return []


def _behind(outputs: Iterable[str], makers: Mapping[str, ir.Node], ends: set[str]) -> list[str]:
    """Return the computing nodes between some tensors and those that other operators make, first to last."""
    found: dict[str, None] = {}
    waiting = [makers[name] for name in outputs]
    while waiting:
        node = waiting.pop()
        if computes(node.op_type) and node.name:
            found[node.name] = None
        values = [value for value in node.inputs if value is not None and value.name not in ends]
        waiting += [producer for value in values if (producer := value.producer()) is not None]
    return list(reversed(found))


def on_rtx(graph: ir.Model, plan: PrecisionPlan, folder: Path) -> dict[str, str]:
    """Return what each node computes in as the layers of TensorRT-RTX's typed network tell."""
    spec = BuildSpec(precision=plan.narrowest, plan=plan, options={"compute_capabilities": "8.9"})
    built = engine.build(graph, spec, folder / "rtx", backend="tensorrt_rtx")
    found: dict[str, str] = {}
    for layer in storage.read_layers(built.folder):
        for node in layer.nodes:
            if layer.precision and BITS[layer.precision] < BITS.get(found.get(node, ""), 64):
                found[node] = layer.precision
    return found


class Layer:
    """A layer of a real network, with the members that 8.6 has for precision: they note what is set."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.precision: Any = UNMARKED
        self.types: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def set_output_type(self, at: int, dtype: Any) -> None:
        """Note the type of an output."""
        self.types[at] = dtype


class Network:
    """A real network whose layers are `Layer`."""

    def __init__(self, network: Any) -> None:
        self.layers = [Layer(network.get_layer(at)) for at in range(network.num_layers)]
        self.num_layers = len(self.layers)

    def get_layer(self, at: int) -> Layer:
        """Return one layer."""
        return self.layers[at]


class Config:
    """A configuration that notes flags."""

    def __init__(self) -> None:
        self.flags: set[str] = set()

    def set_flag(self, flag: str) -> None:
        """Note a flag."""
        self.flags.add(flag)


def on_tensorrt_8(graph: ir.Model, plan: PrecisionPlan, folder: Path) -> dict[str, str]:
    """Return what each node may compute in by the flags and pins that TensorRT 8.6 is given."""
    rtx = load_api("tensorrt_rtx")
    log = BuildLog(rtx)
    builder = new_builder(rtx, log)
    network = builder.create_network(rtx.network_flags())
    save_model(graph, folder / "float.onnx")
    kept = parse_file(rtx, network, folder / "float.onnx", graph, log)
    flags = types.SimpleNamespace(**{name: name for name in _FLAGS})
    members = types.SimpleNamespace(metadata="", precision="", set_output_type=Layer.set_output_type)
    module = types.SimpleNamespace(
        BuilderFlag=flags, DataType=rtx.module.DataType, ILayer=members, IBuilderConfig=Config
    )
    config, layers = Config(), Network(network)
    constrain(Api(LIBRARIES["tensorrt"], module, "8.6.1"), layers, config, plan, graph)
    names, half = NodeNames(graph), rtx.module.DataType.HALF
    found: dict[str, str] = {}
    for layer, nodes in zip(layers.layers, names.of_network(rtx, layers), strict=True):
        free = "fp16" if "FP16" in config.flags else "fp32"
        word = free if layer.precision == UNMARKED else "fp16" if layer.precision == half else "fp32"
        for node in nodes:
            if _computes(layer, rtx) and (node not in found or word == "fp16"):
                found[node] = plan.of(node) if plan.of(node) == "int8" else word
    del kept
    return found


def _computes(layer: Any, api: Api) -> bool:
    """Say whether a layer computes on floating-point values."""
    kinds = (api.module.DataType.FLOAT, api.module.DataType.HALF)
    made = [layer.get_output(at) for at in range(layer.num_outputs)]
    floating = any(tensor.dtype in kinds and not tensor.is_shape_tensor for tensor in made)
    return floating and is_compute(str(layer.type).rpartition(".")[2])


def main() -> int:
    """Compare every case, print what differs, and write the result with the commit and the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            found[case.name] = compare(case, Path(folder))
        one = found[case.name]
        print(f"{case.name}: planned {one['planned']}")
        for name, counts in one["read_back"].items():
            print(f"  {name}: {counts}; differing {one['differing'][name]}")
        print(f"  of ONNX Runtime by fusion {one['by_fusion']}, by the form of INT8 {one['by_form']}")
    if asked.output is not None:
        git = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        said = {"commit": commit, "command": " ".join(["python", *sys.argv]), "cases": found}
        asked.output.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return int(any(differing for one in found.values() for differing in one["differing"].values()))


if __name__ == "__main__":
    sys.exit(main())
