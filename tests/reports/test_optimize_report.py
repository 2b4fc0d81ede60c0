"""The table of `optimize`: complete, readable at any width, plain when piped."""

from __future__ import annotations

from dataclasses import replace

import literal_records as literal
import pytest

from enginery.reports.text import Style, next_steps_text, optimize_text

WIDTHS = (80, 100, 140)


def squeezed(text: str) -> str:
    """Return a text with every run of blanks made one."""
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_asked(width):
    """Every line fits the width."""
    lines = optimize_text(literal.optimized(), Style(width)).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_candidate_and_reason_is_there_uncut(width):
    """Each label has a row, each reason stands in full, and nothing was cut short with dots."""
    text = optimize_text(literal.optimized(), Style(width))
    flat = squeezed(text)
    for row in literal.CANDIDATES:
        assert all(word in text for word in row.label.split())
        assert squeezed(row.reason) in flat
    assert "…" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_piped_table_has_no_escape_codes(width):
    """Without colour there is no escape character and no trailing blank."""
    text = optimize_text(literal.optimized(), Style(width))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_colours_are_written_on_request_and_mark_the_chosen_row():
    """With colour the chosen row is bold and green, and the words are the same."""
    text = optimize_text(literal.optimized(), Style(140, colour=True))
    marked = [line for line in text.splitlines() if "\x1b[1;32m" in line]
    assert len(marked) == 1
    assert "openvino" in marked[0]
    assert "chosen" in marked[0]


def test_the_figures_of_a_row_are_right():
    """The chosen row shows median, interval, rows a second, both speed-ups, error, size and status."""
    text = optimize_text(literal.optimized(), Style(140))
    chosen = next(line for line in text.splitlines() if line.startswith(">"))
    assert chosen.split() == [
        ">", "openvino", "fp32", "20.0", "±0.1", "400", "3.00x", "2.00x", "2.1e-07", "97.3", "MiB", "chosen", "[1]",
    ]  # fmt: skip


def test_an_unstable_median_is_marked_and_explained():
    """A median that did not settle has a ~, and a line under the table says what that means."""
    text = optimize_text(literal.optimized(), Style(140))
    assert "~50.0" in text
    assert "~ marks medians that did not settle within the time limit: onnxruntime threads=1" in text


def test_a_failed_row_has_dashes_and_its_reason():
    """A candidate that failed shows no figures."""
    text = optimize_text(literal.optimized(), Style(140))
    failed = next(line for line in text.splitlines() if "failed" in line)
    assert failed.split().count("-") == 6


def test_rows_that_failed_alike_share_a_note():
    """The reason stands once, under the names of all of them."""
    record = literal.optimized()
    alike = [
        replace(literal.CANDIDATES[-1], label=f"tried {at}", status="failed", reason="a strange operator")
        for at in (1, 2)
    ]
    text = optimize_text(replace(record, candidates=(*record.candidates, *alike)), Style(140))
    assert squeezed(text).count(squeezed("a strange operator")) == 1
    assert squeezed("tried 1, tried 2: a strange operator") in squeezed(text)


def test_what_was_compared_is_said():
    """The reference, the inputs, the shape, both baselines, the machine and the notes stand under the table."""
    flat = squeezed(optimize_text(literal.optimized()))
    assert "against torch module ResNet, on random (normal, seed 0) at min, opt, max; at most 1.0e-03" in flat
    assert "image 8x3x224x224 (batch 8)" in flat
    assert "source framework = PyTorch 2.13.0 eager; ORT = onnxruntime, plain" in flat
    assert "176 nodes, 124 after simplification" in flat
    assert "A Processor, 2 cores" in flat
    assert "timed beside other work" in flat


def test_accuracy_has_a_column_only_where_there_are_labels():
    """Without labels there is no accuracy; with them each row and the reference have theirs."""
    assert "accuracy" not in optimize_text(literal.optimized())
    labelled = tuple(
        replace(row, verify=replace(row.verify, accuracy=0.965, reference_accuracy=0.97)) if row.verify else row
        for row in literal.CANDIDATES
    )
    text = optimize_text(literal.optimized(labelled), Style(140))
    assert "96.50 %" in text
    assert "of the reference: 97.00 %" in text


def test_what_says_nothing_has_no_column():
    """Without a source framework there is no speed-up over it; the precision is always told."""
    rows = tuple(row for row in literal.CANDIDATES if row.precision == "fp32" and row.backend)
    text = optimize_text(literal.optimized(rows))
    heading = text.splitlines()[2]
    assert "vs source" not in heading
    assert "precision" in heading


def test_columns_left_out_are_named():
    """On a narrow page the least telling columns go, and a line says which."""
    text = optimize_text(literal.optimized(), Style(80))
    assert "(left out at this width: " in text
    assert "(left out at this width: " not in optimize_text(literal.optimized(), Style(140))


def test_next_steps_name_the_engine_and_its_inputs():
    """The line to run the engine can be copied."""
    text = next_steps_text(literal.optimized())
    assert "enginery run resnet50.engine image=image.npy -o outputs.npz" in text
    assert 'enginery.load("resnet50.engine")' in text


def test_the_precision_built_stands_beside_the_one_asked_for():
    """A candidate that computes in one precision throughout has one word; any other says what was read back."""
    record = literal.optimized()
    rows = [row for row in record.candidates if row.build is not None]
    mixed = replace(rows[0], build=replace(rows[0].build, precision_built={"fp32": 3, "int8": 24}), precision="int8")
    text = optimize_text(replace(record, candidates=(mixed, *rows[1:])), Style(160))
    assert "int8 (3 fp32+24 int8)" in text
    assert "fp32 (" not in text
