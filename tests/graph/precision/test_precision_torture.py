"""Casting what other converters break: random graphs of many kinds, branches that hand on constants, types by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enginery.graph.base import all_nodes, apply_plan, module_path, normalise
from enginery.spec import PrecisionPlan

ROOT = Path(__file__).parents[3]
NARROW = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}


@pytest.fixture(scope="module")
def torture():
    """Make the repository's benchmarks importable, and return the generator and the judge."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.converter_torture import judge, random_graphs

    yield random_graphs, judge
    sys.path.remove(str(ROOT))


def undoes(node: ir.Node) -> bool:
    """Say whether a cast that was put in reads another that was."""
    source = node.inputs[0].producer() if node.op_type == "Cast" else None
    added = source is not None and source.op_type == "Cast" and "_Cast_" in (source.name or "")
    return added and "_Cast_" in (node.name or "")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_random_graphs_stay_valid_and_keep_their_names(precision, torture, random):
    """The whole checker passes, ONNX Runtime loads it or lacks kernels alone, and names, metadata and ends stay."""
    graphs, judging = torture
    proto = graphs.random_model(random, most=6)
    model = ir.from_proto(proto)
    normalise(model)
    said = []
    result = apply_plan(model, PrecisionPlan(precision), say=said.append)
    verdict = judging.judge(
        ir.to_proto(result), feeds := graphs.random_feeds(proto, 1), judging.original(proto, feeds), precision
    )
    assert {"converted", "valid", "loads", "runs"} <= set(verdict.passed), verdict.reason
    assert "close" in verdict.passed or said, verdict.reason
    assert [(one.name, one.dtype) for one in result.graph.outputs] == [
        (one.name, one.dtype) for one in model.graph.outputs
    ]
    assert not [node.name for node in all_nodes(result) if undoes(node)]
    assert dict(result.metadata_props) == {"made_by": "the torture"}
    if not model.functions:
        kept = {node.name: module_path(node) for node in all_nodes(result)}
        assert all(kept.get(node.name, module_path(node)) == module_path(node) for node in all_nodes(model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_many_random_graphs_and_every_operator(precision, torture, monkeypatch):
    """Nothing but the type's own limits keeps a graph from being close, and no library passes what this does not."""
    del torture
    pytest.importorskip("onnxconverter_common")
    from benchmarks.converter_torture.cases import Options
    from benchmarks.converter_torture.table import passes, summary
    from benchmarks.converter_torture.work import run_set

    monkeypatch.chdir(ROOT)
    for name, least in (("random", 300), ("operators", 1500), ("light", 9)):
        found = summary(list(run_set(name, precision, Options(ROOT, 300))))
        assert found["graphs"] >= least
        assert found["only_others_pass"] == []
        wrong = [row for row in found["not_all"] if not (passes(row, "loads") and passes(row, "explained"))]
        assert wrong == []


def test_a_branch_that_hands_on_a_constant(read, cast, run):
    """A weight that is an output of a subgraph is converted with it, from a node, an initializer or a shared one."""
    model = read("""
        g (float[2] x, bool yes) => (float[2] y) {
            a = If(yes) <then_branch = t () => (float[2] b) { b = Constant<value = float[2] {1.0, 2.0}>() },
                else_branch = e () => (float[2] c) <float[2] c = {3.0, 4.0}> { d = Exp(c) }>
            y = Add(x, a)
        }""")
    for precision, dtype in NARROW.items():
        result = cast(model, precision)
        holder = next(node for node in all_nodes(result) if node.op_type == "If")
        ends = [holder.attributes[name].as_graph().outputs[0].dtype.name for name in ("then_branch", "else_branch")]
        assert [holder.outputs[0].dtype.name, *ends] == [dtype] * 3
    feeds = {"x": np.ones(2, np.float32)}
    for yes in (True, False):
        (found,), (right,) = (run(one, **feeds, yes=np.asarray(yes)) for one in (cast(model), model))
        assert found.tolist() == right.tolist()


def test_a_constant_that_a_branch_and_a_node_of_another_type_read(read, cast, run):
    """It is there in both types, and the branch hands on its own."""
    model = read("""
        g (float[2] x, bool yes) => (float[2] y) {
            a = If(yes) <then_branch = t () => (float[2] c) <float[2] c = {3.0, 4.0}> { d = Exp(c) },
                else_branch = e () => (float[2] b) { b = Neg(x) }>
            y = Add(x, a)
        }""")
    result = cast(model, nodes={"d": "fp32"})
    feeds = {"x": np.ones(2, np.float32), "yes": np.ones((), bool)}
    assert run(result, **feeds)[0].tolist() == run(model, **feeds)[0].tolist() == [4.0, 5.0]


def test_a_cast_to_the_type_of_another_tensor_becomes_a_cast(read, cast, run):
    """CastLike goes straight to the type that is read, and needs no cast where it has that already."""
    model = read("""
        g (float16[2] h, float[2] x) => (float[2] y) { a = CastLike(h, x) y = Mul(a, x) }""")
    result = cast(model)
    assert [node.name for node in result.graph if node.op_type in ("Cast", "CastLike")] == [
        "x_Cast_fp16",
        "y_Cast_fp32",
    ]
    feeds = {"h": np.ones(2, np.float16), "x": np.full(2, 3, np.float32)}
    assert run(result, **feeds)[0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_inputs_and_outputs_are_converted_on_request(precision, read):
    """Those of float32 take the type and keep their names; no cast is needed, and others stay as they are."""
    model = read("""
        g (float[2] x, int64[2] ids, double[2] d) => (float[2] y, float[2] x2, double[2] e) <float[2] w = {1.0, 2.0}> {
            a = Mul(x, w) y = Relu(a) x2 = Gather(w, ids) e = Neg(d)
        }""")
    result = apply_plan(model, PrecisionPlan(precision), convert_io=True)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    narrow = NARROW[precision]
    assert {one.name: one.dtype.name for one in result.graph.inputs} == {"x": narrow, "ids": "INT64", "d": "DOUBLE"}
    assert {one.name: one.dtype.name for one in result.graph.outputs} == {"y": narrow, "x2": narrow, "e": "DOUBLE"}
    assert "Cast" not in {node.op_type for node in all_nodes(result)}


def test_nodes_that_stay_float32_are_reached_from_converted_ends(read, run):
    """An input that only float32 nodes read is cast up, and their outputs down."""
    model = read("g (float[2] x) => (float[2] y) { y = Exp(x) }")
    result = apply_plan(model, PrecisionPlan("fp16", {"y": "fp32"}), convert_io=True)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [node.op_type for node in result.graph] == ["Cast", "Exp", "Cast"]
    assert [one.name for one in (*result.graph.inputs, *result.graph.outputs)] == ["x", "y"]
    (found,) = run(result, x=np.zeros(2, np.float16))
    assert (found.dtype, found.tolist()) == (np.float16, [1.0, 1.0])


@pytest.mark.parametrize(("outputs", "mask", "stays"), [("y", "", ""), ("y", "m", "bf16"), ("y, p, q, s", "", "both")])
def test_attention_stays_where_onnx_defines_it_for_float32_alone(outputs, mask, stays, read):
    """Scores that are shown hold the lowest float32; a causal one with a mask has no valid definition in bfloat16."""
    ends = ", ".join(f"float[1, 1, 2, 4] {name.strip()}" for name in outputs.split(",") if name.strip() in "ys")
    model = read(
        f"""g (float[1, 1, 2, 4] a, float[1, 1, 2, 4] b, float[1, 1, 2, 4] c, float[2, 2] m) => ({ends})
        {{ {outputs} = Attention<is_causal = 1>(a, b, c, {mask or '""'}) }}""",
        opset=23,
    )
    for precision, narrow in NARROW.items():
        node = next(n for n in apply_plan(model, PrecisionPlan(precision)).graph if n.op_type == "Attention")
        assert node.outputs[0].dtype.name == ("FLOAT" if stays in (precision, "both") else narrow)
