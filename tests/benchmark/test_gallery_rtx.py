"""The gallery built ahead of time by TensorRT-RTX, with no GPU: for three generations of GPUs, in two precisions.

Every entry is exported, simplified, built in fp32 and with fp16 types, and its typed graph compared on ONNX Runtime.
What fails is listed here with the reason; each failure must be one of Enginery's errors, and say what to do.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from enginery import errors, optional
from enginery.caches import changed_alone

ROOT = Path(__file__).parents[2]
PART = 7
"""Entries in one process: few processes import each framework, and each part is a small share of the whole."""

SHARE = 0.8
AGAIN = ("SavedModel", "h5 file")
"""Sources of models that another source has as well; slow, for TensorFlow reads and converts them once more."""

LARGE = (
    "transformers bert_base", "transformers albert", "transformers segformer", "ConvNeXtTiny as keras file",
    "ViT as keras file", "EfficientNetB0 as keras file",
)  # fmt: skip
"""Entries several times as dear as others of their kind, which are tried; slow too."""

KNOWN: dict[str, str] = {
    "torch centernet": "(NonZero)",  # an output whose size depends on the data
    "torch graph_convolution": "ScatterND with reduction is not supported",
    "onnx nms_detector": "has no runners that implement it",  # NonMaxSuppression
}
"""Entries that TensorRT-RTX does not build, by name, and what its error must say."""


@functools.cache
def parts(*, slow=False):
    """Return the entries in parts, neighbours together: they come from one framework."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT))
        from benchmarks.gallery.__main__ import CATALOGUE, load

        chosen = [entry for entry in load(CATALOGUE) if (entry.source in AGAIN or entry.name in LARGE) == slow]
    return [chosen[at : at + PART] for at in range(0, len(chosen), PART)]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Make the repository's benchmarks importable; the library must be here, and what the models are made with."""
    pytest.importorskip("tensorrt_rtx")
    needed = {name for part in parts() for entry in part for name in entry.needs}
    if missing := sorted(name for name in needed if not optional.installed(name)):
        pytest.skip(f"not installed: {', '.join(missing)}")
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="session")
def results_of(tmp_path_factory):
    """Return a function that tries a part, once in this run of the tests, whichever of its processes asks first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "gallery_rtx"
    folder.mkdir(exist_ok=True)

    def take(number, *, slow=False):
        from benchmarks.gallery.processes import read_result

        path = folder / f"{'slow' if slow else 'part'}-{number}.json"
        with changed_alone(path):
            if not path.exists():
                path.write_text(json.dumps([asdict(result) for result in tried(parts(slow=slow)[number])]))
        return [read_result(plain) for plain in json.loads(path.read_text())]

    return take


def tried(chosen):
    """Try entries in one process."""
    from benchmarks.gallery.__main__ import CATALOGUE
    from benchmarks.gallery.processes import run_together

    return run_together(chosen, "tensorrt_rtx", limit_s=300.0, catalogue=CATALOGUE)


@pytest.mark.parametrize("part", range(len(parts())))
def test_the_gallery_is_built_ahead_of_time(part, results_of):
    """What is not listed above passes; what is listed fails with an error of ours that says why and what to do."""
    check(results_of(part), parts()[part])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(parts(slow=True))))
def test_the_rest_of_the_gallery_is_built(part, results_of):
    """The models that the test above takes from Keras' own files, as SavedModel and in HDF5; and large ones."""
    check(results_of(part, slow=True), parts(slow=True)[part])


def check(results, chosen):
    """Look at each result."""
    assert [result.name for result in results] == [entry.name for entry in chosen]
    for result in results:
        if result.status == "passed":
            assert is_built(result), result.name
            continue
        assert result.status == "failed", f"{result.name}: {result.status}, {result.reason}"
        assert result.name in KNOWN, f"{result.name}: {result.stage}: {result.reason}"
        assert KNOWN[result.name] in result.reason
        assert isinstance(errors.by_name(result.error_name, ""), errors.BackendError), result.reason
        assert result.mend, result.reason


def is_built(result):
    """Say whether an entry was built in both precisions, and its typed graph compared."""
    return result.status == "passed" and result.built == ("fp32", "fp16") and result.error is not None


def test_at_least_four_in_five_are_built(results_of):
    """Of all entries of the gallery, counted in this run; what is marked `slow` counts as not built."""
    results = [result for number in range(len(parts())) for result in results_of(number)]
    everything = len(results) + sum(map(len, parts(slow=True)))
    built = [result.name for result in results if is_built(result)]
    assert everything >= 80  # what the share is of
    assert len(set(built)) == len(built) >= SHARE * everything
