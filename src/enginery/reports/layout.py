"""How a text report is laid out: tables that never cut a figure, facts with hanging indents, numbered footnotes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

__all__ = ["PLAIN", "Column", "Style", "facts", "footnotes", "join", "paragraph", "table"]

_GAP = 2
_WRAPPED_WIDTH = 18
_LONG_WORD = 32


@dataclass(frozen=True)
class Style:
    """What a text is rendered for.

    Args:
        width: columns of the terminal, or of the page.
        colour: whether escape codes may be written; never where the text is piped.
    """

    width: int = 120
    colour: bool = False


PLAIN = Style()


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        title: its heading.
        right: aligned to the right, as numbers are.
        wraps: a long cell may take several lines; any other cell keeps to one.
        rank: when the page is too narrow, the columns of the highest rank are left out first; 0 stays.
    """

    title: str
    right: bool = False
    wraps: bool = False
    rank: int = 0


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    style: Style = PLAIN,
    *,
    marked: Collection[int] = (),
) -> str:
    """Render a table; cells hold plain text, which is never read as markup.

    Args:
        columns: headings and alignment.
        rows: cells in the order of the columns.
        style: width and colour.
        marked: indices of the rows that stand out.

    Returns:
        Lines without trailing blanks. Where columns had to be left out, a last line names them.

    Example:
        >>> print(table([Column("name"), Column("ms", right=True)], [["a", "12.5"], ["b", "3.1"]]))
        name    ms
        ──────────
        a     12.5
        b      3.1
    """
    kept = _fitting(columns, rows, style.width)
    left_out = [column.title for column in columns if column not in kept]
    places = [columns.index(column) for column in kept]
    text = _render(kept, [[row[at] for at in places] for row in rows], style, marked)
    if left_out:
        text += "\n" + paragraph(f"(left out at this width: {', '.join(left_out)})", style)
    return text


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[Column]:
    needed = {}
    for at, column in enumerate(columns):
        lines = [line for cell in (column.title, *(row[at] for row in rows)) for line in cell.splitlines()]
        longest = max(map(len, lines), default=0)
        word = max((len(word) for line in lines for word in line.split()), default=0)
        needed[column] = min(longest, max(_WRAPPED_WIDTH, min(word, _LONG_WORD))) if column.wraps else longest
    kept = list(columns)
    while sum(needed[column] + _GAP for column in kept) - _GAP > width:
        worst = max(kept, key=lambda column: column.rank)
        if worst.rank == 0:
            break
        kept.remove(worst)
    return kept


def _render(columns: Sequence[Column], rows: Sequence[Sequence[str]], style: Style, marked: Collection[int]) -> str:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rule = Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
    drawn = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
    for column in columns:
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            min_width=None if column.wraps else _longest(column, columns, rows),
            overflow="fold",
        )
    for at, row in enumerate(rows):
        drawn.add_row(*map(Text, row), style="bold green" if at in marked else "")
    console = Console(
        file=io.StringIO(), width=style.width, force_terminal=style.colour, highlight=False, legacy_windows=False,
        color_system="standard" if style.colour else None, no_color=not style.colour,
    )  # fmt: skip
    with console.capture() as capture:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _longest(column: Column, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    at = columns.index(column)
    return max(len(column.title), *(len(row[at]) for row in rows)) if rows else len(column.title)


def paragraph(text: str, style: Style = PLAIN, *, indent: str = "", first: str | None = None) -> str:
    """Wrap a text at the width, keeping its own line breaks; long words such as paths are never cut."""
    lines: list[str] = []
    for at, line in enumerate(text.splitlines() or [""]):
        lines += textwrap.wrap(
            line,
            max(style.width, 40),
            initial_indent=(indent if first is None else first) if at == 0 else indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def facts(pairs: Iterable[tuple[str, str]], style: Style = PLAIN) -> str:
    """Render names and values, one a line; a pair without a value is left out, a long value hangs.

    Example:
        >>> print(facts([("nodes", "12"), ("opset", "18"), ("nothing", "")]))
        nodes  12
        opset  18
    """
    told = [(name, value) for name, value in pairs if value]
    wide = max((len(name) for name, _ in told), default=0) + _GAP
    return "\n".join(paragraph(value, style, indent=" " * wide, first=name.ljust(wide)) for name, value in told)


def footnotes(notes: Sequence[str], style: Style = PLAIN) -> str:
    """Render notes with their numbers, ``[1]`` first."""
    wide = len(f"[{len(notes)}] ")
    return "\n".join(
        paragraph(note, style, indent=" " * wide, first=f"[{number}] ".ljust(wide))
        for number, note in enumerate(notes, 1)
    )


def join(*blocks: str) -> str:
    """Put blocks under each other with a blank line between them; empty ones are left out."""
    return "\n\n".join(block for block in blocks if block)
