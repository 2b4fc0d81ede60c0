"""Recorded inputs read as a stream: folders of files, iterables, and never many rows at a time."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.errors import DataError
from enginery.inputs.recorded import stream_data
from enginery.records import TensorInfo
from enginery.spec import Shape

IMAGE = TensorInfo("image", "float32", ("n", 3, 4, 4), profile=Shape.parse("1..8..8x3x4x4"))


def rows(count: int, start: int = 0):
    """Return rows that hold their own number."""
    return np.arange(start, start + count, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 4, 4), np.float32)


def test_no_more_is_read_than_is_needed():
    """The first batch comes after a few hundred single rows of ten thousand, and the order stays."""
    read = []

    def loader():
        for at in range(10_000):
            read.append(at)
            yield rows(1, at)

    batches = stream_data(loader(), [IMAGE])
    first = next(batches)
    assert first.feeds["image"].shape == (8, 3, 4, 4)
    assert len(read) < 300
    seen = [first.feeds["image"], *(case.feeds["image"] for case in batches)]
    assert np.concatenate(seen)[:, 0, 0, 0].tolist() == list(range(10_000))


def test_batches_that_do_not_divide():
    """What is left of one item goes on with the next; a batch too short at the end is told of."""
    fixed = TensorInfo("image", "float32", (8, 3, 4, 4), profile=Shape.parse("8x3x4x4"))
    told = []
    cases = list(stream_data((rows(100, at) for at in range(0, 700, 100)), [fixed], say=told.append))
    assert [len(case.feeds["image"]) for case in cases] == [8] * 87
    assert np.concatenate([case.feeds["image"] for case in cases])[:, 0, 0, 0].tolist() == list(range(696))
    assert told == ["the generator: the last 4 of 188 rows are left out: the engine takes no batch so short"]


def test_a_folder_of_archives(tmp_path):
    """In the order of their names, each as it would be by itself."""
    for at in range(3):
        np.savez(tmp_path / f"{at}.npz", image=rows(2, 2 * at), labels=np.arange(2 * at, 2 * at + 2))
    (case,) = stream_data(tmp_path, [IMAGE])
    assert case.feeds["image"][:, 0, 0, 0].tolist() == case.labels.tolist() == list(range(6))


def test_labels_that_nobody_reads(tmp_path):
    """May be anything, in a folder, an archive, from a loader or an iterable; where they are read they may not."""
    targets = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", rows(4))
    np.save(folder / "labels.npy", targets)
    np.savez(tmp_path / "one.npz", image=rows(4), labels=targets)
    python = tmp_path / "loader.py"
    python.write_text("import numpy\ndef pairs(): return [(numpy.zeros((4, 3, 4, 4), 'f4'), [{}, [1]])]\n")
    for data in (folder, tmp_path / "one.npz", f"{python}:pairs", [(rows(4), [{"boxes": 1}, [2, 3]])]):
        (case,) = stream_data(data, [IMAGE], labels=False)
        assert case.feeds["image"].shape == (4, 3, 4, 4)
        assert case.labels is None
        with pytest.raises(DataError):
            list(stream_data(data, [IMAGE]))


def test_a_folder_of_pictures(tmp_path):
    """A row each, from 0 to 1; a model of two inputs takes none."""
    image = pytest.importorskip("PIL.Image")
    for at in range(3):
        image.fromarray(np.full((4, 4, 3), 85 * at, np.uint8)).save(tmp_path / f"{at}.png")
    (case,) = stream_data(tmp_path, [IMAGE])
    assert case.feeds["image"][:, 0, 0, 0] == pytest.approx([0, 1 / 3, 2 / 3])
    other = TensorInfo("mask", "float32", ("n", 4), profile=Shape.parse("1..8..8x4"))
    with pytest.raises(DataError, match=r"0\.png is a picture, and the model has 2 inputs"):
        list(stream_data(tmp_path, [IMAGE, other]))


def test_what_is_no_data():
    """Neither a path nor something to iterate over; or an iterable that fails on the way."""
    with pytest.raises(DataError, match=r"a int is no data; name an \.npz"):
        list(stream_data(7, [IMAGE]))

    def failing():
        yield rows(1)
        raise ValueError("the disk is gone")

    with pytest.raises(DataError, match="the generator failed: ValueError: the disk is gone"):
        list(stream_data(failing(), [IMAGE]))
