"""A graph at another opset: computes the same, keeps what is not an operator's form, or says what stands in the way."""

from __future__ import annotations

import types

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from enginery.errors import GraphError
from enginery.graph import base, files
from enginery.graph.base import OpsetLimits
from enginery.graph.opset.convert import convert_opset, fit_opset
from enginery.graph.opset.ir_versions import required_ir_version

RANDOM = np.random.default_rng(0)


def graph_of(text, opset=18, ir_version=10):
    """Read a graph given without its header."""
    return ir.from_onnx_text(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> g {text}')


def run(model, feeds):
    """Compute with ONNX Runtime, not optimised; the reference evaluator knows old forms of some operators wrongly."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def run_new(model, feeds):
    """Compute as `run` does; what an older ONNX Runtime cannot, ONNX's reference evaluator can."""
    try:
        return run(model, feeds)
    except Exception:  # noqa: BLE001 - its kinds are its own
        return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)


def nodes(model):
    """Return operators and attributes, without the constants that stand between."""
    return [
        (node.op_type, {name: attribute.value for name, attribute in node.attributes.items()})
        for node in model.graph
        if node.op_type != "Constant"
    ]


TWO = "<float[2] s = {1.0, 2.0}, float[2] b = {0.5, 0.0}>"
FOUR = "<float[4] s = {1.0, 2.0, 3.0, 4.0}, float[4] b = {0.5, 0.0, 1.0, 2.0}>"
STEP = "<float s = {0.5}, uint8 z = {128}>"
PICTURE = "(float[1,4,6,5] x) => (float[a,b,c,d] y)"
LOWERED = [
    (18, f"{PICTURE} <int64[2] at = {{2, -1}}> {{ y = ReduceMean <keepdims = 1> (x, at) }}"),
    (18, f"{PICTURE} <int64[1] at = {{1}}> {{ y = ReduceL2 <noop_with_empty_axes = 1> (x, at) }}"),
    (18, f"{PICTURE} {{ y = ReduceMax <noop_with_empty_axes = 1> (x) }}"),
    (18, f"{PICTURE} {{ at = Constant <value_ints = [1]> ()  y = ReduceLogSumExp (x, at) }}"),
    (18, f"{PICTURE} {{ y, z = Split <axis = 3, num_outputs = 2> (x) }}"),
    (18, f"{PICTURE} <int64[2] p = {{1, 2}}, int64[1] at = {{-1}}> {{ y = Pad (x, p, , at) }}"),
    (19, f'{PICTURE} <int64[2] p = {{1, 2}}, int64[1] at = {{2}}> {{ y = Pad <mode = "edge"> (x, p, , at) }}'),
    (19, f"{PICTURE} <float[2] s = {{2.0, 3.0}}> {{ y = Resize <axes = [2, 3], antialias = 0> (x, , s) }}"),
    (19, f'{PICTURE} <int64[2] s = {{12, 10}}> {{ y = Resize <axes = [2, 3], mode = "linear"> (x, , , s) }}'),
    (20, f"{PICTURE} {{ y = Gelu (x) }}"),
    (20, f'{PICTURE} {{ y = Gelu <approximate = "tanh"> (x) }}'),
    (18, f"{PICTURE} {{ y = Mish (x) }}"),
    (18, f"{PICTURE} {TWO} {{ y = GroupNormalization <num_groups = 2> (x, s, b) }}"),
    (21, f"{PICTURE} {FOUR} {{ y = GroupNormalization <num_groups = 2> (x, s, b) }}"),
    (23, f"{PICTURE} <float[5] s = {{1.0, 2.0, 3.0, 4.0, 5.0}}> {{ y = RMSNormalization (x, s) }}"),
    (22, f"{PICTURE} {{ y = AveragePool <kernel_shape = [2, 2], dilations = [1, 1]> (x) }}"),
    (24, f'{PICTURE} {{ h = Cast <to = 11, round_mode = "up", saturate = 1> (x)  y = Cast <to = 1> (h) }}'),
    (21, f"{PICTURE} <int64[4] s = {{2, 2, 6, 5}}> {{ y = Reshape <allowzero = 0> (x, s) }}"),
    (21, f"{PICTURE} {STEP} {{ q = QuantizeLinear <output_dtype = 2> (x, s, z)  y = DequantizeLinear (q, s, z) }}"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "text"), LOWERED)
def test_lowered_to_17(opset, text):
    """What exporters write at newer opsets has at 17 the form of 17, and computes the same."""
    model = graph_of(text, opset)
    feeds = {"x": RANDOM.standard_normal((1, 4, 6, 5)).astype(np.float32)}
    found = convert_opset(model, 17)
    assert found.opset_imports[""] == 17
    assert found.ir_version == 8
    np.testing.assert_allclose(run(found, feeds)[0], run_new(model, feeds)[0], rtol=1e-5, atol=1e-6)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)


def test_axes_become_an_attribute_and_their_constant_goes():
    """No node is left with the input, and no initializer that nothing reads."""
    text = "<int64[1] at = {1}> { y = ReduceMean <keepdims = 0, noop_with_empty_axes = 0> (x, at) }"
    found = convert_opset(graph_of(f"(float[2,3] x) => (float[2] y) {text}"), 17)
    assert nodes(found) == [("ReduceMean", {"keepdims": 0, "axes": (1,)})]
    assert len(found.graph.node(0).inputs) == 1
    assert not found.graph.initializers


def test_what_17_has_already_stays_as_it_is():
    """ReduceSum and Squeeze have had axes as an input since 13, and are not touched."""
    model = graph_of("(float[2,1] x) => (float y) <int64[1] at = {1}> { h = Squeeze (x, at)  y = ReduceSum (h) }")
    assert nodes(convert_opset(model, 17)) == nodes(model)
    lower = convert_opset(model, 12)
    assert nodes(lower)[0] == ("Squeeze", {"axes": (1,)})
    assert run(lower, {"x": np.ones((2, 1), np.float32)}) == [2.0]


REFUSED = [
    (18, "(float[4] x, int64[k] at) => (float[n] y) { [m] y = ReduceMean (x, at) }",
     r"ReduceMean 'm': its axes \('at'\) are computed at run time, and no constant"),
    (18, "(float[n] x) => (float[m] y) { [s] y, z = Split <num_outputs = 2> (x) }",
     "Split 's': the size of its axis 0 is not fixed"),
    (18, "(float[1,4] x, float[2] s) => (float[1,2] y) { [r] y = Resize <antialias = 1> (x, , s) }",
     "Resize 'r': antialias=1 came with opset 18"),
    (19, '(float[4] x) => (float[6] y) <int64[2] p = {1, 1}> { y = Pad <mode = "wrap"> (x, p) }',
     "Pad that makes 'y': mode=wrap came with opset 19"),
    (18, "(uint8[4] x) => (uint8[4] y) { y = BitwiseNot (x) }", "BitwiseNot that makes 'y': it came with opset 18"),
    (22, "(bfloat16[1,1,4,4] x, bfloat16[1,1,1,1] w) => (bfloat16[1,1,4,4] y) { y = Conv (x, w) }",
     r"Conv that makes 'y': it does not take tensor\(bfloat16\) for X \('x'\)"),
    (19, "(float[2] x) => (float8e4m3fn[2] y) { y = Cast <to = 17> (x) }", "tensor.float8e4m3fn. for outp"),
    (18, '(float[2] x, int64[1,1] i, float[1] u) => (float[2] y) { y = ScatterND <reduction = "max"> (x, i, u) }',
     "reduction=max came with opset 18"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "text", "said"), REFUSED)
def test_what_17_cannot_say_is_refused(opset, text, said):
    """The error names node and reason; the graph that was given is as it was."""
    model = graph_of(text, opset)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(GraphError, match=f"the graph cannot be brought from opset {opset} to 17: .*{said}") as caught:
        convert_opset(model, 17)
    assert caught.value.mend == "export the model with opset 17 in the first place"
    assert ir.to_proto(model).SerializeToString() == before


def test_every_node_in_the_way_is_named():
    """Up to five are named, the rest is counted."""
    body = " ".join(f"y{n} = BitwiseNot (x)" for n in range(7))
    with pytest.raises(GraphError, match=r"makes 'y0': .*makes 'y4': it came with opset 18; and 2 more;"):
        outputs = ", ".join(f"uint8[4] y{n}" for n in range(7))
        convert_opset(graph_of(f"(uint8[4] x) => ({outputs}) {{ {body} }}"), 17)


def test_axes_that_constants_say_are_computed_first():
    """Where a reduction's axes are computed from constants, these are folded rather than refused."""
    model = graph_of("(float[2,3] x) => (float[a] y) <int64[1] one = {1}, int64[1] two = {-2}> "
                     "{ at = Add (one, two)  y = ReduceMean <keepdims = 0> (x, at) }")  # fmt: skip
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    np.testing.assert_array_equal(run(convert_opset(model, 17), feeds)[0], [1, 4])


def test_keeps_names_metadata_dims_and_foreign_nodes():
    """Names, metadata, symbolic dims and nodes of other domains stay; what replaces a node has its metadata."""
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 20, "my.ops" : 3]>
        g (float[batch, 4] x) => (float[batch, 4] y) {
            [foreign] h = my.ops.Foo <size = 3> (x)
            [activation] k = Gelu (x)
            [mean] y = Add (h, k)
        }""")
    for node in model.graph:
        node.metadata_props["enginery.module"] = f"layer.{node.name}"
    model.graph.inputs[0].metadata_props["enginery.layout"] = "NC"
    found = convert_opset(model, 17)
    names = [node.name for node in found.graph]
    assert (names[0], names[-1]) == ("foreign", "mean")
    assert all(name.startswith("activation/") for name in names[1:-1])
    assert {node.metadata_props["enginery.module"] for node in found.graph} == {
        "layer.foreign", "layer.activation", "layer.mean",
    }  # fmt: skip
    assert found.opset_imports == {"": 17, "my.ops": 3}
    assert base.tensor_infos(found.graph.inputs) == base.tensor_infos(model.graph.inputs)
    assert base.tensor_infos(found.graph.outputs) == base.tensor_infos(model.graph.outputs)
    assert found.graph.inputs[0].metadata_props == {"enginery.layout": "NC"}


def test_subgraphs_and_functions_are_converted():
    """A branch is lowered as the main graph is; a function of the model's own is inlined first."""
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        g (float[2,3] x, bool c) => (float[a,b] y) {
            h = own.act (x)
            y = If (c) <
                then_branch = t () => (float[a,b] u) { at = Constant <value_ints = [1]> ()  u = ReduceMean (h, at) },
                else_branch = e () => (float[a,b] v) { v = Gelu (h) }
            >
        }
        <domain: "own", opset_import: ["" : 20]> act (v) => (w) { w = Gelu (v) }""")
    found = convert_opset(model, 17)
    assert not found.functions
    assert not {"Gelu", "act"} & {node.op_type for node in base.all_nodes(found)}
    for flag in (True, False):
        feeds = {"x": RANDOM.standard_normal((2, 3)).astype(np.float32), "c": np.array(flag)}
        np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=1e-5)


def test_large_weights_stay_where_they_are(tmp_path):
    """Weights are shared with the graph that was given, in memory or mapped from a file, and never copied."""
    model = graph_of("(float[1,64] x) => (float[1,64] y) { y = MatMul (x, x) }", 20)
    weight = ir.tensor(np.ones((64, 64), np.float32), name="w")
    value = ir.Value(name="w", const_value=weight, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((64, 64)))
    model.graph.register_initializer(value)
    model.graph.node(0).replace_input_with(1, value)
    assert convert_opset(model, 17).graph.initializers["w"].const_value is weight
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    found = convert_opset(files.load(tmp_path / "m.onnx"), 17).graph.initializers["w"].const_value
    np.testing.assert_array_equal(found.numpy(), weight.numpy())


RAISED = [
    (11, "(float[2,3] x) => (float[2] y) { y = ReduceMean <axes = [1], keepdims = 0> (x) }", "ReduceMean"),
    (11, "(float[2,3] x) => (float[2,3] y) { y = Softmax <axis = 0> (x) }", "Softmax"),
    (
        9,
        "(float[1,1,2,3] x) => (float[1,1,4,6] y) <float[4] s = {1.0, 1.0, 2.0, 2.0}> { y = Upsample (x, s) }",
        "Resize",
    ),
]


@pytest.mark.parametrize(("opset", "text", "op"), RAISED)
def test_raised(opset, text, op):
    """An old graph is brought up to an opset that a backend reads."""
    model = graph_of(text, opset, ir_version=6)
    found = convert_opset(model, 21)
    assert op in {node.op_type for node in found.graph}
    assert (found.opset_imports[""], found.ir_version) == (21, 10)
    shape = list(model.graph.inputs[0].shape)
    feeds = {"x": RANDOM.standard_normal(shape).astype(np.float32)}
    np.testing.assert_allclose(run(found, feeds)[0], run(model, feeds)[0], rtol=1e-6)


SCAN = """{
    <SIGN>y, z = Scan <num_scan_inputs = 2, directions = [0, 1], body = b (float[2] sum, float[2] one, float[2] other)
        => (float[2] next, float[2] part) { next = Add (sum, one)  part = Mul (next, other) }> (<LENGTHS>, start, x, x)
}"""


def test_a_scan_of_batches_becomes_one_of_rows():
    """Opset 8's runs for each row of a batch; a Scan over rows with a Scan in its body does the same, backwards too."""
    head = "(float[3,2] start, float[3,4,2] x<MORE>) => (float[3,2] y, float[3,4,2] z) "
    text = head.replace("<MORE>", "") + SCAN.replace("<SIGN>", "[n] ").replace("<LENGTHS>", "")
    model = graph_of(text, 8, ir_version=3)
    found = convert_opset(model, 21)
    feeds = {
        "start": RANDOM.standard_normal((3, 2)).astype(np.float32),
        "x": RANDOM.standard_normal((3, 4, 2)).astype(np.float32),
    }
    for one, right in zip(run(found, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(one, right, rtol=1e-6)
    assert [node.name for node in base.all_nodes(found)][:2] == ["n", "n/row"]
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    text = head.replace("<MORE>", ", int64[3] long") + SCAN.replace("<SIGN>", "").replace("<LENGTHS>", "long")
    with pytest.raises(GraphError, match=r"it is given the length of each sequence \('long'\), up to opset 8 alone"):
        convert_opset(graph_of(text, 8, ir_version=3), 21)


def test_an_upsample_by_scales_of_the_run_enlarges():
    """Scales that nobody knows are 1 or more in an Upsample, so the nearest element is known; a Resize may shrink."""
    text = "(float[1,1,2,3] x, float[4] s) => (float[a,b,c,d] y) { y = <OP> (x, s) }"
    model = graph_of(text.replace("<OP>", "Upsample"), 9, 5)
    feeds = {"x": RANDOM.standard_normal((1, 1, 2, 3)).astype(np.float32), "s": np.float32([1, 1, 2.5, 3])}
    np.testing.assert_array_equal(run(convert_opset(model, 21), feeds)[0], run(model, feeds)[0])
    with pytest.raises(GraphError, match=r"its scales \('s'\) are computed at run time"):
        convert_opset(graph_of(text.replace("<OP>", "Resize"), 10, 5), 21)


def test_fits_to_limits():
    """Nothing is done where a graph fits; the nearest version otherwise; an IR version goes down by itself."""
    model = graph_of("(float[2] x) => (float[2] y) { y = Relu (x) }", 20)
    assert fit_opset(model, OpsetLimits(20)) == (model, "")
    lower, note = fit_opset(model, OpsetLimits(max_opset=17))
    assert (lower.opset_imports[""], note) == (17, "converted from opset 20 to 17")
    higher, note = fit_opset(model, OpsetLimits(max_opset=23, min_opset=22))
    assert (higher.opset_imports[""], note) == (22, "converted from opset 20 to 22")
    same, note = fit_opset(model, OpsetLimits(max_opset=20, max_ir_version=8))
    assert (same.opset_imports[""], same.ir_version, note) == (20, 8, "")


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_an_axis_that_means_another_thing_before_13(op):
    """Of the last axis the older operator is the same; of another one it would take all that follow together."""
    text = f"(float[2,3,4] x) => (float[2,3,4] y) {{{{ y = {op} {{}} (x) }}}}"
    feeds = {"x": RANDOM.standard_normal((2, 3, 4)).astype(np.float32)}
    for axis in ("", "<axis = 2>"):
        model = graph_of(text.format(axis), 17)
        np.testing.assert_array_equal(run(model, feeds)[0], run(convert_opset(model, 11), feeds)[0])
    with pytest.raises(GraphError, match=f"{op} that makes 'y': axis=1 of 3 means another thing before opset 13"):
        convert_opset(graph_of(text.format("<axis = 1>"), 17), 11)


@pytest.mark.parametrize(("op", "opset"), [("Resize", 10), ("Upsample", 9)])
def test_a_resize_of_before_11_reads_the_same_places(op, opset):
    """ONNX's version converter leaves it to newer defaults, which read elsewhere; where it shrinks, it is refused."""
    text = "(float[1,1,4,4] x) => (float[1,1,c,d] y) <float[4] s = {{1.0, 1.0, {0}, {0}}}> {{ y = " + op
    feeds = {"x": RANDOM.standard_normal((1, 1, 4, 4)).astype(np.float32)}
    for mode in ("linear", "nearest"):
        model = graph_of(f'{text} <mode = "{mode}"> (x, s) }}}}'.format("2.0"), opset, 5)
        np.testing.assert_allclose(run(model, feeds)[0], run(convert_opset(model, 17), feeds)[0], rtol=1e-5)
    if op == "Resize":
        with pytest.raises(GraphError, match="which element is the nearest, to smaller sizes, was not said before"):
            convert_opset(graph_of(f"{text} (x, s) }}}}".format("0.5"), opset, 5), 17)


def test_an_operator_that_was_not_there_yet():
    """The message says when it came, not when it last changed."""
    text = "(float[1,1,4,4] x, float[1,2,2,2] at) => (float[1,1,2,2] y) { y = GridSample (x, at) }"
    with pytest.raises(GraphError, match="GridSample that makes 'y': it came with opset 16"):
        convert_opset(graph_of(text, 22), 13)


def test_limits_say_what_they_refuse():
    """Each version is told with the one that is read."""
    model = graph_of("(float[2] x) => (float[2] y) { y = Relu (x) }", 20)
    assert OpsetLimits(20, 7, 10).refuses(model) == ""
    assert OpsetLimits(17).refuses(model) == "reads opset 17 at most and the graph has 20"
    assert OpsetLimits(30, min_opset=21).refuses(model) == "reads opset 21 at least and the graph has 20"
    assert OpsetLimits(20, max_ir_version=9).refuses(model) == "reads IR version 9 at most and the graph has 10"
    model.opset_imports["ai.onnx.ml"] = 5
    said = OpsetLimits(20, domains={"ai.onnx.ml": 4}).refuses(model)
    assert said == "reads opset 4 of ai.onnx.ml at most and the graph has 5"


def test_an_ir_version_that_is_used_stays():
    """4-bit integers came with IR version 10, so the graph cannot go below."""
    model = graph_of("(int4[2] x) => (int4[2] y) { y = Identity (x) }", 21)
    assert required_ir_version(model) == 10
    with pytest.raises(GraphError, match="the graph needs IR version 10, for its element types or functions, and 8 is"):
        fit_opset(model, OpsetLimits(max_opset=21, max_ir_version=8))


def test_operators_of_trees_are_restamped_or_refused():
    """A version of ai.onnx.ml whose operators are the same is lowered; a new operator is refused."""
    text = """<ir_version: 10, opset_import: ["" : 17, "ai.onnx.ml" : 5]> g (float[2] x) => (float[2] y) {
        y = ai.onnx.ml.Scaler <offset = [0.0], scale = [2.0]> (x) }"""
    found, note = fit_opset(ir.from_onnx_text(text), OpsetLimits(17, domains={"ai.onnx.ml": 3}))
    assert (found.opset_imports["ai.onnx.ml"], note) == (3, "converted from opset 5 to 3 of ai.onnx.ml")


def test_an_opset_that_nobody_knows():
    """A version above the installed onnx's is an error that says the highest."""
    newest = onnx.defs.onnx_opset_version()
    model = graph_of("(float[2] x) => (float[2] y) { y = Relu (x) }", 20)
    with pytest.raises(GraphError, match="there is no opset 9999 in the installed onnx") as caught:
        convert_opset(model, 9999)
    assert caught.value.mend == f"give {newest} at the most"
    model.opset_imports[""] = 9999
    with pytest.raises(GraphError, match=f"the graph has opset 9999, and the installed onnx knows up to {newest}"):
        convert_opset(model, 17)


@pytest.fixture(scope="module")
def cases(operator_tests):
    """Return ONNX's own tests of operators by name."""
    return operator_tests.collect()


def sweep(operator_tests, cases, library, opsets, target):
    """Convert the cases of some opsets; return the names of those that are right, refused, wrong, and not run."""
    found = {"right": [], "refused": [], "wrong": [], "not run": []}
    for name, case in sorted(cases.items()):
        opset = next((one.version for one in case.model.opset_import if not one.domain), 0)
        if opset in opsets and opset != target:
            found[convert_and_run(operator_tests, library, case, target)].append(name)
    return found


def convert_and_run(operator_tests, library, case, target):
    """Convert one case and compare its outputs; what a library cannot run, converted or not, proves nothing."""
    try:
        converted = convert_opset(ir.from_proto(case.model), target)
    except GraphError:
        return "refused"
    prepare = operator_tests.DIRECT[library]
    changed = types.SimpleNamespace(
        model=ir.to_proto(converted), data_sets=case.data_sets, rtol=case.rtol, atol=case.atol
    )
    if not (reason := operator_tests.attempt(prepare, changed)):
        return "right"
    return "wrong" if reason.startswith("wrong") and not operator_tests.attempt(prepare, case) else "not run"


@pytest.mark.parametrize("library", ["reference", "onnxruntime"])
def test_a_sample_of_the_operators_is_right_or_refused(operator_tests, cases, library):
    """Lowered to 17, none computes something else; most are lowered."""
    sample = dict(sorted(cases.items())[::12])
    found = sweep(operator_tests, sample, library, range(18, 24), 17)
    assert found["wrong"] == []
    assert len(found["right"]) > 2 * len(found["refused"])


@pytest.mark.slow
@pytest.mark.parametrize("library", ["reference", "onnxruntime"])
@pytest.mark.parametrize(
    ("opsets", "target"), [(range(18, 29), 17), (range(14, 18), 13), (range(22, 29), 21), (range(1, 23), 23)]
)
def test_no_operator_is_converted_wrongly(operator_tests, cases, library, opsets, target):
    """Every case of ONNX's own, down and up: right, refused, or not for this library to say."""
    found = sweep(operator_tests, cases, library, opsets, target)
    evaluator_means_training = {"test_batchnorm_epsilon", "test_batchnorm_example"}  # by a momentum, before opset 14
    assert set(found["wrong"]) <= (evaluator_means_training if (library, target) == ("reference", 13) else set())
    assert found["right"]
