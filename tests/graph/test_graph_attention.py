"""Attention as exporters write it, brought into one form that computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph.agree import difference
from enginery.graph.base import patches_by_product, split_layer_norms
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.patch_products import PatchProducts
from enginery.graph.passes.plain_shapes import PlainShapes
from enginery.graph.passes.split_layer_norm import SplitLayerNorm
from enginery.graph.passes.straighten_attention import StraightenAttention
from enginery.graph.simplify import simplify
from enginery.streams import quiet

torch = pytest.importorskip("torch")

WIDTH, HEADS, LENGTH = 32, 4, 9
STRAIGHT = ["MatMul", "Add", "Reshape", "Transpose"]


class Block(torch.nn.Module):
    """Attention of PyTorch's own, as torchvision's ViT has it: sequence first inside, one projection in three."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.attention = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


class Packed(torch.nn.Module):
    """Attention as timm has it: one projection, parted by an axis of three."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH)
        self.out = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, width))


class Masked(torch.nn.Module):
    """Attention as transformers has it: three projections, a mask of the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, mask):
        batch, length, width = x.shape
        q, k, v = (part(x).view(batch, length, HEADS, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        allowed = mask.bool()[:, None, None, :].expand(batch, 1, length, length)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return x + self.out(y.transpose(1, 2).reshape(batch, length, width))


def exported(module: torch.nn.Module, **inputs) -> ir.Model:
    """Export with a batch that varies."""
    with quiet("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=18,
            input_names=list(inputs),
            output_names=["y"],
            dynamic_shapes=tuple({0: "batch"} for _ in inputs),
            verbose=False,
        )
    return ir.from_proto(ir.to_proto(program.model))


def simplified(model: ir.Model, run_ort, **feeds) -> ir.Model:
    """Simplify, and hold the outputs against the original's; every pass must be kept."""
    result, record = simplify(model, evaluate=lambda graph: [run_ort(graph, **feeds)], say=pytest.fail)
    status = {one.name: one.status for one in record.passes}
    assert status["straighten attention"] == "changed"
    assert "dropped" not in status.values()
    return result


def before(value: ir.Value, count: int) -> list[str]:
    """Return the operators that lead to a tensor, first to last."""
    found: list[str] = []
    while len(found) < count and (node := value.producer()) is not None:
        found.append(node.op_type)
        value = next(given for given in node.inputs if given.const_value is None)
    return found[::-1]


def check_form(model: ir.Model) -> None:
    """Hold a graph with one attention against the form that is promised."""
    nodes = list(model.graph)
    (softmax,) = (node for node in nodes if node.op_type == "Softmax")
    (use,) = softmax.outputs[0].uses()
    assert use.node.op_type == "MatMul"
    assert before(use.node.inputs[1], 4) == STRAIGHT
    scores = softmax.inputs[0].producer()
    if scores.op_type == "Add":
        scores = next(value.producer() for value in scores.inputs if value.producer().op_type == "MatMul")
    assert [before(operand, 4) for operand in scores.inputs] == [STRAIGHT, STRAIGHT]
    operators = {node.op_type for node in nodes}
    assert not operators & {"IsNaN", "Gather", "Squeeze", "Shape", "Concat", "Slice"}


def tokens(batch: int) -> np.ndarray:
    """Return random inputs."""
    return np.random.default_rng(batch).standard_normal((batch, LENGTH, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("module", [Block, Packed])
def test_attention_without_mask_is_straightened_at_every_batch(module, run_ort):
    """Sequence-first and packed projections come out the same, also at a batch that was not exported with."""
    torch.manual_seed(0)
    model = exported(module(), x=torch.from_numpy(tokens(2)))
    result = simplified(model, run_ort, x=tokens(3))
    check_form(result)
    assert difference([run_ort(model, x=tokens(1))], [run_ort(result, x=tokens(1))]) == ""


def test_attention_with_mask_loses_its_guard(run_ort):
    """PyTorch guards against rows that are masked whole, and writes a mask that is finite: no row becomes NaN."""
    torch.manual_seed(0)
    mask = np.ones((3, LENGTH), np.int64)
    mask[1, 4:] = 0
    model = exported(Masked(), x=torch.from_numpy(tokens(2)), mask=torch.ones(2, LENGTH, dtype=torch.int64))
    result = simplified(model, run_ort, x=tokens(3), mask=mask)
    softmax = next(node for node in result.graph if node.op_type == "Softmax")
    assert {use.node.op_type for use in softmax.outputs[0].uses()} == {"MatMul"}


def test_masked_row_of_minus_infinity_keeps_its_guard(graph_of, run_ort):
    """A mask of -inf makes NaN of a row; without the guard the outputs would change, so all stays."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[b, 5, 8] x, bool[b, 1, 5, 5] m) => (float[b, 2, 5, 4] y)
    <int64[4] r = {0, 0, 2, 4}, float z = {0.0}> {
      q0 = MatMul(x, wq) q1 = Reshape(q0, r) q = Transpose<perm = [0, 2, 1, 3]>(q1)
      k0 = MatMul(x, wk) k1 = Reshape(k0, r) k = Transpose<perm = [0, 2, 3, 1]>(k1)
      s = MatMul(q, k) a = Where(m, z, low) t = Add(s, a) p = Softmax<axis = -1>(t)
      n = IsNaN(p) u = Where(n, z, p)
      v0 = MatMul(x, wv) v1 = Reshape(v0, r) v = Transpose<perm = [0, 2, 1, 3]>(v1) y = MatMul(u, v)
    }"""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("wq", "wk", "wv")}
    model = graph_of(text, low=np.float32(-np.inf), **weights)
    assert StraightenAttention().apply(model.clone()) is False
    x, m = random.standard_normal((1, 5, 8)).astype(np.float32), np.zeros((1, 1, 5, 5), bool)
    assert np.array_equal(run_ort(model, x=x, m=m)["y"], np.zeros((1, 2, 5, 4), np.float32))


@pytest.mark.parametrize("scaled", ["s1 = Mul(s, f)", "s1 = Mul(f, s)", "s1 = Div(s, f)"])
def test_scale_behind_the_product_goes_into_the_weights(scaled, graph_of, run_ort):
    """As eager attention has it."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[b, 5, 8] x, float[b, 1, 5, 5] m) => (float[b, 2, 5, 4] y)
    <int64[4] r = {{0, 0, 2, 4}}, float f = {{0.25}}> {{
      q0 = MatMul(x, wq) q1 = Reshape(q0, r) q = Transpose<perm = [0, 2, 1, 3]>(q1)
      k0 = MatMul(x, wk) k1 = Reshape(k0, r) k = Transpose<perm = [0, 2, 3, 1]>(k1)
      s = MatMul(q, k) {} t = Add(s1, m) p = Softmax<axis = -1>(t)
      v0 = MatMul(x, wv) v1 = Reshape(v0, r) v = Transpose<perm = [0, 2, 1, 3]>(v1) y = MatMul(p, v)
    }}"""
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("wq", "wk", "wv")}
    model = graph_of(text.format(scaled), **weights)
    infer_shapes(model)
    feeds = {
        "x": random.standard_normal((3, 5, 8)).astype(np.float32),
        "m": random.standard_normal((3, 1, 5, 5)).astype(np.float32),
    }
    result = simplified(model, run_ort, **feeds)
    assert not {"Mul", "Div"} & {node.op_type for node in result.graph}
    assert difference([run_ort(model, **feeds)], [run_ort(result, **feeds)]) == ""


def test_scale_of_scores_that_are_read_elsewhere_stays(graph_of):
    """Their reader wants them without it."""
    model = graph_of(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[b, 5, 8] x) => (float[b, 2, 5, 4] y, float[b, 2, 5, 5] s)
        <int64[4] r = {0, 0, 2, 4}, float f = {0.25}> {
          q0 = MatMul(x, w) q1 = Reshape(q0, r) q = Transpose<perm = [0, 2, 1, 3]>(q1)
          k = Transpose<perm = [0, 2, 3, 1]>(q1) s = MatMul(q, k) t = Mul(s, f) p = Softmax<axis = -1>(t)
          y = MatMul(p, q)
        }""",
        w=np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32),
    )
    infer_shapes(model)
    assert StraightenAttention().apply(model) is False


def test_straight_attention_is_left_alone(run_ort):
    """What it wrote, it does not write again."""
    torch.manual_seed(0)
    result = simplified(exported(Block(), x=torch.from_numpy(tokens(2))), run_ort, x=tokens(3))
    assert StraightenAttention().apply(result) is False


def test_partial_shapes_become_slices(graph_of, run_ort):
    """Older readers pass over start and end of Shape."""
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[a, 3, b] x) => (int64[2] y, int64[1] z) {
      y = Shape<start = 1>(x) z = Shape<start = 0, end = -2>(x)
    }""")
    feeds = {"x": np.zeros((2, 3, 5), np.float32)}
    expected = run_ort(model, **feeds)
    one = PlainShapes()
    assert one.requires(model)
    assert one.apply(model) is True
    assert one.ensures(model) == ""
    assert not one.requires(model)
    assert difference([expected], [run_ort(model, **feeds)]) == ""
    assert [output.name for output in model.graph.outputs] == ["y", "z"]


@pytest.mark.parametrize("shift", ["", ", b"])
def test_layer_norm_in_parts_computes_the_same(shift, graph_of, run_ort):
    """With a shift and without one; the operator is gone."""
    model = graph_of(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 5, 8] x) => (float[n, 5, 8] y, float[n, 5, 8] z) {{
          y = LayerNormalization<axis = -1, epsilon = 0.001>(x, s{shift})
          z = LayerNormalization<axis = 2>(y, s{shift})
        }}""",
        s=np.arange(1, 9, dtype=np.float32),
        b=np.linspace(-1, 1, 8, dtype=np.float32),
    )
    x = 100 * np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    split = split_layer_norms(model)
    assert "LayerNormalization" not in {node.op_type for node in split.graph}
    assert {node.op_type for node in model.graph} == {"LayerNormalization"}
    assert SplitLayerNorm().ensures(split) == ""
    assert difference([run_ort(model, x=x)], [run_ort(split, x=x)]) == ""


def test_layer_norm_whose_mean_is_read_stays(graph_of):
    """Its other outputs have no counterpart in the parts."""
    model = graph_of(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2, 8] x) => (float[2, 8] y, float[2, 1] m) {
          y, m = LayerNormalization<axis = -1>(x, s)
        }""",
        s=np.ones(8, np.float32),
    )
    assert split_layer_norms(model) is model


PATCHES = """<ir_version: 8, opset_import: ["" : 17]> g (float[{batch}, 3, 8, 12] x) => (float[{batch}, t, 5] y) {{
  c = Conv<kernel_shape = [4, 6], strides = [4, 6]{attributes}>(x, w{bias})
  r = Reshape<allowzero = {allowzero}>(c, s)
  y = Transpose<perm = {perm}>(r)
}}"""


def patches_graph(graph_of, *, bias=", b", attributes="", allowzero=0, perm="[0, 2, 1]", shape=(0, 5, 4), batch=3):
    """Return a graph that makes four tokens of pictures of 8 by 12."""
    draw = np.random.default_rng(0).standard_normal
    text = PATCHES.format(bias=bias, attributes=attributes, allowzero=allowzero, perm=perm, batch=batch)
    weights, shift = draw((5, 3, 4, 6)).astype(np.float32), draw(5).astype(np.float32)
    given = {"b": shift} if bias else {}
    return graph_of(text, w=weights, s=np.array(shape, np.int64), **given)


@pytest.mark.parametrize("bias", ["", ", b"])
@pytest.mark.parametrize(("shape", "allowzero"), [((0, 5, 4), 0), ((0, 0, -1), 0), ((3, -1, 4), 1), ((-1, 5, 4), 1)])
def test_tokens_of_patches_by_a_product_are_the_same(bias, shape, allowzero, graph_of, run_ort):
    """With a bias and without one, however the Reshape says its sizes; the convolution is gone."""
    model = patches_graph(graph_of, bias=bias, shape=shape, allowzero=allowzero)
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 12)).astype(np.float32)
    changed = patches_by_product(model)
    assert [node.op_type for node in changed.graph if node.op_type not in ("Constant", "Reshape", "Transpose")] == [
        "MatMul", *(["Add"] if bias else []),
    ]  # fmt: skip
    assert "Conv" in {node.op_type for node in model.graph}
    assert PatchProducts().ensures(changed) == ""
    assert "w" not in changed.graph.initializers
    assert difference([run_ort(model, x=x)], [run_ort(changed, x=x)]) == ""


@pytest.mark.parametrize(
    "other",
    [
        {"attributes": ", pads = [0, 0, 4, 6]", "shape": (0, 5, -1)},
        {"attributes": ", dilations = [2, 1]", "shape": (0, 5, -1)},
        {"attributes": ', auto_pad = "SAME_UPPER"'},
        {"perm": "[2, 0, 1]"},
        {"perm": "[0, 1, 2]"},
        {"shape": (0, 4, 5)},
        {"shape": (4, 5, -1)},
        {"shape": (0, 5, 4), "allowzero": 1},
        {"batch": "n"},
    ],
)
def test_what_is_no_embedding_of_patches_stays(other, graph_of):
    """Overlapping or padded patches, tokens in another order, and a batch that varies are left to the convolution."""
    model = patches_graph(graph_of, **other)
    assert patches_by_product(model) is model


def test_a_convolution_that_is_read_twice_stays(graph_of):
    """Its own result is asked for as well."""
    model = patches_graph(graph_of)
    conv = model.graph[0]
    model.graph.outputs.append(conv.outputs[0])
    assert patches_by_product(model) is model
