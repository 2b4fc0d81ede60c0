"""Whether two runs of a graph gave the same outputs, as near as rounding allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.graph.base import all_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FLOAT_TOLERANCE", "HALF_TOLERANCE", "QUANTISED_TOLERANCE", "difference", "is_quantised"]

FLOAT_TOLERANCE = 1e-4
"""Largest relative L2 difference of an output; folding a constant moves a float32 result by about 1e-7."""

HALF_TOLERANCE = 1e-2
"""The same for types of 16 bits and fewer."""

QUANTISED_TOLERANCE = 5e-2
"""The same for graphs that round to integers on the way: the last digit of a float may turn a whole step there."""

_FLOOR = 1e-7
_SINGLE_BYTES = 4


def is_quantised(model: ir.Model) -> bool:
    """Say whether a graph rounds to integers on the way."""
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in all_nodes(model))


def difference(
    expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], *, quantised: bool = False
) -> str:
    """Say where outputs differ by more than rounding; empty where they agree.

    Floats agree when the norm of the difference is at most `FLOAT_TOLERANCE` times the norm of what is expected and
    NaNs and infinities stand at the same places. Everything else must be equal.

    Args:
        expected: outputs by name, for each of several inputs.
        found: the same of another graph.
        quantised: whether the graph rounds to integers on the way, so that floats agree to `QUANTISED_TOLERANCE`.

    Example:
        >>> difference([{"y": np.ones(2, np.float32)}], [{"y": np.array([1, 2], np.float32)}])
        "output 'y' differs by 7.1e-01 (relative L2), 1.0e-04 is allowed"
    """
    if len(expected) != len(found):
        return f"{len(found)} results instead of {len(expected)}"
    for before, after in zip(expected, found, strict=True):
        if list(before) != list(after):
            return f"outputs are {list(after)} instead of {list(before)}"
        for name, value in before.items():
            if said := _compare(value, after[name], quantised=quantised):
                return f"output {name!r} {said}"
    return ""


def _compare(expected: Any, found: Any, *, quantised: bool) -> str:
    if isinstance(expected, list | tuple) and isinstance(found, list | tuple):
        if len(expected) != len(found):
            return f"has {len(found)} elements instead of {len(expected)}"
        pairs = zip(expected, found, strict=True)
        return next((said for a, b in pairs if (said := _compare(a, b, quantised=quantised))), "")
    if isinstance(expected, np.ndarray | np.generic) and isinstance(found, np.ndarray | np.generic):
        return _compare_arrays(np.asarray(expected), np.asarray(found), quantised=quantised)
    return "" if type(expected) is type(found) and expected == found else "is of another kind"


def _compare_arrays(expected: np.ndarray[Any, Any], found: np.ndarray[Any, Any], *, quantised: bool) -> str:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return f"is {found.dtype}{list(found.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if expected.dtype.kind in "biuOSU" or expected.size == 0:
        differ = int(np.count_nonzero(expected != found))
        return f"differs in {differ} of {expected.size} elements" if differ else ""
    tolerance = FLOAT_TOLERANCE if expected.dtype.itemsize >= _SINGLE_BYTES else HALF_TOLERANCE
    tolerance = QUANTISED_TOLERANCE if quantised else tolerance
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = expected.astype(wide), found.astype(wide)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return f"has {np.isnan(b).sum()} NaNs instead of {np.isnan(a).sum()}, or has them elsewhere"
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "has infinities elsewhere"
    norm, error = float(np.linalg.norm(a[finite])), float(np.linalg.norm(a[finite] - b[finite]))
    if error <= tolerance * norm + _FLOOR * np.sqrt(a.size):
        return ""
    return f"differs by {error / norm if norm else np.inf:.1e} (relative L2), {tolerance:.1e} is allowed"
