"""Tables, facts and footnotes as plain text."""

from __future__ import annotations

import pytest

from enginery.reports.figures import byte_size, count, duration, integer, milliseconds, ratio
from enginery.reports.layout import Column, Style, facts, footnotes, join, paragraph, table


def test_cells_are_never_markup():
    """Square brackets and colons of a cell are shown as they are."""
    text = table([Column("name")], [["[bold]x[/bold] :smile:"]])
    assert "[bold]x[/bold] :smile:" in text


def test_a_long_cell_wraps_and_a_number_does_not():
    """Only a column that may wrap takes several lines."""
    text = table(
        [Column("name", wraps=True), Column("n", right=True)], [["one two three four five", "1,234"]], Style(26)
    )
    assert "1,234" in text
    assert len(text.splitlines()) > 3


def test_columns_of_the_highest_rank_go_first():
    """A page that is too narrow loses the least telling column, and says so."""
    columns = [Column("a"), Column("b" * 10, rank=1), Column("c" * 10, rank=2)]
    text = table(columns, [["1", "2", "3"]], Style(20))
    assert "b" * 10 in text
    assert text.endswith(f"(left out at this width: {'c' * 10})")


def test_facts_leave_out_what_is_empty_and_hang_the_rest():
    """A value that is too long goes on under itself."""
    text = facts([("key", "word " * 20), ("none", "")], Style(50))
    assert all(line.startswith("     word") for line in text.splitlines()[1:])
    assert "none" not in text


def test_footnotes_keep_line_breaks_and_long_words():
    """A log's lines stay lines, and a path is never cut."""
    path = "/a/very/long/path/" + "x" * 60
    text = footnotes([f"first\n{path}"], Style(40))
    assert text.splitlines()[0] == "[1] first"
    assert path in text


def test_join_and_paragraph():
    """Empty blocks leave no gap."""
    assert join("a", "", "b") == "a\n\nb"
    assert paragraph("") == ""


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (milliseconds(None), "-"),
        (milliseconds(0.0), "0.00"),
        (byte_size(2**40), "1.0 TiB"),
        (count(1_500_000_000_000), "1.5 T"),
        (integer(float("inf")), "-"),
        (integer(12.34), "12.3"),
        (ratio(250.4), "250x"),
        (duration(59.7), "1 min 0 s"),
    ],
)
def test_figures_at_the_edges(shown, expected):
    """Numbers at the edges of their forms."""
    assert shown == expected
