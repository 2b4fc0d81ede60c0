"""Pictures as inputs."""

from __future__ import annotations

import numpy as np
import pytest

from enginery.errors import DataError, InputDtypeError, InputRankError, MissingExtraError
from enginery.inputs.recorded import load_feeds, load_picture
from enginery.records import TensorInfo
from enginery.spec import Shape

image = pytest.importorskip("PIL.Image")

NCHW = TensorInfo("input", "float32", ("batch", 3, 4, 6))
NHWC = TensorInfo("input", "uint8", ("batch", 4, 6, 3))
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def picture(tmp_path):
    """Save the pixels as a PNG, six wide and four high."""
    image.fromarray(PIXELS).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_channels_first_and_floats(picture):
    """Floats are 0..1, channels first, in one row that is the caller's."""
    array = load_picture(picture, NCHW)
    assert (array.shape, array.dtype) == ((1, 3, 4, 6), np.float32)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert np.allclose(array[0], PIXELS.transpose(2, 0, 1) / 255)


def test_channels_last_and_bytes(picture):
    """Bytes stay as they are, channels last."""
    array = load_picture(picture, NHWC)
    assert (array.shape, array.dtype) == ((1, 4, 6, 3), np.uint8)
    assert np.array_equal(array[0], PIXELS)


def test_mean_and_std(picture):
    """The usual normalisation, for each channel."""
    array = load_picture(picture, NCHW, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    expected = (PIXELS / 255 - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.25, 0.5])
    assert np.allclose(array[0], expected.transpose(2, 0, 1), atol=1e-6)
    with pytest.raises(InputDtypeError, match="takes uint8, which has no mean or std"):
        load_picture(picture, NHWC, mean=0.5)


@pytest.mark.parametrize(
    ("profile", "shape"),
    [
        ("1..2..4x3x2x2", (1, 3, 2, 2)),
        ("1..2..4x3x2..3..8x2..3..8", (1, 3, 4, 6)),
        ("1..2..4x3x1..2x1..3..5", (1, 3, 2, 3)),
    ],
)
def test_sides_follow_the_profile(profile, shape, picture):
    """A fixed side is resized to; a dynamic one keeps the picture's own where it may, else takes opt."""
    info = TensorInfo("input", "float32", ("b", 3, "h", "w"), Shape.parse(profile))
    assert load_picture(picture, info).shape == shape
    assert load_picture(picture, TensorInfo("input", "float32", ("b", 3, "h", "w"))).shape == (1, 3, 4, 6)


def test_grey_and_turned_pictures(tmp_path):
    """One channel is grey; a picture that its camera turned stands upright; transparency is dropped."""
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    rotated = image.fromarray(grey)
    exif = rotated.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    rotated.save(tmp_path / "turned.png", exif=exif)
    array = load_picture(tmp_path / "turned.png", TensorInfo("x", "uint8", ("b", 1, "h", "w")))
    assert np.array_equal(array[0, 0], np.rot90(grey, -1))
    image.fromarray(np.dstack([PIXELS, np.zeros((4, 6), np.uint8)])).save(tmp_path / "clear.png")
    assert np.array_equal(load_picture(tmp_path / "clear.png", NHWC)[0], PIXELS)


def test_what_is_no_picture_is_refused(tmp_path, picture):
    """Missing, damaged and deep pictures, and inputs of another form, are refused in words."""
    with pytest.raises(DataError, match=r"there is no file .*gone\.png"):
        load_picture(tmp_path / "gone.png", NCHW)
    (tmp_path / "bad.png").write_bytes(picture.read_bytes()[:50])
    with pytest.raises(DataError, match=r"bad\.png cannot be read as a picture"):
        load_picture(tmp_path / "bad.png", NCHW)
    image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        load_picture(tmp_path / "deep.png", NCHW)
    with pytest.raises(InputRankError, match=r"input 'x' float32 1x5x4x4 is not shaped like a picture; a picture fits"):
        load_picture(picture, TensorInfo("x", "float32", (1, 5, 4, 4)))
    with pytest.raises(InputDtypeError, match="input 'x' takes int64, a picture is uint8 or floats"):
        load_picture(picture, TensorInfo("x", "int64", (1, 3, 4, 4)))


def test_pictures_make_a_batch(picture, tmp_path):
    """Several pictures are the rows of one call, if they have one size."""
    feeds = load_feeds([picture, picture, f"input={picture}"], [NCHW])
    assert feeds["input"].shape == (3, 3, 4, 6)
    image.fromarray(PIXELS[:2]).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="pictures of input 'x' have different sizes: 1x3x4x6, 1x3x2x6"):
        load_feeds([picture, tmp_path / "small.png"], [TensorInfo("x", "float32", ("b", 3, "h", "w"))])


def test_without_pillow_the_extra_is_named(picture, monkeypatch):
    """Where Pillow is missing, the pip line is the mend."""
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r'PIL is not installed.*pip install "enginery\[pictures\]"'):
        load_picture(picture, NCHW)
