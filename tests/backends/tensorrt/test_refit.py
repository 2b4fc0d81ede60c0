"""Other weights for an engine: by name, all of them, or none. TensorRT's refitter is played; its weights are real."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from enginery import backends, steps
from enginery.backends import engine as engines
from enginery.backends.tensorrt import refitting
from enginery.backends.tensorrt.versions import LIBRARIES, Api, load_api, serialize_whole
from enginery.errors import BackendUnavailableError, BuildError, UsageError
from enginery.spec import BuildSpec, parse_shapes

pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
net (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {5, 6}> {
    m = MatMul(x, w)
    y = Add(m, b)
}"""


class Refitter:
    """A refitter with TensorRT's method names: takes weights of the size that its engine has."""

    def __init__(self, sizes, unnamed=(), *, works=True):
        self.sizes, self.unnamed, self.works = sizes, unnamed, works
        self.given = {}

    def __call__(self, engine, logger):
        assert engine
        assert logger
        return self

    def get_all_weights(self):
        return list(self.sizes)

    def get_missing_weights(self):
        return [*(name for name in self.sizes if name not in self.given), *self.unnamed]

    def set_named_weights(self, name, weights):
        if weights.size != self.sizes[name]:
            return False
        self.given[name] = weights.numpy().reshape(-1).tolist()
        return True

    def refit_cuda_engine(self):
        return self.works


@pytest.fixture
def api():
    """Return the real library."""
    return load_api("tensorrt_rtx")


def tensors(**arrays):
    """Return arrays as a graph holds them."""
    return {name: ir.tensor(np.array(array, np.float32), name=name) for name, array in arrays.items()}


def test_every_weight_is_set_by_name(api):
    """What the engine has is given; what the graph has besides is no matter."""
    refitter = Refitter({"w": 4, "b": 2})
    kept = refitting.set_weights(api, refitter, tensors(w=[[1, 2], [3, 4]], b=[5, 6], other=[7]))
    assert refitter.given == {"w": [1, 2, 3, 4], "b": [5, 6]}
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("refitter", "said"),
    [
        (Refitter({}), "no weights that can be changed; build it with --option refit=yes"),
        (Refitter({"w": 4, "folded": 1}), "1 of the engine's 2 weights are not in the graph: folded; give the same"),
        (Refitter({"w": 3}), r"refuses the weight 'w' \(FLOAT, 2x2, 4 elements\): its own has another size"),
        (Refitter({"w": 4}, ["tmp_weight"]), "still lacks 1 weights: tmp_weight"),
    ],
)
def test_weights_that_do_not_agree(api, refitter, said):
    """One name that is lost, or one size that differs, and nothing is refitted."""
    with pytest.raises(BuildError, match=said):
        refitting.set_weights(api, refitter, tensors(w=[[1, 2], [3, 4]]))


@pytest.fixture
def built(tmp_path):
    """Return an engine built ahead of time, whose manifest says that it may be refitted."""
    spec = BuildSpec(parse_shapes(["x=1..4x2"]))
    engine = engines.build(ir.from_onnx_text(TEXT), spec, tmp_path / "x.engine", backend="tensorrt_rtx", source="old")
    return replace(engine, manifest=replace(engine.manifest, options={**engine.manifest.options, "refit": "yes"}))


def played(monkeypatch, refitter):
    """Return an api whose refitter is played, with an engine that serialises what it was given."""
    real = load_api("tensorrt_rtx").module
    engine = SimpleNamespace(serialize=lambda: repr(refitter.given).encode())
    monkeypatch.setattr(refitting, "deserialize", lambda *_, **__: engine)
    parts = {name: getattr(real, name) for name in ("Weights", "DataType", "ILogger", "NetworkDefinitionCreationFlag")}
    return Api(LIBRARIES["tensorrt_rtx"], SimpleNamespace(Refitter=refitter, **parts), "1.7.1")


def test_the_plan_is_written_anew(built, tmp_path, monkeypatch):
    """The new plan holds the new graph's weights, in the element types of the engine's precision."""
    refitter = Refitter({"w": 4, "b": 2})
    refitting.refit_plan(played(monkeypatch, refitter), built.folder, built.manifest, ir.from_onnx_text(TEXT), tmp_path)
    assert (tmp_path / "model.plan").read_bytes() == b"{'w': [1.0, 2.0, 3.0, 4.0], 'b': [5.0, 6.0]}"


def test_stripped_plan_is_written_with_the_weights_that_were_brought():
    """Later versions may leave them out again, unless told not to."""
    cleared, kept = [], []
    how = SimpleNamespace(clear_flag=cleared.append, set_flag=kept.append)
    engine = SimpleNamespace(
        create_serialization_config=lambda: how, serialize_with_config=lambda given: given, serialize=lambda: b"old"
    )
    real = load_api("tensorrt_rtx")
    assert serialize_whole(real, engine) is how
    flag = real.module.SerializationFlag
    assert (cleared, kept) == ([flag.EXCLUDE_WEIGHTS], [flag.INCLUDE_REFIT])
    old = Api(LIBRARIES["tensorrt"], SimpleNamespace(), "8.6.0")
    assert serialize_whole(old, engine) == b"old"


def test_a_refitter_that_fails(built, tmp_path, monkeypatch):
    """What TensorRT refuses in the end is an error, and no plan is written."""
    refitter = Refitter({"w": 4, "b": 2}, works=False)
    with pytest.raises(BuildError, match="refused the new weights"):
        refitting.refit_plan(
            played(monkeypatch, refitter), built.folder, built.manifest, ir.from_onnx_text(TEXT), tmp_path
        )
    assert not (tmp_path / "model.plan").exists()


def test_an_engine_that_was_not_built_for_it(built, tmp_path, monkeypatch):
    """The options it was built with say so, before anything is opened."""
    manifest = replace(built.manifest, options={**built.manifest.options, "refit": "no"})
    api = played(monkeypatch, Refitter({}))
    with pytest.raises(UsageError, match=r"not built to take other weights; .*refit=yes"):
        refitting.refit_plan(api, built.folder, manifest, ir.from_onnx_text(TEXT), tmp_path)


class Changing:
    """A backend that writes a new plan."""

    def refit(self, folder, manifest, graph, target):
        assert (folder / "model.plan").exists()
        assert manifest.backend == "tensorrt_rtx"
        (target / "model.plan").write_bytes(graph.graph.name.encode())


def test_the_folder_is_whole_again(built, tmp_path, monkeypatch):
    """Plan, hashes and source are new, the rest stays; what was verified and timed is not claimed any more."""
    monkeypatch.setattr(backends, "get_available", lambda _name, *, to_run: Changing() if to_run else None)
    graph = ir.from_onnx_text(TEXT)
    done = engines.refit(
        built, graph, tmp_path / "y.engine", source="new", source_sha256="1", graph_sha256="2"
    )  # fmt: skip
    assert (done.folder / "model.plan").read_bytes() == b"net"
    assert (done.folder / "layers.json").read_bytes() == (built.folder / "layers.json").read_bytes()
    loaded = engines.load(done.folder).manifest
    assert (loaded.source, loaded.source_sha256, loaded.graph_sha256) == ("new", "1", "2")
    assert loaded.files["model.plan"].bytes == 3
    assert (loaded.verify, loaded.bench) == (None, None)
    only_same = replace(done, manifest=replace(loaded, options={**loaded.options, "refit": "identical"}))
    with pytest.raises(UsageError, match=r"takes only the weights that it was built from; give .*\(new\)"):
        engines.refit(only_same, graph, tmp_path / "z.engine", source="", source_sha256="", graph_sha256="3")


def test_a_backend_that_cannot(built, tmp_path):
    """A backend without the function says so."""
    manifest = replace(built.manifest, backend="onnxruntime")
    with pytest.raises(UsageError, match="onnxruntime cannot change an engine's weights"):
        engines.refit(
            replace(built, manifest=manifest), ir.from_onnx_text(TEXT), tmp_path / "y.engine", source="",
            source_sha256="", graph_sha256="",
        )  # fmt: skip


def test_the_step_needs_a_gpu(built, tmp_path):
    """Where there is none, the step says so before it converts anything."""
    if backends.get("tensorrt_rtx").probe().runs:
        pytest.skip("there is a GPU that it runs on")
    with pytest.raises(BackendUnavailableError, match="only builds here"):
        steps.refit(built.folder, tmp_path / "new.onnx", tmp_path / "y.engine")
