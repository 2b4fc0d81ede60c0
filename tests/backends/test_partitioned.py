"""An engine that two backends share: what it computes, what it says of itself, and what the main backend is asked."""

from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest

import enginery
import sharing_backend
from enginery import backends, jobs
from enginery.backends import engine
from enginery.benchmark.summary import summarise
from enginery.errors import BuildError, ManifestError
from enginery.inputs.base import Case, save_cases
from enginery.reports.text import bench_text, engine_text
from enginery.spec import BenchSpec, BuildSpec, parse_shapes

CNN = """<ir_version: 8, opset_import: ["": 17]> cnn (float[batch, 3, 8, 8] x) => (float[batch, 4] y)
    <float[4, 3, 3, 3] w, float[4, 4, 3, 3] v> {
        [conv1] a = Conv <pads = [1, 1, 1, 1]> (x, w)
        [relu1] b = Relu(a)
        [erf] c = Erf(b)
        [conv2] d = Conv <pads = [1, 1, 1, 1]> (c, v)
        [relu2] e = Relu(d)
        [pool] f = GlobalAveragePool(e)
        [flat] y = Flatten(f)
    }"""


@pytest.fixture(autouse=True)
def sharing(monkeypatch):
    """Make the sharing backend known, with nothing unsupported and nothing refused."""
    monkeypatch.setitem(backends.table(), "sharing", backends.BackendRow("sharing_backend", "", "for tests"))
    for held in (sharing_backend.UNSUPPORTED, sharing_backend.REFUSED, sharing_backend.BUILT):
        held.clear()
    return sharing_backend


@pytest.fixture
def cnn() -> ir.Model:
    """Return a small CNN with random weights."""
    random = np.random.default_rng(0)
    model = ir.from_onnx_text(CNN)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (4, 4, 3, 3))):
        value = next(one for node in model.graph for one in node.inputs if one.name == name)
        value.const_value = ir.tensor(random.standard_normal(shape).astype(np.float32), name=name)
        model.graph.register_initializer(value)
    return model


def outputs(model, feeds, tmp_path, backend="sharing", shapes=()):
    """Build, open and run."""
    spec = BuildSpec(shapes=parse_shapes(shapes))
    built = engine.build(model, spec, tmp_path / f"{backend}.engine", backend=backend)
    with built.open() as session:
        return built, session.placement, session.run(feeds)


def test_two_backends_share_a_graph(sharing, cnn, tmp_path):
    """One unsupported operator in the middle: the engine agrees with the whole, and says what runs where."""
    sharing.UNSUPPORTED.add("Erf")
    feeds = {"x": np.random.default_rng(1).random((2, 3, 8, 8), np.float32)}
    built, placement, found = outputs(cnn, feeds, tmp_path, shapes=["x=1..2..4x3x8x8"])
    _, _, expected = outputs(cnn, feeds, tmp_path, "onnxruntime")
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)
    assert placement == "Main (6 nodes) + ONNX Runtime (1 node)"
    parts = built.manifest.build.parts
    assert [(part.backend, part.nodes) for part in parts] == [
        ("sharing", ("conv1", "relu1")),
        ("onnxruntime", ("erf",)),
        ("sharing", ("conv2", "relu2", "pool", "flat")),
    ]
    assert [part.handed_over_bytes for part in parts] == [0, 2 * 4 * 64 * 4, 2 * 4 * 64 * 4]
    notes = built.manifest.build.notes
    assert notes[0] == f"{placement}; a call hands over 4,096 bytes at the opt sizes between them"
    assert notes[1] == "ONNX Runtime runs Erf (1)"
    assert sorted(path.name for path in built.folder.iterdir()) == [
        "engine.json", "part_0_sharing", "part_1_onnxruntime", "part_2_sharing", "parts.json", "precision.json",
    ]  # fmt: skip
    rows = engine_text(enginery.inspect(built.folder)).splitlines()
    row = next(line for line in rows if line.strip().startswith("1  ONNX Runtime"))
    assert row.split() == ["1", "ONNX", "Runtime", "1", "Erf", "(1)", "b", *row.split()[7:]]
    assert "2.0 KiB" in row


def test_profiles_follow_from_those_of_the_whole(sharing, tmp_path):
    """A part is asked for the sizes that its tensors really have, also behind arithmetic and unknown operators."""
    sharing.UNSUPPORTED.update(("Erf", "Gelu"))
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[n, m] x) => (float[k, j] y) {
            a = MatMul(x, x)
            b = Concat <axis = 0> (a, a)
            c = Erf(b)
            d = com.microsoft.Gelu(c)
            y = MatMul(d, a)
        }""")
    unknown = model.graph[3].outputs[0]
    unknown.type, unknown.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n", "m"])
    spec = BuildSpec(shapes=parse_shapes(["x=2..3..4x2..3..4"]), profiles=(parse_shapes(["x=3x3"]),))
    built = engine.build(model, spec, tmp_path / "s.engine", backend="sharing")
    first, last = (found for _, found, _ in sharing.BUILT)
    assert {name: str(shape) for name, shape in first.items()} == {"x": "n:2..3..4xm:2..3..4"}
    assert str(last["a"]) == "2..3..4x2..3..4"
    assert sharing.BUILT[1][2].profiles[0]["a"].at("max") == (3, 3)
    with built.open() as session:
        x = np.eye(3, dtype=np.float32)
        assert session.run({"x": x})["y"].shape == (6, 3)


def test_node_that_only_the_build_refuses_goes_to_the_rest(sharing, cnn, tmp_path, caplog):
    """An error that names a node moves it; parts that did not change are not built again; each try is said."""
    sharing.UNSUPPORTED.add("Erf")
    sharing.REFUSED.update(("Relu", "GlobalAveragePool"))
    feeds = {"x": np.random.default_rng(1).random((2, 3, 8, 8), np.float32)}
    with caplog.at_level(logging.WARNING, "enginery"):
        built, placement, found = outputs(cnn, feeds, tmp_path)
    _, _, expected = outputs(cnn, feeds, tmp_path, "onnxruntime")
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-6)
    assert placement == "Main (2 nodes) + ONNX Runtime (5 nodes)"
    assert [operators for operators, _, _ in sharing.BUILT] == [("Conv",), ("Conv",)]
    assert [record.args[1] for record in caplog.records] == ["relu1", "relu2"]
    said = "relu2 runs on ONNX Runtime: Main refused it when building: no kernel for node 'relu2' (Relu)"
    assert said in built.manifest.build.notes
    assert not list(built.folder.glob("built_*"))


def test_error_that_names_no_node_ends_the_build(sharing, cnn, tmp_path, monkeypatch):
    """The part is named, and nothing stands at the output."""
    sharing.UNSUPPORTED.add("Erf")

    def refuse(_graph, _spec, folder):
        raise BuildError(f"out of memory in {folder.name[:5]}", mend="give it more")

    monkeypatch.setattr(sharing, "_build_part", refuse)
    with pytest.raises(BuildError, match=r"part 1 of 3: out of memory in built; give it more"):
        engine.build(cnn, BuildSpec(), tmp_path / "s.engine", backend="sharing")
    assert not (tmp_path / "s.engine").exists()


def test_nothing_left_for_the_main_backend(sharing, cnn, tmp_path):
    """An engine that would run wholly elsewhere is refused, with why and what to do."""
    sharing.UNSUPPORTED.update(("Conv", "Erf"))
    said = r"Main would run nothing of this graph \(relu1: one node by itself .*--backend onnxruntime"
    with pytest.raises(BuildError, match=said):
        engine.build(cnn, BuildSpec(), tmp_path / "s.engine", backend="sharing")


def test_what_the_builder_refuses_again_and_again_is_given_up(sharing, tmp_path):
    """Tries are bounded, and the error lists what was refused."""
    sharing.REFUSED.add("MatMul")
    text = " ".join(f"[multiply{at}] v{at + 1} = MatMul(v{at}, v{at})" for at in range(12))
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[2, 2] v0) => (float[2, 2] v12) {{ {text} }}'
    )
    with pytest.raises(BuildError, match="refused a node of every cut, 8 times: multiply0, multiply1"):
        engine.build(model, BuildSpec(), tmp_path / "s.engine", backend="sharing")


def test_values_are_let_go_of_and_outputs_are_the_callers(sharing, tmp_path):
    """An output that is an input itself is a copy; times are told for each part."""
    sharing.UNSUPPORTED.add("Erf")
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 2] x) => (float[2, 2] a, float[2, 2] y) { a = MatMul(x, x) b = Erf(a) y = MatMul(b, a) }""")
    feeds = {"x": np.ones((2, 2), np.float32)}
    built, _, found = outputs(model, feeds, tmp_path)
    assert list(found) == ["a", "y"]
    runner = sharing.open(built.folder, built.manifest, {"threads": 1})
    runner.infer(feeds)
    times = runner.timings()
    assert list(times) == ["0: Main (1 node)", "1: ONNX Runtime (1 node)", "2: Main (1 node)"]
    assert all(time > 0 for time in times.values())
    assert set(runner.timings().values()) == {0.0}
    runner.close()


def test_bench_tells_the_time_of_each_part(sharing, tmp_path):
    """What a turn's job returns has the parts; the report shows them."""
    sharing.UNSUPPORTED.add("Erf")
    model = ir.from_onnx_text("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 2] x) => (float[2, 2] y) { a = MatMul(x, x) b = Erf(a) y = MatMul(b, a) }""")
    built, _, _ = outputs(model, {"x": np.ones((2, 2), np.float32)}, tmp_path)
    save_cases([Case("one", {"x": np.ones((2, 2), np.float32)})], tmp_path / "cases")
    with built.open() as session:
        turn = {"warmup_ms": 1.0, "seconds": 0.01, "min_calls": 3, "cases": tmp_path / "cases", "case": "one"}
        found = jobs.time_calls({"session": session}, turn)
    assert list(found["parts_ms"]) == ["0: Main (1 node)", "1: ONNX Runtime (1 node)", "2: Main (1 node)"]
    assert sum(found["parts_ms"].values()) <= max(found["samples_ms"])
    record = summarise(
        [found["samples_ms"]], shapes={"x": (2, 2)}, batch=2, first_call_ms=None, load_ms=None,
        placement="", spec=BenchSpec(), parts_ms=found["parts_ms"],
    )  # fmt: skip
    assert "shared: 0: Main (1 node)" in bench_text({"shared": record})


def test_damaged_parts_say_so(sharing, cnn, tmp_path):
    """What says where parts run is read with care."""
    sharing.UNSUPPORTED.add("Erf")
    built = engine.build(cnn, BuildSpec(), tmp_path / "s.engine", backend="sharing")
    (built.folder / "parts.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"Parts\.parts is missing"):
        sharing.open(built.folder, built.manifest, {})
