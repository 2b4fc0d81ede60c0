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

KNOWN: dict[str, str] = {}
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
    from benchmarks.gallery.__main__ import CATALOGUE
    from benchmarks.gallery.processes import run_together

    chosen = [entry for at, entry in enumerate(entries()) if at % PARTS == part]
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
    """The list of what fails is short, and names entries that are there."""
    names = {entry.name for entry in entries()}
    assert set(KNOWN) <= names
    assert 1 - len(KNOWN) / len(names) >= SHARE
