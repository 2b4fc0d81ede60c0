"""A function that a user names is imported and called, and what goes wrong in it is told as theirs."""

from __future__ import annotations

import sys

import pytest

from enginery.errors import SourceError, SourceNotFoundError
from enginery.sources.factory import call_factory


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file, its neighbour and a package; the current folder."""
    (tmp_path / "net.py").write_text(
        "from dataclasses import dataclass\n"
        "from neighbour import VALUE\n"
        "print('importing')\n"
        "@dataclass\n"
        "class Net:\n"
        "    value: int = VALUE\n"
        "def make_net(): return Net()\n"
        "def broken():\n"
        "    return {}['weights']\n"
        "def needs(size): return size\n"
        "READY = 7\n"
    )
    (tmp_path / "neighbour.py").write_text("VALUE = 42\n")
    (tmp_path / "bad.py").write_text("import json\nx = 1 / 0\n")
    (tmp_path / "wants.py").write_text("import no_such_library_here\n")
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "kit_of_nets").mkdir()
    (tmp_path / "kit_of_nets" / "__init__.py").write_text("")
    (tmp_path / "kit_of_nets" / "small.py").write_text("def make(): return 'small'\n")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_may_import_its_neighbours_and_print_to_stderr(folder, capsys):
    """`file.py:factory` works from anywhere, leaves `sys.path` as it was and keeps stdout free."""
    path = list(sys.path)
    assert call_factory(f"{folder}/net.py:make_net").value == 42
    assert call_factory("net.py:Net").value == 42
    assert call_factory("net.py:READY") == 7
    assert sys.path == path
    found = capsys.readouterr()
    assert found.out == ""
    assert "importing" in found.err


@pytest.mark.usefixtures("folder")
def test_a_package_of_the_current_folder():
    """`package.module:factory` looks in the current folder too."""
    assert call_factory("kit_of_nets.small:make") == "small"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nets.py:make", SourceNotFoundError, r"there is no file nets\.py; did you mean 'net\.py'"),
        ("net.py:make_ned", SourceNotFoundError, r"net\.py has no 'make_ned'; did you mean 'net\.py:make_net'\?"),
        ("net.py:zzz", SourceNotFoundError, "it has: Net, broken, make_net, needs"),
        ("net.py", SourceError, r"net\.py names no factory; name the function .*: net\.py:Net or net\.py:make_net or"),
        (
            "no_such_kit.small:make",
            SourceNotFoundError,
            "there is no module 'no_such_kit', asked for as no_such_kit.small",
        ),
        ("kit_of_nets.large:make", SourceNotFoundError, "there is no module 'kit_of_nets.large'"),
        ("net.py:broken", SourceError, r"raised KeyError: 'weights' at net\.py:9, in broken: return \{\}\['weights'\]"),
        ("net.py:needs", SourceError, r"calling net\.py:needs\(\) raised TypeError: .*missing 1 required positional"),
        (
            "bad.py:make",
            SourceError,
            r"importing bad\.py raised ZeroDivisionError: .* at bad\.py:2, in <module>: x = 1 / 0",
        ),
        ("wants.py:make", SourceError, "raised ModuleNotFoundError: No module named 'no_such_library_here'"),
        ("syntax.py:make", SourceError, r"importing syntax\.py raised SyntaxError"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_errors_name_the_place_and_the_mend(text, error, message):
    """A missing file, module or function suggests the nearest; an error inside is quoted with its line."""
    with pytest.raises(error, match=message) as caught:
        call_factory(text)
    assert type(caught.value) is error


def test_factories_of_modules(folder):
    """A factory gives a module, or a module and its example inputs; anything else is refused by its type."""
    torch = pytest.importorskip("torch")
    from enginery.sources import open_source

    (folder / "made.py").write_text(
        "import torch\n"
        "def alone(): return torch.nn.Linear(2, 1)\n"
        "def both(): return torch.nn.Linear(2, 1), {'input': torch.ones(1, 2)}\n"
        "def wrong(): return 'a text'\n"
        "ready = torch.nn.ReLU()\n"
    )
    alone = open_source("made.py:alone", example_inputs=torch.ones(3, 2))
    assert alone.label == "torch module Linear (made.py:alone)"
    assert alone.framework == f"PyTorch {torch.__version__.partition('+')[0]} eager"
    assert alone.example_feeds()["input"].shape == (3, 2)
    assert open_source("made.py:both").example_feeds()["input"].shape == (1, 2)
    assert open_source("made.py:ready").label == "torch module ReLU (made.py:ready)"
    with pytest.raises(SourceError, match=r"made\.py:wrong returned a str, which is no trained model .*let it return"):
        open_source("made.py:wrong")
