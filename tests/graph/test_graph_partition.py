"""Cutting a graph in parts: what they compute together, and where the cuts are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginery.errors import GraphError
from enginery.graph.partition import partition
from enginery.graph.parts.dependence import reads
from enginery.graph.parts.extract import working_copy
from enginery.graph.parts.order import predecessors

ARITY = {"Relu": 1, "Neg": 1, "Sigmoid": 1, "Erf": 1, "Add": 2, "Mul": 2, "Sub": 2, "Scaled": 1, "Choose": 2}


def session(model: ir.Model) -> onnxruntime.InferenceSession:
    """Open a model, so that each node is computed as it stands."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: ir.Model, feeds: dict) -> dict:
    """Run a whole model."""
    opened = session(model)
    names = [output.name for output in opened.get_outputs()]
    wanted = {value.name for value in model.graph.inputs}
    return dict(zip(names, opened.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))


def run_parts(parts, feeds: dict) -> dict:
    """Run parts one after another; each may read only what was given or made before it."""
    values = dict(feeds)
    for part in parts:
        assert part.nodes
        assert part.outputs
        values.update(run(part.model, {name: values[name] for name in part.inputs}))
    return values


def assert_same(model: ir.Model, parts, feeds: dict) -> None:
    """Compare the parts' outputs with the whole's, bit for bit."""
    found = run_parts(parts, feeds)
    for name, expected in run(model, feeds).items():
        assert found[name].dtype == expected.dtype, name
        assert found[name].shape == expected.shape, name
        assert found[name].tobytes() == expected.tobytes(), name


@st.composite
def graphs(draw) -> str:
    """Make a random graph as text; every operator reads values that were made before it."""
    inputs = [f"x{at}" for at in range(draw(st.integers(1, 3)))]
    values, lines = list(inputs), []
    for at in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(sorted(ARITY)))
        args = [draw(st.sampled_from(values)) for _ in range(ARITY[kind])]
        made = f"v{at}"
        lines.append(f"[n{at}] {line(made, kind, args)}")
        values.append(made)
    made = values[len(inputs) :]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    shown = ", ".join(f"float[n, 3] {name}" for name in inputs)
    made = ", ".join(f"float[n, 3] {name}" for name in outputs)
    return f"""<ir_version: 8, opset_import: ["": 17]> g ({shown}) => ({made})
        <float[3] w = {{0.5, -1.25, 3.0}}, bool[1] yes = {{1}}> {{ {" ".join(lines)} }}"""


def line(made: str, kind: str, args: list[str]) -> str:
    """Write one node; Choose is an If whose branches read values from around it."""
    if kind == "Scaled":
        return f"{made} = Mul({args[0]}, w)"
    if kind == "Choose":
        return f"""{made} = If (yes) <
            then_branch = t () => (float[n, 3] {made}t) {{ {made}t = Add({args[0]}, w) }},
            else_branch = e () => (float[n, 3] {made}e) {{ {made}e = Neg({args[1]}) }} >"""
    return f"{made} = {kind}({', '.join(args)})"


def feeds_of(model: ir.Model) -> dict:
    """Make other numbers for each input."""
    names = [value.name for value in model.graph.inputs]
    return {name: np.arange(6, dtype=np.float32).reshape(2, 3) - at for at, name in enumerate(names)}


def live_nodes(model: ir.Model) -> dict:
    """Return the names of the nodes that are cut, each with those of the nodes before it."""
    before = predecessors({node: reads(node) for node in working_copy(model)[0].graph})
    return {node.name: [other.name for other in others] for node, others in before.items()}


def fewest_parts(before: dict, main: dict) -> int:
    """Count the parts of the best order: with each kind first, run all that can run, and take turns."""

    def turns(*, kind: bool) -> int:
        done: set = set()
        count = 0
        while len(done) < len(before):
            for name, others in before.items():  # in order, so one pass takes all that can run
                if name not in done and main[name] == kind and done.issuperset(others):
                    done.add(name)
            kind, count = not kind, count + 1
        return count

    return min(turns(kind=True), turns(kind=False))


def assert_convex(before: dict, parts) -> None:
    """No path leaves a part and comes back, and every node reads from its own part or from earlier ones."""
    place = {name: at for at, part in enumerate(parts) for name in part.nodes}
    assert place.keys() == before.keys()
    for name, others in before.items():
        assert all(place[other] <= place[name] for other in others), name


@settings(max_examples=120, deadline=None)
@given(graphs(), st.sets(st.integers(0, 13)))
def test_parts_compute_what_the_whole_does(text, unsupported):
    """Whatever is supported, the parts give the same bits; they are convex, and no order has fewer of them."""
    model = ir.from_onnx_text(text)
    refused = {f"n{at}" for at in unsupported}
    found = partition(model, lambda node: node.name not in refused, min_nodes=1)
    feeds = {
        value.name: np.arange(6, dtype=np.float32).reshape(2, 3) - at for at, value in enumerate(model.graph.inputs)
    }
    assert_same(model, found.parts, feeds)
    before = live_nodes(model)
    assert_convex(before, found.parts)
    main = {name: name not in refused for name in before}
    assert {name for part in found.parts if part.main for name in part.nodes} == {n for n in main if main[n]}
    assert len(found.parts) == fewest_parts(before, main)
    assert all(one.main != other.main for one, other in zip(found.parts, found.parts[1:], strict=False))


@settings(max_examples=80, deadline=None)
@given(graphs(), st.sets(st.integers(0, 13)), st.integers(2, 5))
def test_giving_small_pieces_away_never_makes_more_parts(text, unsupported, min_nodes):
    """Small pieces go to the rest: still the same bits, and at most as many parts."""
    model = ir.from_onnx_text(text)
    refused = {f"n{at}" for at in unsupported}
    plain = partition(model, lambda node: node.name not in refused, min_nodes=1)
    found = partition(model, lambda node: node.name not in refused, min_nodes=min_nodes)
    feeds = {
        value.name: np.arange(6, dtype=np.float32).reshape(2, 3) - at for at, value in enumerate(model.graph.inputs)
    }
    assert_same(model, found.parts, feeds)
    assert_convex(live_nodes(model), found.parts)
    assert len(found.parts) <= len(plain.parts)
    assert {part.main for part in found.parts} <= {part.main for part in plain.parts}
    if not all(part.main for part in found.parts):
        moved = {name for part in plain.parts if part.main for name in part.nodes} - {
            name for part in found.parts if part.main for name in part.nodes
        }
        assert moved == set(found.moved)


def by_operator(*refused: str):
    """Return a function that says which nodes are supported: all but those of some operators."""
    return lambda node: node.op_type not in refused


def test_if_with_captured_values_stays_whole():
    """What the branches of an If read from around it becomes an input of its part."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x, bool c) => (float[n, 3] y) <float[3] w = {1, 2, 3}> {
            a = Relu(x)
            b = If (c) <then_branch = t () => (float[n, 3] p) { p = Mul(a, w) },
                        else_branch = e () => (float[n, 3] q) { q = Neg(x) }>
            y = Add(b, a)
        }""")
    found = partition(model, by_operator("If"), min_nodes=1)
    assert [(part.main, part.inputs, part.outputs) for part in found.parts] == [
        (True, ("x",), ("a",)),
        (False, ("x", "c", "a"), ("b",)),
        (True, ("a", "b"), ("y",)),
    ]
    for chosen in (True, False):
        assert_same(model, found.parts, {"x": np.ones((2, 3), np.float32), "c": np.array(chosen)})


def test_loop_in_the_middle():
    """A Loop that reads a value from around it is handed that value."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x, int64 k) => (float[n] y) <bool go = {1}> {
            a = Relu(x)
            b = Loop (k, go, a) <body = s (int64 i, bool ci, float[n] p) => (bool co, float[n] q) {
                co = Identity(ci) q = Add(p, x) }>
            y = Neg(b)
        }""")
    model.graph[1].outputs[0].shape = ir.Shape(["n"])  # what a Loop carries may change its size, else
    found = partition(model, by_operator("Loop"), min_nodes=1)
    assert [part.main for part in found.parts] == [True, False, True]
    assert_same(model, found.parts, {"x": np.ones(3, np.float32), "k": np.array(4)})


def test_output_that_is_also_used_inside():
    """A value that is an output and is read by a later part is handed to both; a constant output has a maker."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x) => (float[n] a, float[n] y, float[2] w) <float[2] w = {1, 2}> {
            a = Relu(x)
            b = Erf(a)
            y = Add(a, b)
        }""")
    found = partition(model, by_operator("Erf"), min_nodes=1)
    assert [part.outputs for part in found.parts] == [("a", "w"), ("b",), ("y",)]
    values = run_parts(found.parts, {"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(values["w"], np.array([1, 2], np.float32))


def test_constants_go_to_every_part_that_needs_them():
    """Weights, and Constant nodes, are in each part that reads them, and in no other."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x) => (float[n, 3] y) <float[3] w = {1, 2, 3}> {
            two = Constant <value = float {2.0}> ()
            a = Mul(x, w)
            b = Pow(a, two)
            c = Add(b, w)
            y = Div(c, two)
        }""")
    found = partition(model, by_operator("Pow"), min_nodes=1)
    held = [sorted(part.model.graph.initializers) for part in found.parts]
    assert held == [["w"], ["two"], ["two", "w"]]
    assert_same(model, found.parts, {"x": np.ones((2, 3), np.float32)})


def test_functions_metadata_and_opsets_are_kept():
    """A part that calls one of the model's functions has it; each has the operator sets that it needs."""
    model = ir.from_onnx_text("""<ir_version: 9, opset_import: ["": 17, "own": 1], metadata_props: ["k": "v"]>
        g (float[n] x) => (float[n] y) {
            a = Relu(x)
            b = own.twice(a)
            y = Neg(b)
        }
        <opset_import: ["": 17], domain: "own"> twice (p) => (q) { q = Add(p, p) }""")
    model.graph[1].outputs[0].type, model.graph[1].outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n"])
    found = partition(model, lambda node: not node.domain, min_nodes=1)
    assert [len(part.model.functions) for part in found.parts] == [0, 1, 0]
    assert [sorted(part.model.opset_imports) for part in found.parts] == [[""], ["", "own"], [""]]
    assert all(part.model.metadata_props == {"k": "v"} for part in found.parts)
    assert found.parts[1].model.graph.inputs[0].shape == ir.Shape(["n"])
    assert_same(model, found.parts, {"x": np.ones(2, np.float32)})


def test_arithmetic_on_shapes_is_repeated():
    """What Shape and arithmetic on it make is computed in each part that needs it, rather than handed over."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[n, m] x) => (float[k] y) <int64[1] minus = {-1}, int64[1] zero = {0}> {
            s = Shape(x)
            n = Gather(s, zero)
            both = Concat <axis = 0> (n, minus)
            a = Reshape(x, both)
            b = Erf(a)
            c = Reshape(b, both)
            y = ReduceSum <keepdims = 0> (c, zero)
        }""")
    found = partition(model, by_operator("Erf"), min_nodes=1)
    assert [part.main for part in found.parts] == [True, False, True]
    assert found.parts[2].inputs == ("x", "b")
    assert_same(model, found.parts, {"x": np.ones((2, 3), np.float32)})


def test_what_depends_on_data_stays_with_the_rest():
    """Behind NonZero no profile holds; a Reshape whose shape the rest computes cannot have it. Both say why."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[n] x, float[4] z) => (int64[one, k] y, float[a, b] w) <int64[1] zero = {0}> {
            r = Relu(x)
            f = NonZero(r)
            y = Neg(f)
            t = Abs(z)
            s = own.Unsupported(x)
            u = Cast <to = 7> (s)
            w = Reshape(t, u)
        }""")
    model.graph[4].outputs[0].type, model.graph[4].outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2])
    nodes = {node.op_type: node for node in model.graph}
    for kind, node in nodes.items():
        node.name = kind
    found = partition(model, lambda node: node.op_type not in ("NonZero", "Unsupported"), min_nodes=1)
    assert found.moved == {
        "Neg": "the size of 'f', which is handed over, depends on data",
        "Reshape": "the size of what it makes depends on 's', which is handed over",
    }


@pytest.mark.parametrize("missing", ["type", "shape"])
def test_cut_needs_type_and_rank(missing):
    """The error names the tensor and what makes it."""
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[n] x) => (float[n] y) { a = own.Secret(x)  b = own.Other(a)  y = Relu(b) }""")
    if missing == "shape":
        for node in model.graph:
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    what = "element type" if missing == "type" else "rank"
    with pytest.raises(GraphError, match=rf"cannot be cut at 'b': its {what}, which .*Other.* makes, is not known"):
        partition(model, lambda node: not node.domain, min_nodes=1)


def test_small_pieces_are_given_away_unless_they_take_long():
    """A lone Relu goes to the rest, and says why; a convolution or a matrix product does not."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 3] x) => (float[n, 3] y)
        <float[3, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}> { [m] a = MatMul(x, w) [e] b = Erf(a) [r] y = Relu(b) }"""
    found = partition(ir.from_onnx_text(text), by_operator("Erf"))
    assert [(part.main, part.nodes) for part in found.parts] == [(True, ("m",)), (False, ("e", "r"))]
    assert found.moved == {"r": "one node by itself is not worth handing over"}
    assert found.count(main=True) == 1


def test_light_models_agree(light_models):
    """Real architectures with one of their operators refused: the parts give the same bits."""
    for name, refused in (("light_squeezenet", "Concat"), ("light_shufflenet", "Transpose"), ("light_resnet50", "Sum")):
        model = ir.load(light_models / f"{name}.onnx")
        names = {value.name for value in model.graph.initializers.values()}
        kept = [value for value in model.graph.inputs if value.name not in names]
        model.graph.inputs.clear()
        model.graph.inputs.extend(kept)
        model.ir_version = max(model.ir_version, 4)
        found = partition(model, by_operator(refused))
        assert len(found.parts) > 2, name
        feed = {kept[0].name: np.random.default_rng(0).random(kept[0].shape.numpy(), np.float32)}
        assert_same(model, found.parts, feed)
