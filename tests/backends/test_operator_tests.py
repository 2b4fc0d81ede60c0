"""ONNX's single-operator tests: what passes on a library alone also passes through Enginery."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "operator_tests.py"


@pytest.fixture(scope="module")
def names(operator_tests):
    """Return the names of all cases."""
    return sorted(operator_tests.collect())


@pytest.mark.parametrize("backend", ["onnxruntime", "reference"])
def test_a_sample_loses_nothing(operator_tests, names, backend):
    """Of every twelfth case, none is lost on the way through Enginery, and most pass."""
    sample = names[::12]
    result = operator_tests.run_backend(backend, sample, say=lambda _: None)
    assert result["lost"] == {}
    assert result["cases"] == len(sample) > 100
    assert result["enginery"] > 0.5 * len(sample)  # older libraries know fewer operators
    assert sum(map(len, result["causes"].values())) == result["cases"] - result["direct"]


def test_a_sample_loses_nothing_on_openvino(operator_tests, names):
    """The same, on fewer cases: OpenVINO compiles for longer."""
    pytest.importorskip("openvino")
    sample = names[::40]
    result = operator_tests.run_backend("openvino", sample, say=lambda _: None)
    assert result["lost"] == {}
    assert result["enginery"] > 0.6 * len(sample)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "reference", "openvino"])
def test_nothing_is_lost(operator_tests, names, backend):
    """Of all cases, none is lost on the way through Enginery."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    assert operator_tests.run_backend(backend, names)["lost"] == {}


def test_a_crash_takes_one_case(operator_tests, names, tmp_path, monkeypatch):
    """A library that ends its process costs the case that was running; the others get their results."""
    crashing = tmp_path / "crashing.py"
    source = BENCHMARK.read_text().replace(
        "def attempt(prepare",
        "def attempt(prepare, case):\n"
        "    if case.name.endswith('_expanded'):\n"
        "        os.abort()\n"
        "    return ''\n\n\n"
        "def real_attempt(prepare",
    )
    crashing.write_text(source.replace("import json\n", "import json\nimport os\n"))
    monkeypatch.setattr(operator_tests, "__file__", str(crashing))
    sample = ["test_abs", "test_celu_expanded", "test_cos"]
    assert set(sample) <= set(names)
    result = operator_tests.run_backend("reference", sample, say=lambda _: None)
    assert result["causes"] == {operator_tests.CRASHED: ["test_celu_expanded"]}
    assert result["lost"] == {}
    assert result["direct"] == result["enginery"] == 2
