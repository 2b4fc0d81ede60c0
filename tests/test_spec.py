"""What was asked: shapes, dimensions and examples as users write them."""

from __future__ import annotations

import pytest

from enginery.errors import UnknownNameError, UsageError
from enginery.spec import Dim, Example, OptimizeSpec, PrecisionPlan, Shape, as_shapes, check_precision, parse_shapes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", Dim(3, 3, 3)),
        ("1..32", Dim(1, 32, 32)),
        ("1..8..32", Dim(1, 8, 32)),
        ("batch:1..8..32", Dim(1, 8, 32, "batch")),
        ("max_len:128", Dim(128, 128, 128, "max_len")),
    ],
)
def test_dimension_forms(text, expected):
    """A dimension is a size, a range, or a range with the size to be fast at; it may have a name."""
    assert Dim.parse(text) == expected
    assert Dim.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "a", "1..", "1..2..3..4", "-1", "1.5", "1 2"])
def test_bad_dimension_says_how_to_write_it(text):
    """Anything else is refused with the way to write it."""
    with pytest.raises(UsageError, match="is not a dimension; write it as NAME=DIMxDIM"):
        Dim.parse(text)


def test_dimension_out_of_order():
    """The smallest size comes first and the largest last."""
    with pytest.raises(UsageError, match=r"8\.\.4\.\.32 is not in the order min <= opt <= max"):
        Dim.parse("8..4..32")


def test_shape_ends():
    """A shape gives its sizes at min, opt and max."""
    shape = Shape.parse("1..8..32x3x224x224")
    assert shape.at("min") == (1, 3, 224, 224)
    assert shape.at("opt") == (8, 3, 224, 224)
    assert shape.at("max") == (32, 3, 224, 224)
    assert Shape.parse(str(shape)) == shape


def test_shape_with_spaces_and_names_that_hold_an_x():
    """Spaces do not matter, and only an x after a size cuts."""
    assert Shape.parse("1..32 x3 x 4") == Shape.parse("1..32x3x4")
    assert Shape.parse("batch:1..2xmax_x:3").dims[1] == Dim(3, 3, 3, "max_x")


def test_scalar_shape():
    """A scalar has no dimensions."""
    assert Shape.parse("scalar") == Shape(()) == Shape.parse("")
    assert str(Shape(())) == "scalar"


def test_shapes_of_several_inputs():
    """Several shapes may stand in one text or in several."""
    once = parse_shapes(["ids=1..4x8,mask=1..4x8"])
    assert once == parse_shapes(["ids=1..4x8", "mask=1..4x8"]) == parse_shapes(["ids=1..4x8;mask=1..4x8"])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["1x3"], "'1x3' names no input"),
        (["=1x3"], "'=1x3' names no input"),
        (["x=1x3", "x=2x3"], "the shape of 'x' is given twice"),
        (["x=1xq"], "'q' is not a dimension"),
    ],
)
def test_bad_shapes(texts, said):
    """A shape without a name, given twice or unreadable is refused with its text."""
    with pytest.raises(UsageError, match=said):
        parse_shapes(texts)


def test_example():
    """An example input is a name, an element type and a shape."""
    assert Example.parse("input:float32[1, 3,224,224]") == Example("input", "float32", (1, 3, 224, 224))
    assert Example.parse("n:int64[]") == Example("n", "int64", ())
    with pytest.raises(UsageError, match="'input' is not an example input; write it as"):
        Example.parse("input")


def test_unknown_precision_and_objective_suggest_the_nearest():
    """A misspelt word suggests the nearest."""
    with pytest.raises(UnknownNameError, match="unknown precision 'fp61'; did you mean 'fp16'"):
        OptimizeSpec(precision="fp61")
    with pytest.raises(UnknownNameError, match="unknown objective 'latencie'; did you mean 'latency'"):
        OptimizeSpec(objective="latencie")


def test_shapes_of_a_call_are_texts_or_shapes():
    """A name may hold what separates names on the command line; nothing given is nothing."""
    given = {"a,b=c": "batch:1..8x3", "y": Shape.fixed((2, 4))}
    assert as_shapes(given) == {"a,b=c": Shape((Dim(1, 8, 8, "batch"), Dim.fixed(3))), "y": Shape.fixed((2, 4))}
    assert as_shapes(None) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": "1xq"}, "the shape of 'x': 'q' is not a dimension; write it as"),
        ({"x": "8..1x3"}, "the shape of 'x': dimension 8..1..1 is not in the order"),
        ({"x": (1, 3)}, "the shape of 'x' is (1, 3), neither a Shape nor a text; give a dict, such as"),
        ("x=1x3", "each shape goes by its input's name, and 'x=1x3' has none; give a dict, such as"),
        (["x=1x3"], "each shape goes by its input's name, and ['x=1x3'] has none; give a dict, such as"),
    ],
)
def test_shapes_of_a_call_that_are_none_say_how_to_write_them(given, said):
    """What cannot be read is told with the input's name and what to write."""
    with pytest.raises(UsageError) as caught:
        as_shapes(given)
    assert said in str(caught.value)


def test_a_precision_that_is_none_is_refused():
    """In a plan and beside it: a word that there is not, no word, a number, and what stands for several."""
    for word, shown in [("half", "half"), (None, "None"), (16, "16"), (["fp16"], "fp16"), ("best", "best")]:
        with pytest.raises(UnknownNameError, match=f"unknown precision .*{shown}"):
            PrecisionPlan(word)
        with pytest.raises(UnknownNameError, match=f"unknown precision .*{shown}"):
            PrecisionPlan("fp32", {"a": word})
    with pytest.raises(UnknownNameError, match="unknown precision '16'; "):
        check_precision(16)
    with pytest.raises(UsageError, match=r"the nodes of a precision plan are a list: \['a'\]; give each its precision"):
        PrecisionPlan("fp32", ["a"])
    with pytest.raises(UsageError, match=r"the precision plan is a str: 'mine\.json'; give a PrecisionPlan"):
        OptimizeSpec(plan="mine.json")
