"""All of ONNX's operator tests that hold float32: cast, they pass the whole checker, load, and agree."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from enginery.errors import GraphError
from enginery.graph.base import apply_plan, normalise
from enginery.spec import PrecisionPlan


def float_cases() -> list:
    """Return the cases with a float32 input whose own model is valid."""
    from onnx.backend.test.case.node import collect_testcases

    return [case for case in collect_testcases() if case.model is not None and holds_float32(case.model.graph)]


def holds_float32(graph: onnx.GraphProto) -> bool:
    """Say whether an input is of float32."""
    return any(one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for one in graph.input)


def is_valid(model: onnx.ModelProto) -> bool:
    """Say whether ONNX's checker takes a model with its types inferred."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def outputs_of(model: onnx.ModelProto, case) -> list | None:
    """Run a model on a case's inputs; None where ONNX Runtime cannot."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        return session.run(None, dict(zip(names, case.data_sets[0][0], strict=True)))
    except Exception:  # noqa: BLE001 - the runtime's kinds are its own
        return None


def far(found, expected) -> bool:
    """Say whether float32 outputs are far apart where both are finite, or no longer finite."""
    if not isinstance(expected, np.ndarray) or expected.dtype != np.float32 or not expected.size:
        return False
    both = np.isfinite(expected) & np.isfinite(found)
    error = np.linalg.norm((found - expected)[both]) / (np.linalg.norm(expected[both]) + 1e-9)
    return bool(error > 1e-2 or (np.isfinite(expected) & ~np.isfinite(found)).any())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_operator(precision):
    """The only reason not to be cast is an operator that has no form at the opset which brought bfloat16."""
    wrong, refused, done = [], [], 0
    for case in float_cases():
        if not is_valid(case.model):
            continue
        model = ir.from_proto(case.model)
        normalise(model)
        try:
            result = ir.to_proto(apply_plan(model, PrecisionPlan(precision)))
        except GraphError as error:
            refused.append((case.name, error.message))
            continue
        done += 1
        if not is_valid(result):
            wrong.append((case.name, "invalid"))
        expected = outputs_of(case.model, case) if precision == "fp16" else None
        if expected is not None:
            found = outputs_of(result, case)
            if found is None or any(map(far, found, expected)):
                wrong.append((case.name, "does not run" if found is None else "far"))
    assert wrong == []
    assert done > 1000
    assert all("cannot be brought from opset" in reason for _, reason in refused), refused
    assert len(refused) <= (0 if precision == "fp16" else 4), refused
