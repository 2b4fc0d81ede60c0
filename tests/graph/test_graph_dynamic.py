"""Fixed axes made dynamic: what is asked for, what is mended, what is proved, and which nodes are named where not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.errors import GraphError, RunError, UnknownNameError, UsageError
from enginery.graph.dynamic.request import parse_dynamic
from enginery.graph.dynamic.rewrite import make_dynamic

HEAD = '<ir_version: 8, opset_import: ["": 17]> g'
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    """Return random float32 numbers."""
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.fixture
def dynamic(graph_of, run_ort):
    """Return a function that makes axes of a text graph dynamic, proved on ONNX Runtime."""

    def evaluate(model, feeds):
        try:
            return run_ort(model, **feeds)
        except Exception as error:
            raise RunError(str(error)) from error

    def make(text, *texts, **constants):
        model = graph_of(f"{HEAD} {text}", **constants)
        return make_dynamic(model, texts or ("batch",), evaluate=evaluate)

    return make


def shapes(model: ir.Model) -> list[str]:
    """Return the shapes of the outputs."""
    return [str(value.shape) for value in model.graph.outputs]


FLAT = "(float[1, 2, 3] x) => (float[1, 4] y) <int64[2] s = {SIZES}> { f = Reshape(x, s) y = MatMul(f, w) }"


@pytest.mark.parametrize(("sizes", "now"), [("1, 6", "[0, 6]"), ("1, -1", "[0, -1]")])
def test_reshape_follows_the_batch(dynamic, sizes, now):
    """A Reshape that has the batch written into it follows it, and each row computes what it did alone."""
    model, notes = dynamic(FLAT.replace("SIZES", sizes), w=weights(6, 4))
    assert shapes(model) == ["[batch,4]"]
    assert notes == (
        "'batch' is now dynamic: axis 0 of input 'x', which was 1",
        f"1 node mended: Reshape 'f' [1x6]: sizes [{sizes}] are now {now}",
        "proved: the original's outputs at its own size, and each row's at 2 and 3 different rows",
    )


def test_the_original_is_not_changed(graph_of):
    """The graph that is given stays as it was."""
    model = graph_of(f"{HEAD} {FLAT.replace('SIZES', '1, 6')}", w=weights(6, 4))
    before = ir.to_proto(model).SerializeToString()
    _, notes = make_dynamic(model, ["batch"])
    assert ir.to_proto(model).SerializeToString() == before
    assert notes[-1] == "not proved: there was nothing to run the graph with"


HEADS = """(float[@, 5, 8] x) => (float[@, 5, 8] y)
<int64[4] split = {@, 5, 2, 4}, int64[3] merge = {%, 5, 4}, int64[4] back = {@, 2, 5, 4}, int64[3] flat = {@, 5, 8}> {
    a = Reshape(x, split) b = Transpose<perm = [0, 2, 1, 3]>(a) q = Reshape(b, merge)
    k = Transpose<perm = [0, 2, 1]>(q) s = MatMul(q, k) p = Softmax<axis = -1>(s) o = MatMul(p, q)
    r = Reshape(o, back) t = Transpose<perm = [0, 2, 1, 3]>(r) y = Reshape(t, flat)
}"""


@pytest.mark.parametrize("size", [1, 3])
def test_heads_are_merged_with_the_batch(dynamic, size):
    """Attention that multiplies the batch by its heads follows both the batch and the length."""
    text = HEADS.replace("@", str(size)).replace("%", str(2 * size))
    model, notes = dynamic(text, "batch", "seq=x:1")
    assert shapes(model) == ["[batch,seq,8]"]
    assert notes[1].startswith("4 nodes mended")
    assert notes[2].startswith("proved: the original's outputs at its own size, and each row's at ")
    assert "values there were not compared" in notes[5]


@pytest.mark.parametrize(
    ("text", "constants", "said"),
    [
        ("(float[3, 4] x) => (float[3, 4] y) { y = Add(x, c) }", {"c": np.tile(weights(1, 4), (3, 1))},
         "'c' is broadcast along axis 0"),
        ("(float[3, 4] x) => (float[3, 4] y) <int64[2] s = {3, 4}> { y = Expand(x, s) }", {},
         "expands to [1, 4] instead of [3, 4]"),
        ("""(float[3, 4] x) => (float[3, 4] y) <int64[1] b = {0}, int64[1] e = {3}> { y = Slice(x, b, e, b) }""", {},
         "ends [3] are now the end of the axis"),
        ("(float[3, 2, 4] x) => (float[3, 3, 4] y) { y = Concat<axis = 1>(c, x) }",
         {"c": np.tile(weights(1, 1, 4), (3, 1, 1))}, "'c' is repeated along axis 0"),
        ("""(float[1, 2, 4, 4] x) => (float[1, 2, 8, 8] y) <int64[4] s = {1, 2, 8, 8}> {
            y = Resize<mode = "nearest">(x, , , s) }""", {}, "size 1 is now 1 of the input's along axis 0"),
        ("(float[5, 3, 4] x) => (float[3, 2] y) { a, h = LSTM<hidden_size = 2>(x, w, r, , l, c, c) y = Squeeze(h, z) }",
         {"w": weights(1, 8, 4), "r": weights(1, 8, 2), "l": np.full(3, 5, np.int32), "z": np.array([0]),
          "c": np.zeros((1, 3, 2), np.float32)}, "the lengths, all of them the longest, are left out"),
        ("(float[2, 4] x) => (float[2, 4] y) { p = Gather(t, i) y = Add(x, p) }",
         {"t": weights(9, 4), "i": np.zeros(2, np.int64)}, "is broadcast along axis 0"),
    ],
    ids=["constant", "expand", "slice", "concat", "resize", "lstm", "looked up"],
)  # fmt: skip
def test_what_is_mended(dynamic, text, constants, said):
    """Each of these has the size of the batch written into it; mended and proved, its outputs follow."""
    axes = "batch=x:1" if "LSTM" in text else "batch"
    model, notes = dynamic(text, axes, **constants)
    assert said in notes[1]
    rows = "; at 6 and 9 it runs" if "LSTM" in text else ", and each row's at "
    assert notes[2].startswith("proved: the original's outputs at its own size" + rows)
    assert shapes(model)[0].startswith("[batch,")


@pytest.mark.parametrize(
    ("node", "indices"),
    [
        ("f = Reshape(x, s) g = Gather(f, i)", np.arange(4).reshape(1, 4)),
        ("g = GatherND(x, i)", np.stack(np.broadcast_arrays(np.zeros((1, 1)), np.arange(4)), -1).astype(np.int64)),
    ],
    ids=["Gather", "GatherND"],
)
def test_indices_of_every_element_count_on(dynamic, node, indices):
    """Indexing that takes every element of the batch, as attention masks are made, takes every element of a larger."""
    text = f"(float[1, 4] x) => (float[1, 4] y) <int64[1] s = {{-1}}> {{ {node} y = Exp(g) }}"
    model, notes = dynamic(text, i=indices)
    assert "count" in notes[1]
    assert notes[2].startswith("proved: the original's outputs at its own size, and each row's at 2 and 3")
    assert shapes(model) == ["[batch,4]"]


def test_positions_count_on(dynamic):
    """Positions 0, 1, 2... that are looked up count to the new length."""
    text = "(int64[1, 6] ids) => (float[1, 6, 4] y) { e = Gather(t, ids) p = Gather(t, i) y = Add(e, p) }"
    model, notes = dynamic(text, "seq=ids:1", t=weights(40, 4), i=np.arange(6)[None])
    assert shapes(model) == ["[1,seq,4]"]
    assert notes[1] == "1 node mended: Add 'y' [1x6x4]: 'p' counts on along axis 1"
    assert notes[2] == (
        "proved: the original's outputs at its own size; at 3 and 12 it runs, and the outputs have the shapes that "
        "follow (varying: 'y'); their values there were not compared with anything"
    )


def test_weak_evidence_is_told(dynamic):
    """Where the outputs are the same whatever goes in, the note says that this proves little."""
    _, notes = dynamic("(float[1, 4] x) => (float[1, 4] y) { z = Sub(x, x) y = Exp(z) }")
    assert notes[-1].endswith("; the outputs are the same for every input tried, so this proves little")


def test_outputs_of_open_size_are_not_proved(dynamic):
    """What NonMaxSuppression finds cannot be told apart by rows: it must run, and the note says so."""
    text = """(float[1, 9, 4] b, float[1, 2, 9] s) => (int64[m, 3] y, float[1, 2, 9] z) {
        y = NonMaxSuppression(b, s, k) z = Exp(s) }"""
    model, notes = dynamic(text, k=np.array([4]))
    assert shapes(model)[1] == "[batch,2,9]"
    assert "; not proved for 'y', whose size depends on the data: it runs at these sizes" in notes[-1]


REFUSED = {
    "squeeze": (
        "(float[1, 4] x) => (float[4] y) <int64[1] a = {0}> { s = Squeeze(x, a) y = Exp(s) }", {},
        "Squeeze 's' [4]: it removes axis 0, whose size was 1",
    ),
    "softmax": (
        "(float[1, 4] x) => (float[1, 4] y) { e = Tanh(x) y = Softmax<axis = 0>(e) }", {},
        "Softmax 'y' [batchx4]: its output for one row depends on the other rows",
    ),
    "mean": (
        "(float[1, 4] x) => (float[1, 4] y) { m = ReduceMean<axes = [0]>(x) y = Sub(x, m) }", {},
        "ReduceMean 'm' [1x4]: its output has no axis for the rows",
    ),
    "normalisation": (
        """(float[1, 2, 3] x) => (float[1, 2, 3] y) {
            y, mean, var = BatchNormalization<training_mode = 1>(x, s, o, o, s) }""",
        {"s": np.ones(2, np.float32), "o": np.zeros(2, np.float32)},
        "BatchNormalization 'y' [batchx2x3]: its output for one row depends on the other rows",
    ),
    "learned rows": (
        "(float[2, 4] x) => (float[2, 4] y) { y = Add(x, c) }", {"c": weights(2, 4)},
        "Add 'y' [2x4]: its constant input 'c' [2, 4] holds different values along axis 0",
    ),
    "rows by number": (
        "(float[2, 4] x) => (float[4] y) <int64 a = {1}> { y = Gather(x, a) }", {},
        "Gather 'y' [4]: ONNX Runtime fails here: indices element out of data bounds",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(dynamic, case):
    """A graph that mixes its rows, loses them or holds something for each is refused; the node is named."""
    text, constants, said = REFUSED[case]
    with pytest.raises(GraphError) as caught:
        dynamic(text, **constants)
    assert caught.value.message.startswith("this graph cannot have a dynamic 'batch': ")
    assert said in caught.value.message
    assert caught.value.mend == "export the model again with axis 0 of input 'x' dynamic"


def test_a_fixed_feature_size_is_refused(dynamic):
    """A matrix product whose weights have as many rows as the height gave is named with what it cannot take."""
    text = "(float[1, 2, 3] x) => (float[1, 4] y) { f = Flatten(x) y = MatMul(f, w) }"
    with pytest.raises(GraphError, match=r"MatMul 'y' \[1x4\]: at another size, .*[Ii]ncompatible dimensions"):
        dynamic(text, "height=x:2", w=weights(6, 4))


def test_the_module_is_named(graph_of):
    """A node in the way is named with the module of the source that it came from."""
    model = graph_of(f"{HEAD} (float[1, 4] x) => (float[4] y) <int64[1] a = {{0}}> {{ y = Squeeze(x, a) }}")
    model.graph[0].name = "/layer3/head/Squeeze"
    with pytest.raises(GraphError, match=r"Squeeze '/layer3/head/Squeeze' \[4\] in layer3\.head: it removes axis 0"):
        make_dynamic(model, ["batch"])


def test_a_name_that_is_there_is_kept_or_replaced(graph_of):
    """An axis that is dynamic already is given the name, wherever its old one stands."""
    model = graph_of(f"{HEAD} (float[n, 4] x) => (float[n, 4] y) {{ y = Exp(x) }}")
    found, notes = make_dynamic(model, ["batch"])
    assert str(found.graph.inputs[0].shape) == shapes(found)[0] == "[batch,4]"
    assert notes == ("'batch' was dynamic already, as 'n'",)
    assert make_dynamic(model, ["n"])[1] == ("'n' was dynamic already",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' names no axis to make dynamic"),
        ("batch=", "'batch=' names no axis to make dynamic"),
        ("batch=x", "'x' in 'batch=x' is no axis of an input"),
        ("batch=x:-1", "'x:-1' in 'batch=x:-1' is no axis of an input"),
        ("rows=a:7", "there is no axis 7 of input 'a': its shape is [1,4]"),
        ("t=a:0", "the name 't' is taken: axis 1 of input 'c' has it already"),
        ("both=a:0,a:1", "axis 0 of input 'a' is 1 and axis 1 of input 'a' is 4, so they cannot both be 'both'"),
        ("batch", "axis 0 of input 'a' is 1 and axis 0 of input 'b' is 2, so they cannot both be 'batch'"),
    ],
)
def test_requests_that_do_not_fit(graph_of, text, said):
    """A request that cannot be read, or does not fit the inputs, says what is wrong with it."""
    body = "(float[1, 4] a, float[2] b, float[1, t] c) => (float[1, 4] y) { y = Exp(a) }"
    with pytest.raises(UsageError) as caught:
        make_dynamic(graph_of(f"{HEAD} {body}"), [text])
    assert said in caught.value.message
    assert caught.value.mend


def test_unknown_input(graph_of):
    """An input that is not there is refused with the nearest that is."""
    model = graph_of(f"{HEAD} (float[1, 4] image) => (float[1, 4] y) {{ y = Exp(image) }}")
    with pytest.raises(UnknownNameError, match="unknown input 'imag'; did you mean 'image'"):
        make_dynamic(model, ["batch=imag:0"])


def test_one_axis_has_one_name():
    """One axis cannot have two names, and one name is given once."""
    with pytest.raises(UsageError, match="axis 0 of input 'x' is to be both 'a' and 'b'"):
        parse_dynamic(["a=x:0", "b=x:0"])
    with pytest.raises(UsageError, match="the dimension 'a' is made dynamic twice"):
        parse_dynamic(["a=x:0", "a=y:0"])
    assert [str(axis) for axis in parse_dynamic(["n=serving:0:2"])["n"]] == ["axis 2 of input 'serving:0'"]


def test_a_real_network_follows_its_batch(light_models, run_ort):
    """ShuffleNet, whose 33 Reshapes all have the batch of 1 written into them, runs at 2."""
    from enginery.graph import files

    model, notes = make_dynamic(files.load(light_models / "light_shufflenet.onnx"), ["batch"])
    assert notes[1].startswith("33 nodes mended: ")
    assert shapes(model) == ["[batch,1000]"]
    (found,) = run_ort(model, **{"gpu_0/data_0": weights(2, 3, 224, 224)}).values()
    assert found.shape == (2, 1000)
