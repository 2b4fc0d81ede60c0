"""A Keras file or model becomes a right graph, computed and timed in a process of its own; or says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from enginery.errors import (
    CorruptModelError,
    ExporterCrashError,
    InputNameError,
    SourceError,
    SourceNotFoundError,
    UnknownNameError,
    UnsafeModelError,
    UsageError,
)
from enginery.graph.base import tensor_infos
from enginery.graph.outline import module_path
from enginery.reports.graph_report import tensors_table
from enginery.sources import open_source
from enginery.sources.base import Source
from enginery.sources.keras_model import recognises
from enginery.sources.tensorflow.process import FrameworkProcess
from enginery.spec import Shape

CRASHES = Path(__file__).with_name("tensorflow_crashes.py")


@pytest.fixture(scope="module")
def small(keras_models):
    """The picture model's file, opened."""
    with_process = open_source(keras_models / "small.keras")
    yield with_process
    with_process.close()


@pytest.fixture(scope="module")
def exported(small, evaluate):
    """Its graph and record, for one to four pictures."""
    return small.export(shapes={"image": Shape.parse("1..2..4x12x12x3")}, evaluate=evaluate)


def close_to(found, expected):
    """Compare outputs by their relative L2 distance."""
    assert list(found) == list(expected)
    for name, right in expected.items():
        assert found[name].shape == right.shape
        assert np.linalg.norm(found[name] - right) <= 1e-4 * np.linalg.norm(right)


def test_a_keras_file_runs_in_its_own_process(small, keras_models):
    """Its outputs are those that Keras gave, under the layers' names; TensorFlow is not imported here by it."""
    assert isinstance(small, Source)
    assert (small.kind, small.label) == ("keras", "small.keras")
    assert small.framework.startswith("TensorFlow 2.")
    assert len(small.sha256) == 64
    with np.load(keras_models / "expected.npz") as data:
        close_to(small.run({"image": data["images"]}), {"scores": data["scores"], "box": data["box"]})
    with pytest.raises(InputNameError, match=r"small\.keras is given other inputs .*'picture'; its inputs are image"):
        small.run({"picture": np.zeros(1)})


def test_names_layout_and_open_axes_are_kept(exported):
    """Names and order are the model's, only the batch is open, the layout is noted, nodes say their layer."""
    graph = exported.graph.graph
    (image,) = tensor_infos(graph.inputs)
    assert (image.name, image.dtype, image.shape) == ("image", "float32", ("batch", 12, 12, 3))
    assert image.layout == "NHWC"
    assert "batchx12x12x3 (NHWC)" in tensors_table([image], [])
    assert [(info.name, info.shape) for info in tensor_infos(graph.outputs)] == [
        ("scores", ("batch", 4)),
        ("box", ("batch", 2)),
    ]
    paths = {module_path(node) for node in graph}
    assert ("small", "scores") in paths
    assert any(path[:2] == ("small", "depthwise") for path in paths)


def test_the_record_says_how(exported):
    """The record has the route, the versions, the peak of the framework's process and the open axes."""
    record = exported.record
    assert record.exporter == "tf2onnx (frozen graph)"
    assert {"tensorflow", "keras", "tf2onnx"} <= set(record.versions)
    assert record.attempts == ()
    assert record.dynamic_axes == {"image": ("batch",)}
    assert record.opset == exported.graph.opset_imports[""] == 18
    assert record.nodes == len(list(exported.graph.graph))
    assert record.peak_memory_bytes > 100 << 20


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graph_agrees_at_any_batch(small, exported, evaluate, batch):
    """The graph computes what Keras does, at two sizes of the batch."""
    images = np.random.default_rng(batch).standard_normal((batch, 12, 12, 3), np.float32)
    close_to(evaluate(exported.graph, {"image": images}), small.run({"image": images}))


def test_its_calls_are_timed_where_they_run(small):
    """A turn gives milliseconds, as many as asked for at the least."""
    samples = small.timer({"image": np.zeros((1, 12, 12, 3), np.float32)})(0.0, 0.0, 3)
    assert len(samples) == 3
    assert all(sample > 0 for sample in samples)


def test_shapes_that_do_not_fit_are_refused(small):
    """A wrong name, rank or fixed size is told with what the model has."""
    with pytest.raises(UnknownNameError, match="unknown input 'imag'; did you mean 'image'"):
        small.export(shapes={"imag": Shape.parse("1")})
    with pytest.raises(UsageError, match="has 2 dimensions"):
        small.export(shapes={"image": Shape.parse("1..2x3")})
    with pytest.raises(UsageError, match=r"input 'image', axis 1 is 12 in the model, 14 was asked for; give 12"):
        small.export(shapes={"image": Shape.parse("1..2x14x12x3")})


def test_open_lengths_and_several_inputs(keras_models, evaluate):
    """Integer inputs of open batch and length, and a dict of outputs, are exported with shared names."""
    source = open_source(keras_models / "tokens.keras")
    try:
        with pytest.raises(UsageError, match=r"input 'ids' is \?x\?, and nobody said how large axes 1 are; give sizes"):
            source.export(shapes={})
        shape = Shape.parse("1..2..4xlength:1..8..16")
        found = source.export(shapes={"ids": shape, "kinds": shape}, evaluate=evaluate)
        assert [info.shape for info in tensor_infos(found.graph.graph.inputs)] == [("batch", "length")] * 2
        assert tensor_infos(found.graph.graph.outputs)[0].shape == ("batch", "length", 16)
        feeds = {
            "ids": np.random.default_rng(0).integers(0, 50, (3, 5), np.int32),
            "kinds": np.random.default_rng(1).integers(0, 2, (3, 5), np.int32),
        }
        close_to(evaluate(found.graph, feeds), source.run(feeds))
    finally:
        source.close()


def test_an_h5_file_is_taken(keras_models):
    """The older format gives the same outputs."""
    source = open_source(keras_models / "small.h5")
    try:
        with np.load(keras_models / "expected.npz") as data:
            close_to(source.run({"image": data["images"]}), {"scores": data["scores"], "box": data["box"]})
    finally:
        source.close()


def test_damaged_files_are_corrupt(keras_models, tmp_path):
    """A file that is cut short, or of another kind, is refused before a framework is started for it."""
    for name in ("small.keras", "small.h5"):
        whole = (keras_models / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"junk_{name}").write_bytes(b"no model" * 99)
    for name in ("cut_small.keras", "junk_small.keras", "junk_small.h5"):
        with pytest.raises(CorruptModelError, match=rf"{name} is damaged or cut short.*; save or copy it again"):
            open_source(tmp_path / name)
    source = open_source(tmp_path / "cut_small.h5")
    with pytest.raises(CorruptModelError, match=r"cut_small\.h5 is damaged or cut short: .*truncated file"):
        source.export(shapes={})
    source.close()
    with pytest.raises(SourceNotFoundError, match=r"there is no file .*smal\.keras; did you mean '.*small\.keras'"):
        open_source(keras_models / "smal.keras")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("lambda.keras", UnsafeModelError, "holds a Lambda layer, whose Python code would be run to load it; replace"),
        ("custom.keras", SourceError, "needs a class of its own that is not here: .*Doubled.*; export it as a SavedM"),
        ("only.weights.h5", SourceError, "holds weights and no model; save the model itself"),
    ],
)
def test_files_that_cannot_be_loaded_say_what_to_do(keras_models, name, error, message):
    """Code in a file is never run, and a missing class or model has its mend."""
    source = open_source(keras_models / name)
    with pytest.raises(error, match=message) as caught:
        source.export(shapes={})
    assert type(caught.value) is error
    source.close()


@pytest.mark.parametrize("which", ["first", "all"])
def test_an_exporter_that_dies(keras_models, evaluate, which):
    """A crash is one attempt's reason, and the next route has a fresh process; where all die, that is the error."""
    from enginery.sources.keras_model import Place, TensorflowSource
    from enginery.spec import SourceSpec

    process = FrameworkProcess("tensorflow", entry=(str(CRASHES), which))
    place = Place(keras_models / "plain.keras", "keras")
    source = TensorflowSource("keras", "plain.keras", (lambda _: place,), lambda: "", SourceSpec(), process=process)
    try:
        if which == "first":
            record = source.export(shapes={}, evaluate=evaluate).record
            (frozen,) = record.attempts
            assert "tf2onnx (frozen graph): its process failed: worker 'tensorflow' died of SIGABRT" in frozen
            assert "oneDNN" not in frozen
            assert record.exporter == "tf2onnx (frozen graph with all weights)"
            return
        with pytest.raises(ExporterCrashError, match="died of SIGABRT") as caught:
            source.export(shapes={}, evaluate=evaluate)
        assert caught.value.message.count("died of SIGKILL") == 3
    finally:
        source.close()
    assert not process.folder.exists()


def test_models_in_memory_and_from_factories(keras_models, monkeypatch, evaluate):
    """A model in memory goes through a file, one with its own class through a SavedModel; an unbuilt one says so."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = pytest.importorskip("keras")
    assert recognises(keras.Sequential())
    with pytest.raises(SourceError, match="has no input shape yet; call it once on real inputs"):
        open_source(keras.Sequential([keras.layers.Dense(1)]))
    script = Path(__file__).with_name("keras_models.py")
    source = open_source(f"{script}:custom_model")
    assert source.label == "keras model custom (keras_models.py:custom_model)"
    rows = np.array([[1, 2, 3]], np.float32)
    try:
        found = source.export(shapes={"x": Shape.parse("1..4x3")}, evaluate=evaluate)
        assert found.record.kind == "keras"
        close_to(source.run({"x": rows}), {"output_0": rows * 2})
        assert source.sha256 == source.sha256
    finally:
        source.close()
    model = keras.saving.load_model(keras_models / "small.keras", compile=False)
    source = open_source(model)
    try:
        with np.load(keras_models / "expected.npz") as data:
            close_to(source.run({"image": data["images"]}), {"scores": data["scores"], "box": data["box"]})
    finally:
        source.close()


def test_a_missing_library_has_its_pip_line(tmp_path, monkeypatch):
    """Without TensorFlow, the mend is the extra."""
    import zipfile

    from enginery.errors import MissingExtraError

    with zipfile.ZipFile(tmp_path / "m.keras", "w") as file:
        file.writestr("config.json", "{}")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r'tensorflow is not installed.*pip install "enginery\[tensorflow\]"'):
        open_source(tmp_path / "m.keras")


def test_higher_opsets_come_from_our_own_conversion(small, evaluate):
    """What tf2onnx does not write is converted to, and the graph before is there to compare with."""
    found = small.export(shapes={"image": Shape.parse("2x12x12x3")}, opset=20, evaluate=evaluate)
    assert (found.record.opset, found.graph.opset_imports[""], found.original.opset_imports[""]) == (20, 20, 18)
    assert "converted from opset 18 to 20" in found.record.notes
    images = np.random.default_rng(0).standard_normal((2, 12, 12, 3), np.float32)
    close_to(evaluate(found.graph, {"image": images}), small.run({"image": images}))
