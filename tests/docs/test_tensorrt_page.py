"""The options in docs/tensorrt.md are those of the code; ``python tests/docs/test_tensorrt_page.py`` writes them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from enginery.backends.tensorrt import options
from enginery.backends.tensorrt.options import RULES, SESSION_OPTIONS
from enginery.caches import cache_folder, cache_path
from enginery.errors import PrecisionMismatchError

PAGE = Path(__file__).parents[2] / "docs" / "tensorrt.md"
BEGIN, END = "<!-- options -->", "<!-- end of options -->"
SAID = {
    "version_compatible": "Later versions open the plan too.",
    "exclude_lean_runtime": "A version-compatible plan does not bring the runtime that opens it.",
    "hardware_compatibility": "GPUs that run the engine besides the one it is built on.",
    "weight_streaming": "Weights may stay on the host, for models larger than the GPU's memory.",
    "gpu_fallback": "Layers that the deep-learning accelerator lacks run on the GPU.",
    "sparse_weights": "Kernels for weights of which two in four are zero are tried too.",
    "profiling": "Layers are named to NVIDIA's tools.",
}
"""What has no comment of its own in the code, or one that needs its neighbours."""


def comments() -> dict[str, str]:
    """Return the comment above each option in the source."""
    lines = Path(options.__file__).read_text().splitlines()
    found, above = {}, []
    for line in lines:
        if line.strip().startswith("# "):
            above.append(line.strip()[2:])
        elif (name := re.match(r' {4}"(\w+)": OptionRule', line)) is not None:
            found[name[1]] = " ".join(above)
            above = []
        else:
            above = []
    return found


def table() -> str:
    """Return a row for each option."""
    rows = ["| option | default | values | what it does |", "|---|---|---|---|"]
    told = comments() | SAID
    for name, rule in RULES.items():
        kind = " \\| ".join(f"`{word}`" for word in rule.choices) or {bool: "true, false", int: "a number"}.get(
            type(rule.default), "text"
        )
        default = str(rule.default).lower() if isinstance(rule.default, bool) else rule.default
        mark = f"{kind}; *session*" if name in SESSION_OPTIONS else kind
        shown = f"`{default}`" if default != "" else "empty"
        rows.append(f"| `{name}` | {shown} | {mark} | {told[name]} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """Return the page with the table of the code between its marks."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", page, flags=re.DOTALL)


def test_the_table_is_that_of_the_code():
    """An option that is added, renamed or given another default changes the page too, and none goes untold."""
    page = PAGE.read_text()
    assert page == written(page), f"run: python {Path(__file__).relative_to(PAGE.parents[1])}"
    told = comments() | SAID
    assert [name for name in RULES if not told.get(name)] == []
    assert set(SAID) <= set(RULES)


def test_what_the_page_says_of_caches_and_codes(monkeypatch, tmp_path):
    """Folders and exit codes are those of the code."""
    page = PAGE.read_text()
    monkeypatch.setenv("ENGINERY_CACHE", str(tmp_path))
    assert cache_path() == tmp_path
    sources = "".join(path.read_text() for path in Path(options.__file__).parent.glob("*.py"))
    used = {ast.literal_eval(text) for text in re.findall(r'cache_folder\(("\w+")\)', sources)}
    assert used == set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))
    assert cache_folder("logs").is_dir()
    assert f"with exit code {PrecisionMismatchError.exit_code}," in page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
    sys.exit(0)
