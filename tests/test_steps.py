"""What the steps do by themselves, beside joining the stages."""

from __future__ import annotations

import pytest

from enginery import steps
from enginery.errors import SourceError


def test_an_engine_named_twice_is_timed_twice():
    """Timing an engine against itself shows how far two measurements of one thing lie apart."""
    labels = list(steps._by_label(["a/x.engine", "a/x.engine", "b/x.engine", "b/x.engine"]))
    assert labels == ["x.engine", "a/x.engine", "b/x.engine", "b/x.engine (2)"]


def test_a_saved_model_is_called_what_it_is(tmp_path):
    """Inspecting a SavedModel says what the folder is, and to export it first; TensorFlow is not needed for it."""
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SourceError, match="is the folder of a TensorFlow SavedModel, neither an engine nor an ONNX"):
        steps.inspect(tmp_path)
