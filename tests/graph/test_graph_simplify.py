"""Simplification: passes that are good stay, passes that are not are dropped with a loud line."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph import files
from enginery.graph.agree import difference
from enginery.graph.base import all_nodes, tensor_infos
from enginery.graph.passes.base import Pass
from enginery.graph.passes.remove_unused import RemoveUnused
from enginery.graph.simplify import PASSES, simplify
from enginery.plain import from_json, to_json

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


class Planted(Pass):
    """A pass that does what a test tells it."""

    name = "planted"

    def __init__(self, action) -> None:
        self.action = action

    def apply(self, model: ir.Model) -> bool:
        """Do it, and say that something changed."""
        self.action(model)
        return True


def crash(_: ir.Model) -> None:
    """Raise."""
    raise ZeroDivisionError("planted")


def crash_halfway(model: ir.Model) -> None:
    """Take a node out and raise."""
    model.graph.outputs.clear()
    raise ZeroDivisionError("halfway")


def rename_output(model: ir.Model) -> None:
    """Give the output another name."""
    model.graph.outputs[0].name = "z"


def freeze_dim(model: ir.Model) -> None:
    """Fix the dynamic dimension."""
    model.graph.inputs[0].shape = ir.Shape([2, 4])


def widen_type(model: ir.Model) -> None:
    """Declare another element type."""
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def change_weight(model: ir.Model) -> None:
    """Scale a weight a little."""
    value = model.graph.initializers["w0"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.001), name="w0")


def make_nan(model: ir.Model) -> None:
    """Make one weight NaN."""
    array = model.graph.initializers["w1"].const_value.numpy().copy()
    array[0, 0] = np.nan
    model.graph.initializers["w1"].const_value = ir.tensor(array, name="w1")


def break_graph(model: ir.Model) -> None:
    """Use an operator that does not exist."""
    model.graph[1].op_type = "NoSuchOperator"


def stop_running(model: ir.Model) -> None:
    """Make a graph that is valid and does not run."""
    value = model.graph.initializers["w1"]
    value.const_value = ir.tensor(np.ones((7, 3), np.float32), name="w1")
    value.shape = ir.Shape([7, 3])


@pytest.fixture
def evaluate(run):
    """Return what runs a model on two fixed inputs."""
    return lambda model: [run(model, x=X), run(model, x=X[:1])]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (crash, "it raised ZeroDivisionError: planted"),
        (crash_halfway, "it raised ZeroDivisionError: halfway"),
        (rename_output, "it changed the outputs: z float32['batch', 3] instead of y float32['batch', 3]"),
        (freeze_dim, "it changed the inputs: x float32[2, 4] instead of x float32['batch', 4]"),
        (widen_type, "it changed the outputs: y float64"),
        (change_weight, "output 'y' differs by 1.0e-03 (relative L2), 1.0e-04 is allowed"),
        (make_nan, "output 'y' has 2 NaNs instead of 0"),
        (break_graph, "the graph is no longer valid: No Op registered for NoSuchOperator"),
        (stop_running, "the graph no longer runs: "),
    ],
)
def test_bad_pass_is_dropped(small_model, evaluate, action, reason):
    """A bad pass is dropped with a loud line, the graph is as before, and later passes still run."""
    said: list[str] = []
    passes = (RemoveUnused(), Planted(action), RemoveUnused())
    small_model.graph.append(ir.node("Neg", [small_model.graph.inputs[0]]))
    expected = evaluate(small_model)
    found, record = simplify(small_model, evaluate=evaluate, say=said.append, passes=passes)
    assert [one.status for one in record.passes] == ["changed", "dropped", "unchanged"]
    assert record.passes[1].reason.startswith(reason)
    assert len(said) == 1
    assert said[0].startswith(f"simplify: dropped the pass 'planted': {reason}")
    assert difference(expected, evaluate(found)) == ""
    assert tensor_infos(found.graph.outputs) == tensor_infos(small_model.graph.outputs)
    assert (record.nodes_before, record.nodes_after) == (4, 3)
    assert from_json(type(record), to_json(record)) == record


@pytest.mark.parametrize("guilty", [False, True])
def test_outputs_are_compared_once(small_model, evaluate, guilty):
    """Passes that are all good cost one comparison; a bad one costs another for each pass that changed something."""
    evaluated = []

    def counted(model):
        evaluated.append(model)
        return evaluate(model)

    passes = [Planted(lambda _: None), Planted(change_weight if guilty else lambda _: None), Planted(lambda _: None)]
    _, record = simplify(small_model, evaluate=counted, say=lambda _: None, passes=passes)
    assert [one.status for one in record.passes] == ["changed", "dropped" if guilty else "changed", "changed"]
    assert len(evaluated) == (5 if guilty else 2)


def test_nothing_changed_is_not_compared(small_model):
    """Where no pass changed anything, the graph is the original, and is run once."""
    evaluated = []
    simplify(small_model, evaluate=lambda model: [evaluated.append(model)], say=print, passes=(RemoveUnused(),))
    assert len(evaluated) == 1


def test_postcondition(small_model, evaluate):
    """A pass that did not keep what it promised is dropped."""

    class Promising(Planted):
        def ensures(self, model: ir.Model) -> str:
            return f"{len(model.graph)} nodes are left"

    said: list[str] = []
    simplify(small_model, evaluate=evaluate, say=said.append, passes=(Promising(lambda _: None),))
    assert said == ["simplify: dropped the pass 'planted': 3 nodes are left"]


def test_interrupt_is_not_swallowed(small_model, evaluate):
    """Ctrl-C ends simplification; it is no defect of a pass."""

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simplify(small_model, evaluate=evaluate, say=print, passes=(Planted(interrupt),))


def test_original_that_does_not_run(small_model):
    """Where the original itself does not run, that is said loudly, and the structure is still checked."""

    def fail(_):
        raise RuntimeError("no kernel")

    said: list[str] = []
    passes = (Planted(change_weight), Planted(rename_output))
    _, record = simplify(small_model, evaluate=fail, say=said.append, passes=passes)
    assert said[0] == (
        "simplify: outputs are not compared, only the structure is checked: the graph does not run: no kernel"
    )
    assert [one.status for one in record.passes] == ["changed", "dropped"]
    assert record.checked_by == "signature, onnx.checker (outputs not compared: the graph does not run: no kernel)"


def test_without_evaluate(small_model):
    """Without anything to run the graph, nothing is said, and the record tells."""
    said: list[str] = []
    _, record = simplify(small_model, evaluate=None, say=said.append)
    assert not said
    assert "outputs not compared: nothing to run the graph with was given" in record.checked_by


def test_original_is_untouched(small_model, evaluate):
    """The graph given is not changed."""
    before = ir.to_proto(small_model).SerializeToString()
    simplify(small_model, evaluate=evaluate, say=print)
    assert ir.to_proto(small_model).SerializeToString() == before


def test_pass_names_are_unique():
    """Every pass has a name of its own, and says what it does."""
    names = [one.name for one in PASSES]
    assert len(set(names)) == len(names)
    assert all(type(one).__doc__ for one in PASSES)


def test_random_graph(graph_of):
    """A graph that draws random numbers cannot be compared; that is said."""
    model = graph_of(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[4] x) => (float[4] y) { y = RandomNormalLike (x) }'
    )
    said: list[str] = []
    simplify(model, evaluate=lambda _: [], say=said.append)
    assert "the graph draws random numbers" in said[0]


@pytest.mark.parametrize(
    "name", ["light_squeezenet", "light_shufflenet", "light_resnet50", "light_bvlc_alexnet", "light_densenet121"]
)
def test_real_architectures(light_models, run_ort, name):
    """Real architectures get smaller and compute the same on ONNX Runtime; no pass is dropped."""
    model = files.load(light_models / f"{name}.onnx")
    (info,) = tensor_infos(model.graph.inputs)
    feed = {info.name: np.random.default_rng(0).random(info.shape, np.float32)}
    said: list[str] = []
    found, record = simplify(model, evaluate=lambda graph: [run_ort(graph, **feed)], say=said.append)
    assert said == []
    assert record.nodes_after < 0.85 * record.nodes_before
    assert record.nodes_after == sum(1 for _ in all_nodes(found))
    assert record.checked_by == "signature, onnx.checker, outputs of 1 fixed input"


def test_control_flow(graph_of, run_ort):
    """Subgraphs are simplified too, and keep reading what stands outside of them."""
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[n] x, bool c, int64 k) => (float[n] y) {
        one = Constant <value = float[1] {1.0}> ()
        a = Identity (x)
        b = If (c) <
            then_branch = t () => (float[n] p) {
                two = Constant <value = float[1] {2.0}> () i = Identity (a) p = Mul (i, two) },
            else_branch = e () => (float[n] q) { q = Add (a, one) }>
        yes = Constant <value = bool {1}> ()
        y = Loop (k, yes, b) <body = l (int64 i, bool in, float[n] s) => (bool out, float[n] r) {
            out = Identity (in) h = Identity (s) r = Add (h, one) }>
    }""")
    cases = [{"x": X[0], "c": np.array(flag), "k": np.array(3, np.int64)} for flag in (False, True)]
    said: list[str] = []
    found, record = simplify(model, evaluate=lambda graph: [run_ort(graph, **case) for case in cases], say=said.append)
    assert said == []
    assert record.nodes_after < record.nodes_before
    assert {node.op_type for node in all_nodes(found)} >= {"If", "Loop", "Mul", "Add"}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_torch_models(tmp_path, run_ort):
    """What torch exports, a convolutional network and a transformer, is simplified with no pass dropped."""
    torch = pytest.importorskip("torch")
    convolutional = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5),
    )  # fmt: skip
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    transformer = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    for module, example in ((convolutional, torch.randn(2, 3, 8, 8)), (transformer, torch.randn(2, 5, 8))):
        program = torch.onnx.export(
            module.eval(), (example,), dynamo=True, optimize=False, verbose=False, dynamic_shapes=({0: "batch"},)
        )
        program.save(tmp_path / "model.onnx")
        model = files.load(tmp_path / "model.onnx")
        (name,) = (value.name for value in model.graph.inputs)
        said: list[str] = []
        cases = [{name: example.numpy()}, {name: example.numpy()[:1]}]
        found, record = simplify(
            model, evaluate=lambda graph, cases=cases: [run_ort(graph, **case) for case in cases], say=said.append
        )
        assert said == []
        assert record.nodes_after < record.nodes_before
        assert "BatchNormalization" not in {node.op_type for node in all_nodes(found)}
        assert tensor_infos(found.graph.inputs) == tensor_infos(model.graph.inputs)
