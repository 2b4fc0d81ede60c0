"""The digits network built by hand is the trained one, for any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import enginery
from enginery.spec import Shape, VerifySpec

pytest.importorskip("openvino")
EXAMPLES = Path(__file__).parents[2] / "examples"
NETWORK = f"{EXAMPLES}/hand_built/digits_by_hand.py:digits"
SHAPES = {"image": Shape.parse("batch:1..8..32x1x8x8")}


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Path:
    """The example, built in a worker process."""
    output = tmp_path_factory.mktemp("hand_built") / "digits.engine"
    enginery.build(NETWORK, output, shapes=SHAPES)
    return output


def test_it_agrees_with_the_trained_file_on_real_digits(engine):
    """Every held-out digit gives the ONNX file's scores to 1e-5, alone and in batches, and 359 of 360 are right."""
    spec = VerifySpec(max_error=1e-5)
    record = enginery.verify(engine, NETWORK, data=EXAMPLES / "digits" / "heldout.npz", spec=spec)
    assert record.passed, record
    assert record.error < 1e-5
    assert record.accuracy == pytest.approx(359 / 360)
    assert {check.name: check.passed for check in record.checks}["rows"] is True
    assert record.reference == "digits.onnx on onnxruntime without optimisation"


def test_its_manifest_is_like_any_other(engine):
    """Names, profile and the vendor's own files; all weights were read, so there is no note."""
    manifest = enginery.inspect(engine)
    assert [(info.name, str(info.profile)) for info in manifest.inputs] == [("image", "batch:1..8..32x1x8x8")]
    assert [(info.name, info.shape) for info in manifest.outputs] == [("scores", ("batch", 10))]
    assert (manifest.name, manifest.source, manifest.backend) == ("digits", "network digits", "openvino")
    assert set(manifest.files) == {"model.xml", "model.bin", "precision.json"}
    assert manifest.build.notes == ()


def test_it_is_benchmarked_beside_the_converted_one(engine, tmp_path):
    """The engine that OpenVINO's converter makes of the same file takes turns with it."""
    converted = tmp_path / "converted.engine"
    shapes = {"image": Shape.parse("1..8..32x1x8x8")}
    enginery.build(EXAMPLES / "digits" / "digits.onnx", converted, backend="openvino", shapes=shapes, in_process=True)
    spec = enginery.BenchSpec(warmup_ms=1, turn_ms=10, limit_s=0.1)
    found = enginery.bench([engine, converted], spec=spec)
    assert {label: record.shapes for label, record in found.items()} == {
        name: {"image": (8, 1, 8, 8)} for name in ("digits.engine", "converted.engine")
    }


def test_it_runs_outside_of_its_profile_never(engine):
    """The bounds hold for a network as for a graph."""
    with enginery.load(engine) as session:
        assert session(np.zeros((3, 1, 8, 8), np.float32)).shape == (3, 10)
        with pytest.raises(enginery.EngineryError, match="33"):
            session(np.zeros((33, 1, 8, 8), np.float32))
