"""Each pass alone: what it changes, what it leaves, and that the graph computes the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph import files
from enginery.graph.agree import difference
from enginery.graph.infer import infer_shapes
from enginery.graph.passes.base import is_random, replace_node
from enginery.graph.passes.drop_dropout import DropDropout
from enginery.graph.passes.drop_neutral_operands import DropNeutralOperands
from enginery.graph.passes.drop_no_ops import DropNoOps
from enginery.graph.passes.eliminate_identities import EliminateIdentities
from enginery.graph.passes.fold_batch_norm import FoldBatchNorm
from enginery.graph.passes.fold_constants import FoldConstants
from enginery.graph.passes.inline_functions import InlineFunctions
from enginery.graph.passes.lift_constants import LiftConstants
from enginery.graph.passes.merge_duplicates import MergeEqualInitializers, MergeEqualNodes
from enginery.graph.passes.remove_unused import RemoveUnused
from enginery.graph.passes.sort_nodes import SortNodes
from enginery.graph.passes.tanh_gelu import TanhGelu
from enginery.graph.weights import drop_pages

HEAD = '<ir_version: 10, opset_import: ["" : 20]> g'
RANDOM = np.random.default_rng(0)


def operators(model: ir.Model) -> list[str]:
    """Return the operators of the main graph in their order."""
    return [node.op_type for node in model.graph]


@pytest.fixture
def apply(run_ort):
    """Return a function that applies a pass to a copy, compares the outputs, and returns the copy."""

    def check(one, model, **feeds):
        copy = model.clone()
        before = run_ort(model, **feeds)
        assert one.requires(copy)
        assert one.apply(copy) is True
        assert one.ensures(copy) == ""
        assert difference([before], [run_ort(copy, **feeds)]) == ""
        assert one.apply(copy.clone()) is False or isinstance(one, LiftConstants)
        return copy

    return check


def batch_norm(channels: int) -> dict[str, np.ndarray]:
    """Return random constants of a normalisation."""
    return {
        "s": RANDOM.uniform(0.5, 2, channels).astype(np.float32),
        "h": RANDOM.standard_normal(channels).astype(np.float32),
        "m": RANDOM.standard_normal(channels).astype(np.float32),
        "v": RANDOM.uniform(0.5, 2, channels).astype(np.float32),
    }


@pytest.mark.parametrize(
    ("operator", "weights", "shape"),
    [
        ("Conv (x, w)", {"w": (6, 4, 3, 3)}, "2, 4, 8, 8"),
        ("Conv <group = 2> (x, w, b)", {"w": (6, 2, 3, 3), "b": (6,)}, "2, 4, 8, 8"),
        ("ConvTranspose <group = 2> (x, w, b)", {"w": (4, 3, 2, 2), "b": (6,)}, "2, 4, 5, 5"),
        ("Gemm <transB = 1, beta = 0.5, alpha = 2.0> (x, w, b)", {"w": (6, 4), "b": (6,)}, "3, 4"),
        ("Gemm (x, w, b)", {"w": (4, 6), "b": (1, 6)}, "3, 4"),
        ("Gemm (x, w)", {"w": (4, 6)}, "3, 4"),
    ],
)
def test_fold_batch_norm(apply, graph_of, operator, weights, shape):
    """A normalisation goes into the weights before it; the node that stays keeps its name and its metadata."""
    arrays = {name: RANDOM.standard_normal(size).astype(np.float32) for name, size in weights.items()}
    text = f"{HEAD} (float[{shape}] x) => (float y) {{ a = {operator} y = BatchNormalization (a, s, h, m, v) }}"
    model = graph_of(text, **arrays, **batch_norm(6))
    model.graph[0].name = "product"
    model.graph[0].metadata_props["module"] = "stem"
    x = RANDOM.standard_normal([int(size) for size in shape.split(",")]).astype(np.float32)
    found = apply(FoldBatchNorm(), model, x=x)
    assert len(found.graph) == 1
    assert found.graph[0].name == "product"
    assert found.graph[0].metadata_props == {"module": "stem"}
    assert "w" in found.graph.initializers
    assert found.graph.outputs[0].name == "y"


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv (x, w) y = BatchNormalization (a, s, h, m, v) z = Relu (a)",  # read elsewhere
        "a = Relu (x) y = BatchNormalization (a, s, h, m, v) z = Relu (y)",  # no product before it
        "a = Conv (x, k) y = BatchNormalization (a, s, h, m, v) z = Relu (y)",  # weights that vary
        "a = Conv (x, w) y, p, q = BatchNormalization <training_mode = 1> (a, s, h, m, v) z = Relu (y)",
    ],
)
def test_batch_norm_that_stays(graph_of, body):
    """A normalisation stays where folding it would change something else."""
    text = f"{HEAD} (float[1, 6, 4, 4] x, float[6, 6, 1, 1] k) => (float y, float z) {{ {body} }}"
    model = graph_of(text, w=RANDOM.standard_normal((6, 6, 1, 1)).astype(np.float32), **batch_norm(6))
    assert FoldBatchNorm().apply(model) is False
    assert "BatchNormalization" in operators(model)


def test_shared_weights_are_not_changed(apply, graph_of):
    """Weights that another node reads keep their values; the folded ones are a copy."""
    text = f"{HEAD} (float[1, 6, 4, 4] x) => (float y, float z) {{ a = Conv (x, w) z = Conv (x, w) "
    text += "y = BatchNormalization (a, s, h, m, v) }"
    model = graph_of(text, w=RANDOM.standard_normal((6, 6, 1, 1)).astype(np.float32), **batch_norm(6))
    before = model.graph.initializers["w"].const_value.numpy().copy()
    found = apply(FoldBatchNorm(), model, x=RANDOM.standard_normal((1, 6, 4, 4)).astype(np.float32))
    np.testing.assert_array_equal(found.graph.initializers["w"].const_value.numpy(), before)


def test_bias_of_rows_is_not_folded(graph_of):
    """A Gemm's bias that differs by row, not by column, cannot take a normalisation of the columns."""
    text = f"{HEAD} (float[6, 6] x) => (float y) {{ a = Gemm (x, w, b) y = BatchNormalization (a, s, h, m, v) }}"
    weights = {"w": np.ones((6, 6), np.float32), "b": np.arange(6, dtype=np.float32).reshape(6, 1)}
    assert FoldBatchNorm().apply(graph_of(text, **weights, **batch_norm(6))) is False


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Cast <to = 1> (x) y = Relu (a)", ["Relu"]),
        ("a = Transpose <perm = [0, 1, 2]> (x) y = Relu (a)", ["Relu"]),
        ("a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [2, 0, 1]> (a) y = Relu (b)", ["Relu"]),
        ("a = Transpose <perm = [1, 2, 0]> (x) b = Transpose <perm = [1, 2, 0]> (a) y = Relu (b)",
         ["Transpose", "Relu"]),
        ("a = Reshape (x, flat) b = Reshape (a, back) y = Relu (b)", ["Relu"]),
        ("a = Reshape (x, back) y = Relu (a)", ["Relu"]),
        ("a = Expand (x, back) y = Relu (a)", ["Relu"]),
        ("a = Concat <axis = 0> (x) y = Relu (a)", ["Relu"]),
        ("a = Relu (x) y = Sum (a)", ["Relu"]),
    ],
)  # fmt: skip
def test_drop_no_ops(apply, graph_of, body, left):
    """What hands its input on goes, and pairs are merged."""
    text = f"{HEAD} (float[2, 3, 4] x) => (float[d, e, f] y) <int64[1] flat = {{-1}}, int64[3] back = {{2, 3, 4}}> "
    found = apply(DropNoOps(), graph_of(f"{text} {{ {body} }}"), x=RANDOM.standard_normal((2, 3, 4)).astype(np.float32))
    assert operators(found) == left


@pytest.mark.parametrize(
    "body",
    [
        "a = Cast <to = 10> (x) b = Cast <to = 1> (a) y = Relu (b)",  # rounds on the way
        "a = Reshape (x, flat) b = Reshape (a, copied) y = Relu (b)",  # a 0 copies a size of the first
        "a = Transpose (x) y = Relu (a)",
        "y = Cast <to = 1> (x)",  # an output cannot be an input
    ],
)
def test_what_is_no_no_op(graph_of, body):
    """What does something stays."""
    text = f"{HEAD} (float[2, 3, 4] x) => (float y) <int64[1] flat = {{-1}}, int64[2] copied = {{0, 1}}> {{ {body} }}"
    assert DropNoOps().apply(graph_of(text)) is False


def test_drop_dropout(apply, graph_of):
    """Dropout goes where it does not train."""
    text = f"{HEAD} (float[4] x) => (float[4] y) <float r = {{0.5}}, bool t = {{0}}> "
    model = graph_of(text + "{ a = Dropout (x, r, t) y = Relu (a) }")
    assert operators(apply(DropDropout(), model, x=RANDOM.standard_normal(4).astype(np.float32))) == ["Relu"]


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (20, "a = Dropout (x, r, t) y = Relu (a)"),
        (20, "a, mask = Dropout (x) b = Cast <to = 1> (mask) y = Add (a, b)"),
        (6, "a = Dropout (x) y = Relu (a)"),
    ],
)
def test_dropout_that_stays(graph_of, opset, body):
    """Dropout stays where it trains, or where its mask is read."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[4] x) => (float[4] y) '
    model = graph_of(text + f"<float r = {{0.5}}, bool t = {{1}}> {{ {body} }}")
    assert DropDropout().apply(model) is False


def test_random_nodes_are_known(graph_of):
    """Nodes that draw random numbers are known, a Dropout that trains too."""
    model = graph_of(f"""{HEAD} (float[4] x) => (float[4] y) <float r = {{0.5}}, bool t = {{1}}, bool f = {{0}}> {{
        a = Dropout (x, r, t)
        b = Dropout (a, r, f)
        y = RandomNormalLike (b)
    }}""")
    assert [is_random(node) for node in model.graph] == [True, False, True]
    assert MergeEqualNodes().requires(model) is False


def test_fold_constants(apply, graph_of):
    """What depends on constants only is computed; what the inputs and outputs declare stays."""
    text = f"{HEAD} (float[n, 2] x) => (float[m, k] y) <float[2] c = {{1, 2}}> "
    found = apply(
        FoldConstants(), graph_of(text + "{ a = Add (c, c) b = Exp (a) y = Mul (x, b) }"), x=np.ones((3, 2), np.float32)
    )
    assert operators(found) == ["Mul"]
    assert str(found.graph.outputs[0].shape) == "[m,k]"


@pytest.mark.parametrize(
    "draw",
    ["Bernoulli (p)", "Dropout (p, r, t)", "RandomNormalLike (p)", "Multinomial <dtype = 6, sample_size = 4> (l)"],
)
def test_random_draws_are_not_folded(graph_of, draw):
    """A draw from constants is drawn anew in every run; frozen, it would be one of them for ever."""
    model = graph_of(f"""{HEAD} (float[4] x) => (float[m] y)
        <float[4] p = {{0.5, 0.5, 0.5, 0.5}}, float[1, 2] l = {{0.5, 0.5}}, float r = {{0.5}}, bool t = {{1}}> {{
        d = {draw} f = Cast <to = 1> (d) y = Mul (x, f) }}""")
    FoldConstants().apply(model)
    assert operators(model)[0] == draw.split()[0]


@pytest.mark.parametrize(("size", "left"), [(512, ["Add"]), (4096, ["ConstantOfShape", "Add"])])
def test_fills_are_folded_where_small(graph_of, size, left):
    """A constant that a few bytes describe is not written out where it is large."""
    model = graph_of(f"{HEAD} (float[{size}] x) => (float y) <int64[1] s = {{{size}}}> "
                     "{ a = ConstantOfShape (s) y = Add (x, a) }")  # fmt: skip
    FoldConstants().apply(model)
    assert operators(model) == left


def test_a_mask_that_masks_nothing_goes(graph_of, apply):
    """As exporters write it: spread to a size that is known at run time alone, through a choice and a cast."""
    model = graph_of(
        f"""{HEAD} (float[n, 2, 3] x) => (float[n, 2, 3] y)
        <bool[1, 1, 1] no = {{0}}, float zero = {{0.0}}, float low = {{-1e30}}, int64[1] at = {{0}}> {{
          size = Shape (x) all = Not (no) wide = Expand (all, size) mask = Where (wide, zero, low) a = Add (x, mask)
          ones = Cast <to = 1> (wide) b = Mul (ones, a) zeros = ConstantOfShape (size) c = Sub (b, zeros)
          d = Where (wide, c, low) y = Relu (d) }}"""
    )
    infer_shapes(model)
    found = apply(DropNeutralOperands(), model, x=RANDOM.standard_normal((4, 2, 3)).astype(np.float32))
    RemoveUnused().apply(found)
    assert operators(found) == ["Relu"]


@pytest.mark.parametrize("node", [
    "y = Add (x, w)", "y = Sub (z, x)", "y = Div (w, x)", "y = Mul (x, z)", "y = Add (x, s)",
])  # fmt: skip
def test_operands_that_change_something_stay(graph_of, node):
    """Other numbers, the other place, and a zero that spreads the result."""
    model = graph_of(
        f"{HEAD} (float[n, 3] x) => (float[m, 3] y) <float w = {{1.0}}, float z = {{0.0}}> {{ {node} }}",
        s=np.zeros((4, 1, 1), np.float32),
    )
    infer_shapes(model)
    assert DropNeutralOperands().apply(model) is False


GELUS = [
    "a = Div (x, r) e = Erf (a) o = Add (e, one) h = Mul (x, half) y = Mul (h, o)",
    "a = Mul (q, x) e = Erf (a) o = Add (one, e) p = Mul (x, o) y = Mul (p, half)",
    "a = Div (x, r) e = Erf (a) o = Sum (one, e) p = Mul (half, o) y = Mul (x, p)",
]
"""The formula in the orders that exporters write it in."""
_CONSTANTS = "<float r = {1.41421356}, float q = {0.70710678}, float one = {1.0}, float half = {0.5}>"


@pytest.mark.parametrize("formula", GELUS)
def test_gelu_by_tanh_is_near_the_exact_one(formula, graph_of, run_ort):
    """Nearer than float16 tells apart; there is no error function any more."""
    model = graph_of(f"{HEAD} (float[n] x) => (float[n] y) {_CONSTANTS} {{ {formula} }}")
    x = np.linspace(-6, 6, 4001, dtype=np.float32)
    exact = run_ort(model, x=x)["y"]
    assert TanhGelu().requires(model)
    assert TanhGelu().apply(model) is True
    assert "Erf" not in operators(model)
    assert "Tanh" in operators(model)
    assert 1e-5 < np.abs(run_ort(model, x=x)["y"] - exact).max() < 4.8e-4


@pytest.mark.parametrize(("old", "new"), [("(x, half)", "(x, one)"), ("(x, r)", "(x, one)"), ("(e, one)", "(e, half)")])
def test_what_only_looks_like_gelu_stays(old, new, graph_of):
    """Another number anywhere makes another function."""
    model = graph_of(f"{HEAD} (float[n] x) => (float[n] y) {_CONSTANTS} {{ {GELUS[0].replace(old, new)} }}")
    assert TanhGelu().apply(model) is False


@pytest.mark.parametrize("shape", [(3, 1), (3,), (1, 1)])
def test_ones_that_change_the_shape_are_no_gelu(shape, graph_of):
    """Ones of a shape of their own spread the sum to it, or give it another rank."""
    constants = _CONSTANTS.replace("float one = {1.0}, ", "")
    text = f"{HEAD} (float[n] x) => (float y) {constants} {{ {GELUS[0]} }}"
    assert TanhGelu().apply(graph_of(text, one=np.ones(shape, np.float32))) is False
    assert TanhGelu().apply(graph_of(text, one=np.ones((1,), np.float32))) is True


def test_folded_transposes_lie_in_order(graph_of):
    """A transposed weight is written out, so that later passes can read its bytes."""
    model = graph_of(f"{HEAD} (float[2, 3] x) => (float y) {{ t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }}",
                     w=RANDOM.standard_normal((4, 3)).astype(np.float32))  # fmt: skip
    assert FoldConstants().apply(model) is True
    assert all(value.const_value.numpy().flags.c_contiguous for value in model.graph.initializers.values())


def test_identities_between_input_and_output_stay(graph_of):
    """An output cannot be an input: the Identity between them stays; others go."""
    model = graph_of(f"{HEAD} (float[4] x) => (float[4] y, float[4] z) "
                     "{ y = Identity (x) a = Relu (x) b = Identity (a) z = Identity (b) }")  # fmt: skip
    assert EliminateIdentities().apply(model) is True
    assert operators(model) == ["Identity", "Relu"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


def test_one_value_for_two_outputs(graph_of, run):
    """Two outputs of one value keep both names."""
    model = graph_of(f"{HEAD} (float[1] x) => (float[1] y, float[1] z) "
                     "{ a = Relu (x) y = Identity (a) z = Identity (a) }")  # fmt: skip
    EliminateIdentities().apply(model)
    assert run(model, x=np.ones(1, np.float32)).keys() == {"y", "z"}
    assert operators(model) == ["Relu", "Identity"]


def test_lift_constants(apply, graph_of):
    """Constant nodes become initializers."""
    model = graph_of(
        f"{HEAD} (float[2] x) => (float[2] y) {{ c = Constant <value = float[2] {{1, 2}}> () y = Add (x, c) }}"
    )
    assert operators(apply(LiftConstants(), model, x=np.ones(2, np.float32))) == ["Add"]


def test_inline_functions(graph_of):
    """Calls become the function's body, and the functions go."""
    model = graph_of("""<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        g (float[4] x) => (float[4] y) { a = own.twice (x) y = own.twice (a) }
        <domain: "own", opset_import: ["" : 20]> twice (v) => (w) { w = Add (v, v) }""")
    copy = model.clone()
    assert InlineFunctions().apply(copy) is True
    assert InlineFunctions().ensures(copy) == ""
    assert operators(copy) == ["Add", "Add"]
    assert InlineFunctions().ensures(model) == "1 functions are left"


def test_merge_duplicates(apply, graph_of):
    """One of equal initializers stays, then one of equal nodes."""
    text = f"{HEAD} (float[2] x) => (float[2] y) <float[2] c = {{1, 2}}, float[2] d = {{1, 2}}> "
    model = graph_of(text + "{ a = Add (x, c) b = Add (x, d) y = Mul (a, b) }")
    x = np.ones(2, np.float32)
    found = apply(MergeEqualNodes(), apply(MergeEqualInitializers(), model, x=x), x=x)
    assert operators(found) == ["Add", "Mul"]


@pytest.mark.parametrize("on_disk", [False, True])
def test_merge_large_initializers(graph_of, tmp_path, monkeypatch, on_disk):
    """Large equal weights are merged, from disk without being mapped; those that only begin alike are kept."""
    one = RANDOM.standard_normal((128, 256)).astype(np.float32)
    other = one.copy()
    other[-1, -1] += 1
    text = f"{HEAD} (float[128, 256] x) => (float[128, 256] y) {{ a = Add (x, u) b = Add (a, v) y = Mul (b, w) }}"
    model = graph_of(text, u=one, v=other, w=one)
    if on_disk:
        monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10)
        monkeypatch.setattr(files, "_READ_AT_ONCE_BYTES", 10)
        files.save(model, tmp_path / "model.onnx")
        model = files.load(tmp_path / "model.onnx")
        assert all(value.const_value.raw is None for value in model.graph.initializers.values())
    assert MergeEqualInitializers().apply(model) is True
    assert list(model.graph.initializers) == ["u", "v"]
    assert model.graph[2].inputs[1] is model.graph[0].inputs[1]
    assert MergeEqualInitializers().apply(model) is False
    if on_disk:
        assert all(value.const_value.raw is None for value in model.graph.initializers.values())


@pytest.mark.parametrize("rows", [2, 256])
def test_merge_transposed_initializers(graph_of, rows):
    """Weights that are views with other strides, as torch.onnx.export leaves them, are compared by their values."""
    plain = RANDOM.standard_normal((rows, 128)).astype(np.float32)
    view = np.asfortranarray(plain)
    assert not view.flags.c_contiguous
    text = f"{HEAD} (float[{rows}, 128] x) => (float[{rows}, 128] y) {{ a = Add (x, u) b = Add (a, v) y = Mul (b, w) }}"
    model = graph_of(text, u=plain, v=plain, w=plain + 1)
    model.graph.initializers["v"].const_value = ir.Tensor(view, name="v")
    assert MergeEqualInitializers().apply(model) is True
    assert list(model.graph.initializers) == ["u", "w"]


def test_pages_are_given_back(tmp_path, graph_of, monkeypatch):
    """Weights that a pass looked at do not stay in memory, and arrays of them stay good."""
    weights = RANDOM.standard_normal((1 << 10, 1 << 11)).astype(np.float32)
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10)
    files.save(
        graph_of(f"{HEAD} (float[2048] x) => (float[1024] y) {{ y = MatMul (w, x) }}", w=weights), tmp_path / "m.onnx"
    )
    tensor = files.load(tmp_path / "m.onnx").graph.initializers["w"].const_value
    before = mapped_bytes(tmp_path)
    total = tensor.numpy().sum()
    assert mapped_bytes(tmp_path) > before
    drop_pages([tensor])
    assert mapped_bytes(tmp_path) == before
    assert tensor.numpy().sum() == total


def mapped_bytes(folder) -> int:
    """Return how much of the files below a folder is in this process's memory."""
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("this system does not tell")
    blocks = re.findall(r"^\S+-\S+ \S+ \S+ \S+ \S+\s+(\S*)\n(?:.*\n)*?Rss:\s+(\d+) kB", smaps.read_text(), re.MULTILINE)
    return sum(int(size) * 1024 for name, size in blocks if name.startswith(str(folder)))


def test_remove_unused(apply, graph_of):
    """What no output needs goes: nodes, initializers, operator sets."""
    text = (
        '<ir_version: 10, opset_import: ["" : 20, "unused" : 1]> g (float[2] x) => (float[2] y) <float[2] c = {1, 2}> '
    )
    found = apply(RemoveUnused(), graph_of(text + "{ a = Add (x, c) y = Relu (x) }"), x=np.ones(2, np.float32))
    assert operators(found) == ["Relu"]
    assert not found.graph.initializers
    assert found.opset_imports == {"": 20}


def test_sort_nodes(graph_of):
    """Nodes come after those they read."""
    model = graph_of(f"{HEAD} (float[2] x) => (float[2] y) {{ y = Relu (a) a = Neg (x) }}")
    assert SortNodes().apply(model) is True
    assert operators(model) == ["Neg", "Relu"]


def test_outputs_keep_what_they_declare(graph_of):
    """A node that makes an output in another's place keeps the output's name, type and shape."""
    model = graph_of(f"{HEAD} (float[n] x) => (float[rows] y) {{ a = Relu (x) y = Identity (a) }}")
    model.graph[0].outputs[0].shape = ir.Shape(["other"])
    assert replace_node(model.graph[1], model.graph[0].outputs[0]) is True
    assert str(model.graph.outputs[0].shape) == "[rows]"
    assert model.graph.outputs[0].name == "y"
