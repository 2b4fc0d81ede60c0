"""The committed digits example is what its README says: small, dynamic, right on digits it never saw."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

import enginery
from enginery.spec import Shape

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Path:
    """The example, built for ONNX Runtime."""
    output = tmp_path_factory.mktemp("digits") / "digits.engine"
    enginery.build(FOLDER / "digits.onnx", output, shapes={"image": Shape.parse("1..32..360x1x8x8")}, in_process=True)
    return output


def test_the_graph_is_small_and_its_batch_dynamic():
    """The ONNX file is under 1 MB, takes `image` and gives `scores`, for a batch of any size, and names no path."""
    path = FOLDER / "digits.onnx"
    assert path.stat().st_size < 1_000_000
    graph = onnx.load(path).graph
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert dims == {"image": ["batch", 1, 8, 8], "scores": ["batch", 10]}
    assert b".py" not in path.read_bytes()


def test_the_accuracy_is_what_the_readme_says(engine):
    """359 of the 360 held-out digits are right."""
    with np.load(FOLDER / "heldout.npz") as held_out, enginery.load(engine) as session:
        right = session(held_out["image"]).argmax(1) == held_out["labels"]
    assert (int(right.sum()), len(right)) == (359, 360)
    assert "right on 359 of the 360" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_seven_is_a_seven_in_both_forms(engine):
    """The array and the picture are the same digit, and it is read as a seven."""
    pil = pytest.importorskip("PIL.Image")
    array = np.load(FOLDER / "seven.npy")
    with pil.open(FOLDER / "seven.png") as picture:
        np.testing.assert_allclose(np.asarray(picture) / 255, array[0, 0], atol=1 / 255)
    with enginery.load(engine) as session:
        assert session(array).argmax() == 7


def test_predict_prints_the_class_and_the_truth(engine, capsys):
    """The script of the demo draws the digit, and leaves with 0 for a right prediction."""
    main = runpy.run_path(str(FOLDER / "predict.py"))["main"]
    assert main([str(engine)]) == 0
    found = capsys.readouterr().out
    assert "@@" in found
    assert found.endswith("predicted 7, truth 7: right\n")
    assert main([]) == 2


def test_held_out_digits_were_not_trained_on():
    """The held-out part is the split that `train.py` makes, and shares no row with its training part."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    images, held_images, labels, held_labels = runpy.run_path(str(FOLDER / "train.py"))["load_split"]()
    with np.load(FOLDER / "heldout.npz") as committed:
        np.testing.assert_array_equal(committed["image"], held_images)
        np.testing.assert_array_equal(committed["labels"], held_labels)
    assert len(images) + len(held_images) == len(labels) + len(held_labels) == 1797
