"""``enginery view``: the graph as a page of our own, to be opened in a browser, online or not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import rich_click as click

from enginery.cli import options
from enginery.errors import EngineFolderError, UsageError

__all__ = ["command"]

_NETRON_NOTE = (
    "Netron is another project's program: its page calls out to the network (where you are, usage statistics), "
    "and it refuses to start 180 days after its release"
)


@click.command("view")
@click.argument("path")
@options.output("PAGE.html", "Where the page goes. Default: the model's name with .html, here.")
@click.option("--no-open", is_flag=True, help="Write the page, and open no browser.")
@click.option(
    "--netron", is_flag=True,
    help="Open it in Netron instead, where installed. It calls out to the network, and stops working 180 days after its"
    " release.",
)  # fmt: skip
def command(path: str, *, output: str | None, no_open: bool, netron: bool) -> None:
    """Write a page that shows the graph, and open it.

    PATH is an ONNX file, or an engine folder that holds one. The page is one file and needs no network.

    Example: enginery view model.onnx -o model.html --no-open
    """
    file = graph_file(Path(path))
    if netron:
        _run_netron(file, browse=not no_open and has_display())
        return
    page = Path(output) if output is not None else Path(f"{Path(path).stem}.html")
    if page.suffix not in (".html", ".htm"):
        raise UsageError(f"{page} is no name for a page", mend=f"name it {page.with_suffix('.html')}")
    _write_page(file, page)
    print(page)
    if not no_open and has_display():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def graph_file(path: Path) -> Path:
    """Return the ONNX file to show: `path` itself, or the one in an engine folder.

    Raises:
        EngineFolderError: the engine's artefact is no ONNX file.
    """
    if not path.is_dir():
        return path
    from enginery import storage

    manifest = storage.read_manifest(path)
    storage.check_files(path, manifest.files)
    names = [name for name in manifest.files if name.endswith(".onnx")]
    if not names:
        mend = f"view what it was built from: {manifest.source}" if manifest.source else "view what it was built from"
        raise EngineFolderError(f"{path} holds no ONNX graph ({manifest.backend} keeps its own form)", mend=mend)
    return path / names[0]


def has_display() -> bool:
    """Say whether a browser could open a window here."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _write_page(file: Path, page: Path) -> None:
    from enginery import storage
    from enginery.cli.output import to_stderr
    from enginery.graph import files, outline, summary
    from enginery.graph.infer import infer_shapes
    from enginery.reports.graph_page import graph_page

    with to_stderr():
        model = files.load(file)
        infer_shapes(model)
        text = graph_page(outline.outline(model), summary.summarise(model))
        storage.write_text(page, text)


def _run_netron(file: Path, *, browse: bool) -> None:
    from enginery import optional

    netron = optional.require("netron", extra="view", why="to open a graph in Netron")
    print(f"note: {_NETRON_NOTE}", file=sys.stderr)
    netron.start(str(file), browse=browse)
    netron.wait()
