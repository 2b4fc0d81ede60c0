"""Casting: every result passes the whole checker, loads and agrees; here are the traps other converters fall into."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph.base import all_nodes, load_model, save_model, tensor_infos
from enginery.graph.modules import MODULE_KEY


def kinds(model: ir.Model) -> Counter:
    """Count the operators of a graph, those of subgraphs too."""
    return Counter(node.op_type for node in all_nodes(model))


def made(model: ir.Model) -> dict[str, str]:
    """Return the type that each node makes first, by the node's name."""
    return {node.name: node.outputs[0].dtype.name for node in all_nodes(model) if node.outputs[0].dtype is not None}


def weights(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Return the initializers of the main graph by name."""
    return {name: value.const_value for name, value in model.graph.initializers.items()}


def assert_close(found, expected, bound=5e-3):
    """Compare two lists of arrays by relative norm; other types than floats are equal."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if other.dtype.kind == "f":
            assert np.linalg.norm(one - other) <= bound * np.linalg.norm(other) + 1e-6
        else:
            assert (one == other).all()


def test_inputs_and_outputs_keep_names_and_types(small_model, cast, run):
    """Inputs and outputs keep names and types."""
    x = np.random.default_rng(1).standard_normal((6, 4), dtype=np.float32)
    result = cast(small_model)
    assert tensor_infos(result.graph.inputs) == tensor_infos(small_model.graph.inputs)
    assert tensor_infos(result.graph.outputs) == tensor_infos(small_model.graph.outputs)
    assert kinds(result) == {"MatMul": 2, "Relu": 1, "Cast": 2}
    assert {tensor.dtype.name for tensor in weights(result).values()} == {"FLOAT16"}
    assert_close(run(result, x=x), run(small_model, x=x))


def test_bf16_raises_the_opset_to_one_that_has_it(small_model, cast):
    """BF16 raises the opset to one that has it."""
    result = cast(small_model, "bf16")
    assert result.opset_imports[""] == 22
    assert {tensor.dtype.name for tensor in weights(result).values()} == {"BFLOAT16"}


def test_names_and_metadata_stay(small_model, cast):
    """Names and metadata stay."""
    for at, node in enumerate(small_model.graph):
        node.name, node.metadata_props[MODULE_KEY] = f"n{at}", f"block.{at}"
    result = cast(small_model)
    found = {node.name: node.metadata_props[MODULE_KEY] for node in result.graph}
    assert found.items() >= {"n0": "block.0", "n1": "block.1", "n2": "block.2"}.items()
    assert found["y_Cast_fp32"] == "block.2"


def test_a_node_of_the_plan_stays_float32(read, cast, run):
    """A node of the plan stays float32."""
    model = read("g (float[2, 3] x) => (float[2, 3] y) { a = Relu(x) b = Exp(a) y = Neg(b) }")
    result = cast(model, nodes={"b": "fp32"})
    assert made(result) == {
        "x_Cast_fp16": "FLOAT16", "a": "FLOAT16", "a_Cast_fp32": "FLOAT", "b": "FLOAT", "b_Cast_fp16": "FLOAT16",
        "y": "FLOAT16", "y_Cast_fp32": "FLOAT",
    }  # fmt: skip
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    assert_close(run(result, x=x), run(model, x=x))


def test_what_only_moves_values_between_float32_nodes_stays_float32(read, cast):
    """What only moves values between float32 nodes stays float32."""
    model = read("g (float[2, 3] x) => (float[3, 2] z) { a = Exp(x) b = Transpose(a) c = Identity(b) z = Log(c) }")
    assert set(made(cast(model, nodes={"a": "fp32", "z": "fp32"})).values()) == {"FLOAT"}


def test_masks_never_become_infinite(read, cast, run):
    """Masks never become infinite."""
    lowest = float(np.finfo(np.float32).min)
    model = read("""
        g (float[1, 4] x, float[1, 4] mask) => (float[1, 4] y)
        <float one = {1.0}, float low = {-1.0}> {
            away = Sub(one, mask) b = Mul(away, low) c = Add(x, b) y = Softmax(c)
        }""")
    model.graph.initializers["low"].const_value = ir.tensor(np.float32(lowest), name="low")
    said = []
    mask = np.array([[1, 1, 0, 1]], np.float32)
    x = np.ones((1, 4), np.float32)
    for precision, largest in (("fp16", -65504.0), ("bf16", -3.3895313892515355e38)):
        result = cast(model, precision, say=said.append)
        assert float(weights(result)["low"].numpy()) == largest
    assert_close(run(cast(model), x=x, mask=mask), run(model, x=x, mask=mask))
    assert said[0] == (
        "1 values of 'low' are beyond float16's range, up to 3.4e+38 in 'low': they became its largest finite value"
    )


def test_infinite_weights_stay_infinite(read, cast):
    """Infinite weights stay infinite."""
    model = read("g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Add(x, w) }")
    model.graph.initializers["w"].const_value = ir.tensor(np.array([-np.inf, 7e4], np.float32), name="w")
    assert weights(cast(model))["w"].numpy().tolist() == [-np.inf, 65504.0]


def test_values_that_vanish_are_told(read, cast):
    """Values that vanish are told."""
    model = read("g (float[2] x) => (float[2] y) <float[2] w = {1e-12, 1e-6}> { y = Add(x, w) }")
    said = []
    cast(model, say=said.append)
    assert said == [
        "1 values of 'w' are too small for float16: they became 0",
        "1 values of 'w' are subnormal in float16: they keep few digits",
    ]


def test_a_shared_weight_has_one_copy_for_each_type(read, cast, run):
    """A shared weight has one copy for each type."""
    model = read("""
        g (float[2, 2] x) => (float[2, 2] y, float[2, 2] z) <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}> {
            a = Add(x, w) y = Mul(a, w) z = Exp(w)
        }""")
    result = cast(model, nodes={"z": "fp32"})
    assert {name: tensor.dtype.name for name, tensor in weights(result).items()} == {"w": "FLOAT", "w_fp16": "FLOAT16"}
    x = np.ones((2, 2), np.float32)
    assert_close(run(result, x=x), run(model, x=x))


def test_existing_casts_go_straight_to_the_type_that_is_read(read, cast, run):
    """Existing casts go straight to the type that is read."""
    model = read("""
        g (int64[3] ids, float[3] x) => (float[3] y, double[3] d) {
            f = Cast<to = 1>(ids) a = Add(f, x) same = Cast<to = 1>(a) y = Neg(same) d = Cast<to = 11>(a)
        }""")
    result = cast(model)
    assert made(result) == {
        "x_Cast_fp16": "FLOAT16", "f": "FLOAT16", "a": "FLOAT16", "y": "FLOAT16", "y_Cast_fp32": "FLOAT",
        "d": "DOUBLE",
    }  # fmt: skip
    feeds = {"ids": np.array([1, 2, 3]), "x": np.array([0.5, 0.25, 4], np.float32)}
    assert_close(run(result, **feeds), run(model, **feeds))


def test_a_cast_read_in_two_types_leaves_no_pair(read, cast):
    """A cast read in two types leaves no pair."""
    model = read("g (int64[3] ids) => (float[3] y, float[3] z) { f = Cast<to = 1>(ids) y = Neg(f) z = Exp(f) }")
    result = cast(model, nodes={"z": "fp32"})
    for node in all_nodes(result):
        if node.op_type == "Cast" and node.inputs[0].producer() is not None:
            assert node.inputs[0].producer().op_type != "Cast"


def test_inputs_of_a_fixed_type_stay(read, cast, run):
    """Inputs of a fixed type stay."""
    model = read("""
        g (float[1, 1, 4, 4] x, float[1, 6, 4] boxes, float[1, 1, 6] scores)
            => (float[1, 1, 8, 8] y, float[1, 1, 4, 2] top, int64[N, 3] kept, float[M] r)
        <float[4] scales = {1.0, 1.0, 2.0, 2.0}, int64[1] k = {2}, int64 most = {3}, float iou = {0.5},
         float begin = {0.0}, float end = {3.0}, float step = {1.0}> {
            y = Resize<mode = "linear">(x, , scales)
            top, at = TopK(x, k)
            kept = NonMaxSuppression(boxes, scores, most, iou)
            r = Range(begin, end, step)
        }""")
    result = cast(model)
    types = {name: tensor.dtype.name for name, tensor in weights(result).items()}
    assert types == {
        "scales": "FLOAT", "k": "INT64", "most": "INT64", "iou": "FLOAT", "begin": "FLOAT", "end": "FLOAT",
        "step": "FLOAT",
    }  # fmt: skip
    assert made(result)["y"] == "FLOAT16"
    random = np.random.default_rng(0)
    feeds = {
        "x": random.standard_normal((1, 1, 4, 4), dtype=np.float32),
        "boxes": random.random((1, 6, 4), dtype=np.float32),
        "scores": random.random((1, 1, 6), dtype=np.float32),
    }
    assert_close(run(result, **feeds), run(model, **feeds))


def test_the_statistics_of_a_layer_norm_stay_float32(read, cast, run):
    """The statistics of a layer norm stay float32."""
    model = read("""
        g (float[2, 4] x) => (float[2, 4] y, float[2, 1] mean) <float[4] s = {1.0, 1.0, 2.0, 1.0}> {
            y, mean, deviation = LayerNormalization(x, s)
        }""")
    result = cast(model)
    types = {value.name: value.dtype.name for node in result.graph for value in node.outputs}
    assert (types["mean"], types["deviation"]) == ("FLOAT", "FLOAT")
    x = np.random.default_rng(0).standard_normal((2, 4), dtype=np.float32)
    assert_close(run(result, x=x), run(model, x=x))


def test_sizes_are_computed_in_float32(read, cast, run):
    """Sizes are computed in float32."""
    model = read("""
        g (float[1, 1, N] x) => (float[1, 1, M] y) <int64[1] two = {2}, float factor = {1.5}, int64[2] one = {1, 1}> {
            shape = Shape(x) n = Gather<axis = 0>(shape, two) f = Cast<to = 1>(n) g = Mul(f, factor) h = Floor(g)
            i = Cast<to = 7>(h) sizes = Concat<axis = 0>(one, i) y = Resize(x, , , sizes)
        }""")
    x = np.ones((1, 1, 4099), np.float32)
    result = cast(model)
    assert {made(result)[name] for name in "fgh"} == {"FLOAT"}
    assert run(result, x=x)[0].shape == run(model, x=x)[0].shape == (1, 1, 6148)


def test_positions_are_computed_in_float32(read, cast):
    """Positions are computed in float32."""
    model = read("""
        g (int64[4] at, float[10, 2] table) => (float[4, 2] y) <float base = {2.0}> {
            f = Cast<to = 1>(at) l = Log(f) m = Mul(l, base) i = Cast<to = 7>(m) y = Gather(table, i)
        }""")
    assert {made(cast(model))[name] for name in "flm"} == {"FLOAT"}


def test_a_fill_takes_the_type_that_is_read(read, cast, run):
    """A fill takes the type that is read."""
    model = read("""
        g (float[2, 2] x) => (float[2, 2] y) <int64[2] sizes = {2, 2}> {
            c = ConstantOfShape<value = float[1] {1e6}>(sizes) k = Constant<value_float = 0.5>() a = Mul(c, k)
            y = Add(a, x)
        }""")
    result = cast(model)
    assert made(result)["c"] == made(result)["k"] == "FLOAT16"
    assert run(result, x=np.zeros((2, 2), np.float32))[0].tolist() == [[32752.0, 32752.0]] * 2


IF_AND_LOOP = """
    g (float[2] x, bool deep, int64 times) => (float[2] y, float[2] z) <float[2] w = {0.5, 0.25}> {
        a = Mul(x, w)
        y = If(deep) <
            then_branch = t () => (float[2] t1) { t0 = Add(a, w) t1 = Exp(t0) },
            else_branch = e () => (float[2] e1) { e1 = Neg(x) }
        >
        z, all = Loop(times, deep, a) <
            body = b (int64 i, bool go, float[2] state) => (bool more, float[2] next, float[2] kept) {
                more = Identity(go) next = Add(state, w) f = Cast<to = 1>(i) kept = Mul(next, f)
            }
        >
    }
"""


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("nodes", [{}, {"z": "fp32"}, {"y": "fp32", "t1": "fp32"}, {"a": "fp32", "next": "fp32"}])
def test_subgraphs_and_what_they_capture(read, cast, run, deep, nodes):
    """Subgraphs and what they capture."""
    model = read(IF_AND_LOOP)
    result = cast(model, nodes=nodes)
    feeds = {"x": np.array([1, 2], np.float32), "deep": np.array(deep), "times": np.array(3)}
    assert_close(run(result, **feeds), run(model, **feeds))
    types = made(result)
    assert all(types[name] == "FLOAT" for name in nodes)
    assert types["t0"] == "FLOAT16"


def test_a_scan(read, cast, run):
    """A scan."""
    model = read("""
        g (float[2] first, float[5, 2] xs) => (float[2] last, float[5, 2] ys) {
            last, ys = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] x) => (float[2] n, float[2] o) {
                n = Add(s, x) o = Relu(n)
            }>(first, xs)
        }""")
    result = cast(model)
    assert made(result)["n"] == "FLOAT16"
    random = np.random.default_rng(0)
    feeds = {"first": np.ones(2, np.float32), "xs": random.standard_normal((5, 2), dtype=np.float32)}
    assert_close(run(result, **feeds), run(model, **feeds), 1e-2)


def test_an_output_that_is_also_read_keeps_its_name(read, cast, run):
    """An output that is also read keeps its name."""
    model = read("g (float[2] x) => (float[2] a, float[2] y, float[2] x2) { a = Relu(x) y = Neg(a) x2 = Identity(x) }")
    result = cast(model)
    assert [value.name for value in result.graph.outputs] == ["a", "y", "x2"]
    x = np.array([1.5, -2], np.float32)
    assert_close(run(result, x=x), run(model, x=x))


def test_quantisers_take_float16_scales_where_the_opset_has_them(read, cast):
    """Quantisers take float16 scales where the opset has them."""
    model = read("""
        g (float[2, 4] x) => (float[2, 4] y) <float s = {0.05}, int8 zero = {0}> {
            r = Relu(x) q = QuantizeLinear(r, s, zero) d = DequantizeLinear(q, s, zero) y = Neg(d)
        }""", opset=17)  # fmt: skip
    result = cast(model)
    assert result.opset_imports[""] == 19
    assert made(result)["d"] == "FLOAT16"
    assert kinds(result)["Cast"] == 2


def test_a_scale_that_float16_cannot_hold_stays_float32(read, cast):
    """A scale that float16 cannot hold stays float32."""
    model = read("""
        g (float[2, 4] x) => (float[2, 4] y) <float s = {1e-6}, int8 zero = {0}> {
            r = Relu(x) q = QuantizeLinear(r, s, zero) d = DequantizeLinear(q, s, zero) y = Neg(d)
        }""", opset=19)  # fmt: skip
    assert weights(cast(model))["s"].dtype == ir.DataType.FLOAT


def test_large_weights_on_disk_are_converted_on_their_way(tmp_path, read, cast, run, monkeypatch):
    """Large weights on disk are converted on their way."""
    model = read("g (float[1, 256] x) => (float[1, 256] y) <float[256, 256] w> { y = MatMul(x, w) }")
    values = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    value = next(value for node in model.graph for value in node.inputs if value.name == "w")
    value.const_value = ir.tensor(values, name="w")
    model.graph.register_initializer(value)
    monkeypatch.setattr("enginery.graph.files.EXTERNAL_ABOVE_BYTES", 1000)
    save_model(model, tmp_path / "large.onnx")
    loaded = load_model(tmp_path / "large.onnx")
    assert isinstance(weights(loaded)["w"], ir.ExternalTensor)
    result = cast(loaded)
    assert (weights(result)["w"].numpy() == values.astype(np.float16)).all()
    x = np.ones((1, 256), np.float32)
    assert_close(run(result, x=x), run(loaded, x=x))


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_real_architectures(light_models, cast, name, precision):
    """Real architectures."""
    model = load_model(light_models / f"light_{name}.onnx")
    result = cast(model, precision)
    assert kinds(result)["Cast"] == kinds(model)["Cast"] + len(model.graph.inputs) + len(model.graph.outputs)
    compute = [node for node in result.graph if node.op_type in ("Conv", "Gemm", "BatchNormalization")]
    assert {node.outputs[0].dtype.name for node in compute} == {"FLOAT16" if precision == "fp16" else "BFLOAT16"}
