"""Dynamic axes have names that say which sizes are one, and tracing sizes that no tracer takes for constants."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.errors import SourceError, UsageError
from enginery.sources.axes import name_axes, resize, tracing_sizes
from enginery.sources.pytorch.nesting import name_leaves
from enginery.spec import Shape, parse_shapes


def test_equal_place_and_range_share_a_name():
    """Inputs of equal ranges share their axes' names; another range at the same place gets its own."""
    shapes = parse_shapes(["a=1..4x1..9x3", "b=1..4x1..9", "c=1..8", "d=1..8x1..7"])
    assert name_axes(shapes) == {
        "a": {0: "batch", 1: "dim1"},
        "b": {0: "batch", 1: "dim1"},
        "c": {0: "c_batch"},
        "d": {0: "d_batch", 1: "d_dim1"},
    }


def test_a_given_name_stands_and_has_one_range():
    """A name that the user gives is kept; given to two ranges, it is refused with both."""
    assert name_axes(parse_shapes(["a=n:1..4x3"])) == {"a": {0: "n"}}
    with pytest.raises(UsageError, match=r"the dimension 'n' is 1\.\.4\.\.4 and, in input 'b', n:1\.\.5\.\.5"):
        name_axes(parse_shapes(["a=n:1..4", "b=n:1..5"]))


def test_tracing_sizes_are_never_one_on_a_dynamic_axis():
    """The opt size is traced, but at least 2; fixed axes and unnamed inputs keep their size."""
    assert tracing_sizes(Shape.parse("1..1..8x1x2..5..9"), (1, 1, 2)) == (2, 1, 5)
    assert tracing_sizes(None, (1, 7)) == (1, 7)


def test_resizing_invents_no_values():
    """Values of a resized array were there before, so that indices stay in range and types stay."""
    ids = np.array([[3, 1, 4]])
    found = resize(ids, (2, 5))
    assert found.tolist() == [[3, 1, 4, 3, 1], [3, 1, 4, 3, 1]]
    assert found.dtype == ids.dtype
    assert resize(np.zeros((0, 2), np.float32), (3, 2)).shape == (3, 2)
    assert resize(np.array(7), ()).shape == ()


def test_two_parts_of_one_name_are_refused():
    """Nested names that come out equal are an error, never one output instead of two."""
    with pytest.raises(SourceError, match="two parts of the model's outputs are called 'a_b'"):
        name_leaves({"a": {"b": 1}, "a_b": 2}, lambda value: isinstance(value, int), single="output")
