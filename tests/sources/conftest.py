"""Models that several tests of sources take."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def keras_models(tmp_path_factory) -> Path:
    """Return a folder of Keras files and SavedModels; see keras_models.py."""
    for library in ("tensorflow", "keras", "tf2onnx"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    folder = tmp_path_factory.mktemp("keras")
    script = Path(__file__).with_name("keras_models.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory):
    """Return what runs a graph on some inputs, on ONNX Runtime without optimisation."""
    from enginery.evaluation import Evaluator

    with Evaluator(tmp_path_factory.mktemp("evaluate")) as evaluator:
        yield lambda graph, feeds: evaluator.run(graph, [feeds])[0]
