"""What is OpenVINO's own: precision by name and read back, bounds, ports it drops, no telemetry, diagnoses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery.backends import engine, openvino, openvino_layers
from enginery.errors import BackendUnavailableError, BuildError, PrecisionError, ProviderError, UnknownNameError
from enginery.graph.files import load
from enginery.machine import describe_machine
from enginery.records import GraphRecord
from enginery.spec import BuildSpec, parse_shapes

pytest.importorskip("openvino")

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
CONV = """conv (float[batch, 16, 8, 8] x) => (float[batch, 16, 8, 8] y)
          { c = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Relu(c) }"""
HAS_BF16 = bool({"avx512_bf16", "amx_bf16"} & set(describe_machine().isa))


def model(text):
    """Return a model given as ONNX text, with random weights for every `w` that nothing makes."""
    found = ir.from_onnx_text(text if text.startswith("<") else f"{HEAD} {text}")
    for value in {value for node in found.graph for value in node.inputs if value is not None}:
        if value.name == "w" and value.producer() is None and value not in found.graph.inputs:
            weights = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
            value.const_value = ir.tensor(weights, name="w")
            value.type = ir.TensorType(ir.DataType.FLOAT)
            found.graph.register_initializer(value)
    return found


def build(graph, folder, *shapes, **spec):
    """Build a graph on OpenVINO."""
    asked = BuildSpec(shapes=parse_shapes(shapes), **spec)
    return engine.build(graph, asked, folder / "model.engine", backend="openvino")


def test_fp32_is_fp32(tmp_path):
    """Left to itself OpenVINO computes in bf16 where it can; an fp32 engine agrees with ONNX Runtime to rounding."""
    x = np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)
    built = build(model(CONV), tmp_path)
    assert set(built.manifest.precision_built) == {"fp32"}
    other = engine.build(model(CONV), BuildSpec(), tmp_path / "other.engine", backend="onnxruntime")
    with built.open() as session, other.open() as reference:
        found, expected = session.run({"x": x})["y"], reference.run({"x": x})["y"]
        compiled = session._runner._compiled
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
        assert compiled.get_property("EXECUTION_MODE_HINT").name == "ACCURACY"
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-6


@pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16 instructions")
def test_bf16_is_bf16(tmp_path):
    """A bf16 engine has bf16 layers, and its error shows it."""
    x = np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)
    built = build(model(CONV), tmp_path, precision="bf16")
    assert built.manifest.precision_built["bf16"] >= 1
    other = engine.build(model(CONV), BuildSpec(), tmp_path / "other.engine", backend="onnxruntime")
    with built.open() as session, other.open() as reference:
        found, expected = session.run({"x": x})["y"], reference.run({"x": x})["y"]
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 2e-2


def test_precisions_follow_the_processor():
    """bf16 and fp16 are offered where the processor has instructions for them."""
    machine = describe_machine()
    assert openvino.capabilities(replace(machine, isa=("avx2",))).precisions == {"fp32", "int8"}
    assert openvino.capabilities(replace(machine, isa=("avx512_bf16",))).precisions == {"fp32", "int8", "bf16"}
    both = openvino.capabilities(replace(machine, isa=("amx_bf16", "amx_fp16")))
    assert both.precisions == {"fp32", "int8", "bf16", "fp16"}


def test_a_layer_below_fp32_is_an_error():
    """Layers that were compiled lower than asked fail the build, unless the graph itself is of that type."""
    plain, half = model(CONV), model("m (float[n] x) => (float[n] y) { h = Cast <to = 10> (x)  y = Cast <to = 1> (h) }")
    with pytest.raises(PrecisionError, match="fp32 was asked for, and OpenVINO compiled layers lower: 3 in bf16"):
        openvino_layers.precision_notes("fp32", {"bf16": 3, "fp32": 1}, openvino_layers.element_types(plain))
    assert openvino_layers.precision_notes("fp32", {"fp16": 3}, openvino_layers.element_types(half)) == []
    with pytest.raises(PrecisionError, match="1 in bf16"):
        openvino_layers.precision_notes("fp32", {"fp16": 3, "bf16": 1}, openvino_layers.element_types(half))


def test_a_precision_that_is_not_chosen_is_a_loud_note():
    """An engine of a lower precision without a layer in it says so."""
    notes = openvino_layers.precision_notes("bf16", {"fp32": 7}, openvino_layers.element_types(model(CONV)))
    assert notes == ["bf16 was asked for, but OpenVINO chose it for no layer (layers: 7 in fp32)"]


def test_another_device_is_an_error(tmp_path, monkeypatch):
    """What would run elsewhere than on the CPU is refused."""
    built = build(model(CONV), tmp_path)
    monkeypatch.setattr(openvino, "_DEVICE", "AUTO")
    with pytest.raises(ProviderError, match=r"OpenVINO would run on"):
        built.open()


def test_bounds_come_from_the_profile(tmp_path):
    """A range becomes a bounded dimension, a single size a fixed one."""
    built = build(model(CONV), tmp_path, "x=1..4..8x16x8x8")
    with built.open() as session:
        assert str(session._runner._compiled.inputs[0].get_partial_shape()) == "[1..8,16,8,8]"
    fixed = build(model(CONV), tmp_path, "x=4x16x8x8")
    with fixed.open() as session:
        assert str(session._runner._compiled.inputs[0].get_partial_shape()) == "[4,16,8,8]"
    assert fixed.manifest.build.notes == ()


def test_bounds_that_do_not_fit_are_a_note(tmp_path):
    """Where OpenVINO cannot carry the bounds through, the engine takes any size, and says so."""
    text = "odd (float[a, 4] x, float[b, 4] z) => (float[c, 4] y) { y = Add(x, z) }"
    graph = model(text)
    notes = openvino._bound(_read(graph, tmp_path), parse_shapes(["x=2x4", "z=3x4"]))
    assert notes[0].startswith("OpenVINO cannot carry the profile's bounds through the graph, and takes any size: ")


def _read(graph, folder):
    ir.save(graph, folder / "graph.onnx")
    return openvino._core().read_model(folder / "graph.onnx")


def test_an_input_that_openvino_drops_is_still_asked_for(tmp_path):
    """The second input of CastLike gives a type only, and OpenVINO drops it; the session keeps it."""
    text = "like (float[n] x, double[1] t) => (double[n] y) { y = CastLike(x, t) }"
    with build(model(text), tmp_path).open() as session:
        assert [info.name for info in session.inputs] == ["x", "t"]
        found = session.run({"x": np.float32([1, 2]), "t": np.zeros(1)})["y"]
    assert found.dtype == np.float64
    assert found.tolist() == [1, 2]


def test_refuses_texts(tmp_path):
    """Texts crash OpenVINO's process, so they are refused before they reach it."""
    with pytest.raises(BuildError, match="'x' holds texts, which OpenVINO cannot take without crashing"):
        build(model("words (string[n] x) => (string[n] y) { y = Identity(x) }"), tmp_path)


def test_warns_of_what_it_changes(tmp_path):
    """64-bit integers are a note of the build."""
    (note,) = build(model("whole (int64[n] x) => (int64[n] y) { y = Abs(x) }"), tmp_path).manifest.build.notes
    assert note.startswith("OpenVINO computes 64-bit integers in 32 bits")


def test_refuses_an_opset_that_it_would_misread(tmp_path):
    """A newer opset than OpenVINO knows is an error: it would read changed operators as they were, without a word."""
    text = '<ir_version: 8, opset_import: ["" : 99]> new (float[n] x) => (float[n] y) { y = Abs(x) }'
    with pytest.raises(BuildError, match=f"it reads opset {openvino._opset_ceiling()} at most and the graph has 99"):
        build(model(text), tmp_path)


@pytest.mark.parametrize("options", [{"threads": 1}, {"hint": "throughput"}, {"streams": 2}])
def test_takes_its_options(tmp_path, options):
    """Every option builds, is kept, and reaches the compiled model."""
    built = build(model(CONV), tmp_path, options=options)
    assert options.items() <= dict(built.manifest.options).items()
    with built.open() as session:
        assert session.placement.startswith("CPU, ")
        assert session.run({"x": np.ones((1, 16, 8, 8), np.float32)})["y"].shape == (1, 16, 8, 8)
        if "threads" in options:
            assert session.placement == "CPU, 1 thread"
            assert session._runner._compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_refuses_an_unknown_hint(tmp_path):
    """A misspelt word gets a suggestion."""
    with pytest.raises(UnknownNameError, match="did you mean 'latency'"):
        build(model(CONV), tmp_path, options={"hint": "latencey"})


def test_builds_a_real_network(light_models, tmp_path):
    """ResNet-50 is all fp32, and leaves OpenVINO's own two files and the plan."""
    built = build(load(light_models / "light_resnet50.onnx"), tmp_path)
    assert set(built.manifest.files) == {"model.xml", "model.bin", "precision.json"}
    assert set(built.manifest.precision_built) == {"fp32"}
    assert built.manifest.precision_built["fp32"] > 50


def test_does_not_report_its_import():
    """OpenVINO reports its import over the network unless the reporter is missing; here it finds none."""
    code = (
        "import sys\n"
        "from enginery.backends import openvino\n"
        "openvino._library()\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "import openvino.tools.ovc.telemetry_utils as telemetry\n"
        "print(telemetry.tm.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_a_missing_library_says_how_to_get_it(monkeypatch, tmp_path):
    """An engine opened where OpenVINO is not installed says so with the pip line."""
    from enginery import optional

    built = build(model(CONV), tmp_path)
    monkeypatch.setattr(optional, "installed", lambda _: False)
    with pytest.raises(BackendUnavailableError) as caught:
        engine.load(built.folder).open()
    assert str(caught.value) == (
        f"{built.folder} cannot be opened: backend 'openvino' is not here: openvino is not installed; "
        'run: pip install "enginery[openvino]"'
    )


def test_diagnoses_an_operator_it_lacks(tmp_path):
    """The mend names the operators."""
    text = '<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]> m (float[n] x) => (float[n] y) { y = my.ops.Foo(x) }'
    with pytest.raises(BuildError) as caught:
        build(model(text), tmp_path)
    assert "does not know my.ops.Foo: run: pip install --upgrade openvino, or build with" in caught.value.mend


def test_diagnoses_an_invalid_graph(tmp_path):
    """The mend names the operator that could not be read."""
    with pytest.raises(BuildError) as caught:
        build(model("m (float[n, 3] x, float[4, n] z) => (float[n, n] y) { y = MatMul(x, z) }"), tmp_path)
    assert "does not read this form of MatMul" in caught.value.mend


def test_diagnoses_damaged_files(tmp_path):
    """Missing weights, cut weights and a file that is no model are told apart."""
    built = build(model(CONV), tmp_path)
    weights = built.folder / "model.bin"
    weights.write_bytes(b"12")
    with pytest.raises(BuildError, match="cannot open") as caught:
        built.open()
    assert caught.value.mend == "model.bin is missing, cut short, or of another model: build the engine again"
    proto = onnx.parser.parse_model(f"{HEAD} m (float[n, 2] x) => (float[n, 2] y) {{ y = MatMul(x, w) }}")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), "w"))
    path = tmp_path / "outside.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="outside.data", size_threshold=0)
    (tmp_path / "outside.data").unlink()
    with pytest.raises(RuntimeError) as lost:
        openvino._core().compile_model(openvino._core().read_model(path), "CPU")
    assert openvino.diagnose(lost.value, None).startswith("the file of weights outside.data is missing")
    assert openvino.diagnose(RuntimeError("something else"), None) is None


def test_variants_follow_the_machine():
    """One thread where there are more; half of them where there are many."""
    graph = GraphRecord("g", (), (), 1, {"Conv": 1}, 0, 0, None, {}, 8, "", ())
    machine = describe_machine()
    assert list(openvino.variants(graph, replace(machine, cores=1))) == [{}]
    assert list(openvino.variants(graph, replace(machine, cores=2))) == [{}, {"threads": 1}]
    assert list(openvino.variants(graph, replace(machine, cores=16))) == [{}, {"threads": 1}, {"threads": 8}]
