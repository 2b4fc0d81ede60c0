"""Graphs on disk."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery.errors import CorruptModelError, GraphError, OutputError, OutputExistsError, SourceNotFoundError
from enginery.graph import files
from enginery.sources import open_source


@pytest.fixture
def external(small_model, tmp_path, monkeypatch):
    """Return the path of a model whose weights stand beside it."""
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "SHARED_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "INLINE_BYTES", 10)
    monkeypatch.setattr(files, "_READ_AT_ONCE_BYTES", 10)
    path = tmp_path / "model.onnx"
    files.save(small_model, path)
    return path


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    """Return a model's weights by name."""
    return {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}


def test_round_trip(small_model, tmp_path):
    """What was saved is loaded again, and nothing else is left in the folder."""
    files.save(small_model, tmp_path / "deep" / "model.onnx")
    again = files.load(tmp_path / "deep" / "model.onnx")
    assert [node.op_type for node in again.graph] == ["MatMul", "Relu", "MatMul"]
    for name, array in weights(small_model).items():
        np.testing.assert_array_equal(weights(again)[name], array)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model.onnx"]


def test_missing_file(tmp_path):
    """A path with no file is its own error."""
    with pytest.raises(SourceNotFoundError, match=r"there is no file .*gone\.onnx; check the path"):
        files.load(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty \\(0 bytes\\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.*git lfs pull"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"<!doctype html><html>", "is an HTML page"),
        (b"layers:\n  - conv\n", "is text, not an ONNX model; it begins 'layers:"),
        ("größe".encode() * 200, "is text"),
        (os.urandom(300), "is no ONNX model, or is cut short|holds no|imports no"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_not_a_model(tmp_path, content, said):
    """A file that is no model is refused, saying what it is."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CorruptModelError, match=said):
        files.load(path)


def test_folder(tmp_path):
    """A folder is no model."""
    with pytest.raises(CorruptModelError, match=r"is a folder, not an ONNX file; name the \.onnx file in it"):
        files.load(tmp_path)


def test_every_truncation_is_seen(small_model, tmp_path):
    """However many bytes are missing at the end, the file is refused: never half a model."""
    whole, cut = tmp_path / "whole.onnx", tmp_path / "cut.onnx"
    files.save(small_model, whole)
    data = whole.read_bytes()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(CorruptModelError):
            files.load(cut)


def test_short_weights(tmp_path, small_model):
    """A tensor with less data than its shape asks for is named."""
    proto = ir.to_proto(small_model)
    proto.graph.initializer[0].raw_data = b"\0" * 12
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match=r"tensor 'w0' of shape \[4, 5\] holds 12 bytes instead of 80"):
        files.load(path)


def test_short_typed_weights(tmp_path, small_model):
    """The same where the data is not raw."""
    proto = ir.to_proto(small_model)
    proto.graph.initializer[0].CopyFrom(onnx.TensorProto(name="w0", data_type=1, dims=[4, 5], float_data=[1.0]))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match=r"holds 1 values instead of 20"):
        files.load(path)


def test_dangling_input(tmp_path, small_model):
    """A node that reads what nothing makes is named."""
    proto = ir.to_proto(small_model)
    del proto.graph.initializer[1:]
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match="reads 'w1', which nothing makes"):
        files.load(path)


def test_sparse_initializer(tmp_path, small_model):
    """Sparse initializers, which would get lost, are refused."""
    proto = ir.to_proto(small_model)
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraphError, match="has sparse initializers"):
        files.load(path)


def test_large_weights_stand_beside(external):
    """Above the threshold the weights are in a file of their own, and are mapped when they are read."""
    assert sorted(file.name for file in external.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    tensor = files.load(external).graph.initializers["w0"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None
    assert tensor.numpy().shape == (4, 5)
    assert external.stat().st_size < external.with_name("model.onnx.data").stat().st_size + 500


def test_save_over_itself(external, small_model):
    """A model saved where it was loaded from is the same afterwards, on disk and in memory."""
    expected = weights(small_model)
    model = files.load(external)
    value = model.graph.initializers["w1"]
    value.const_value = ir.tensor(np.concatenate([expected["w1"], expected["w1"]]), name="w1")
    value.shape = ir.Shape([10, 3])
    files.save(model, external)
    for found in (weights(model), weights(files.load(external))):
        np.testing.assert_array_equal(found["w0"], expected["w0"])
        np.testing.assert_array_equal(found["w1"], np.concatenate([expected["w1"], expected["w1"]]))


def test_save_inline_what_was_external(external, tmp_path, monkeypatch, small_model):
    """External weights go into the file where there are few of them, wherever it is written to."""
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 1 << 30)
    target = tmp_path / "elsewhere" / "model.onnx"
    files.save(files.load(external), target)
    assert [file.name for file in target.parent.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(weights(files.load(target))["w0"], weights(small_model)["w0"])


def test_constants_in_nodes_go_beside(graph_of, tmp_path, monkeypatch):
    """Large tensors of Constant nodes are written beside the graph, too."""
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "INLINE_BYTES", 2)
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        c = Constant <value = float[4] {1, 2, 3, 4}> ()
        y = Add(x, c)
    }""")
    files.save(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size == 16
    loaded = files.load(tmp_path / "model.onnx")
    assert loaded.graph.initializers["c"].const_value.numpy().tolist() == [1, 2, 3, 4]
    assert len(model.graph) == 2


def test_missing_external_data(external):
    """Missing external data is named."""
    external.with_name("model.onnx.data").unlink()
    with pytest.raises(CorruptModelError, match=r"has its data in .*model\.onnx\.data, and there is no such file"):
        files.load(external)
    with pytest.raises(CorruptModelError, match="there is no such file"):
        files.hash_model(external)


def test_short_external_data(external):
    """External data that is cut short is named, with what it should have."""
    data = external.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CorruptModelError, match=r"needs bytes \d+ to \d+ of .*model\.onnx\.data, which has only \d+"):
        files.load(external)


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "link.data", ""])
def test_external_data_elsewhere(external, location):
    """A model cannot make us read a file outside its folder, by a path or by a link."""
    (external.parent / "link.data").symlink_to("/etc/hostname")
    proto = onnx.load(external, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match=r"outside the model's folder .*: refused"):
        files.load(external)


def test_external_data_with_hard_links(external):
    """A hard link may be another's file; it is refused at once and not when the weight is read."""
    os.link(external.with_name("model.onnx.data"), external.with_name("twin"))
    with pytest.raises(CorruptModelError, match="which has several hard links"):
        files.load(external)


def test_initializers_are_no_inputs(light_models):
    """Weights that an old model lists among its inputs are not inputs."""
    model = files.load(light_models / "light_resnet50.onnx")
    assert [value.name for value in model.graph.inputs] == ["gpu_0/data_0"]
    assert model.ir_version == 4


def test_hash(external, small_model, tmp_path, monkeypatch):
    """The hash is the file's own, and changes with the external data and its name."""
    first = files.hash_model(external)
    data = external.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-1] + b"\1")
    assert files.hash_model(external) != first
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 1 << 30)
    files.save(small_model, tmp_path / "inline.onnx")
    expected = hashlib.sha256((tmp_path / "inline.onnx").read_bytes()).hexdigest()
    assert files.hash_model(tmp_path / "inline.onnx") == expected


def test_failed_save_leaves_the_old(external, small_model, monkeypatch):
    """Where writing fails, the old model stands as it was and no part is left."""
    before = files.hash_model(external)

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_serialise", fail)
    with pytest.raises(OutputError, match="no space is left to write"):
        files.save(small_model, external)
    assert files.hash_model(external) == before
    assert len(list(external.parent.iterdir())) == 2


def test_protobuf_limit(small_model, tmp_path, monkeypatch):
    """A graph too large for one protobuf is refused, and so is such a file."""
    monkeypatch.setattr(files, "PROTOBUF_LIMIT_BYTES", 100)
    with pytest.raises(GraphError, match="a protobuf cannot be above 2 GiB"):
        files.save(small_model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.onnx").write_bytes(ir.to_proto(small_model).SerializeToString())
    with pytest.raises(CorruptModelError, match="a protobuf cannot be above 2 GiB"):
        files.load(tmp_path / "model.onnx")


def test_save_to_a_folder(small_model, tmp_path):
    """A folder cannot be replaced by a model."""
    with pytest.raises(OutputExistsError, match="is a folder"):
        files.save(small_model, tmp_path)


def test_small_external_weights_are_read_at_once(external, small_model, monkeypatch):
    """Small external weights are read at once, so that no file is held open for each."""
    monkeypatch.setattr(files, "_READ_AT_ONCE_BYTES", 70)
    initializers = files.load(external).graph.initializers
    assert isinstance(initializers["w0"].const_value, ir.ExternalTensor)
    assert not isinstance(initializers["w1"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(initializers["w1"].const_value.numpy(), weights(small_model)["w1"])


def test_external_constants_in_nodes(graph_of, tmp_path, monkeypatch):
    """External data of a Constant node comes along, wherever and however the model is written."""
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) {
        c = Constant <value = float[4] {1, 2, 3, 4}> ()
        y = Add(x, c)
    }""")
    tensor = model.graph[0].attributes["value"].as_tensor()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c.bin").write_bytes(tensor.tobytes())
    outside = ir.ExternalTensor("c.bin", 0, 16, tensor.dtype, shape=ir.Shape([4]), name="c", base_dir=tmp_path / "a")
    model.graph[0].attributes["value"] = ir.AttrTensor("value", outside)
    (tmp_path / "a" / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    loaded = files.load(tmp_path / "a" / "model.onnx")
    for threshold, name in ((1 << 30, "b.onnx"), (1, "c.onnx")):
        monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", threshold)
        files.save(loaded, tmp_path / name)
        again = files.load(tmp_path / name)
        assert again.graph[0].attributes["value"].as_tensor().numpy().tolist() == [1, 2, 3, 4]


def test_the_long_name_of_the_operator_set_is_the_short_one(tmp_path):
    """``ai.onnx`` and the empty name are one operator set, so a pass that asks for its version finds it."""
    text = '<ir_version: 8, opset_import: ["ai.onnx": 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert onnx.load(path).opset_import[0].domain == "ai.onnx"
    assert files.load(path).opset_imports == {"": 17}
    assert open_source(onnx.load(path)).export(shapes={}).record.opset == 17


def test_graphs_in_passing_share_their_weights(external, small_model):
    """A graph written beside weights that it reads writes only what is new, and both are read as they were."""
    model = files.load(external)
    model.graph.initializers["w1"].const_value = ir.tensor(np.ones((5, 3), np.float32), name="w1")
    beside = external.with_name("beside.onnx")
    files.save_shared(model, beside)
    assert beside.with_name("beside.onnx.data").stat().st_size == 60
    found = files.load(beside)
    assert found.graph.initializers["w0"].const_value.location == "model.onnx.data"
    np.testing.assert_array_equal(weights(found)["w0"], weights(small_model)["w0"])
    np.testing.assert_array_equal(weights(found)["w1"], np.ones((5, 3)))
    assert isinstance(model.graph.initializers["w1"].const_value, ir.ExternalTensor)  # no longer held in memory
    files.save_shared(files.load(beside), external.with_name("again.onnx"))
    assert not external.with_name("again.onnx.data").exists()
    assert files.hash_model(external.with_name("again.onnx")) != files.hash_model(external)


def test_a_graph_in_passing_over_itself(external, small_model):
    """Weights in the file that is about to be replaced are written anew."""
    model = files.load(external)
    model.graph.initializers["w1"].const_value = ir.tensor(np.ones((5, 3), np.float32), name="w1")
    files.save_shared(model, external)
    for found in (weights(model), weights(files.load(external))):
        np.testing.assert_array_equal(found["w0"], weights(small_model)["w0"])
        np.testing.assert_array_equal(found["w1"], np.ones((5, 3)))


def test_what_a_user_keeps_shares_no_file(external):
    """An exported model's weights are a copy: to change the source in place does not change them."""
    files.save(files.load(external), external.with_name("kept.onnx"))
    data, kept = external.with_name("model.onnx.data"), external.with_name("kept.onnx.data")
    assert (data.stat().st_nlink, kept.stat().st_nlink) == (1, 1)
    before = kept.read_bytes()
    with data.open("r+b") as file:
        file.write(b"\xff" * 8)
    assert kept.read_bytes() == before


def test_a_shared_weight_is_written_once(external):
    """Two initializers with one tensor have one place in the file."""
    model = files.load(external)
    first = model.graph.initializers["w0"]
    model.graph.register_initializer(ir.Value(name="tied", const_value=first.const_value, type=first.type))
    files.save(model, external.with_name("tied.onnx"))
    found = files.load(external.with_name("tied.onnx")).graph.initializers
    assert found["tied"].const_value.offset == found["w0"].const_value.offset
    assert external.with_name("tied.onnx.data").stat().st_size == 140


def test_what_is_written_inline_is_plain_onnx(small_model, tmp_path, monkeypatch):
    """A file whose weights are written behind the graph by hand is what ONNX itself would read and write."""
    monkeypatch.setattr("enginery.graph.weights.INLINE_BYTES", 70)  # one by hand, one by the library
    files.save(small_model, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto == ir.to_proto(small_model)


def test_inline_in_subgraphs(graph_of, tmp_path):
    """Initializers of a subgraph that lie in a file are written into the one protobuf, too."""
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[4] x, bool c) => (float[4] y) {
        y = If (c) <
            then_branch = t () => (float[4] p) { p = Mul (x, w) },
            else_branch = e () => (float[4] q) { q = Neg (x) }>
    }""")
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    outside = ir.ExternalTensor("w.bin", 0, 16, ir.DataType.FLOAT, shape=ir.Shape([4]), name="w", base_dir=tmp_path)
    body = model.graph[0].attributes["then_branch"].as_graph()
    value = next(value for node in body for value in node.inputs if value.name == "w")
    value.const_value = outside
    body.register_initializer(value)
    files.save(model, tmp_path / "inline.onnx")
    proto = onnx.load(tmp_path / "inline.onnx", load_external_data=False)
    then = next(one.g for one in proto.graph.node[0].attribute if one.name == "then_branch")
    assert onnx.numpy_helper.to_array(then.initializer[0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("length", "many")])
def test_impossible_places(external, key, value):
    """An offset or a length that is no number is named."""
    proto = onnx.load(external, load_external_data=False)
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == key).value = value
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match=rf"tensor 'w0' has its data at the impossible {key} '{value}'"):
        files.load(external)


@pytest.mark.parametrize(
    ("kind", "dims", "said"),
    [(99, [4, 5], "unknown element type 99"), (1, [-4, 5], r"impossible shape \[-4, 5\]"), (8, [1], "holds texts")],
)
def test_impossible_external_tensors(external, kind, dims, said):
    """What cannot be in a file is refused with words, not with a library's own error."""
    proto = onnx.load(external, load_external_data=False)
    proto.graph.initializer[0].data_type = kind
    proto.graph.initializer[0].dims[:] = dims
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(CorruptModelError, match=said):
        files.load(external)


def test_weights_that_shrink_meanwhile(external):
    """A file of weights that is cut short after it was looked at is an error, and nothing is written."""
    model = files.load(external)
    external.with_name("model.onnx.data").write_bytes(b"\0" * 10)
    with pytest.raises(CorruptModelError, match="is shorter than expected"):
        files.save(model, external.with_name("late.onnx"))
    assert sorted(file.name for file in external.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
