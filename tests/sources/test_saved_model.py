"""A SavedModel's signature is chosen or named, and becomes a right graph; a damaged folder says so."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from enginery.errors import CorruptModelError, SignatureError, UnknownNameError, UsageError
from enginery.graph.base import tensor_infos
from enginery.sources import open_source
from enginery.sources.saved_model import recognises
from enginery.spec import Shape


def test_a_keras_export_becomes_a_graph(keras_models, evaluate):
    """The default signature is taken, with its own names, layout and layer paths; both batches agree."""
    with np.load(keras_models / "expected.npz") as data:
        images, scores, box = data["images"], data["scores"], data["box"]
    source = open_source(keras_models / "small")
    try:
        assert (source.kind, source.label) == ("saved_model", "SavedModel small")
        found = source.export(shapes={"image": Shape.parse("1..2..4x12x12x3")}, evaluate=evaluate)
        (image,) = tensor_infos(found.graph.graph.inputs)
        assert (image.name, image.shape, image.layout) == ("image", ("batch", 12, 12, 3), "NHWC")
        assert any((node.name or "").startswith("small/depthwise/") for node in found.graph.graph)
        for rows in (images, images[:1]):
            expected, graph = source.run({"image": rows}), evaluate(found.graph, {"image": rows})
            assert list(expected) == list(graph) == ["output_0", "output_1"]
            for name, right in {"output_0": scores, "output_1": box}.items():
                np.testing.assert_allclose(expected[name], right[: len(rows)], rtol=1e-3, atol=1e-5)
                assert np.linalg.norm(graph[name] - expected[name]) <= 1e-4 * np.linalg.norm(expected[name])
    finally:
        source.close()


def test_a_signature_is_named(keras_models, evaluate):
    """One of several is taken by name; an unknown name suggests the nearest, and none is guessed."""
    source = open_source(keras_models / "two", signature="narrow")
    try:
        found = source.export(shapes={}, evaluate=evaluate)
        assert [info.shape for info in tensor_infos(found.graph.graph.inputs)] == [("batch", 2)]
        assert [value.name for value in found.graph.graph.outputs] == ["scaled"]
        assert source.run({"x": np.ones((1, 2), np.float32)})["scaled"].tolist() == [[3.0, 3.0]]
    finally:
        source.close()
    source = open_source(keras_models / "two", signature="narow")
    with pytest.raises(UnknownNameError, match=r"unknown signature 'narow'; did you mean 'narrow'\? \(known: broad, n"):
        source.export(shapes={})
    source.close()
    source = open_source(keras_models / "two")
    with pytest.raises(SignatureError, match=r"has 2 signatures, .*; name one: --signature broad or narrow"):
        source.export(shapes={})
    source.close()


def test_a_folder_without_signatures(keras_models):
    """There is nothing to call, and the mend says how to save one."""
    source = open_source(keras_models / "unsigned")
    with pytest.raises(SignatureError, match=r"SavedModel unsigned has no signature that can be called; save it again"):
        source.export(shapes={})
    source.close()


def test_damaged_folders_are_corrupt(keras_models, tmp_path):
    """A graph that is cut short, variables that are, and a missing graph are each told."""
    for name in ("graph", "variables", "missing"):
        shutil.copytree(keras_models / "small", tmp_path / name)
    for path in (tmp_path / "graph/saved_model.pb", next((tmp_path / "variables/variables").glob("*.data*"))):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "missing/saved_model.pb").unlink()
    for name in ("graph", "variables"):
        source = open_source(tmp_path / name)
        with pytest.raises(CorruptModelError, match=rf"SavedModel {name} is damaged or incomplete"):
            source.export(shapes={})
        source.close()
    with pytest.raises(CorruptModelError, match=r"missing has variables, and no saved_model\.pb; copy the whole"):
        open_source(tmp_path / "missing")


def test_what_is_recognised(keras_models, tmp_path):
    """The folder, and the file in it; no other folder. A signature means nothing for a Keras file."""
    assert recognises(keras_models / "small")
    assert recognises(str(keras_models / "small" / "saved_model.pb"))
    assert not recognises(tmp_path)
    with pytest.raises(UsageError, match=r"signature 'serve' means nothing for .*: it is for the folder of a Tensor"):
        open_source(keras_models / "small.keras", signature="serve")
