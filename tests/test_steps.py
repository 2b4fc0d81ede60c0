"""What the steps do by themselves, beside joining the stages."""

from __future__ import annotations

import onnx_ir as ir
import pytest

import enginery
from enginery import steps
from enginery.dry_running import dry_run
from enginery.errors import SourceError, UnknownNameError, UsageError
from enginery.graph.base import load_model, save_model, tensor_infos
from enginery.preparation import make_build_spec
from enginery.sensing import inspect_sensitivity
from enginery.spec import OptimizeSpec, Shape


def test_an_engine_named_twice_is_timed_twice():
    """Timing an engine against itself shows how far two measurements of one thing lie apart."""
    labels = list(steps._by_label(["a/x.engine", "a/x.engine", "b/x.engine", "b/x.engine"]))
    assert labels == ["x.engine", "a/x.engine", "b/x.engine", "b/x.engine (2)"]


def test_a_saved_model_is_called_what_it_is(tmp_path):
    """Inspecting a SavedModel says what the folder is, and to export it first; TensorFlow is not needed for it."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SourceError, match="is the folder of a TensorFlow SavedModel, neither an engine nor an ONNX"):
        steps.inspect(tmp_path)


def test_a_plan_is_given_by_its_file(tmp_path):
    """The engine that comes of it holds the same file; what it asks for is its narrowest word."""
    model = ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[2, 4] x) => (float[2, 4] y) { [root] a = Sqrt(x) [waves] y = Sin(a) }
    """)
    ir.save(model, tmp_path / "two.onnx")
    plan, built = tmp_path / "mine.json", tmp_path / "built.engine"
    plan.write_text('{"precision": "fp32", "nodes": {"waves": {"precision": "fp16", "reason": "it may"}}}')
    first = steps.build(tmp_path / "two.onnx", built, backend="null", plan=plan, in_process=True)
    assert first.manifest.precision == "fp16"
    assert first.manifest.build.planned == {"fp16": 1, "fp32": 1}
    again = steps.build(tmp_path / "two.onnx", tmp_path / "again.engine", backend="null", plan=built, in_process=True)
    assert (again.folder / "precision.json").read_bytes() == (built / "precision.json").read_bytes()
    plan.write_text('{"precision": "fp32", "nodes": {"wave": "fp16"}}')
    with pytest.raises(UnknownNameError, match="names 'wave', which the graph does not have; did you mean 'waves'"):
        steps.build(tmp_path / "two.onnx", built, backend="null", plan=plan)


def test_calibration_data_without_a_search_for_a_layer_is_refused(tmp_path, small_model):
    """It would be passed over: to verify on recorded inputs, they are given as data."""
    steps.build(small_model, tmp_path / "a.engine", backend="null", in_process=True)
    with pytest.raises(UsageError, match="nothing is built to find a layer; ask for --layers too"):
        steps.verify(tmp_path / "a.engine", small_model, calibration="held.npz")


@pytest.fixture
def source(small_model, tmp_path):
    """Write a small model of `x` [batch, 4]."""
    save_model(small_model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def test_shapes_are_texts_in_an_export(source, tmp_path):
    """One size fixes the axis, as it does as a Shape."""
    for number, shape in enumerate(["3x4", Shape.parse("3x4")]):
        steps.export(source, tmp_path / f"{number}.onnx", shapes={"x": shape})
        assert tensor_infos(load_model(tmp_path / f"{number}.onnx").graph.inputs)[0].shape == (3, 4)


def test_shapes_are_texts_in_a_build_and_a_dry_run(source, tmp_path):
    """The engine has the profile."""
    asked = {"shapes": {"x": "1..2..8x4"}, "backend": "onnxruntime", "in_process": True}
    assert dry_run(source, **asked).converts
    engine = steps.build(source, tmp_path / "a.engine", **asked)
    assert engine.manifest.inputs[0].profile == Shape.parse("batch:1..2..8x4")


def test_shapes_are_texts_in_a_study(source):
    """How a model bears a narrower type is found at the sizes of the text."""
    assert inspect_sensitivity(source, shapes={"x": "1..8x4"}, measure=False).nodes


def test_shapes_are_texts_in_a_specification(source, tmp_path):
    """One that is given whole is read as the arguments are."""
    spec = OptimizeSpec(shapes={"x": "1..2xq"}, backends=("onnxruntime",))
    with pytest.raises(UsageError, match="the shape of 'x': 'q' is not a dimension"):
        enginery.optimize(source, spec=spec, output=tmp_path / "a.engine")


def test_a_shape_that_cannot_be_read_is_told_alike_everywhere(source, tmp_path):
    """Before any work, and before the data are looked for."""
    asked, output = {"shapes": {"x": "1x"}}, tmp_path / "a.onnx"
    calls = [
        lambda: steps.export(source, output, **asked),
        lambda: steps.quantize(source, output, data="held.npz", **asked),
        lambda: inspect_sensitivity(source, **asked),
        lambda: enginery.optimize(source, output=tmp_path / "a.engine", **asked),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="the shape of 'x': '1x' is not a dimension; write it as"):
            call()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"shapes": {"x": "1x"}}, "the shape of 'x': '1x' is not a dimension"),
        ({"shapes": {"x": "1..8x4"}, "profiles": [{"x": "a"}]}, "the profile of 'x': 'a' is not a dimension"),
        ({"profiles": {"x": "1x4"}}, "each profile goes by its input's name, and 'x' has none"),
        ({"values": {"x": 3}}, "the range of 'x' is 3, neither a Shape nor a text"),
        ({"plan": {"precision": "fp16"}}, "the precision plan is a dict: {'precision': 'fp16'}; give a PrecisionPlan"),
        ({"precision": 16}, "unknown precision '16'; "),
    ],
)
def test_what_cannot_be_read_is_told_before_any_work(asked, said, source, tmp_path):
    """A build and its dry run say the same of it."""
    for call in (lambda: steps.build(source, tmp_path / "a.engine", **asked), lambda: dry_run(source, **asked)):
        with pytest.raises(UsageError) as caught:
            call()
        assert said in str(caught.value)


def test_profiles_and_values_are_texts():
    """They come to the backend as shapes."""
    spec = make_build_spec(
        {"x": "1..8x4", "n": "2"}, "fp32", options=None, profiles=[{"x": "1x4"}], values={"n": "1..8x4"}, plan=None
    )
    assert spec.profiles == ({"x": Shape.parse("1x4")},)
    assert spec.values == {"n": Shape.parse("1..8x4")}
    assert spec.shapes == {"x": Shape.parse("1..8x4"), "n": Shape.parse("2")}
