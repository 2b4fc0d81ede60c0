"""`view`: writes our own page, opens it where there is a display, and says what Netron does."""

from __future__ import annotations

import webbrowser
from types import SimpleNamespace

import onnx_ir as ir
import pytest

from enginery import optional
from enginery.cli.main import main


@pytest.fixture
def model(tmp_path, small_model, monkeypatch):
    """Return the path of a saved model, in the current folder."""
    monkeypatch.chdir(tmp_path)
    ir.save(small_model, "small.onnx")
    return "small.onnx"


@pytest.fixture
def opened(monkeypatch):
    """Return the list of addresses that a browser was asked for."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setenv("DISPLAY", ":0")
    return addresses


def test_the_page_is_written_and_opened(model, opened, tmp_path, capsys):
    """Its path is printed, and a browser is asked for it."""
    assert main(["view", model]) == 0
    page = tmp_path / "small.html"
    assert "MatMul" in page.read_text()
    assert capsys.readouterr().out == "small.html\n"
    assert opened == [page.as_uri()]


def test_no_browser_without_a_display_or_on_request(model, opened, monkeypatch):
    """--no-open, and a machine without a display, only write the page."""
    assert main(["view", model, "--no-open", "-o", "page.html"]) == 0
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert main(["view", model]) == 0
    assert opened == []


@pytest.mark.usefixtures("opened")
def test_an_engine_that_keeps_no_graph_says_where_it_came_from(model, capsys):
    """The null backend keeps no ONNX file."""
    assert main(["build", model, "-o", "small.engine", "--backend", "null", "--in-process"]) == 0
    assert main(["view", "small.engine"]) == 50
    assert "view what it was built from" in capsys.readouterr().err


@pytest.mark.usefixtures("opened")
def test_a_page_has_the_name_of_a_page(model, capsys):
    """Anything but .html is refused."""
    assert main(["view", model, "-o", "page.pdf"]) == 2
    assert "page.html" in capsys.readouterr().err


@pytest.mark.usefixtures("opened")
def test_netron_is_run_and_what_it_does_is_said(model, monkeypatch, capsys):
    """--netron starts it, with a note on its calls to the network and on its 180 days."""
    started: list[tuple[str, bool]] = []
    netron = SimpleNamespace(start=lambda file, *, browse: started.append((file, browse)), wait=lambda: None)
    monkeypatch.setattr(optional, "require", lambda *_args, **_kwargs: netron)
    assert main(["view", model, "--netron"]) == 0
    said = capsys.readouterr().err
    assert started == [(model, True)]
    assert "calls out to the network" in said
    assert "180 days" in said


@pytest.mark.usefixtures("opened")
def test_netron_that_is_missing_has_its_line(model, monkeypatch, capsys):
    """Where it is not installed, the pip line is told."""
    monkeypatch.setitem(__import__("sys").modules, "netron", None)
    assert main(["view", model, "--netron"]) == 4
    assert 'pip install "enginery[view]"' in capsys.readouterr().err
