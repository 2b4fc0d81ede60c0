"""``enginery inspect --layers``: the table, the JSON, and engines that tell no layers."""

from __future__ import annotations

import json

import pytest
from command_line import enginery

import enginery as library
from enginery.plain import from_plain, to_json
from enginery.records import LayerRecord

LAYER = LayerRecord("conv", "CaskConvolution", "fp16", ("fp16 CHW2",), ("fp16 CHW2",), ("conv",), ("features.0",))


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Return an engine of a backend that lists no layers."""
    import onnx_ir as ir

    from enginery.graph.base import save_model

    folder = tmp_path_factory.mktemp("layers")
    model = ir.from_onnx_text('<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Relu(x) }')
    save_model(model, folder / "model.onnx")
    library.build(folder / "model.onnx", folder / "model.engine", backend="null", in_process=True)
    return folder / "model.engine"


def test_layers(engine):
    """The list in the folder is shown as a table, and as it is."""
    (engine / "layers.json").write_text(to_json([LAYER]))
    shown = enginery("inspect", engine, "--layers", cwd=engine.parent)
    assert shown.code == 0, shown.said
    assert shown.out.startswith("1 layer: 1 in fp16\n")
    assert "CaskConvolution  fp16" in shown.out
    plain = json.loads(enginery("inspect", engine, "--layers", "--json", cwd=engine.parent).out)
    assert [from_plain(LayerRecord, one) for one in plain] == [LAYER]


@pytest.mark.parametrize("text", ["[", "{}", '[{"name": 3}]'])
def test_a_damaged_list(engine, text):
    """It is told."""
    (engine / "layers.json").write_text(text)
    told = enginery("inspect", engine, "--layers", cwd=engine.parent)
    assert (told.code, "error: " in told.said) == (51, True), told.said


def test_an_engine_without_a_list(engine):
    """The mend says which backends have one."""
    (engine / "layers.json").unlink(missing_ok=True)
    told = enginery("inspect", engine, "--layers", cwd=engine.parent)
    assert told.code == 50
    assert "does not list its layers" in told.said


def test_layers_of_an_engine_in_parts(engine):
    """Each layer says its part, in the order of the parts and not of their names."""
    (engine / "layers.json").unlink(missing_ok=True)
    for part in (10, 2):
        folder = engine / f"part_{part}_tensorrt_rtx"
        folder.mkdir()
        (folder / "layers.json").write_text(to_json([LAYER]))
    told = enginery("inspect", engine, "--layers", "--json", cwd=engine.parent)
    assert [layer["name"] for layer in json.loads(told.out)] == ["part 2: conv", "part 10: conv"]
