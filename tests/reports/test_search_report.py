"""A search, a sensitivity and a picture of latency against error are rendered from records alone."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import literal_records as literal

from enginery.records import (
    DangerRecord,
    GroupSensitivityRecord,
    NodeSensitivityRecord,
    SearchRecord,
    SearchStepRecord,
    SensitivityRecord,
)
from enginery.reports.layout import Style
from enginery.reports.pareto import frontier, pareto_svg
from enginery.reports.text import optimize_text, search_text, sensitivity_text

DANGER = DangerRecord("overflow", "certain", "scores", "makes values up to 1e+05 in 'scores', which exceed 65504")
ROWS = tuple(
    NodeSensitivityRecord(
        f"/layer/{at}/Mul", "Mul", f"layer.{at}", f"layer.{at}", 1e5, (DANGER,) if at < 25 else (), 0.1
    )
    for at in range(40)
)
SENSITIVITY = SensitivityRecord(
    "fp16", float("inf"), 50, 40, ROWS, tuple(GroupSensitivityRecord(f"layer.{at}", (f"/layer/{at}/Mul",), 0.1, 0.9)
    for at in range(20)), 44, 2, "8 rows of data.npz", 3.0, ("1 node is in a subgraph",),
)  # fmt: skip
SEARCH = SearchRecord(
    "tensorrt fp16", ("tensorrt fp16+fp32",), "fp16", {"/layer/0/Mul": "fp32"}, {"/layer/0/Mul": DANGER.text}, 50,
    (SearchStepRecord("simulated", "all in fp16", 0, False, "error inf is above 1e-03", float("inf"), None, 0.1),  # noqa: FBT003
     SearchStepRecord("built", "keep 1 node", 1, True, "", 5e-4, 0.99999, 9.0, again=True)),  # noqa: FBT003
    SENSITIVITY, "FP16 except 1 node kept in FP32 (layer.0 Mul: values exceed 65504)", 12.0,
)  # fmt: skip


def test_a_sensitivity():
    """The worst dangers and groups are shown, and how many more there are."""
    text = sensitivity_text(SENSITIVITY, Style(160))
    assert "all 40 nodes in fp16: error inf" in text
    assert "1e+05" in text
    assert "(and 5 endangered nodes more in the record)" in text
    assert "(and 8 groups more in the record)" in text
    assert "44 tensors in 2 runs" in text
    calm = replace(SENSITIVITY, nodes=ROWS[25:], groups=(), notes=())
    assert "no value that was seen is in danger in fp16" in sensitivity_text(calm)


def test_a_search():
    """The paragraph, each step with its outcome, and each kept node with its reason."""
    text = search_text(SEARCH, Style(160))
    assert text.startswith("tensorrt fp16: FP16 except 1 node kept in FP32")
    steps = [line.split() for line in text.splitlines()]
    assert ["1", "simulated", "all", "in", "fp16", "0", "inf", "-", "no"] in steps
    assert ["2", "built,", "known", "keep", "1", "node", "1", "5.0e-04", "0.99999", "yes"] in steps
    assert "which exceed 65504" in text
    assert "all in fp16" not in search_text(SEARCH, Style(160), steps=False)


def test_it_stands_in_the_table_of_optimize():
    """The searches and the last words are in the text of a whole run."""
    record = replace(literal.optimized(), searches=(SEARCH,), words="FP16 except 1 node; 1.9x")
    text = optimize_text(record, Style(160))
    assert "tensorrt fp16: FP16 except 1 node kept in FP32" in text
    assert text.splitlines()[-1] == "FP16 except 1 node; 1.9x"


def test_the_picture():
    """It is well-formed, has a point for each candidate with figures, and names cannot break out of it."""
    record = replace(literal.optimized(), source="<script>alert(1)</script>")
    points = [row for row in record.candidates if row.bench and row.verify]
    root = ET.fromstring(pareto_svg(record))  # noqa: S314 - our own text
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(points)
    assert any(row.label in title for row in points for title in titles)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    best = frontier(record.candidates)
    assert [row.bench.p50_ms for row in best] == sorted(row.bench.p50_ms for row in best)
    assert [row.verify.error for row in best] == sorted((row.verify.error for row in best), reverse=True)
    empty = replace(record, candidates=())
    assert ET.fromstring(pareto_svg(empty)) is not None  # noqa: S314 - our own text
