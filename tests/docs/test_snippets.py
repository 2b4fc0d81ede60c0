"""Every snippet of README and docs runs: shell commands and Python alike, in the order in which they stand.

A block fenced as ``bash`` or ``python`` runs here, in a folder that holds the repository's examples and benchmarks. A
block fenced as ``shell`` sets up a clone, and runs in the slow tests, from a clean clone of the committed state.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
)
FRAMEWORKS = ("torch", "transformers", "tensorflow", "keras", "tensorrt_rtx")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, *kinds: str) -> list[tuple[str, str]]:
    """Return the language and text of each block of a page, in order."""
    return [(kind, body) for kind, body in FENCE.findall((ROOT / page).read_text()) if kind in kinds]


def lacking(said: str) -> str:
    """Return the framework that a block could not import; empty where that is not why it failed."""
    named = re.search(r"No module named '(\w+)'|^error: (\w+) is not installed", said, re.MULTILINE)
    name = (named[1] or named[2]) if named else ""
    return name if name in FRAMEWORKS and importlib.util.find_spec(name) is None else ""


def environment() -> dict[str, str]:
    """Return the environment of a user whose virtual environment is active."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "default"}


@pytest.fixture
def workplace(tmp_path):
    """Return a folder with the repository's examples and benchmarks, to be written to freely."""
    for name in ("examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash", "python")])
def test_snippets_run(page, workplace):
    """Each command and each Python block of a page succeeds, one after another, in one folder.

    Where an optional framework is missing, the blocks that need it are left out, and the skip says so.
    """
    missing = []
    for kind, body in blocks(page, "bash", "python"):
        command = ["bash", "-euo", "pipefail", "-c", body] if kind == "bash" else [sys.executable, "-c", body]
        done = subprocess.run(command, cwd=workplace, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode and (lacks := lacking(done.stderr)):
            missing.append(lacks)
            continue
        assert done.returncode == 0, f"{page}:\n{body}\n{done.stdout}\n{done.stderr}"
    if missing:
        pytest.skip(f"all blocks ran but {len(missing)}, for want of {', '.join(sorted(set(missing)))}")


@pytest.mark.parametrize("page", PAGES)
def test_fences_name_a_language_that_is_known(page):
    """A block is run (bash, python, shell) or shown (text, and data); no block escapes by another name."""
    text = (ROOT / page).read_text()
    kinds = re.findall(r"^```(\w*)$", text, re.MULTILINE)[::2]
    assert set(kinds) <= {"bash", "python", "shell", "text", "json", "toml"}, kinds


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    """Each relative link of a page leads to a file of the repository."""
    for target in re.findall(r"\]\(([^)#:\s]+)[^)]*\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which does not exist"


@pytest.mark.slow
def test_setup_from_a_clean_clone(tmp_path):
    """The README's set-up commands work in a clean clone with nothing but Python, make and pip."""
    subprocess.run([shutil.which("git"), "clone", "--quiet", str(ROOT), str(tmp_path / "enginery")], check=True)
    for _, body in blocks("README.md", "shell"):
        script = "\n".join(line for line in body.splitlines() if not line.startswith(("git clone", "cd ", "make test")))
        subprocess.run([shutil.which("bash"), "-euo", "pipefail", "-c", script], cwd=tmp_path / "enginery", check=True)
