"""Real engines against a function of numpy: what a user of `verify` gets."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.backends import engine as engines
from enginery.inputs.base import Case, load_cases, save_cases
from enginery.inputs.generated import describe, random_case
from enginery.spec import BuildSpec, Shape, VerifySpec
from enginery.verification.compare import compare


@pytest.fixture
def reference(small_model):
    """Return the small model as a function of numpy."""
    first, second = (small_model.graph.initializers[name].const_value.numpy() for name in ("w0", "w1"))
    return lambda feeds: {"y": np.maximum(feeds["x"] @ first, 0) @ second}


def verify(model, backend, reference, folder, **spec):
    """Build, run at min, opt and max from saved cases, and compare."""
    engine = engines.build(model, BuildSpec(shapes={"x": Shape.parse("1..4..16x4")}), folder / "e", backend=backend)
    with engine.open() as session:
        made = [random_case(session.inputs, which, seed=1) for which in ("min", "opt", "max")]
        save_cases(made, folder / "cases")
        cases = load_cases(folder / "cases")
        save_cases([Case(case.name, reference(case.feeds)) for case in cases], folder / "expected")
        expected = [case.feeds for case in load_cases(folder / "expected")]
        inputs = describe(session.inputs, {}, 1)
        return compare(session, cases, expected, spec=VerifySpec(**spec), reference="numpy", inputs=inputs)


def test_onnxruntime_is_right(small_model, reference, tmp_path):
    """A right engine agrees to rounding, row by row too."""
    record = verify(small_model, "onnxruntime", reference, tmp_path, max_error=1e-5)
    assert record.reason == ""
    assert record.error < 1e-6
    assert {check.name: check.passed for check in record.checks} == {
        "outputs": True,
        "finite": True,
        "shapes": True,
        "data": None,
        "repeat": True,
        "rows": True,
    }
    assert record.inputs == "random, seed 1: x normal(0,1)"


def test_null_is_wrong(small_model, reference, tmp_path):
    """Zeros of the right shape are consistent with themselves, and an error of 1."""
    record = verify(small_model, "null", reference, tmp_path)
    assert record.error == 1
    assert not record.passed
    assert [found.cosine for found in record.outputs] == [0, 0, 0]
    assert all(check.passed is not False for check in record.checks)
