"""The page of a graph: one offline file, whatever the graph's names hold."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import literal_records as literal
import onnx_ir as ir
import pytest

from enginery.graph.outline import outline
from enginery.graph.summary import summarise
from enginery.records import TensorInfo
from enginery.reports.graph_page import graph_page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- %DATA% & \u2028 \"'`"


class Elements(HTMLParser):
    """Collects the elements of a page, and the data that it carries."""

    def __init__(self):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.data = ""
        self.in_data = False

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.in_data = tag == "script" and dict(attrs).get("id") == "graph-data"

    def handle_data(self, data):
        if self.in_data:
            self.data += data

    def handle_endtag(self, tag):
        self.in_data = self.in_data and tag != "script"


def read(page: str) -> Elements:
    """Parse a page as a browser would."""
    parser = Elements()
    parser.feed(page)
    return parser


def hostile_page() -> str:
    """Return the page of a graph whose every name is an attack."""
    x = ir.val(HOSTILE, ir.DataType.FLOAT, [2])
    node = ir.node("Relu", [x], name=HOSTILE)
    node.outputs[0].name = f"{HOSTILE}/out"
    node.attributes["note"] = ir.AttrString("note", HOSTILE)
    model = ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name=HOSTILE), ir_version=10)
    return graph_page(outline(model), summarise(model))


def test_a_page_holds_the_whole_graph(small_model):
    """Every node, edge and total is in the page's data."""
    data = json.loads(read(graph_page(outline(small_model), summarise(small_model))).data)
    assert [node["op"] for node in data["nodes"]] == ["MatMul", "Relu", "MatMul"]
    assert [edge[:2] for edge in data["edges"]] == [[0, 1], [1, 2]]
    assert data["tensors"]["w0"] == {"dtype": "float32", "shape": [4, 5], "bytes": 80}
    assert data["operators"] == {"MatMul": 2, "Relu": 1}
    assert [info["name"] for info in data["inputs"]] == ["x"]


def test_names_of_a_graph_are_data_and_never_markup():
    """A name that ends a script or opens a tag changes nothing of the page's structure, and comes back unchanged."""
    page = read(hostile_page())
    assert json.loads(page.data)["nodes"][0]["name"] == HOSTILE
    ordinary = read(graph_page(outline(model_of_one_node()), summarise(model_of_one_node())))
    assert page.elements == ordinary.elements


def model_of_one_node() -> ir.Model:
    """Return a graph with one node."""
    x = ir.val("x", ir.DataType.FLOAT, [2])
    node = ir.node("Relu", [x], name="relu")
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 20}, name="g"), ir_version=10)


def test_a_page_asks_for_nothing_from_outside():
    """There is no address in the page, no element that loads one, and a policy that forbids it."""
    page = graph_page(outline(model_of_one_node()), summarise(model_of_one_node()))
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|import\(", page)
    parsed = read(page)
    assert not [attrs for _, attrs in parsed.elements if attrs.keys() & {"src", "href", "action"}]
    policy = [attrs["content"] for tag, attrs in parsed.elements if tag == "meta" and "http-equiv" in attrs]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_the_program_writes_text_and_not_markup():
    """No line of the page's program turns a string into elements or code."""
    page = graph_page(outline(model_of_one_node()), summarise(model_of_one_node()))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", page)


def test_nodes_of_a_subgraph_stand_in_a_module_of_their_own():
    """The branch of an If is a module beside the If."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool c, float[2] x) => (float[2] y) {
            y = If (c) <
                then_branch = a () => (float[2] p) { p = Relu(x) },
                else_branch = b () => (float[2] q) { q = Neg(x) }
            >
        }
    """
    model = ir.from_onnx_text(text)
    data = json.loads(read(graph_page(outline(model), summarise(model))).data)
    paths = {node["op"]: node["path"] for node in data["nodes"]}
    assert paths["If"] == []
    assert paths["Relu"][-1].endswith(": then_branch")
    assert paths["Neg"][-1].endswith(": else_branch")


@pytest.mark.parametrize("shape", [None, (), ("batch", 3)])
def test_any_shape_of_a_tensor_is_told(shape):
    """Unknown ranks, scalars and symbolic sizes survive the way into the page."""
    from dataclasses import replace

    found = outline(model_of_one_node())
    found = replace(found, inputs=(TensorInfo("x", "float32", shape),))
    data = json.loads(read(graph_page(found, literal.GRAPH)).data)
    assert data["inputs"][0]["shape"] == (None if shape is None else list(shape))
