"""What is told of the first node that diverges."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from enginery.plain import from_json, to_json
from enginery.records import CutRecord, DivergenceRecord, NodeRecord, SmallestRecord
from enginery.reports.divergence_report import divergence_text
from enginery.reports.layout import Style

CUTS = (
    CutRecord(0, "", "", 0),
    CutRecord(3, "/mask/Where", "Where", 2, "mask", 1.0, 3e38, harm=2e-5),
    CutRecord(5, "/layer/MatMul", "MatMul", 1, failure="it takes no graph like that", good=False),
    CutRecord(6, "/layer/Softmax", "Softmax", 1, "p", math.inf, math.inf, nan=12, good=False, harm=math.inf),
)
SMALLEST = SmallestRecord("out", 3, {"Mul": 2, "Exp": 1}, {"x": (1, 4)}, 0.5, "enginery build out/model.onnx")
FOUND = DivergenceRecord(
    reference="m.onnx", case="opt", max_error=1e-3, kind="jump", nodes=(NodeRecord("/layer/Softmax", "Softmax"),),
    tensor="p", error=math.inf, error_before=1e-5, own_error=0.5, inherited_error=1e-5, confirmed=True,
    said="/layer/Softmax (Softmax): its output is off", cuts=CUTS, builds=9, smallest=SMALLEST, seconds=12.0,
)  # fmt: skip


def test_the_node_the_cuts_and_the_smallest_model_are_told():
    """Each in its place; what was harmless or could not be built says so."""
    text = divergence_text(FOUND)
    assert text.startswith("first node that diverges: /layer/Softmax (Softmax): its output is off")
    assert "harmless: it moves the outputs by 2.0e-05" in text
    assert "not built" in text
    assert "beyond 12 NaN" in text
    assert "out: 3 nodes (Mul x2, Exp), error 5.0e-01" in text
    assert "enginery build out/model.onnx" in text
    assert "12 s, 9 builds" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_it_fits(width):
    """On a narrow terminal columns are left out, never figures."""
    lines = divergence_text(FOUND, Style(width)).splitlines()
    assert max(map(len, lines)) <= width


def test_where_nothing_was_found_it_says_why():
    """No node, no second cut, no smallest model."""
    none = replace(FOUND, kind="", nodes=(), said="an engine built again agrees", confirmed=None, smallest=None)
    text = divergence_text(none)
    assert text.startswith("no node was found: an engine built again agrees")
    assert "second cut" not in text


def test_the_record_survives_json():
    """Infinities too."""
    assert from_json(DivergenceRecord, to_json(FOUND)) == FOUND
