"""`verify --layers`: the first node that diverges, on engines that are wrong by construction and on real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import enginery
from enginery import backends
from enginery.errors import OutputExistsError, UsageError
from enginery.graph import files
from enginery.graph.base import apply_plan, make_plan
from enginery.inputs.arrays import read_npz
from enginery.locating import Search
from enginery.machine import describe_machine
from enginery.plain import from_json
from enginery.records import DivergenceRecord
from enginery.spec import VerifySpec, parse_shapes

FAULTY = "faulty"
BLOCK = """
    [b{i}_fc1] h{i} = MatMul({x}, w{i})  [b{i}_sig] s{i} = Sigmoid(h{i})  [b{i}_gate] g{i} = Mul(h{i}, s{i})
    [b{i}_act] r{i} = Relu(g{i})  [b{i}_fc2] o{i} = MatMul(r{i}, v{i})  [b{i}_res] x{i} = Add({x}, o{i})"""


def network(blocks, extra="", end=""):
    """Return residual blocks with gates from `x` [batch, 16]; `extra` and `end` stand behind the first and the last."""
    body, last = "", "x"
    for at in range(blocks):
        body += BLOCK.format(i=at, x=last)
        last = f"x{at}"
        if at == 0 and extra:
            body, last = body + extra.replace("{x}", last), "extra"
    end = end or "[end] y = Identity({x})"
    weights = ", ".join(f"float[16, 16] w{at}, float[16, 16] v{at}" for at in range(blocks))
    end = end.replace("{x}", last)
    text = f"""<ir_version: 8, opset_import: ["": 17]> net (float[batch, 16] x) => (float[batch, 16] y) <{weights}>
        {{ {body} {end} }}"""
    return with_weights(ir.from_onnx_text(text))


def with_weights(model, scale=0.2):
    """Give every weight that is declared random values."""
    random = np.random.default_rng(0)
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if (
                value is not None
                and value.producer() is None
                and not value.is_graph_input()
                and value.const_value is None
            ):
                shape = [16, 16] if value.shape is None else list(value.shape)
                array = (random.standard_normal(shape) * scale).astype(np.float32)
                value.const_value = ir.tensor(array, name=value.name)
                model.graph.register_initializer(value)
    return model


def numbers(model, **given):
    """Set weights to one number each."""
    for name, number in given.items():
        model.graph.initializers[name].const_value = ir.tensor(np.float32(number), name=name)
    return model


@pytest.fixture(autouse=True)
def faulty(monkeypatch, tmp_path):
    """Install the backend that is wrong by construction, for this process and for workers."""
    site = tmp_path / "site"
    info = site / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[enginery.backends]\n{FAULTY} = faulty_backend\n")
    shutil.copy(Path(__file__).with_name("faulty_backend.py"), site)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    backends.table.cache_clear()
    yield FAULTY
    monkeypatch.undo()
    backends.table.cache_clear()


def locate(model, folder, fault, *, bound=1e-3, **more):
    """Build with a fault, and look for it; return what verify found."""
    source, engine = folder / "model.onnx", folder / "wrong.engine"
    files.save(model, source)
    shapes = parse_shapes(["x=1..3..4x16"])
    enginery.build(source, engine, backend=FAULTY, shapes=shapes, options={"fault": fault}, in_process=True)
    spec = VerifySpec(max_error=bound)
    return enginery.verify(engine, source, spec=spec, layers=True, output=folder / "divergence", **more)


def test_a_node_that_jumps_is_found_and_shown(tmp_path):
    """The one wrong operator of a network with branches is named, and written by itself with a line that shows it."""
    (tmp_path / "divergence").mkdir()
    (tmp_path / "divergence" / "divergence.json").write_text("of an earlier search, which is replaced")
    record = locate(network(4, extra="[erf] extra = Erf({x})"), tmp_path, "jump")
    found = record.divergence
    assert not record.passed
    assert (found.kind, [node.name for node in found.nodes], found.tensor) == ("jump", ["erf"], "extra")
    assert found.confirmed
    assert found.error == pytest.approx(0.05, rel=1e-3)
    assert found.own_error == pytest.approx(0.05, rel=1e-3)
    assert found.error_before < 1e-6
    assert found.said.startswith("erf (Erf): its output is off by 5.0e-02")
    assert found.builds <= 12
    assert [cut.good for cut in found.cuts] == sorted((cut.good for cut in found.cuts), reverse=True)
    folder = tmp_path / "divergence"
    assert sorted(file.name for file in folder.iterdir()) == ["divergence.json", "inputs.npz", "model.onnx"]
    small = files.load(folder / "model.onnx")
    assert [node.op_type for node in small.graph] == ["Erf"]
    assert {name: array.shape for name, array in read_npz(folder / "inputs.npz").items()} == {"x0": (1, 16)}
    kept = from_json(DivergenceRecord, (folder / "divergence.json").read_text())
    assert (kept.said, kept.smallest) == (found.said, found.smallest)


@pytest.mark.slow
def test_the_line_that_shows_it_shows_it(tmp_path):
    """What is told to be typed is typed, and leaves with the exit code of a failed comparison."""
    record = locate(network(1, extra="[erf] extra = Erf({x})"), tmp_path, "jump")
    line = record.divergence.smallest.commands.replace("enginery ", f"{sys.executable} -m enginery ")
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)  # noqa: S607
    assert done.returncode == 80, done.stderr
    assert "FAILED: error 5.00e-02 is above 1.00e-03" in done.stdout


@pytest.mark.slow
def test_an_error_that_grows_is_told_from_one_that_jumps(tmp_path):
    """Where many nodes add up to it, the profile says so, and the smallest model holds many of them."""
    found = locate(network(6), tmp_path, "drift", bound=4e-4).divergence
    assert found.kind == "gradual"
    assert found.own_error < 4e-4
    assert "no node jumps: the error grows along the graph" in found.said
    errors = [cut.error for cut in found.cuts if cut.node.endswith("res") or cut.node == "end"]
    assert len(found.cuts) >= 9
    assert errors == sorted(errors)
    assert found.smallest.nodes >= 4
    assert found.smallest.error > 4e-4


def test_a_fault_of_a_fusion_is_found_in_spite_of_the_outputs_that_hide_it(tmp_path):
    """Marking the gate's input as an output breaks the fusion: that is told; the smallest model holds both nodes."""
    found = locate(network(3), tmp_path, "fusion", bound=1e-4).divergence
    assert found.kind == "fused"
    assert found.confirmed is False
    assert found.nodes[0].name == "b0_gate"
    assert "fused with what stands before it" in found.said
    assert found.smallest.operators == {"Sigmoid": 1, "Mul": 1}


def test_an_overflow_that_reaches_the_outputs_is_told_in_infinities(tmp_path):
    """An intermediate infinity is found where it is made, though the outputs are NaN."""
    extra = "[up] u = Mul({x}, lots) [exp] e = Exp(u) [down] extra = Div(e, e)"
    model = numbers(network(2, extra=extra), lots=9.0)
    found = locate(model, tmp_path, "overflow").divergence
    assert (found.kind, found.nodes[0].name) == ("jump", "exp")
    cut = next(cut for cut in found.cuts if cut.node == "exp")
    assert (cut.inf > 0, cut.reference_inf, cut.error) == (True, 0, np.inf)
    assert "Inf, what it reads by" in found.said


def test_what_is_forgotten_before_the_outputs_does_no_harm(tmp_path):
    """An infinity that a minimum takes away is passed over; the node that is to blame for the outputs is found."""
    forgotten = """[turn] t = Neg({x}) [up] u = Mul(t, lots) [exp] e = Exp(u) [least] l = Min(e, one)
        [mix] extra = Add(l, {x})"""
    model = network(1, extra=forgotten, end="[far] z = Mul({x}, more) [last] y = Exp(z)")
    found = locate(numbers(model, lots=9.0, one=1.0, more=9.0), tmp_path, "overflow").divergence
    assert found.nodes[0].name == "last"
    (cut,) = (cut for cut in found.cuts if cut.node == "exp")
    assert (cut.inf > 0, cut.good, cut.harm < 1e-6) == (True, True, True)


def test_where_no_output_is_off_nothing_is_looked_for(tmp_path):
    """A note says so, and nothing is written."""
    forgotten = "[up] u = Mul({x}, lots) [exp] e = Exp(u) [least] l = Min(e, one) [mix] extra = Add(l, {x})"
    record = locate(numbers(network(1, extra=forgotten), lots=9.0, one=1.0), tmp_path, "overflow")
    assert record.passed
    assert record.divergence is None
    assert record.notes[-1] == "no output is off by more than --max-error, so there is no node to look for"
    assert not (tmp_path / "divergence").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["refuse", "crash"])
def test_cuts_that_cannot_be_built_are_passed_over(tmp_path, fault):
    """A backend that refuses some cuts, or dies of them, leaves others; what could not be told apart is said."""
    extra = "[before] p = Relu({x}) [erf] e = Erf(p) [behind] extra = Relu(e)"
    found = locate(network(2, extra=extra), tmp_path, fault).divergence
    assert found.kind == "jump"
    assert "erf" in [node.name for node in found.nodes]
    assert len(found.nodes) <= 3
    assert any(cut.failure for cut in found.cuts)
    assert any("passed over" in note for note in found.notes)


@pytest.mark.slow
def test_the_branch_that_is_taken_is_looked_into(tmp_path):
    """A node with a body is one node of the graph; its body, with what it reads from around it, is bisected as well."""
    extra = """[sum] one = ReduceSum<keepdims = 0>({x}) [zero] nil = Sub(one, one) [cond] c = GreaterOrEqual(nil, nil)
        [if] extra = If(c) <
            then_branch = t () => (float[b, 16] te) {
                [tanh] a = Tanh({x}) [erf] e = Erf(a) [after] te = MatMul(e, w0) },
            else_branch = f () => (float[b, 16] fe) { [other] fe = Identity({x}) }>"""
    found = locate(network(2, extra=extra), tmp_path, "jump").divergence
    assert [node.name for node in found.nodes] == ["if"]
    assert {"tanh", "erf", "after", "other"} == set(found.nodes[0].inner)
    assert found.call == "then_branch"
    assert (found.inside.kind, [node.name for node in found.inside.nodes]) == ("jump", ["erf"])
    assert "then_branch of its body: erf (Erf)" in found.said
    assert found.smallest.operators == {"Erf": 1}


def test_the_iterations_of_a_loop_are_looked_into(tmp_path):
    """The second iteration is the first that is off: only there does what is carried overflow."""
    extra = """[loop] extra = Loop(three, yes, {x}) <
        body = b (int64 i, bool go, float[b, 16] h) => (bool on, float[b, 16] n) {
            [keep] on = Identity(go) [scale] s = Mul(h, h) [big] u = Mul(s, lots) [exp] e = Exp(u)
            [log] l = Log(e) [next] n = Add(l, one) }>"""
    model = numbers(network(2, extra=extra), lots=0.15, one=6.0)
    for name, array in (("three", np.array(3, np.int64)), ("yes", np.array(True))):  # noqa: FBT003
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    found = locate(model, tmp_path, "overflow").divergence
    assert [node.name for node in found.nodes] == ["loop"]
    assert found.call in ("iteration 1", "iteration 2")
    assert [node.name for node in found.inside.nodes] == ["exp"]
    assert found.smallest.operators == {"Exp": 1}


def test_a_folder_that_is_not_ours_stays(tmp_path):
    """Before the search begins, a folder with other things in it is refused."""
    (tmp_path / "divergence").mkdir()
    (tmp_path / "divergence" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="other things in it"):
        locate(network(1), tmp_path, "jump")
    assert [file.name for file in (tmp_path / "divergence").iterdir()] == ["thesis.txt"]


def test_another_model_is_no_match(tmp_path):
    """What has other inputs or outputs is refused by name, before anything runs."""
    model = network(1)
    files.save(model, tmp_path / "model.onnx")
    model.graph.inputs[0].name = "image"
    files.save(model, tmp_path / "other.onnx")
    engine = enginery.build(tmp_path / "model.onnx", tmp_path / "m.engine", shapes=parse_shapes(["x=1..2..4x16"]))
    other = enginery.build(tmp_path / "other.onnx", tmp_path / "o.engine", shapes=parse_shapes(["image=1..2..4x16"]))
    with pytest.raises(UsageError, match=r"other.onnx is another model: unknown input 'x'"):
        enginery.verify(engine.folder, tmp_path / "model.onnx", against=tmp_path / "other.onnx")
    with pytest.raises(UsageError, match=r"o.engine is another model: its inputs are image, and the engine's x"):
        enginery.verify(engine.folder, tmp_path / "model.onnx", against=other.folder)


@pytest.mark.slow
def test_two_engines_are_compared(tmp_path):
    """Against another engine, both are built up to each cut."""
    model = network(2, extra="[erf] extra = Erf({x})")
    files.save(model, tmp_path / "model.onnx")
    right = enginery.build(tmp_path / "model.onnx", tmp_path / "ort.engine", shapes=parse_shapes(["x=1..3..4x16"]))
    found = locate(model, tmp_path, "jump", against=right.folder).divergence
    assert [node.name for node in found.nodes] == ["erf"]
    assert "ort.engine (onnxruntime" in found.reference
    assert f"--against {tmp_path / 'divergence.reference.engine'}" in found.smallest.commands


def test_a_typed_file_is_compared_with_its_original(tmp_path):
    """An fp16 graph that overflows, on the backend that computes as it says, against the float32 file it came from."""
    model = network(3, extra="[up] u = MatMul({x}, big) [square] q = Mul(u, u) [root] extra = Sqrt(q)")
    big = model.graph.initializers["big"]
    big.const_value = ir.tensor(big.const_value.numpy() * np.float32(1000), name="big")
    files.save(model, tmp_path / "model.onnx")
    files.save(apply_plan(model, make_plan(model, "fp16")), tmp_path / "half.onnx")
    engine = enginery.build(
        tmp_path / "half.onnx", tmp_path / "half.engine", backend="reference", shapes=parse_shapes(["x=1..2..4x16"]),
        simplify=False,
    )  # fmt: skip
    record = enginery.verify(
        engine.folder, tmp_path / "half.onnx", against=tmp_path / "model.onnx", layers=True,
        spec=VerifySpec(max_error=0.02), output=tmp_path / "divergence",
    )  # fmt: skip
    found = record.divergence
    assert (found.kind, found.tensor) == ("jump", "q")
    assert "square" in [node.name for node in found.nodes]
    assert (tmp_path / "divergence" / "reference.onnx").is_file()
    small = files.load(tmp_path / "divergence" / "model.onnx")
    assert {value.dtype.name for value in (*small.graph.inputs, *files.load(tmp_path / "model.onnx").graph.inputs)} == {
        "FLOAT"
    }


@pytest.mark.slow
def test_openvino_in_bf16_is_looked_into(tmp_path):
    """A real low precision: rounding of inputs near 1000 that a subtraction leaves alone."""
    if "bf16" not in backends.get("openvino").capabilities(describe_machine()).precisions:
        pytest.skip("this processor does not compute in bf16")
    model = numbers(network(2, extra="[shift] u = Add({x}, lots) [mix] extra = MatMul(u, w0)"), lots=1000.0)
    files.save(model, tmp_path / "model.onnx")
    engine = enginery.build(
        tmp_path / "model.onnx", tmp_path / "b.engine", backend="openvino", precision="bf16",
        shapes=parse_shapes(["x=1..2..4x16"]),
    )  # fmt: skip
    spec = VerifySpec(max_error=1e-4)
    source = tmp_path / "model.onnx"
    record = enginery.verify(engine.folder, source, spec=spec, layers=True, output=tmp_path / "divergence")
    assert record.divergence.found
    assert record.divergence.smallest.error > 1e-4


def test_a_network_built_by_hand_has_no_graph_to_cut(tmp_path):
    """It says so, instead of cutting its reference."""
    model = network(1)
    files.save(model, tmp_path / "model.onnx")
    engine = enginery.build(tmp_path / "model.onnx", tmp_path / "e.engine", shapes=parse_shapes(["x=1..2..4x16"]))
    hand = replace(engine, manifest=replace(engine.manifest, graph_sha256=""))
    with pytest.raises(UsageError, match="no graph that could be cut"):
        Search(hand, None, None, tmp_path, None)._designs()
