"""Shapes written into graphs."""

from __future__ import annotations

import pytest

from enginery.errors import GraphError, UnknownNameError, UsageError
from enginery.graph import base
from enginery.graph.base import tensor_infos
from enginery.graph.shapes import apply_shapes
from enginery.spec import parse_shapes

TWO = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[n, s] a, float[n, t] b) => (float[n, m] y) { y = Concat <axis = 1> (a, b) }
"""
UNNAMED = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[N, ?, ?] a, float[?, ?] b) => (float[p, q, r] y, float[u, v] z) { y = Relu(a) z = Relu(b) }
"""


@pytest.fixture
def shaped(graph_of):
    """Return a function that applies shapes to a graph and returns the shapes of its inputs and outputs."""

    def apply(text, *shapes):
        model = apply_shapes(graph_of(text.replace("N, ?", "?, ?")), parse_shapes(shapes))
        return {info.name: info.shape for info in tensor_infos([*model.graph.inputs, *model.graph.outputs])}

    return apply


def test_range_keeps_the_name(shaped):
    """A ranged axis keeps the graph's own name; a shape for one input leaves the other alone."""
    assert shaped(TWO, "a=1..8x4..16") == {"a": ("n", "s"), "b": ("n", "t"), "y": ("n", "m")}


def test_given_name_is_taken_everywhere(shaped):
    """A name given with a range replaces the graph's own at every axis that shares it."""
    assert shaped(TWO, "a=rows:1..8x4..16") == {"a": ("rows", "s"), "b": ("rows", "t"), "y": ("rows", "m")}


def test_shapes_are_texts_too(graph_of):
    """Functions of graphs take what the steps take: operations are counted, and axes made dynamic, by texts."""
    model = graph_of(TWO)
    shapes = {"a": "1..8x4..16", "b": "1..8x2"}
    assert base.count_flops(model, shapes) == base.count_flops(model, parse_shapes(["a=1..8x4..16,b=1..8x2"]))
    assert tensor_infos(apply_shapes(model, {"a": "3x4"}).graph.inputs)[0].shape == (3, 4)
    fixed = apply_shapes(model, {"a": "1x4", "b": "1x2"})
    changed, _ = base.make_dynamic(fixed, ["batch"], shapes={"a": "1..8x4", "b": "1..8x2"})
    assert tensor_infos(changed.graph.inputs)[0].shape == ("batch", 4)
    with pytest.raises(UsageError, match="the shape of 'a': '4q' is not a dimension"):
        base.make_dynamic(fixed, ["batch"], shapes={"a": "4q"})


def test_swapped_names(shaped):
    """Names may be exchanged: each is replaced once."""
    assert shaped(TWO, "a=s:1..8xn:4..16")["a"] == ("s", "n")


def test_fixed_size_is_inferred_further(shaped):
    """A fixed size fixes all axes of the name, and what is computed from it."""
    assert shaped(TWO, "a=4x5", "b=4x2") == {"a": (4, 5), "b": (4, 2), "y": (4, 7)}
    assert shaped(TWO, "a=4x5")["b"] == (4, "t")


def test_unnamed_axes_get_names(shaped):
    """Without any name, axis 0 is the batch; the others are numbered, apart for each input."""
    found = shaped(UNNAMED, "a=1..8x1..4x1..9", "b=1..8x1..5")
    assert found["a"] == ("batch", "a_dim1", "dim2")
    assert found["b"] == ("batch", "b_dim1")
    assert found["y"] == found["a"]


def test_default_names_do_not_clash(shaped):
    """Two unnamed first axes of different ranges are not taken to be the same batch."""
    found = shaped(UNNAMED, "a=1..8x3x3", "b=1..4x2")
    assert (found["a"][0], found["b"][0]) == ("batch", "b_batch")


def test_expressions(graph_of):
    """Sizes computed from a name follow it."""
    model = graph_of("""<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x) => (float[k] y) {
        s = Constant <value = int64[1] {-1}> ()
        y = Reshape(x, s)
    }""")
    import onnx_ir as ir

    model.graph.outputs[0].shape = ir.Shape(["2*n"])
    assert tensor_infos(apply_shapes(model, parse_shapes(["x=4x2"])).graph.outputs)[0].shape == (8,)
    assert tensor_infos(apply_shapes(model, parse_shapes(["x=b:1..4x2"])).graph.outputs)[0].shape == ("2*b",)


def test_original_is_untouched(small_model):
    """The graph given is not changed, and the weights are shared."""
    copy = apply_shapes(small_model, parse_shapes(["x=3x4"]))
    assert tensor_infos(small_model.graph.inputs)[0].shape == ("batch", 4)
    assert tensor_infos(copy.graph.outputs)[0].shape == (3, 3)
    assert copy.graph.initializers["w0"].const_value is small_model.graph.initializers["w0"].const_value


def test_unknown_input(small_model):
    """An unknown input suggests the nearest."""
    with pytest.raises(UnknownNameError, match=r"unknown input 'xs'; did you mean 'x'\?"):
        apply_shapes(small_model, parse_shapes(["xs=1x4"]))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (["a=1..8x4x4"], "has 3 dimensions, the graph's has 2: nxs"),
        (["a=1..8x4", "b=1..4x4"], r"'a', axis 0 was asked to be 1\.\.8\.\.8 and input 'b', axis 0 to be 1\.\.4\.\.4"),
        (["a=2x4", "b=1..4x4"], "but both are 'n', which has one size"),
        (["a=r:1..8x4", "b=q:1..8x4"], "was named 'r' and input 'b', axis 0 'q', but the graph calls both 'n'"),
        (["a=1..8xk:1..4", "b=1..8xk:1..5"], "but both are 'k'"),
    ],
)
def test_contradictions(graph_of, shapes, said):
    """What contradicts the graph or itself is refused, naming both places."""
    with pytest.raises(GraphError, match=said):
        apply_shapes(graph_of(TWO), parse_shapes(shapes))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("x=1..8x1..4", "axis 1: 1..4..4 was asked for, but the graph has fixed it at 4; export the model with axis 1"),
        ("x=1..8x5", "axis 1: 5 was asked for, but the graph has fixed it at 4; ask for 4"),
    ],
)
def test_fixed_by_the_graph(small_model, shape, said):
    """An axis that the graph has fixed cannot vary or have another size."""
    with pytest.raises(GraphError, match=said):
        apply_shapes(small_model, parse_shapes([shape]))
