"""The gallery's models as graphs, exported once and kept in a folder, for the export takes most of the time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import enginery
from benchmarks.gallery.catalogue import ENTRIES

if TYPE_CHECKING:
    from benchmarks.gallery.entry import Entry

__all__ = ["export_all", "export_missing", "exported", "slug"]

ROOT = Path(__file__).parents[2]


def slug(entry: Entry) -> str:
    """Return an entry's name as that of a file."""
    return entry.name.replace(" ", "_").replace("/", "_")


def exported(folder: Path) -> Iterator[tuple[Entry, Path]]:
    """Yield each entry whose graph is in a folder, with its path."""
    for entry in ENTRIES:
        path = folder / slug(entry) / "gallery.onnx"
        if path.is_file():
            yield entry, path


def export_all(folder: Path) -> None:
    """Export every entry that is not in the folder yet; a crash costs the entry that was under way alone."""
    command = [sys.executable, "-m", "benchmarks.converter_torture", "--export-gallery", str(folder)]
    while subprocess.run(command, cwd=ROOT, check=False).returncode < 0:  # ended by a signal
        pass


def export_missing(folder: Path) -> None:
    """Export, in this process, every entry that was not tried yet; what an entry raises is written beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in ENTRIES:
        final = folder / slug(entry)
        if final.exists():
            continue
        final.mkdir()
        try:
            _export(entry, final)
        except Exception as error:  # noqa: BLE001 - whatever a framework raises is the reason that is kept
            (final / "failed.txt").write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
        print(f"{entry.name}: {'exported' if (final / 'gallery.onnx').is_file() else 'failed'}", flush=True)


def _export(entry: Entry, final: Path) -> None:
    """Make and export one entry beside where it will lie, so that what is cut short looks like nothing."""
    with tempfile.TemporaryDirectory(prefix="export-", dir=final) as name:
        made = entry.make(Path(name))
        shapes = {name: enginery.Shape.parse(text) for name, text in entry.shapes.items()}
        part = final / "part"
        part.mkdir()
        enginery.export(
            made.thing, part / "gallery.onnx", shapes=shapes, simplify=True, example_inputs=made.example_inputs,
            make_dynamic=entry.make_dynamic,
        )  # fmt: skip
    for path in part.iterdir():
        shutil.move(path, final / path.name)
    part.rmdir()
