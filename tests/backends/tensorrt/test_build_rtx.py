"""Real builds with TensorRT-RTX, ahead of time: no GPU is needed."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest

from enginery import backends
from enginery.backends import engine as engines
from enginery.backends.tensorrt import building
from enginery.backends.tensorrt.building import ARTEFACT
from enginery.backends.tensorrt.optimization_profiles import add_profiles
from enginery.backends.tensorrt.parsing import parse_file as parse
from enginery.errors import (
    BackendUnavailableError,
    BuildError,
    FeatureError,
    PrecisionError,
    UnknownNameError,
    UsageError,
)
from enginery.graph import files
from enginery.machine import describe_machine
from enginery.spec import BuildSpec, parse_shapes
from enginery.storage import LAYERS, PLAN

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

RTX = "tensorrt_rtx"
TWICE = "twice (float[batch, 4] x) => (float[batch, 4] y) { [add] y = Add(x, x) }"
SUM = "sum (float[batch, 4] a, float[batch, 4] b) => (float[batch, 4] y) { [add] y = Add(a, b) }"
RESHAPED = "r (float[batch, 4] x, int64[2] size) => (float[p, q] y) { [shape] y = Reshape(x, size) }"
NET = """net (float[batch, 3, 8, 8] image, float[4, 3, 3, 3] w1, float[64, 5] w2) => (float[batch, 5] scores) {
    [conv] c = Conv<pads = [1, 1, 1, 1]>(image, w1)
    [relu] r = Relu(c)
    [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    [flat] f = Flatten(p)
    [mm] scores = MatMul(f, w2)
}"""


def model(text, opset=17):
    """Return a model given as ONNX text; the inputs w1, w2, ... become weights."""
    made = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    rng = np.random.default_rng(0)
    for value in [value for value in made.graph.inputs if value.name in ("w1", "w2")]:
        value.const_value = ir.tensor(rng.normal(size=value.shape.numpy()).astype(np.float32), name=value.name)
        made.graph.inputs.remove(value)
        made.graph.register_initializer(value)
    return made


@pytest.fixture
def build(tmp_path):
    """Return a function that builds a model with TensorRT-RTX."""

    def make(text, *shapes, **spec):
        spec["values"] = parse_shapes(spec.get("values", ()))
        spec["profiles"] = tuple(parse_shapes([one]) for one in spec.get("profiles", ()))
        asked = BuildSpec(parse_shapes(shapes), **spec)
        given = text if isinstance(text, ir.Model) else model(text)
        return engines.build(given, asked, tmp_path / "x.engine", backend=RTX)

    return make


def test_builds_for_named_gpus_without_one(build):
    """The folder holds the plan as the library writes it, its layers, and what it needs to be opened."""
    engine = build(NET, "image=1..4..16x3x8x8", options={"compute_capabilities": "8.6,8.9,12.0"})
    manifest = engine.manifest
    assert {ARTEFACT, LAYERS, PLAN} == set(manifest.files)
    assert (engine.folder / ARTEFACT).stat().st_size > 10_000
    assert manifest.target.library == RTX
    assert manifest.target.compute_capabilities == ("8.6", "8.9", "12.0")
    assert str(manifest.inputs[0].profile) == "batch:1..4..16x3x8x8"
    assert set(manifest.precision_built) == {"fp32"}
    layers = json.loads((engine.folder / LAYERS).read_text(encoding="utf-8"))
    assert {"conv", "mm"} <= {node for layer in layers for node in layer["nodes"]}
    assert engines.load(engine.folder).manifest == manifest


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_computes_in_the_precision_asked_for(build, precision):
    """The layers read back from the typed network are of the precision asked for."""
    opset = 17 if precision != "bf16" else 22
    options = {"compute_capabilities": "8.6,12.0"}
    engine = build(model(NET, opset), "image=1..4x3x8x8", precision=precision, options=options)
    assert precision in engine.manifest.precision_built or precision == "tf32"
    assert engine.manifest.precision == precision


def test_inputs_and_outputs_keep_their_types(build):
    """An engine in fp16 takes and gives float32, as the graph does."""
    manifest = build(NET, "image=1..4x3x8x8", precision="fp16").manifest
    assert [info.dtype for info in (*manifest.inputs, *manifest.outputs)] == ["float32", "float32"]


def test_several_profiles(build):
    """The first profile is the whole range; narrower ones are written into the manifest in their order."""
    manifest = build(TWICE, "x=1..8..32x4", profiles=("x=1x4", "x=32x4")).manifest
    assert [str(one["x"]) for one in manifest.profiles] == ["batch:1x4", "batch:32x4"]


@pytest.mark.parametrize(
    ("shapes", "profiles", "narrow"),
    [
        (("x=1..8..32x4",), (), ["batch:1x4", "batch:8x4", "batch:32x4"]),
        (("x=1..32x4",), (), ["batch:1x4", "batch:32x4"]),
        (("x=1..8..32x4",), ("x=8x4", "x=2..4x4"), ["batch:8x4", "batch:2..4..4x4", "batch:1x4", "batch:32x4"]),
    ],
)
def test_narrow_profiles_at_the_ends(build, monkeypatch, shapes, profiles, narrow):
    """Each distinct size of the wide profile gets a profile of its own, after those that were given."""
    taken = []

    def add(builder, network, config, **given):
        add_profiles(builder, network, config, **given)
        taken.append(config.num_optimization_profiles)

    monkeypatch.setattr(building, "add_profiles", add)
    manifest = build(TWICE, *shapes, profiles=profiles, options={"narrow": "ends"}).manifest
    assert [str(one["x"]) for one in manifest.profiles] == narrow
    assert taken == [1 + len(narrow)]
    assert manifest.options["narrow"] == "ends"


def test_narrow_profiles_fix_all_inputs_at_once(build):
    """Every end is one size of all inputs; fixed sizes stay."""
    manifest = build(SUM, "a=1..2..8x4", "b=1..2..8x4", options={"narrow": "ends"}).manifest
    found = [(str(one["a"]), str(one["b"])) for one in manifest.profiles]
    assert found == [("batch:1x4", "batch:1x4"), ("batch:2x4", "batch:2x4"), ("batch:8x4", "batch:8x4")]


def test_there_is_nothing_to_narrow_where_sizes_are_fixed(build):
    """The one profile has one size already."""
    assert build(TWICE, "x=8x4", options={"narrow": "ends"}).manifest.profiles == ()


GELU = """g (float[batch, 4] x) => (float[batch, 4] y)
    <float r = {1.41421356}, float one = {1.0}, float half = {0.5}> {
    a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(x, half) y = Mul(d, c) }"""


@pytest.mark.parametrize(("text", "gelu", "said"), [
    (GELU, "tanh", "its approximation, which differs from it by up to 4.7e-4"), (GELU, "exact", ""),
    (TWICE, "tanh", "no GELU by an error function"),
])  # fmt: skip
def test_gelu_is_approximated_on_request_alone(build, text, gelu, said):
    """And it is told."""
    notes = [note for note in build(text, "x=1..8x4", options={"gelu": gelu}).manifest.build.notes if "GELU" in note]
    assert len(notes) == bool(said)
    assert all(said in note for note in notes)


def test_an_input_that_holds_sizes(build):
    """Its range of values is asked for, written down, and taken."""
    manifest = build(RESHAPED, "x=1..2..8x4", values=("size=1..2..8x4",)).manifest
    assert str(manifest.values["size"]) == "1..2..8x4"


@pytest.mark.parametrize(
    ("text", "shapes", "spec", "kind", "said"),
    [
        (TWICE, (), {}, BuildError, r"input 'x', axis 0 \(batch\); give one for each, such as --shapes x=1..8..32x4"),
        (
            TWICE, ("x=1..8x4",), {"profiles": ("x=1..16x4",)}, BuildError,
            r"profile 1, input 'x', axis 0: batch:1..16..16 lies outside .*batch:1..8..8; stay within 1..8",
        ),
        (TWICE, ("x=1..8x4",), {"profiles": ("z=1x4",)}, UnknownNameError, "unknown input of profile 1: 'z'"),
        (
            SUM, ("a=1..8x4", "b=2..8x4"), {}, BuildError,
            r"axis 'batch' is 1..8..8 for input 'a' \(axis 0\) and 2..8..8 for input 'b' \(axis 0\); give both",
        ),
        (
            RESHAPED, ("x=1..8x4",), {}, BuildError,
            r"input 'size' holds the sizes .*--values size=1..4..8x1..4..8",
        ),
        (RESHAPED, ("x=1..8x4",), {"values": ("size=1..2",)}, BuildError, "has 2 elements, and 1 ranges of values"),
        (
            RESHAPED, ("x=1..8x4",), {"values": ("size=1..8x4",), "options": {"narrow": "ends"}}, UsageError,
            r"narrow=ends fixes shapes, and 'size' holds sizes of a range of its own; .*by --profile",
        ),
        (TWICE, ("x=1..8x4",), {"values": ("x=1..2",)}, UnknownNameError, "unknown input that holds sizes 'x'"),
        (
            RESHAPED, ("x=1..2..8x4",), {"values": ("size=1..2..8x3",)}, BuildError,
            r"(?s)built no engine.*reshape would change volume.*node 'shape' \(Reshape\).*of a profile contradict",
        ),
    ],
)  # fmt: skip
def test_ranges_that_do_not_fit(build, text, shapes, spec, kind, said):  # noqa: PLR0917 - of a table
    """A range that cannot be is refused with input, axis and values, and nothing is left behind."""
    with pytest.raises(kind, match=said):
        build(text, *shapes, **spec)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"compute_capabilities": "8.6,9.0"}, UnknownNameError, "no compute capability '9.0'.*for 7.5, 8.0"),
        ({"refit": "yes"}, FeatureError, "refit=yes only on a GPU and for one compute capability"),
        ({"strip_weights": True}, FeatureError, "strip_weights=true only on a GPU"),
        ({"version_compatible": True}, FeatureError, "has no version_compatible=true; .*lean runtime"),
        ({"hardware_compatibility": "ampere_plus"}, FeatureError, "compute_capabilities=8.6,8.9,12.0"),
        ({"dla_core": 0}, FeatureError, "has no dla_core=0"),
        ({"plugins": "libops.so"}, FeatureError, "has no plugins, and plugins=libops.so"),
        ({"workspace": 1}, UnknownNameError, "did you mean 'workspace_mib'"),
        ({"optimization_level": 6}, UsageError, "give -1 to 5"),
        ({"tactic_sources": "JIT_CONVOLUTIONS"}, UsageError, "has no sign"),
        ({"tactic_sources": "+CUBLAS"}, UnknownNameError, "unknown tactic source 'CUBLAS'"),
        ({"refit": "maybe"}, UnknownNameError, "value of option 'refit'"),
    ],
)
def test_options_that_cannot_be_followed(build, tmp_path, options, kind, said):
    """An option that TensorRT-RTX ignores or fails with is refused, with what to do instead."""
    with pytest.raises(kind, match=said):
        build(TWICE, "x=1..8x4", options=options)
    assert list(tmp_path.iterdir()) == []


def test_options_that_are_followed(build):
    """Effort, memory, streams and sources are taken, and written down as they were used."""
    options = {
        "workspace_mib": 64, "optimization_level": 5, "max_aux_streams": 0, "average_timing": 2,
        "tactic_sources": "-JIT_CONVOLUTIONS", "sparse_weights": True, "weight_streaming": True,
    }  # fmt: skip
    built = build(NET, "image=1..4x3x8x8", options=options).manifest
    assert options.items() <= dict(built.options).items()


def test_a_precision_that_one_gpu_lacks(build):
    """The precision is held against every GPU the engine shall run on."""
    with pytest.raises(PrecisionError, match=r"compute capability 7.5 cannot compute in bf16.*capabilities=8.6"):
        build(TWICE, "x=1..8x4", precision="bf16", options={"compute_capabilities": "7.5,8.6"})


def test_every_unsupported_node_is_named(build):
    """Not only the first: the parser stops there, so the others are asked for by name."""
    text = """odd (float[n] x) => (int64[1, k] i, float[n] z) {
        [first] i = NonZero(x)
        [second] z = my.ops.Foo(x)
    }"""
    made = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]> {text}')
    made.graph[0].metadata_props["enginery.module"] = "encoder.layer.3"
    with pytest.raises(BuildError) as caught:
        build(made, "x=1..8")
    assert "2 errors" in caught.value.message
    assert "node 'first' (NonZero, encoder.layer.3): " in caught.value.message
    assert "node 'second' (my.ops.Foo): no importer in TensorRT-RTX 1." in caught.value.message
    assert "depend on data" in caught.value.mend


def test_an_operator_that_only_the_build_refuses(build):
    """NonMaxSuppression parses, and has no kernel: the builder's layer is named as the graph's node."""
    text = """n (float[1, 8, 4] b, float[1, 2, 8] s) => (int64[k, 3] y) <int64 m = {3}> {
        [boxes] y = NonMaxSuppression(b, s, m)
    }"""
    made = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    with pytest.raises(BuildError, match=r"(?s)has no runners.*node 'boxes' \(NonMaxSuppression\).*depend on data"):
        build(made)


def test_uint8_quantisation_is_refused(build):
    """The parser would take UINT8 for INT8 with a warning: wrong numbers, so it is an error."""
    text = """q (float[n, 4] x) => (float[n, 4] y) <uint8 z = {0}, float s = {0.1}> {
        [q] a = QuantizeLinear(x, s, z)
        [dq] y = DequantizeLinear(a, s, z)
    }"""
    made = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    with pytest.raises(BuildError, match=r"2 nodes quantise to UINT8 \('q', 'dq'\).*half the range.*QInt8"):
        build(made, "x=1..8x4")


def test_texts_and_doubles(build):
    """Texts are refused by the input's name; DOUBLE becomes FLOAT, and a note says so."""
    with pytest.raises(BuildError, match=r"input 'x': Failed to convert.*cut texts"):
        build("t (string[n] x) => (string[n] y) { y = Identity(x) }", "x=1..8")
    notes = build("d (double[n] x) => (double[n] y) { y = Add(x, x) }", "x=1..8").manifest.build.notes
    assert any("x, y: DOUBLE in the graph, FLOAT in the engine" in note for note in notes)


def test_says_what_it_cannot_run(small_model):
    """The capabilities are the version's; operators are asked for by name, and known wrong answers put right."""
    backend = backends.get(RTX)
    can = backend.capabilities(describe_machine(), model(TWICE))
    assert can.precisions == {"fp32", "tf32", "fp16", "bf16", "fp8", "int8"}
    assert (can.max_opset, can.min_opset, can.unsupported) == (25, 9, ())
    odd = model("o (float[n] x) => (int64[1, k] i, float[n] z) { i = NonZero(x)\n z = Foo(x) }")
    assert backend.capabilities(describe_machine(), odd).unsupported == ("Foo", "NonZero")
    assert backend.capabilities(describe_machine(), small_model).unsupported == ()


def test_builds_here_and_runs_elsewhere(build):
    """Without a GPU the backend is available for building, no candidate of optimize, and says why it does not open."""
    found = backends.get(RTX).probe()
    assert found.available
    if found.runs:
        pytest.skip("there is a GPU that it runs on")
    assert RTX not in backends.available()
    engine = build(TWICE, "x=1..8x4")
    with pytest.raises(BackendUnavailableError, match=r"x.engine cannot be opened.*only builds here.*no NVIDIA GPU"):
        engine.open()
    with pytest.raises(BackendUnavailableError, match="cannot run here: no NVIDIA GPU"):
        backends.get(RTX).open(engine.folder, engine.manifest, {})


def test_leaves_the_graph_alone(build):
    """Building, in half precision too, does not change the graph that was handed over."""
    given = model(NET)
    before = ir.to_proto(given).SerializeToString()
    build(given, "image=1..4x3x8x8", precision="fp16")
    assert ir.to_proto(given).SerializeToString() == before


def test_weights_beside_the_file(build, monkeypatch):
    """Large weights go by a file of their own, which the parser reads: no message holds the whole model."""
    whole = build(NET, "image=1..4x3x8x8").manifest.files[ARTEFACT].bytes
    seen = []
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 16)
    monkeypatch.setattr(
        building, "parse_file", lambda *given: (seen.extend(given[2].parent.iterdir()), parse(*given))[1]
    )
    assert abs(build(NET, "image=1..4x3x8x8").manifest.files[ARTEFACT].bytes - whole) < 4096
    assert len(seen) == 2
