"""ONNX models of unusual forms on the whole way: export, simplify, build, verify."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from enginery import steps
from enginery.errors import BuildError
from enginery.graph import files
from enginery.spec import Shape
from telling import Said

THREE = np.array([1, 2, 3], np.float32)

CONDITION = """<ir_version: 8, opset_import: ["" : 17]> g (float[n,3] x, bool c) => (float[n,3] y) {
    three = Constant <value = float[1] {3.0}> ()
    outer = Identity (x)
    y = If (c) <
        then_branch = t () => (float[n,3] p) { h = Mul (outer, w) p = Add (h, three) },
        else_branch = e () => (float[n,3] q) { q = Mul (outer, w) }>
}"""

SCAN = """<ir_version: 8, opset_import: ["" : 17]> g (float[3] s, float[t,3] x) => (float[3] last, float[t,3] all) {
    last, all = Scan <num_scan_inputs = 1,
        body = b (float[3] a, float[3] v) => (float[3] o, float[3] e) { m = Mul (v, w) o = Add (a, m) e = Identity (o) }
    > (s, x)
}"""

LOOP_IN_FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local": 1]>
g (float[n,3] x, int64 k) => (float[n,3] y) { y = local.outer (x, k) }
<domain: "local", opset_import: ["" : 17]> inner (a) => (r) {
    one = Constant <value = float[1] {1.0}> ()
    r = Add (a, one)
}
<domain: "local", opset_import: ["" : 17, "local": 1]> outer (a, k) => (r) {
    yes = Constant <value = bool {1}> ()
    r = Loop (k, yes, a) <body = b (int64 i, bool in, float[n,3] s) => (bool out, float[n,3] t) {
        out = Identity (in) u = local.inner (s) t = Mul (u, a) }>
}"""

IF_IN_FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local": 1]>
g (float[n,3] x, bool c) => (float[n,3] y) { y = local.choose (x, c) }
<domain: "local", opset_import: ["" : 17]> choose (a, c) => (r) {
    two = Constant <value = float[1] {2.0}> ()
    r = If (c) <then_branch = t () => (float[n,3] p) { p = Mul (a, two) },
                else_branch = e () => (float[n,3] q) { q = Neg (a) }>
}"""

OPSET_7 = """<ir_version: 3, opset_import: ["" : 7]> g (float[n,3] x) => (float[n,3] y) {
    d = Dropout (x)
    b = BatchNormalization (d, scale, shift, mean, variance)
    y = Mul (b, w)
}"""

OPSET_9 = """<ir_version: 4, opset_import: ["" : 9]> g (float[n,1,4,4] x) => (float[n,1,8,8] y) {
    sizes = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()
    y = Upsample <mode = "nearest"> (x, sizes)
}"""

NEW = """<ir_version: 10, opset_import: ["" : 22, "com.microsoft" : 1]> g (float[n,3] x) => (float[n,3] y) {
    a = Mish (x)
    b = com.microsoft.Gelu (a)
    y = Identity (b)
}"""

ONE = {"x": "1..2..3x3"}


@pytest.fixture
def whole_way(tmp_path):
    """Return a function that takes a model all the way, and returns its engine."""

    def go(proto: onnx.ModelProto, shapes: dict[str, str]):
        said = Said()
        onnx.save(proto, tmp_path / "source.onnx")
        asked = {name: Shape.parse(text) for name, text in shapes.items()}
        exported = tmp_path / "exported.onnx"
        steps.export(tmp_path / "source.onnx", exported, shapes=asked, simplify=True, progress=said)
        onnx.checker.check_model(exported)
        steps.build(exported, tmp_path / "engine", shapes=asked, simplify=False, in_process=True, progress=said)
        record = steps.verify(tmp_path / "engine", tmp_path / "source.onnx", progress=said)
        assert record.passed, record
        assert not [line for line in said.lines if line.startswith("simplify:")]
        return tmp_path / "engine"

    return go


def parsed(text: str, **weights) -> onnx.ModelProto:
    """Return a model from ONNX's text form, with arrays for its initializers."""
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(array), name)
        proto.graph.initializer.append(tensor)
        if proto.ir_version < 4:  # then, every weight is an input as well
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    return proto


def with_body_weights() -> onnx.ModelProto:
    """Return the condition whose branches have a weight of one name and of different values."""
    proto = parsed(CONDITION)
    for number, attribute in enumerate(proto.graph.node[-1].attribute, 2):
        attribute.g.initializer.append(onnx.numpy_helper.from_array(THREE * number, "w"))
    return proto


@pytest.mark.parametrize(
    ("proto", "shapes"),
    [
        pytest.param(parsed(OPSET_7, w=THREE, scale=THREE, shift=THREE, mean=THREE, variance=THREE), ONE, id="opset 7"),
        pytest.param(parsed(OPSET_9), {"x": "1..2..3x1x4x4"}, id="opset 9"),
        pytest.param(parsed(NEW), ONE, id="a new opset and a vendor's domain"),
        pytest.param(parsed(LOOP_IN_FUNCTION), ONE, id="Loop in a function that calls one"),
        pytest.param(parsed(IF_IN_FUNCTION), ONE, id="If in a function"),
        pytest.param(with_body_weights(), ONE, id="initializers in subgraphs"),
        pytest.param(parsed(CONDITION, w=THREE), ONE, id="subgraphs that read from outside"),
        pytest.param(parsed(SCAN, w=THREE), {"x": "1..2..3x3"}, id="Scan"),
    ],
)
def test_unusual_graphs(whole_way, proto, shapes):
    """Old and new opsets, functions and control flow end as engines that compute what the model says."""
    whole_way(proto, shapes)


TEXTS = np.array(["a", "b", "ä", ""])

CONCAT = """<ir_version: 9, opset_import: ["" : 20]> g (string[n] x, string[n] z) => (string[n] y) {
    a = StringConcat (x, z)
    b = Identity (a)
    y = StringConcat (b, end)
}"""

TF_IDF = """<ir_version: 8, opset_import: ["" : 17]> g (string[n] x) => (float[3] y) {
    y = TfIdfVectorizer <max_gram_length = 1, max_skip_count = 0, min_gram_length = 1, mode = "TF", ngram_counts = [0],
        ngram_indexes = [0, 1, 2], pool_strings = ["a", "b", "c"]> (x)
}"""

LABELS = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml": 3]> g (string[n] x) => (int64[n] y) {
    y = ai.onnx.ml.LabelEncoder <keys_strings = ["a", "b"], values_int64s = [1, 2], default_int64 = 9> (x)
}"""

NAMES = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml": 3]> g (int64[n] x) => (string[n] y) {
    y = ai.onnx.ml.LabelEncoder <keys_int64s = [1, 2], values_strings = ["a", "b"], default_string = "?"> (x)
}"""

NORMALISED = """<ir_version: 8, opset_import: ["" : 17]> g (string[n] x) => (string[m] y) {
    y = StringNormalizer <case_change_action = "UPPER", stopwords = ["b"], locale = "C"> (x)
}"""


@pytest.mark.parametrize(
    ("proto", "feeds", "expected"),
    [
        (parsed(CONCAT, end=np.array(["!"], object)), {"x": TEXTS, "z": TEXTS[::-1]}, ["a!", "bä!", "äb!", "a!"]),
        (parsed(TF_IDF), {"x": TEXTS}, [1, 1, 0]),
        (parsed(LABELS), {"x": TEXTS}, [1, 2, 9, 9]),
        (parsed(NAMES), {"x": np.array([2, 1, 5])}, ["b", "a", "?"]),
        (parsed(NORMALISED), {"x": TEXTS[:2]}, ["A"]),
    ],
    ids=["StringConcat", "TfIdfVectorizer", "texts to labels", "labels to texts", "StringNormalizer"],
)
def test_texts(whole_way, proto, feeds, expected):
    """Texts go in and come out, weights that are texts among them, and the engine computes what the operator means."""
    engine = whole_way(proto, dict.fromkeys(feeds, "1..2..4"))
    assert steps.run(engine, feeds)["y"].tolist() == expected


def test_unknown_domain(tmp_path):
    """An operator that nobody knows is exported as it is, said to be unchecked, and refused at build by its name."""
    text = '<ir_version: 8, opset_import: ["" : 17, "my.ops": 1]> g (float[2] x) => (float[2] y) { y = my.ops.Foo (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    said = Said()
    record = steps.export(tmp_path / "source.onnx", tmp_path / "exported.onnx", simplify=True, progress=said)
    assert record.nodes_simplified == 1
    assert "outputs are not compared, only the structure is checked: the graph does not run" in said.lines[0]
    assert files.load(tmp_path / "exported.onnx").opset_imports == {"": 17, "my.ops": 1}
    with pytest.raises(BuildError, match=r"Foo is a custom operator of the domain 'my\.ops'"):
        steps.build(tmp_path / "exported.onnx", tmp_path / "engine", simplify=False, in_process=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["exported.onnx", "source.onnx"]
