"""Whether outputs agree."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from enginery.graph.agree import difference, is_quantised

ONES = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        (ONES, ONES * np.float32(1 + 5e-5), ""),
        (ONES, ONES * np.float32(1.001), "differs by 1.0e-03"),
        (ONES.astype(np.float16), ONES.astype(np.float16) * np.float16(1.002), ""),
        (np.zeros(4, np.float32), np.full(4, 1e-8, np.float32), ""),
        (np.zeros(4, np.float32), np.full(4, 1e-3, np.float32), "differs by inf"),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), ""),
        (np.array([np.nan, 1.0]), np.array([1.0, np.nan]), "has them elsewhere"),
        (np.array([np.inf, 1.0]), np.array([np.inf, 1.0]), ""),
        (np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]), "has infinities elsewhere"),
        (np.array([np.inf, 1.0]), np.array([1e30, 1.0]), "has infinities elsewhere"),
        (np.arange(4), np.array([0, 1, 2, 4]), "differs in 1 of 4 elements"),
        (np.array(["a", "b"], object), np.array(["a", "b"], object), ""),
        (ONES, ONES.astype(np.float64), "is float64[4] instead of float32[4]"),
        (ONES, ONES[:3], "is float32[3] instead of float32[4]"),
        ([ONES, ONES], [ONES], "has 1 elements instead of 2"),
        ([ONES], [ONES * 2], "differs by 1.0e+00"),
        (np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), ""),
        ({"a": 1}, {"a": 2}, "is of another kind"),
        (np.array([1 + 1j]), np.array([1 + 1j]), ""),
    ],
)
def test_values(expected, found, said):
    """Floats agree within rounding, everything else exactly; NaNs and infinities stand at the same places."""
    answer = difference([{"y": expected}], [{"y": found}])
    assert (answer == "") == (said == "")
    assert said in answer


def test_names_and_counts():
    """Outputs have the same names in the same order, for the same number of inputs."""
    assert (
        difference([{"a": ONES, "b": ONES}], [{"b": ONES, "a": ONES}]) == "outputs are ['b', 'a'] instead of ['a', 'b']"
    )
    assert difference([{"a": ONES}], []) == "0 results instead of 1"


def test_a_graph_that_rounds_to_integers_may_turn_a_step():
    """The last digit of a float may turn a whole step of a quantised tensor: more is allowed there, nonsense is not."""
    off = [{"y": ONES * np.float32(1.01)}]
    assert "1.0e-04 is allowed" in difference([{"y": ONES}], off)
    assert difference([{"y": ONES}], off, quantised=True) == ""
    assert "5.0e-02 is allowed" in difference([{"y": ONES}], [{"y": ONES * 2}], quantised=True)


@pytest.mark.parametrize(("body", "quantised"), [("y = QuantizeLinear(x, s)", True), ("y = Mul(x, s)", False)])
def test_what_rounds_is_known_by_its_operators(body, quantised):
    """A node that quantises is enough."""
    kind = "uint8" if quantised else "float"
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2] x, float s) => ({kind}[2] y) {{ {body} }}'
    assert is_quantised(ir.from_onnx_text(text)) is quantised
