"""The gallery built ahead of time by TensorRT-RTX, with no GPU: for three generations of GPUs, in two precisions.

Every entry is exported, simplified, built in fp32 and with fp16 types, and its typed graph compared on ONNX Runtime.
What fails is listed here with the reason; each failure must be one of Enginery's errors, and say what to do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from enginery import errors

ROOT = Path(__file__).parents[2]
PARTS = 12
SHARE = 0.8
AGAIN = ("SavedModel", "h5 file")
"""Sources of models that another source has as well; slow, for TensorFlow reads and converts them once more."""

KNOWN: dict[str, str] = {
    "torch centernet": "(NonZero)",  # an output whose size depends on the data
    "torch graph_convolution": "ScatterND with reduction is not supported",
    "onnx nms_detector": "has no runners that implement it",  # NonMaxSuppression
}
"""Entries that TensorRT-RTX does not build, by name, and what its error must say."""


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Make the repository's benchmarks importable; the library must be here."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.syspath_prepend(str(ROOT))


def entries():
    """Return every entry."""
    from benchmarks.gallery.__main__ import CATALOGUE, load

    return load(CATALOGUE)


@pytest.mark.parametrize("part", range(PARTS))
def test_the_gallery_is_built_ahead_of_time(part):
    """What is not listed above passes; what is listed fails with an error of ours that says why and what to do."""
    check([entry for entry in entries() if entry.source not in AGAIN][part::PARTS])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_the_same_models_from_other_files_are_built(part):
    """The models that the test above takes from Keras' own files, as SavedModel and in HDF5."""
    check([entry for entry in entries() if entry.source in AGAIN][part::3])


def check(chosen):
    """Try entries in one process, and look at each result."""
    from benchmarks.gallery.__main__ import CATALOGUE
    from benchmarks.gallery.processes import run_together

    results = list(run_together(chosen, "tensorrt_rtx", limit_s=300.0, catalogue=CATALOGUE))
    assert [result.name for result in results] == [entry.name for entry in chosen]
    for result in results:
        if result.status == "passed":
            assert result.built == ("fp32", "fp16"), result.name
            continue
        assert result.status == "failed", f"{result.name}: {result.status}, {result.reason}"
        assert result.name in KNOWN, f"{result.name}: {result.stage}: {result.reason}"
        assert KNOWN[result.name] in result.reason
        assert isinstance(errors.by_name(result.error_name, ""), errors.BackendError), result.reason
        assert result.mend, result.reason


def test_at_least_four_in_five_are_built():
    """The list of what fails is short, and what is tried without the mark `slow` is enough of the whole."""
    everything = entries()
    tried = {entry.name for entry in everything if entry.source not in AGAIN}
    assert set(KNOWN) <= tried
    assert len(tried - set(KNOWN)) / len(everything) >= SHARE
