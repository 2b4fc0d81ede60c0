"""The plan as a file: a line for each node, read back as it was, edited, and refused where a word is not known."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from enginery.errors import UnknownNameError, UsageError
from enginery.graph.base import apply_plan, plan_from_json, plan_to_json, read_plan, settle_plan
from enginery.spec import PrecisionPlan

SIZES = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x, bool flag) => (float[batch, 4] y) <float k = {0.5}, int64[1] one = {1}> {
    scaled = Mul(x, k)
    shape = Shape(scaled)
    size = Gather(shape, one)
    float_size = Cast<to = 1>(size)
    root = Sqrt(float_size)
    divided = Div(scaled, root)
    y = If (flag) <then_branch = inner () => (float[batch, 4] a) { a = Exp(divided) },
                   else_branch = other () => (float[batch, 4] b) { b = Neg(divided) }>
}
"""


@pytest.fixture
def model():
    """Return a graph with a size in it and an If; every node is named after its operator."""
    found = ir.from_onnx_text(SIZES)
    for node in ir.traversal.RecursiveGraphIterator(found.graph):
        node.name = node.op_type
    found.graph[0].metadata_props["enginery.module"] = "scale"
    return found


def test_every_node_that_computes_has_a_line(model):
    """What each really takes, with operator, module and reason, in the graph's order, subgraphs too."""
    said = json.loads(plan_to_json(PrecisionPlan("fp16", {"Exp": "fp32"}, {"Exp": "it overflows"}), model))
    assert list(said) == ["format", "precision", "counts", "nodes"]
    assert (said["format"], said["precision"], said["counts"]) == (1, "fp16", {"fp16": 3, "fp32": 2})
    assert list(said["nodes"]) == ["Mul", "Sqrt", "Div", "Exp", "Neg"]
    assert said["nodes"]["Mul"] == {"precision": "fp16", "operator": "Mul", "module": "scale"}
    assert said["nodes"]["Exp"] == {"precision": "fp32", "operator": "Exp", "reason": "it overflows"}
    assert said["nodes"]["Sqrt"]["precision"] == "fp32"
    assert "computes sizes" in said["nodes"]["Sqrt"]["reason"]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_a_file_is_stable(model, precision):
    """What was read from a file writes the same file, and gives the same graph."""
    plan = PrecisionPlan(precision, {"Div": "fp32", "Neg": precision})
    text = plan_to_json(plan, model)
    read = plan_from_json(text)
    assert plan_to_json(read, model) == text
    assert {name: read.of(name) for name in ("Mul", "Div", "Neg")} == {
        "Mul": precision,
        "Div": "fp32",
        "Neg": precision,
    }
    assert settle_plan(model, read) == settle_plan(model, plan_from_json(plan_to_json(read, model)))
    before, after = (ir.to_proto(apply_plan(model, one)) for one in (plan, read))
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def test_what_the_graph_has_in_another_type_is_told_as_it_is(read):
    """A node that is float16 by itself computes in fp16; one of float64, or of another narrow type, says so."""
    model = read("""
        g (float16[2] h, double[2] d, float[2] x) => (float16[2] a, double[2] b, float[2] c) {
            a = Exp(h) b = Exp(d) c = Exp(x)
        }""")
    assert settle_plan(model, PrecisionPlan("fp16")) == {
        "a": ("fp16", ""),
        "b": ("fp32", "the graph has it in double, and only what is float32 is cast"),
        "c": ("fp16", ""),
    }
    found = settle_plan(model, PrecisionPlan("bf16"))
    assert found["a"] == ("fp32", "the graph has it in float16, and only what is float32 is cast")
    assert found["c"] == ("bf16", "")


def test_a_plan_that_changes_nothing_says_so(read):
    """A graph without float32 stays as it is, with a word."""
    said = []
    apply_plan(read("g (float16[2] h) => (float16[2] y) { y = Exp(h) }"), PrecisionPlan("bf16"), say=said.append)
    assert said == ["no tensor of the graph became narrower: none of float32 can"]


def test_a_plan_without_a_graph_has_the_nodes_that_it_names():
    """Such a plan survives as text."""
    plan = PrecisionPlan("fp16", {"/a/Softmax": "fp32"}, {"/a/Softmax": "its inputs reach 1e5"})
    assert plan_from_json(plan_to_json(plan)) == plan
    assert plan_from_json(plan_to_json(PrecisionPlan("bf16"))) == PrecisionPlan("bf16")


def test_a_line_is_edited(model, tmp_path):
    """Another word in one line, or a bare word, changes that node alone."""
    file = tmp_path / "precision.json"
    text = plan_to_json(PrecisionPlan("fp16"), model)
    file.write_text(text.replace('"Div": {"precision": "fp16"', '"Div": {"precision": "fp32"'))
    assert read_plan(file, model).nodes == {"Sqrt": "fp32", "Div": "fp32"}
    assert read_plan(tmp_path, model) == read_plan(file)  # the folder that holds it
    file.write_text('{"precision": "fp32", "nodes": {"Exp": "bf16"}}')
    assert read_plan(file, model) == PrecisionPlan("fp32", {"Exp": "bf16"})


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("fp16", UsageError, "not JSON"),
        ("[]", UsageError, "no JSON object"),
        ('{"nodes": {}}', UsageError, "every other node has no precision"),
        ('{"precision": "fp16", "nodes": []}', UsageError, '"nodes" of the precision plan is no JSON object'),
        ('{"precision": "fp16", "nodes": {"a": {}}}', UsageError, "node 'a' has no precision"),
        ('{"precision": "fp16", "nodes": {"a": "fp32", "a": "fp16"}}', UsageError, "'a' stands twice"),
        ('{"format": 2, "precision": "fp16"}', UsageError, "has format 2, and this Enginery reads format 1"),
        ('{"format": "1", "precision": "fp16"}', UsageError, "has format '1', and this Enginery reads format 1"),
        ('{"format": true, "precision": "fp16"}', UsageError, "has format True, and this Enginery reads format 1"),
        ("[" * 100_000, UsageError, "nested too deeply to be read; write it as an engine's precision.json is written"),
        ('{"precision": "fp17"}', UnknownNameError, "'fp17' of every other node; did you mean 'fp16'"),
        ('{"precision": "fp16", "nodes": {"a": "half"}}', UnknownNameError, "unknown precision 'half' of node 'a'"),
        ('{"precision": "fp16", "node": {}}', UnknownNameError, "'node'; did you mean 'nodes'"),
        ('{"precision": "fp16", "nodes": {"a": {"precison": "fp32"}}}', UnknownNameError, "did you mean 'precision'"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path, text, kind, said):
    """Each error names the file, the word and what to write."""
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(kind) as caught:
        read_plan(file)
    assert said in str(caught.value)
    assert "mine.json" in str(caught.value)


def test_a_node_that_there_is_not_is_refused(model, tmp_path):
    """The nearest is named; so is a file that there is not."""
    (tmp_path / "precision.json").write_text('{"precision": "fp16", "nodes": {"Sqr": "fp32"}}')
    with pytest.raises(UnknownNameError, match=r"names 'Sqr', which the graph does not have; did you mean 'Sqrt'\?"):
        read_plan(tmp_path, model)
    with pytest.raises(UsageError, match=r"nowhere\.json cannot be read"):
        read_plan(tmp_path / "nowhere.json")
