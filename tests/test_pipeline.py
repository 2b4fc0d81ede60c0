"""The whole flow: from a trained model to a saved engine, with a row for every candidate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import enginery
from enginery import storage
from enginery.backends import onnxruntime
from enginery.errors import DataError, GraphError, NoCandidateError, UnknownNameError, UsageError
from enginery.pipeline import RECORD
from enginery.plain import from_json
from enginery.records import OptimizeRecord
from enginery.spec import PrecisionPlan

DIGITS = Path(__file__).parents[1] / "examples" / "digits"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Optimise the digits network once, on real data, timed for a moment."""
    return enginery.optimize(
        DIGITS / "digits.onnx",
        shapes={"image": "1..32..64x1x8x8"},
        data=DIGITS / "heldout.npz",
        output=tmp_path_factory.mktemp("out") / "digits.engine",
        limit_s=0.2,
    )


def test_every_candidate_is_a_row(result):
    """One is chosen, the baseline is timed, each candidate has its figures and a reason, and the table shows them."""
    rows = {row.label: row for row in result.record.candidates}
    assert rows["onnxruntime, plain"].status == "timed"
    assert rows[result.record.chosen].status == "chosen"
    for row in rows.values():
        assert row.bench.p50_ms > 0
        assert row.verify is None or row.verify.error < 1e-4
        assert row.role == "baseline" or row.reason
        assert row.label.split()[0] in result.table
    assert rows[result.record.chosen].verify.accuracy > 0.97


def test_the_engine_is_saved_with_all_that_was_found(result):
    """The folder opens, reads a real digit, and holds the whole record beside the manifest."""
    with result.open() as session, np.load(DIGITS / "heldout.npz") as held_out:
        right = session(held_out["image"][:64]).argmax(1) == held_out["labels"][:64]
    assert right.mean() > 0.95
    manifest = storage.read_manifest(result.engine)
    assert manifest.bench is not None
    assert manifest.verify.passed
    assert RECORD in manifest.files
    kept = from_json(OptimizeRecord, (result.engine / RECORD).read_text())
    assert kept == from_json(OptimizeRecord, enginery_json(result.record))
    assert [entry.name for entry in result.engine.parent.iterdir()] == ["digits.engine"]


def enginery_json(record):
    """Return a record as JSON; reading it back gives what JSON keeps of it."""
    from enginery.plain import to_json

    return to_json(record)


def test_a_candidate_that_fails_is_a_row(small_model, tmp_path, monkeypatch):
    """A set of options that the library refuses is a failed row with its reason; the others go on."""
    monkeypatch.setattr(onnxruntime, "variants", lambda _graph, _machine: ({}, {"optimization": "nonsense"}))
    result = enginery.optimize(
        small_model, shapes={"x": "1..4x4"}, output=tmp_path / "x.engine", backends=["onnxruntime"], limit_s=0.1
    )
    failed = next(row for row in result.record.candidates if row.options)
    assert failed.status == "failed"
    assert "nonsense" in failed.reason
    assert result.record.chosen == "onnxruntime"


def test_no_candidate_writes_nothing(small_model, tmp_path):
    """Where every candidate is rejected the error lists each reason, and no engine is left."""
    with pytest.raises(NoCandidateError, match=r"error .* is above 0\.00e\+00"):
        enginery.optimize(
            small_model, shapes={"x": "1..4x4"}, output=tmp_path / "x.engine", backends=["null"], max_error=0.0,
            limit_s=0.1,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_model_is_refused_before_anything_is_built(small_model, tmp_path):
    """The node is named, and no row of a table is waited for."""
    plan = PrecisionPlan("fp32", {"nowhere": "int8"})
    with pytest.raises(UnknownNameError, match="the precision plan names 'nowhere', which the graph does not have"):
        enginery.optimize(small_model, plan=plan, output=tmp_path / "out.engine", backends=["onnxruntime"])
    assert not (tmp_path / "out.engine").exists()


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"precision": "int8"}, GraphError, "no QuantizeLinear nodes; give recorded inputs to calibrate with"),
        ({"plan": PrecisionPlan("fp32", {"first": "int8"})}, GraphError, "nothing quantises what it reads; give"),
        ({"precision": "fp16", "calibration": "held.npz"}, UsageError, "was given, and fp16 needs none"),
        ({"calibration_method": "minmx"}, UnknownNameError, "did you mean 'minmax'"),
        ({"max_drop": {"top1": 0.01}}, DataError, "a bound on top1 was given, and there are no labels; give data"),
        ({"resume": __file__}, UsageError, "test_pipeline.py, to resume from, is a file; name the folder"),
    ],
)
def test_what_no_candidate_could_follow_is_refused_before_anything_is_built(
    small_model, tmp_path, monkeypatch, *, asked, kind, said
):
    """The error names what was given and what it lacks, not a missing backend."""
    monkeypatch.setattr(onnxruntime, "build", None)
    small_model.graph.node(0).name = "first"
    with pytest.raises(kind) as caught:
        enginery.optimize(small_model, output=tmp_path / "a.engine", shapes={"x": "1..8x4"}, limit_s=0.1, **asked)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())
