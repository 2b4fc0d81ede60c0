"""On disk: whole or not at all, and checked before use."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from enginery import staging, storage
from enginery.errors import (
    DiskFullError,
    EngineFolderError,
    HashMismatchError,
    ManifestError,
    OutputError,
    OutputExistsError,
)


def test_a_folder_appears_whole(tmp_path):
    """The folder has its name only after the block ended well."""
    with storage.new_folder(tmp_path / "a.engine") as part:
        (part / "x").write_text("1")
        assert not (tmp_path / "a.engine").exists()
    assert (tmp_path / "a.engine" / "x").read_text() == "1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.engine"]
    assert stat.S_IMODE((tmp_path / "a.engine").stat().st_mode) & 0o500 == 0o500


def test_a_failure_leaves_nothing(tmp_path):
    """An error in the block leaves neither the folder nor the temporary one."""
    with pytest.raises(KeyboardInterrupt), storage.new_folder(tmp_path / "a.engine") as part:
        (part / "x").write_text("1")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_replaced_and_others_are_not(tmp_path):
    """An engine folder gives way to a new one; a folder of other things and a file are left alone."""
    old = tmp_path / "a.engine"
    old.mkdir()
    (old / storage.MANIFEST).write_text("{}")
    with storage.new_folder(old) as part:
        (part / "new").write_text("1")
    assert [entry.name for entry in old.iterdir()] == ["new"]
    with pytest.raises(OutputExistsError, match="is a folder with other things in it; name another"):
        storage.refuse_to_replace(old)
    (tmp_path / "file").write_text("1")
    with pytest.raises(OutputExistsError, match="is a file; name a folder"):
        storage.refuse_to_replace(tmp_path / "file")


def test_a_file_appears_whole(tmp_path):
    """A text file replaces the old one in one step; a failure keeps the old one."""
    path = tmp_path / "a.json"
    storage.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), storage.new_file(path) as part:
        part.write_text("new")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, DiskFullError, "no space is left to write .*free some space"),
        (errno.EROFS, OutputError, "cannot write .*name an output folder that you may write to"),
        (errno.EACCES, OutputError, "cannot write"),
    ],
)
def test_refusals_of_the_system(tmp_path, number, kind, said):
    """A full disk and a folder that may not be written to are errors of their own, with a mend."""
    with pytest.raises(kind, match=said), storage.new_folder(tmp_path / "a.engine"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_hashes_find_a_changed_file(tmp_path):
    """A changed, cut or missing file is named, with what was expected."""
    (tmp_path / "model.bin").write_bytes(b"abc")
    files = storage.record_files(tmp_path)
    storage.check_files(tmp_path, files)
    (tmp_path / "model.bin").write_bytes(b"abd")
    with pytest.raises(HashMismatchError, match=r"model\.bin hashes to .* the manifest says"):
        storage.check_files(tmp_path, files)
    (tmp_path / "model.bin").write_bytes(b"ab")
    with pytest.raises(HashMismatchError, match="has 2 bytes, the manifest says 3"):
        storage.check_files(tmp_path, files)
    (tmp_path / "model.bin").unlink()
    with pytest.raises(HashMismatchError, match="is missing, and the manifest lists it"):
        storage.check_files(tmp_path, files)


def test_a_manifest_cannot_name_a_file_outside(tmp_path):
    """A manifest that names a file outside its folder is refused, even where that file exists."""
    (tmp_path / "secret").write_text("1")
    folder = tmp_path / "a.engine"
    folder.mkdir()
    files = {"../secret": storage.record_files(tmp_path)["secret"]}
    with pytest.raises(HashMismatchError, match="is missing"):
        storage.check_files(folder, files)


def test_folders_that_are_no_engine(tmp_path):
    """No folder, no manifest and an unreadable manifest are three different errors."""
    with pytest.raises(EngineFolderError, match="there is no engine folder"):
        storage.read_manifest(tmp_path / "none")
    with pytest.raises(ManifestError, match=r"holds no engine\.json, so it is no engine folder"):
        storage.read_manifest(tmp_path)
    (tmp_path / storage.MANIFEST).write_text("{")
    with pytest.raises(ManifestError, match="this is not JSON"):
        storage.read_manifest(tmp_path)


def test_an_engine_behind_a_link_is_replaced_where_it_is(tmp_path):
    """A link to an engine folder goes on pointing at the engine, which is the new one, and nothing else is left."""
    real, link = tmp_path / "disk" / "a.engine", tmp_path / "a.engine"
    for text in ("old", "new"):
        with storage.new_folder(link if text == "new" else real) as folder:
            (folder / storage.MANIFEST).write_text(text)
        if text == "old":
            link.symlink_to(real)
    assert link.is_symlink()
    assert (real / storage.MANIFEST).read_text() == "new"
    assert [path.name for path in real.parent.iterdir()] == ["a.engine"]


def test_a_refusal_that_names_a_file_elsewhere_passes_through(tmp_path):
    """A source that may not be read is not called an output that cannot be written."""
    refusal = PermissionError(errno.EACCES, "Permission denied", "/models/net.onnx")
    with pytest.raises(PermissionError), staging.writing(tmp_path / "net.engine"):
        raise refusal
