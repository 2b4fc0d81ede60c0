"""Outputs of the reference that are the same everywhere: to agree with them proves little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from enginery.inputs.base import Array

__all__ = ["constant_outputs"]


def constant_outputs(expected: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a warning for each output whose elements are all equal, over all inputs.

    A rectifier that cuts everything off, or ids that an embedding does not tell apart, would make any engine look
    right. Outputs of one element in all, and sequences, are passed over.

    Args:
        expected: the reference's outputs for each input.

    Example:
        >>> list(constant_outputs([{"y": np.zeros((2, 3))}, {"y": np.zeros((4, 3))}]))[0].partition(":")[0]
        "output 'y' of the reference is 0.0 in every element of every input"
    """
    for name in dict.fromkeys(name for outputs in expected for name in outputs):
        arrays = [outputs[name] for outputs in expected if name in outputs]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            continue
        parts = [array.reshape(-1) for array in arrays if array.size]
        if sum(part.size for part in parts) > 1 and _all_equal(parts):
            yield (
                f"output {name!r} of the reference is {parts[0][0]} in every element of every input: to agree with it "
                "proves little; verify on real inputs (--data), or on a range of values that makes it vary (--range)"
            )


def _all_equal(parts: Sequence[Array]) -> bool:
    first = parts[0][:1]
    if _is_nan(first).all():
        return all(bool(_is_nan(part).all()) for part in parts)
    return all(bool((part == first).all()) for part in parts)


def _is_nan(array: Array) -> Array:
    """Say where an array is NaN; texts, integers and booleans never are."""
    return np.zeros(array.shape, bool) if array.dtype.kind in "biuOSU" else np.isnan(array)
