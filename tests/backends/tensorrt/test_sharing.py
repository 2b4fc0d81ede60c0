"""Graphs that TensorRT-RTX cannot run whole, built ahead of time in parts; the parts are not run here."""

from __future__ import annotations

import json
from types import SimpleNamespace

import onnx_ir as ir
import pytest

from enginery import backends, optional
from enginery.backends import engine
from enginery.backends.partitioned import open_partitioned
from enginery.backends.tensorrt.sharing import takes
from enginery.backends.tensorrt.versions import load_api
from enginery.errors import BackendUnavailableError, BuildError
from enginery.machine import describe_machine
from enginery.spec import BuildSpec, parse_shapes

pytestmark = pytest.mark.skipif(not optional.installed("tensorrt_rtx"), reason="TensorRT-RTX is not installed")

HEAD = '<ir_version: 8, opset_import: ["": 17]> '
WEIGHTS = "<float[3, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}>"


def build(text: str, tmp_path, *shapes: str):
    """Build a graph with TensorRT-RTX, in parts where it must be."""
    spec = BuildSpec(shapes=parse_shapes(shapes), options={"partition": "auto"})
    return engine.build(ir.from_onnx_text(HEAD + text), spec, tmp_path / "e.engine", backend="tensorrt_rtx")


def test_operator_without_importer_goes_to_onnx_runtime(tmp_path):
    """The parts around it become plans, with the profiles of the whole; the manifest says what runs where."""
    text = f"""g (float[n, 3] x) => (float[n, 3] y) {WEIGHTS} {{
        a = MatMul(x, w) [relu] b = Relu(a) [unique] u = Unique(b) [size] s = Size(u)
        f = Cast <to = 1> (s) c = Add(b, f) y = MatMul(c, w) }}"""
    built = build(text, tmp_path, "x=1..4..8x3")
    parts = built.manifest.build.parts
    assert [part.label for part in parts] == ["TensorRT-RTX", "ONNX Runtime", "TensorRT-RTX"]
    assert "unique" in parts[1].nodes
    plans = sorted(path.relative_to(built.folder).as_posix() for path in built.folder.rglob("model.plan"))
    assert plans == ["part_0_tensorrt_rtx/model.plan", "part_2_tensorrt_rtx/model.plan"]
    assert built.manifest.options["partition"] == "auto"
    assert built.manifest.target.library == "tensorrt_rtx"
    assert [str(info.profile) for info in parts[2].inputs] == ["n:1..4..8x3", "scalar"]
    kept = json.loads((built.folder / "parts.json").read_text())["parts"]
    assert [part["nodes"] for part in kept] == [list(part.nodes) for part in parts]


def test_narrower_profiles_reach_the_parts(tmp_path):
    """Each part has them for what it reads; what opens a part sees its own profiles, and its own files."""
    text = f"""g (float[n, 3] x) => (float[k, 3] y) {WEIGHTS} {{
        a = MatMul(x, w) [twice] b = Concat <axis = 0> (a, a) [unique] u = Unique(b) [size] s = Size(u)
        f = Cast <to = 1> (s) c = Add(b, f) y = MatMul(c, w) }}"""
    spec = BuildSpec(parse_shapes(["x=1..4..8x3"]), "fp16", {"partition": "auto"}, (parse_shapes(["x=2x3"]),))
    built = engine.build(ir.from_onnx_text(HEAD + text), spec, tmp_path / "e.engine", backend="tensorrt_rtx")
    parts = built.manifest.build.parts
    assert [str(profile["x"]) for profile in built.manifest.profiles] == ["n:2x3"]
    assert [part.precision_built.get("fp16", 0) > 0 for part in parts] == [True, False, True]
    last = parts[2]
    assert (str(last.inputs[0].profile), last.profiles[0]["b"].at("max")) == ("b_batch:2..8..16x3", (4, 3))
    seen = []

    def look(name):
        def open_part(_folder, manifest, _options):
            seen.append((name, manifest))
            return SimpleNamespace(infer=None, close=lambda: None)

        return SimpleNamespace(open=open_part)

    open_partitioned(built.folder, built.manifest, {}, look).close()
    assert [name for name, _ in seen] == ["tensorrt_rtx", "onnxruntime", "tensorrt_rtx"]
    assert sorted(seen[2][1].files) == ["layers.json", "model.plan"]
    assert [shape.at("max") for shape in seen[2][1].profiles[0].values()] == [(4, 3), ()]
    assert seen[2][1].target.library == "tensorrt_rtx"


def test_narrow_profiles_reach_the_parts(tmp_path):
    """The ends are those of the whole graph: each part is fixed at the sizes that its tensors have there."""
    text = f"""g (float[n, 3] x) => (float[k, 3] y) {WEIGHTS} {{
        a = MatMul(x, w) [twice] b = Concat <axis = 0> (a, a) [unique] u = Unique(b) [size] s = Size(u)
        f = Cast <to = 1> (s) c = Add(b, f) y = MatMul(c, w) }}"""
    spec = BuildSpec(parse_shapes(["x=1..4..8x3"]), options={"partition": "auto", "narrow": "ends"})
    built = engine.build(ir.from_onnx_text(HEAD + text), spec, tmp_path / "e.engine", backend="tensorrt_rtx")
    assert [str(one["x"]) for one in built.manifest.profiles] == ["n:1x3", "n:4x3", "n:8x3"]
    assert [one["b"].at("max") for one in built.manifest.build.parts[2].profiles] == [(2, 3), (8, 3), (16, 3)]
    assert built.manifest.options["narrow"] == "ends"


def test_node_that_is_refused_late_is_moved(tmp_path, caplog):
    """Det is not among the operators that the parser lists; MaxPool is, and only reading it with indices fails."""
    text = f"""g (float[1, 1, 3, 3] x) => (float[1, 1, 2, 2] y, int64[1, 1, 2, 2] i) {WEIGHTS} {{
        [m] a = MatMul(x, w) [det] d = Det(a) [mul] b = Mul(a, d) [n] c = MatMul(b, w)
        [pool] y, i = MaxPool <kernel_shape = [2, 2]> (c) }}"""
    built = build(text, tmp_path)
    parts = built.manifest.build.parts
    assert [part.nodes for part in parts if part.main] == [("m",), ("mul", "n")]
    assert [part.nodes for part in parts if not part.main] == [("det",), ("pool",)]
    assert [record.args[1] for record in caplog.records if "refused the node" in record.msg] == ["pool"]
    said = next(note for note in built.manifest.build.notes if note.startswith("pool runs on ONNX Runtime"))
    assert "TensorRT-RTX refused it when building: node 'pool' (MaxPool)" in said


def test_graph_that_needs_no_cut_is_built_as_any_other(tmp_path):
    """One plan, at the top of the folder."""
    built = build(f"g (float[2, 3] x) => (float[2, 3] y) {WEIGHTS} {{ a = MatMul(x, w) y = Relu(a) }}", tmp_path)
    assert (built.folder / "model.plan").is_file()
    assert not (built.folder / "parts.json").exists()
    assert built.manifest.build.parts == ()
    assert built.manifest.options["partition"] == "auto"


def test_nothing_for_tensorrt_is_an_error(tmp_path):
    """It says to build with ONNX Runtime instead."""
    with pytest.raises(BuildError, match=r"TensorRT-RTX would run nothing of this graph.*--backend onnxruntime"):
        build("g (float[n] x) => (int64[k, m] y) { a = Relu(x) y = NonZero(a) }", tmp_path, "x=1..4")


@pytest.mark.parametrize(("dtype", "taken"), [("FLOAT", True), ("BFLOAT16", True), ("INT16", False), ("STRING", False)])
def test_types_that_tensorrt_has_not(dtype, taken):
    """A node on tensors of such a type goes to the rest."""
    node = ir.node("Identity", [ir.val("x", ir.DataType[dtype], [2])])
    assert takes(load_api("tensorrt_rtx"), node, set()) is taken


def test_parts_open_with_the_backend_that_built_them(tmp_path):
    """Without a GPU the engine says why it cannot run, in parts as whole."""
    if backends.get("tensorrt_rtx").probe().usable:
        pytest.skip("a GPU is here")
    built = build(
        f"g (float[2, 3] x) => (float[2, 3] y, int64[2, k] z) {WEIGHTS} {{ y = MatMul(x, w) z = NonZero(y) }}", tmp_path
    )
    with pytest.raises(BackendUnavailableError, match="cannot be opened"):
        built.open()


def test_rest_runs_on_the_cpu_where_its_gpu_libraries_are_missing(tmp_path, monkeypatch):
    """An ONNX Runtime that was made with CUDA, and cannot load it: that is said, and the CPU takes the parts."""
    monkeypatch.setattr("enginery.backends.onnxruntime.has_provider", lambda _name: True)
    if describe_machine().gpus:
        pytest.skip("a GPU is here")
    text = f"g (float[2, 3] x) => (float[2, 3] y, float[k] z) {WEIGHTS} {{ y = MatMul(x, w) z = Unique(y) }}"
    built = build(text, tmp_path)
    assert built.manifest.build.parts[1].options["provider"] == "CPUExecutionProvider"
    assert "ONNX Runtime runs its parts on the CPU: provider CUDAExecutionProvider" in built.manifest.build.notes[-1]
