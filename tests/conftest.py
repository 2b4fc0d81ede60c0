"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

# Where the tests run in the background of a script, SIGINT is ignored, and under nohup SIGHUP; so they would be in
# every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what the tests would keep for the user out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINERY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def light_models():
    """Return the folder of real architectures that ships in the onnx package."""
    import onnx

    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture
def small_model() -> ir.Model:
    """Return a two-layer network with a dynamic batch: `x` [batch, 4] to `y` [batch, 3], weights fixed by a seed."""
    import numpy as np

    random = np.random.default_rng(0)
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[batch, 4] x) => (float[batch, 3] y) <float[4, 5] w0, float[5, 3] w1> {
            h = MatMul(x, w0)
            r = Relu(h)
            y = MatMul(r, w1)
        }
    """
    model = ir.from_onnx_text(text)
    for name, shape in (("w0", (4, 5)), ("w1", (5, 3))):
        value = next(v for node in model.graph for v in node.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(random.standard_normal(shape).astype(np.float32), name=name)
        model.graph.register_initializer(value)
    return model


@pytest.fixture(scope="session")
def operator_tests():
    """Return the benchmark of ONNX's own operator tests as a module, for its cases and its comparison."""
    path = Path(__file__).parents[1] / "benchmarks" / "operator_tests.py"
    spec = importlib.util.spec_from_file_location("operator_tests", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["operator_tests"] = module
    spec.loader.exec_module(module)
    return module
