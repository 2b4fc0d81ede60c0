"""ONNX models whose weights stand in files beside them, however these are laid out."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest

from enginery import steps
from enginery.errors import CorruptModelError
from enginery.graph import files

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(3, 4)


def place(tensor: onnx.TensorProto, location: str, offset: int | None = None) -> bytes:
    """Move a tensor's data out of it; return the data."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value=str(len(data)))
    return data


@pytest.fixture
def source(tmp_path):
    """Return the path of a model with one weight at an offset of a file, one in a sub-folder, and names that clash."""
    folder = tmp_path / "source"
    (folder / "deep" / "er").mkdir(parents=True)
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (float[n,2] x) => (float[n,4] y) {
        h = MatMul (x, a)
        i = Identity (h)
        y = MatMul (i, b)
    }""")
    for array, name in ((A, "model.onnx.data"), (B, "exported.onnx.data")):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    proto.graph.node[0].input[1], proto.graph.node[2].input[1] = "model.onnx.data", "exported.onnx.data"
    first, second = proto.graph.initializer
    (folder / "weights.bin").write_bytes(b"\xff" * 7 + place(first, "weights.bin", 7))
    (folder / "deep" / "er" / "b.raw").write_bytes(place(second, "deep/er/b.raw"))
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


@pytest.fixture
def beside(monkeypatch):
    """Let weights of any size stand beside the graph, and let none be read before it is needed."""
    monkeypatch.setattr(files, "EXTERNAL_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "SHARED_ABOVE_BYTES", 10)
    monkeypatch.setattr(files, "INLINE_BYTES", 10)
    monkeypatch.setattr(files, "_READ_AT_ONCE_BYTES", 10)


def found_weights(path) -> list[np.ndarray]:
    """Return the weights of a model by ONNX's own reader."""
    return [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.usefixtures("beside")
def test_several_files(source, tmp_path):
    """Several files, sub-folders and offsets become one file beside the graph, and the engine computes the same."""
    output = tmp_path / "exported.onnx"
    steps.export(source, output, simplify=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["exported.onnx", "exported.onnx.data", "source"]
    for found, expected in zip(found_weights(output), (A, B), strict=True):
        np.testing.assert_array_equal(found, expected)
    steps.build(source, tmp_path / "engine", in_process=True)
    x = np.ones((2, 2), np.float32)
    np.testing.assert_allclose(steps.run(tmp_path / "engine", {"x": x})["y"], x @ A @ B)
    assert steps.verify(tmp_path / "engine", source).passed
    assert sorted(file.name for file in source.parent.rglob("*") if file.is_file()) == [
        "b.raw", "model.onnx", "weights.bin",
    ]  # fmt: skip


@pytest.mark.usefixtures("beside")
def test_export_onto_the_source(source):
    """A model exported onto its own path is whole afterwards, its weights beside it; exported again, too."""
    for _ in range(2):
        steps.export(source, source, simplify=True)
        for found, expected in zip(found_weights(source), (A, B), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert files.load(source).graph.initializers["model.onnx.data"].const_value.location == "model.onnx.data"


def escape_by_path(folder):
    """Name a file outside of the folder."""
    del folder
    return "../outside.bin"


def escape_by_absolute_path(folder):
    """Name a file by its absolute path."""
    return str(folder.parent / "outside.bin")


def escape_by_link(folder):
    """Name a link to a file outside of the folder."""
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
    return "link.bin"


def escape_by_linked_folder(folder):
    """Name a file in a linked folder."""
    (folder / "linked").symlink_to(folder.parent)
    return "linked/outside.bin"


def alias(folder):
    """Name a hard link to a file outside of the folder."""
    os.link(folder.parent / "outside.bin", folder / "hard.bin")
    return "hard.bin"


def missing(folder):
    """Name a file that is not there."""
    del folder
    return "gone.bin"


def short(folder):
    """Name a file that is too short."""
    (folder / "short.bin").write_bytes(b"\0" * 12)
    return "short.bin"


@pytest.mark.parametrize(
    ("locate", "said"),
    [
        (escape_by_path, "outside the model's folder"),
        (escape_by_absolute_path, "outside the model's folder"),
        (escape_by_link, "outside the model's folder"),
        (escape_by_linked_folder, "outside the model's folder"),
        (alias, "several hard links"),
        (missing, "there is no such file"),
        (short, r"needs bytes 0 to 48 of .*short\.bin, which has only 12"),
    ],
)
def test_bad_places(source, tmp_path, locate, said):
    """Weights elsewhere, missing or cut short are refused, and nothing is written."""
    (tmp_path / "outside.bin").write_bytes(b"\0" * 48)
    proto = onnx.load(source, load_external_data=False)
    proto.graph.initializer[1].external_data[0].value = locate(source.parent)
    source.write_bytes(proto.SerializeToString())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CorruptModelError, match=rf"tensor 'exported\.onnx\.data'.*{said}"):
        steps.export(source, tmp_path / "exported.onnx")
    assert sorted(tmp_path.rglob("*")) == before
