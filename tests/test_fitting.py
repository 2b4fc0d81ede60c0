"""A graph newer than a backend: converted and compared before the build, or refused; never read wrongly."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery import backends, optimize, steps
from enginery.backends import engine
from enginery.backends.base import Design
from enginery.errors import BuildError, GraphError
from enginery.evaluation import Evaluator
from enginery.fitting import Fitter, check_conversion, fit_contestants
from enginery.graph import files
from enginery.graph.base import OpsetLimits
from enginery.progress import Progress
from enginery.spec import BenchSpec, OptimizeSpec, VerifySpec, parse_shapes
from enginery.tuning.candidates import GRAPH, Contestant
from telling import Said

OLD = "old_reader"
X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
BODY = "(float[batch, 2, 3] x) => (float[batch, 1, 3] y)"
AS_INITIALIZER = (
    f'<ir_version: 10, opset_import: ["" : 18]> m {BODY} <int64[1] axes = {{1}}> {{y = ReduceMean(x, axes)}}'
)
AS_NODE = f"""<ir_version: 10, opset_import: ["" : 18]> m {BODY} {{
    axes = Constant <value_ints = [1]> ()  y = ReduceMean <noop_with_empty_axes = 0> (x, axes) }}"""
AT_RUN_TIME = """<ir_version: 10, opset_import: ["" : 18]>
    m (float[2, 2, 3] x, int64[1] axes) => (float[a, b, c] y) { [mean] y = ReduceMean(x, axes) }"""


@pytest.fixture
def old_reader(monkeypatch, tmp_path):
    """Install a backend that reads opset 17 and ignores what it does not know, for this process and for workers."""
    site = tmp_path / "site"
    (site / "old_reader-8.6.dist-info").mkdir(parents=True)
    (site / "old_reader-8.6.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: old-reader\nVersion: 8.6\n"
    )
    (site / "old_reader-8.6.dist-info" / "entry_points.txt").write_text(f"[enginery.backends]\n{OLD} = {OLD}\n")
    shutil.copy(Path(__file__).with_name("backend_of_opset_17.py"), site / f"{OLD}.py")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
    backends.table.cache_clear()
    yield OLD
    monkeypatch.undo()
    backends.table.cache_clear()


def write(text, folder):
    """Write a model given as text."""
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_the_stub_is_as_wrong_as_what_it_stands_for(old_reader, tmp_path):
    """Given opset 18 with axes as an input, it reduces over all axes without a word: the trap is real."""
    from old_reader import Runner, misread

    found = Runner(misread(onnx.parser.parse_model(AS_INITIALIZER)), ["y"]).infer({"x": X})["y"]
    assert found.tolist() == [[[5.5]]]
    with pytest.raises(BuildError, match="old_reader cannot build this graph: it reads opset 17 at most and the graph"):
        engine.build(ir.from_onnx_text(AS_INITIALIZER), steps.BuildSpec(), tmp_path / "e", backend=old_reader)


@pytest.mark.parametrize("text", [AS_INITIALIZER, AS_NODE], ids=["initializer", "node"])
@pytest.mark.parametrize("simplify", [True, False])
def test_axes_become_an_attribute(old_reader, tmp_path, text, simplify):
    """Built through Enginery, the same graph reaches it at opset 17 with axes as an attribute, and is right."""
    built = steps.build(
        write(text, tmp_path), tmp_path / "m.engine", backend=old_reader, in_process=True, simplify=simplify,
        shapes=parse_shapes(["x=1..2..4x2x3"]),
    )  # fmt: skip
    stored = onnx.load(tmp_path / "m.engine" / "model.onnx")
    (node,) = stored.graph.node
    assert (stored.opset_import[0].version, stored.ir_version) == (17, 8)
    assert list(node.input) == ["x"]
    assert onnx.helper.get_node_attr_value(node, "axes") == [1]
    assert built.manifest.build.notes == ("converted from opset 18 to 17",)
    with built.open() as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], X.mean(axis=1, keepdims=True))


def test_axes_of_run_time_are_refused(old_reader, tmp_path):
    """What cannot be said in opset 17 is an error that names the node, and nothing is left."""
    with pytest.raises(
        GraphError, match=r"from opset 18 to 17: ReduceMean 'mean': its axes \('axes'\) are computed at"
    ):
        steps.build(write(AT_RUN_TIME, tmp_path), tmp_path / "m.engine", backend=old_reader, in_process=True)
    assert not (tmp_path / "m.engine").exists()


def test_optimize_converts_for_each_backend(old_reader, tmp_path):
    """One run builds each candidate from the graph that its backend reads, and verifies both; the record says so."""
    spec = OptimizeSpec(
        shapes=parse_shapes(["x=1..2x2x3"]), backends=(old_reader, "onnxruntime"), verify=VerifySpec(max_error=1e-5),
        bench=BenchSpec(limit_s=0.05, warmup_ms=0, min_turns=1, turn_ms=1),
    )  # fmt: skip
    record = optimize(write(AS_NODE, tmp_path), output=tmp_path / "m.engine", spec=spec).record
    rows = {row.label: row for row in record.candidates}
    assert "failed" not in {row.status for row in rows.values()}, rows
    assert rows[old_reader].build.notes == ("converted from opset 18 to 17",)
    assert rows[old_reader].verify.passed
    assert "converted from opset 18 to 17" not in rows["onnxruntime"].build.notes


def test_a_candidate_that_cannot_be_converted_for_is_a_failed_row(tmp_path):
    """Others go on; what is converted is made once for all that want it."""
    path = tmp_path / "graph.onnx"
    files.save(ir.from_onnx_text(AS_INITIALIZER), path)
    old, current = OpsetLimits(17), OpsetLimits(18)
    contestants = [
        Contestant("a", "candidate", "a", opsets=old),
        Contestant("b", "candidate", "b", opsets=old),
        Contestant("c", "candidate", "c", opsets=current),
    ]
    fitter = Fitter(tmp_path, parse_shapes(["x=2x2x3"]), Progress())
    found, designs = fit_contestants(contestants, {GRAPH: Design(path)}, fitter)
    assert [one.design for one in found] == ["graph-0-opset17", "graph-0-opset17", GRAPH]
    assert designs["graph-0-opset17"].graph_sha256 == files.hash_model(designs["graph-0-opset17"].path)
    files.save(ir.from_onnx_text(AT_RUN_TIME), path)
    fitter = Fitter(tmp_path, {}, Progress())
    found, _ = fit_contestants(contestants, {GRAPH: Design(path)}, fitter)
    assert [("ReduceMean 'mean'" in one.missing) for one in found] == [True, True, False]


def test_a_conversion_that_computes_something_else_is_an_error(tmp_path):
    """The outputs of the converted graph are compared with the original's."""
    original = ir.from_onnx_text(AS_INITIALIZER)
    wrong = ir.from_onnx_text(AS_INITIALIZER.replace("ReduceMean", "ReduceMax"))
    wrong.opset_imports[""] = 19
    with (
        Evaluator(tmp_path) as evaluator,
        pytest.raises(GraphError, match="from opset 18 to 19, the graph computes something else: output 'y' "),
    ):
        check_conversion(original, wrong, parse_shapes(["x=1..2x2x3"]), evaluator, Progress())


def test_what_cannot_be_compared_is_said_loudly(tmp_path):
    """Random numbers cannot be compared; the line says that only the structure was checked."""
    header = '<ir_version: 10, opset_import: ["" : 20, "ai.onnx.ml" : 5]>'
    text = f"{header} m (float[2] x) => (float[2] y) {{ y = RandomNormalLike (x) }}"
    said = Said()
    with Evaluator(tmp_path) as evaluator:
        graph, other = ir.from_onnx_text(text), ir.from_onnx_text(text)
        other.opset_imports.update({"": 17, "ai.onnx.ml": 3})
        why = check_conversion(graph, other, {}, evaluator, said)
    assert why.endswith("only the structure is checked: the graph draws random numbers")
    assert said.lines == [f"opset 20 to 17 and opset 5 to 3 of ai.onnx.ml: {why}"]
    record = steps.export(write(text, tmp_path), tmp_path / "out.onnx", opset=17)
    assert record.notes == ("converted from opset 20 to 17", why)


def test_a_newer_ir_version_is_lowered_without_a_note(tmp_path):
    """The operators stay as they are, so there is nothing to tell and nothing to compare."""
    path = write('<ir_version: 99, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Neg(x) }', tmp_path)
    built = steps.build(path, tmp_path / "m.engine", in_process=True, simplify=False)
    assert built.manifest.build.notes == ()
    with built.open() as session:
        assert session.run({"x": np.float32([1, 2])})["y"].tolist() == [-1, -2]


def test_export_converts_and_compares(tmp_path):
    """`export --opset` of an ONNX file goes the same way."""
    record = steps.export(
        write(AS_NODE, tmp_path), tmp_path / "out.onnx", opset=17, shapes=parse_shapes(["x=1..2x2x3"])
    )
    assert record.notes == ("converted from opset 18 to 17",)
    found = onnx.load(tmp_path / "out.onnx")
    assert found.opset_import[0].version == 17
    assert [len(node.input) for node in found.graph.node] == [1]
