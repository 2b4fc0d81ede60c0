"""The tables of docs/trtexec.md are those of the code; ``python tests/docs/test_trtexec_page.py`` writes them anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from enginery.cli.flags import Flag, Tool
from enginery.cli.onnx2trt import ONNX2TRT
from enginery.cli.trtexec_flags import TRTEXEC

PAGE = Path(__file__).parents[2] / "docs" / "trtexec.md"


def row(flag: Flag) -> str:
    """Return the row of one flag."""
    also = "".join(f", `--{alias}`" for alias in flag.aliases)
    here = f"refused: {flag.here}; {flag.mend}" if flag.mend else flag.here
    cells = (f"`{flag.spelt}`{also}", flag.versions or "-", here)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('*', chr(92) + '*') for cell in cells)} |"


def tables(tool: Tool) -> str:
    """Return the tables of a tool's flags, one for each heading of its help."""
    parts = []
    for title, flags in tool.groups:
        parts += [f"### {title}", "", "| flag | trtexec | here |", "|---|---|---|", *map(row, flags), ""]
    return "\n".join(parts)


def written(page: str) -> str:
    """Return the page with the tables of the code between its marks."""
    for tool in (TRTEXEC, ONNX2TRT):
        begin, end = f"<!-- flags of {tool.name} -->", f"<!-- end of {tool.name} -->"
        text = f"{begin}\n\n{tables(tool)}\n{end}"
        page = re.sub(f"{begin}.*{end}", lambda _, text=text: text, page, flags=re.DOTALL)
    return page


def test_the_tables_are_those_of_the_code():
    """A flag that is added, renamed or refused changes the page too."""
    page = PAGE.read_text()
    assert page == written(page), f"run: python {Path(__file__).relative_to(PAGE.parents[1])}"
    for tool in (TRTEXEC, ONNX2TRT):
        assert all(row(flag) in page for flag in tool.flags)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit(0)
