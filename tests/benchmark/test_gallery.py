"""The gallery counts what passes and what does not, explains each failure, and writes what it found."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enginery.reports.layout import Style

ROOT = Path(__file__).parents[2]

CATALOGUE = '''
"""Three tiny models: one that passes, one whose output is constant, one that ends its process."""

import os
from pathlib import Path

from onnx import parser

from benchmarks.gallery.entry import Entry, Made


def write(body):
    def make(folder):
        head = '<ir_version: 8, opset_import: ["": 17]> tiny (float[batch, 4] x) => (float[batch, 4] y)'
        path = Path(folder) / "tiny.onnx"
        path.write_bytes(parser.parse_model(f"{head} {{ {body} }}").SerializeToString())
        return Made(path)

    return make


def entry(name, make, **more):
    return Entry(name, "tiny", "onnx", make, {"x": "1..3x4"}, **more)


ENTRIES = (
    entry("twice", write("y = Add(x, x)")),
    entry("nothing", write("y = Sub(x, x)"), known="it subtracts its input from itself"),
    entry("crash", lambda folder: os.abort()),
    entry("absent", write("y = Add(x, x)"), needs=("a_package_that_is_not_here",)),
)
'''


pytestmark = pytest.mark.usefixtures("gallery")


@pytest.fixture
def gallery(monkeypatch):
    """Make the repository's benchmarks importable, and return the package's main module."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gallery import __main__ as module

    return module


@pytest.fixture
def result(gallery):
    """Return a result that passed."""
    return gallery.Result("one", "cnn", "torch", "onnxruntime", "passed", error=2e-7)


def test_a_run_counts_and_explains(gallery, tmp_path, monkeypatch, capsys):
    """A pass, a known failure, a crash and a skipped entry each have their status and reason, in table and JSON."""
    (tmp_path / "tiny_catalogue.py").write_text(CATALOGUE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    output = tmp_path / "gallery.json"
    assert gallery.main(["--catalogue", "tiny_catalogue", "--output", str(output)]) == 1
    found = json.loads(output.read_text())
    by_name = {row["name"]: row for row in found["results"]}
    assert {name: row["status"] for name, row in by_name.items()} == {
        "twice": "passed", "nothing": "expected", "crash": "failed", "absent": "skipped",
    }  # fmt: skip
    assert by_name["twice"]["shapes"] == ["1x4", "3x4"]
    assert by_name["twice"]["error"] == 0
    assert by_name["twice"]["varies"] > 0.1
    assert by_name["twice"]["peak_memory_bytes"] > 2**20
    assert by_name["nothing"]["stage"] == "vary"
    assert by_name["nothing"]["reason"].startswith("it subtracts its input from itself (vary: output 'y' is the same")
    assert by_name["crash"]["reason"].startswith("the process crashed with SIGABRT")
    assert by_name["absent"]["reason"] == "not installed: a_package_that_is_not_here"
    assert found["passed"] == {"onnxruntime": 0.3333}
    assert found["command"] == f"python -m benchmarks.gallery --catalogue tiny_catalogue --output {output}"
    assert found["versions"]["onnx"]
    printed = capsys.readouterr().out
    assert "onnxruntime: 1 of 3 passed (33.3 %), 1 expected, 1 failed, 1 skipped" in printed


def test_a_hang_is_ended(gallery, tmp_path, monkeypatch):
    """An entry that outlasts its limit is ended, and says so."""
    (tmp_path / "slow_catalogue.py").write_text(
        "import time\nfrom benchmarks.gallery.entry import Entry\n"
        "ENTRIES = (Entry('slow', 'tiny', 'onnx', lambda folder: time.sleep(600), {'x': '1..3'}),)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (entry,) = gallery.load("slow_catalogue")
    found = gallery.run_entry(entry, "onnxruntime", limit_s=1.0, catalogue="slow_catalogue")
    assert (found.status, found.reason) == ("failed", "ended after the limit of 1 s")


def test_expected_failures_count_as_failures(gallery, result):
    """The share that passed is of all that ran: known failures lower it, skipped entries do not."""
    results = [replace(result, status=status) for status in ("passed", "passed", "expected", "failed", "skipped")]
    assert gallery.share_passed(results) == 0.5
    assert gallery.share_passed([]) == 0


def test_a_known_failure_that_passes_says_so(result):
    """What was expected to fail and passes stays a pass, with a reason to strike it off."""
    from benchmarks.gallery.result import judge

    found = judge(result, known="the exporter lacks it")
    assert found.status == "passed"
    assert found.reason == "passes now, so it is no known failure any more: the exporter lacks it"
    assert judge(result, known="") == result


def test_the_table_numbers_reasons(gallery, result):
    """A failure has a footnote with its stage and reason, and a constant output one with its explanation."""
    text = gallery.gallery_text(
        [
            result,
            replace(result, name="two", status="failed", stage="export", reason="no exporter gave a right graph"),
            replace(result, name="three", reason="the outputs do not depend on the inputs: constant weights"),
        ],
        Style(160),
    )
    assert "failed [1]" in text
    assert "passed [2]" in text
    assert "[1] two: export: no exporter gave a right graph" in text
    assert "[2] three: the outputs do not depend on the inputs: constant weights" in text
    assert "onnxruntime: 2 of 3 passed (66.7 %), 1 failed" in text


def test_outputs_vary_by_values_and_by_shape():
    """A change is relative to the size of an output; another number of rows is a change of its own."""
    from benchmarks.gallery.attempt import variation

    one = {"y": np.array([3.0, 4.0]), "ids": np.array([1, 2]), "rows": np.zeros((2, 3)), "zero": np.zeros(2)}
    other = {"y": np.array([3.0, 4.5]), "ids": np.array([1, 3]), "rows": np.zeros((5, 3)), "zero": np.zeros(2)}
    assert variation(one, other) == {"y": 0.1, "ids": 0.5, "rows": 1.0, "zero": 0.0}


def test_an_unknown_word_is_refused(gallery):
    """A word that is no entry, family or source ends the run before any model is made."""
    with pytest.raises(SystemExit, match="no entry, family or source is called 'resnte'; --list shows them"):
        gallery.main(["--only", "resnte"])


def test_the_catalogue_is_what_is_promised(gallery):
    """Names are unique, two shapes are verified, every integer range reads, and the families and sources are there."""
    from enginery.inputs.base import Range
    from enginery.spec import Shape

    entries = gallery.load(gallery.CATALOGUE)
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names) >= 25
    for entry in entries:
        shapes = {name: Shape.parse(text) for name, text in entry.shapes.items()}
        assert any(shape.at("min") != shape.at("opt") for shape in shapes.values()), entry.name
        assert all(Range.parse(text) for text in entry.ranges.values())
        assert set(entry.ranges) <= set(shapes), entry.name
    families = {entry.family for entry in entries}
    assert families >= {
        "cnn", "vision transformer", "text encoder", "text decoder", "detector", "segmentation", "audio",
        "recommender", "recurrent",
    }  # fmt: skip
    assert {entry.source for entry in entries} == {
        "torch", "transformers", "keras file", "SavedModel", "h5 file", "onnx",
    }  # fmt: skip


def test_a_listing_imports_no_framework():
    """To list the entries costs no import of torch, transformers, tensorflow or keras."""
    import subprocess

    code = (
        "import sys; from benchmarks.gallery.__main__ import main; main(['--list', '--only', 'torch lstm']); "
        "print([name for name in ('torch', 'transformers', 'tensorflow', 'keras') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["torch", "lstm", "recurrent", "torch", "[]"]
