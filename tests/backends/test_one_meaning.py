"""One word, one meaning: each backend computes in the precision asked for, or says why it cannot."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from enginery.backends import audit, engine
from enginery.backends.precision import Ran
from enginery.errors import GraphError, PrecisionError, PrecisionMismatchError, UnknownNameError
from enginery.graph.base import all_nodes, load_model, make_plan, quantize, read_plan
from enginery.machine import describe_machine
from enginery.spec import BuildSpec, PrecisionPlan

HAS_BF16 = bool({"avx512_bf16", "amx_bf16"} & set(describe_machine().isa))
NEEDS_BF16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no bf16 instructions")
NET = """
<ir_version: 9, opset_import: ["" : 19]>
net (float[n, 4, 8, 8] image) => (float[n, 10] scores) {
    a = Conv <pads = [1, 1, 1, 1]> (image, w1)
    b = Relu(a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    g = MatMul(f, w3)
    scores = Softmax(g)
}
"""
NAMES = ("conv1", "relu1", "conv2", "relu2", "pool", "flat", "product", "softmax")
WEIGHTS = {"w1": (16, 4, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 10)}


@pytest.fixture
def net(tmp_path):
    """Return a small network whose nodes have names, as it is read from a file."""
    model = ir.from_onnx_text(NET)
    rng = np.random.default_rng(0)
    for node, name in zip(model.graph, NAMES, strict=True):
        node.name = name
    for value in {value for node in model.graph for value in node.inputs if value.name in WEIGHTS}:
        weights = rng.standard_normal(WEIGHTS[value.name]).astype(np.float32)
        value.const_value, value.type = ir.tensor(weights, name=value.name), ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(WEIGHTS[value.name])
        model.graph.register_initializer(value)
    ir.save(model, tmp_path / "net.onnx")
    return load_model(tmp_path / "net.onnx")


@pytest.fixture
def feeds():
    """Return one batch for `net`."""
    return {"image": np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float32)}


@pytest.fixture
def build(tmp_path):
    """Return a function that builds an engine."""

    def make(graph, backend, precision="fp32", plan=None, **options):
        spec = BuildSpec(precision=precision, options=options, plan=plan)
        return engine.build(graph, spec, tmp_path / "model.engine", backend=backend)

    return make


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "reference", "null"])
def test_every_engine_holds_its_plan(net, build, backend):
    """The file lies in the folder, is in the manifest, and is counted in the record."""
    built = build(net, backend)
    assert "precision.json" in built.manifest.files
    assert json.loads((built.folder / "precision.json").read_text())["nodes"]["conv1"]["precision"] == "fp32"
    assert read_plan(built.folder, net) == PrecisionPlan("fp32")
    assert built.manifest.build.planned == {"fp32": 8}


def test_fp16_that_would_run_in_fp32_is_an_error(net, build):
    """ONNX Runtime has no such kernels on this CPU, and would say nothing."""
    with pytest.raises(PrecisionMismatchError) as caught:
        build(net, "onnxruntime", "fp16")
    assert "fp16 was asked for, and of 3 operators that should compute in it ONNX Runtime runs 3 in fp32: " in (
        said := str(caught.value)
    )
    assert "Conv (2)" in said
    assert said.endswith("ask for fp32, or allow it by name: --option allow_precision=fp32")


def test_fp16_may_run_in_fp32_where_that_is_allowed(net, build, feeds):
    """The artefact is typed, and what really ran is told."""
    built = build(net, "onnxruntime", "fp16", allow_precision="fp32")
    typed = load_model(built.folder / "model.onnx")
    assert {value.dtype.name for value in typed.graph.initializers.values() if value.name in WEIGHTS} == {"FLOAT16"}
    assert set(built.manifest.precision_built) == {"fp32"}
    assert built.manifest.precision == "fp16"
    assert any("that should compute in fp16, ONNX Runtime runs" in note for note in built.manifest.build.notes)
    with built.open() as session:
        np.testing.assert_allclose(session.run(feeds)["scores"].sum(axis=1), 1, rtol=1e-2)


def test_bf16_without_a_kernel_names_the_operator(net, build):
    """The message has the operator, the node and the provider."""
    with pytest.raises(PrecisionError, match=r"has no bf16 kernel for Conv on CPUExecutionProvider: node 'conv1'"):
        build(net, "onnxruntime", "bf16")


@pytest.mark.parametrize(
    ("backend", "precision", "why"),
    [
        ("onnxruntime", "tf32", "it has no TF32 on the CPU"),
        ("onnxruntime", "fp8", "no kernels that multiply in fp8"),
        ("openvino", "tf32", "a mode of NVIDIA's GPUs"),
        ("openvino", "fp8", "no kernels that multiply in fp8"),
    ],
)
def test_a_backend_says_why_it_cannot(net, build, backend, precision, why):
    """The reason stands beside what it offers; a plan is looked at as a whole."""
    with pytest.raises(PrecisionError, match=rf"cannot compute in {precision} on this machine: .*{why}.*it offers: "):
        build(net, backend, precision)
    with pytest.raises(PrecisionError, match=why):
        build(net, backend, "fp32", PrecisionPlan("fp32", {"conv1": precision}))


def test_openvino_says_which_instructions_it_needs(net, build):
    """What the processor lacks is named."""
    if {"avx512_fp16", "amx_fp16"} & set(describe_machine().isa):
        assert build(net, "openvino", "fp16").manifest.precision_built["fp16"] > 0
        return
    with pytest.raises(PrecisionError, match="the processor has neither amx_fp16 nor avx512_fp16"):
        build(net, "openvino", "fp16")


@NEEDS_BF16
def test_openvino_keeps_a_node_in_fp32(net, build, feeds):
    """A marked convolution is compiled to float32, in the engine that is opened as well."""
    plan = PrecisionPlan("bf16", {"conv2": "fp32"})
    whole, kept = build(net, "openvino", "bf16"), build(net, "openvino", "bf16", plan)
    assert kept.manifest.precision_built["bf16"] == whole.manifest.precision_built["bf16"] - 1
    assert read_plan(kept.folder) == PrecisionPlan("bf16", {"conv2": "fp32"}, {})
    with kept.open() as session:
        layers = session._runner._compiled.get_runtime_model().get_ordered_ops()
        ran = {
            op.get_rt_info()["originalLayersNames"].value: op.get_rt_info()["runtimePrecision"].value for op in layers
        }
        assert session.run(feeds)["scores"].shape == (2, 10)
    assert {word for names, word in ran.items() if "conv2" in names.split(",")} == {"f32"}
    assert {word for names, word in ran.items() if "conv1" in names.split(",")} == {"bf16"}


@NEEDS_BF16
def test_openvino_refuses_what_it_cannot_keep(net, build):
    """What is made part of another layer loses its mark: it is read back in bf16, an error unless it is allowed."""
    plan = PrecisionPlan("bf16", {"relu1": "fp32"})
    with pytest.raises(PrecisionMismatchError, match=r"computes in bf16 what the plan keeps in fp32.*: relu1; "):
        build(net, "openvino", "bf16", plan)
    notes = build(net, "openvino", "bf16", plan, allow_precision="bf16").manifest.build.notes
    assert any(note.endswith("as part of other layers: relu1") for note in notes)


def test_openvino_has_one_low_type(net, build, monkeypatch):
    """A plan with fp16 and bf16 is refused, even where the processor has both."""
    from enginery.backends import openvino

    monkeypatch.setattr(openvino, "_offered", lambda _: frozenset({"fp32", "fp16", "bf16", "int8"}))
    plan = PrecisionPlan("fp16", {"conv1": "bf16"})
    with pytest.raises(
        PrecisionError, match="has nodes in bf16 and fp16, and OpenVINO computes a model in one of them"
    ):
        build(net, "openvino", "fp16", plan)


@pytest.mark.parametrize(("backend", "form"), [("onnxruntime", "whole"), ("openvino", "asymmetric")])
def test_int8_is_int8(net, build, feeds, backend, form):
    """A quantised graph computes in INT8, and the plan names the nodes."""
    quantised = quantize(net, [feeds], form=form)
    built = build(quantised, backend, "int8")
    assert built.manifest.precision_built["int8"] >= 3
    assert {"conv1", "conv2", "product"} <= {
        name for name, word in read_plan(built.folder).nodes.items() if word == "int8"
    }
    assert built.manifest.build.planned["int8"] >= 3
    with built.open() as session:
        np.testing.assert_allclose(session.run(feeds)["scores"].sum(axis=1), 1, rtol=1e-3)
    notes = build(quantised, backend, "fp32").manifest.build.notes
    assert any("the graph that was given is quantised" in note and "ask for int8" in note for note in notes)


def test_int8_that_is_not_optimised_is_an_error(net, build, feeds):
    """Without its optimiser ONNX Runtime dequantises, and multiplies in float32."""
    with pytest.raises(
        PrecisionMismatchError, match=r"int8 was asked for, and of 3 .* runs 3 in fp32: .*or is told not"
    ):
        build(quantize(net, [feeds], form="whole"), "onnxruntime", "int8", optimization="basic")


def test_int8_needs_quantisers(net, build, feeds):
    """A plan whose int8 nodes nothing quantises is refused, by name."""
    with pytest.raises(GraphError, match="no QuantizeLinear nodes"):
        build(net, "onnxruntime", "int8")
    quantised = quantize(net, [feeds], nodes=["conv1"], form="asymmetric")
    with pytest.raises(GraphError, match="the plan has product in int8, and nothing quantises what it reads"):
        build(quantised, "openvino", "int8", PrecisionPlan("fp32", {"conv1": "int8", "product": "int8"}))


def test_a_plan_goes_from_one_backend_to_another(net, build):
    """The file of an engine, edited, is what another backend builds."""
    first = build(net, "null", "fp16")
    file = first.folder / "precision.json"
    file.write_text(file.read_text().replace('"softmax": {"precision": "fp16"', '"softmax": {"precision": "fp32"'))
    plan = read_plan(file, net)
    assert plan == PrecisionPlan("fp16", {"softmax": "fp32"})
    built = build(net, "onnxruntime", "fp16", plan, allow_precision="fp32")
    typed = load_model(built.folder / "model.onnx")
    reads = {node.name: node.inputs[0].dtype.name for node in all_nodes(typed) if node.name in NAMES}
    assert {name for name, kind in reads.items() if kind == "FLOAT"} == {"softmax"}
    assert built.manifest.build.planned == {"fp16": 7, "fp32": 1}


@NEEDS_BF16
def test_openvino_keeps_nothing_in_a_body(build, tmp_path):
    """What is inside an If takes no mark, and is named; a plan without such nodes builds."""
    model = ir.from_onnx_text("""
        <ir_version: 9, opset_import: ["" : 19]>
        g (float[8, 8] x, bool flag) => (float[8, 8] y) {
            [product] a = MatMul(x, x)
            [choice] y = If (flag) <
                then_branch = yes () => (float[8, 8] b) { [inner] b = MatMul(a, a) },
                else_branch = no () => (float[8, 8] c) { [other] c = Neg(a) }>
        }
    """)
    ir.save(model, tmp_path / "if.onnx")
    graph = load_model(tmp_path / "if.onnx")
    with pytest.raises(PrecisionError, match="OpenVINO cannot keep inner in fp32: what is in a subgraph"):
        build(graph, "openvino", "bf16", PrecisionPlan("bf16", {"inner": "fp32"}))
    assert build(graph, "openvino", "bf16").manifest.build.planned == {"bf16": 3}


def test_an_unknown_word_is_not_allowed(net, build):
    """The option takes names of precisions."""
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(UnknownNameError, match="'half'"):
            build(net, backend, "fp16" if backend == "onnxruntime" else "fp32", allow_precision="fp32,half")


DOUBLES = """<ir_version: 8, opset_import: ["" : 17]> g (double[n, 4] x) => (double[n, 4] y) <double[4, 4] w = {ONES}> {
  m = MatMul(x, w)
  y = Tanh(m)
}""".replace("ONES", ", ".join(["0.5"] * 16))


def test_float64_is_neither_called_fp16_nor_narrowed_unsaid(build):
    """A cast leaves it alone, so nothing computes as asked; OpenVINO computes it in float32, and says so."""
    graph = ir.from_onnx_text(DOUBLES)
    with pytest.raises(PrecisionMismatchError, match=r"runs 1 in fp64: MatMul \(1\);") as caught:
        build(graph, "onnxruntime", "fp16")
    assert "make the model float32 before" in str(caught.value.mend)
    assert build(graph, "onnxruntime", "fp32").manifest.precision_built == {"fp64": 2}
    assert any("float64 in float32" in note for note in build(graph, "openvino", "fp32").manifest.build.notes)


def test_what_was_built_is_not_called_impossible():
    """An operator that computes as asked, though nobody knows which node it came from."""
    plan = PrecisionPlan("fp32", {"conv": "int8"})
    assert audit.check_ran("It", [Ran("", "Convolution", "fp32", "int8")], plan) == ()


def test_the_audit_judges_what_multiplies():
    """Pointwise operators in fp32 beside matrix products in fp16 are told; fewer than a tenth as asked is an error."""
    plan = PrecisionPlan("fp16")
    good = [Ran("", "MatMul", "fp16", "fp16")] * 2 + [Ran("", "Softmax", "fp16", "fp32")] * 9
    (note,) = audit.check_ran("It", good, plan)
    assert note == "of 11 operators that should compute in fp16, It runs 9 in fp32: Softmax (9)"
    bad = [Ran("", "MatMul", "fp16", "fp32")] * 11 + [Ran("", "MatMul", "fp16", "fp16")]
    with pytest.raises(
        PrecisionMismatchError, match="of 12 operators that should compute in it It runs 1 in fp16, 11 in"
    ):
        audit.check_ran("It", bad, plan)
    assert audit.check_ran("It", bad, plan, ("fp32",))
    assert audit.check_ran("It", [Ran("", "Conv", "fp16", "int8")], plan) == ()
    assert audit.check_ran("It", [Ran("", "Shape", "fp32", "fp32")], plan) == (
        "fp16 was asked for, and It has no operator that could compute in it",
    )
    assert (
        audit.check_ran(
            "It",
            [Ran("", "Conv", "fp32", "fp32")],
            make_plan(ir.Model(ir.Graph([], [], nodes=[]), ir_version=9), "fp32"),
        )
        == ()
    )
