"""Whether outputs agree."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.graph.agree import difference

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
