"""Pictures as inputs. The one place that uses Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from enginery.dtypes import is_float, numpy_dtype
from enginery.errors import DataError, InputDtypeError, InputRankError
from enginery.inputs.arrays import shown_input
from enginery.inputs.base import Array
from enginery.optional import require
from enginery.records import TensorInfo
from enginery.spec import Dim

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "load_picture"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
"""File names that are taken for pictures."""

_MODES = {1: "L", 3: "RGB"}
_RANK = 4


class _Layout(NamedTuple):
    channels: int
    height: Dim | None
    width: Dim | None
    channels_last: bool


def load_picture(
    path: str | Path,
    info: TensorInfo,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Array:
    """Read a picture as one row of an input.

    It is turned upright by its EXIF tag, made grey or RGB as the input has 1 or 3 channels (transparency is dropped),
    and resized with antialiased bilinear filtering. A dynamic side keeps the picture's own length where the profile
    allows it, else takes the opt length.

    Args:
        path: of a PNG, JPEG or BMP of 8 bits a channel.
        info: an input of shape (batch, channels, height, width), or with the channels last; the axis of 1 or 3 tells.
        mean: for each channel or for all, on the scale 0..1; only for floats.
        std: divides what is left; only for floats.
        say: told where the picture is resized.

    Returns:
        An array of shape (1, C, H, W) or (1, H, W, C) that the caller owns: uint8 holds 0..255, floats
        ``(value / 255 - mean) / std``, so 0..1 without `mean` and `std`.

    Raises:
        MissingExtraError: Pillow is not installed.
        DataError: there is no such picture, it is damaged, or has more than 8 bits.
        InputRankError: the input is not shaped like a picture.
        InputDtypeError: the input takes neither uint8 nor floats, or `mean` or `std` is given for uint8.
    """
    layout = _layout(info)
    if info.dtype != "uint8" and not is_float(info.dtype):
        raise InputDtypeError(
            f"input {info.name!r} takes {info.dtype}, a picture is uint8 or floats",
            mend="give the array in an npy file",
        )
    pixels = _pixels(Path(path), layout, say)
    if info.dtype == "uint8":
        if mean is not None or std is not None:
            raise InputDtypeError(f"input {info.name!r} takes uint8, which has no mean or std", mend="leave them out")
    else:
        scaled = (pixels.astype(np.float32) / 255 - _channels(mean, 0.0)) / _channels(std, 1.0)
        pixels = scaled.astype(numpy_dtype(info.dtype))
    return np.ascontiguousarray(pixels if layout.channels_last else pixels.transpose(2, 0, 1))[None]


def _channels(value: float | Sequence[float] | None, default: float) -> Array:
    return np.asarray(default if value is None else value, np.float32)


def _layout(info: TensorInfo) -> _Layout:
    """Find the channels: the second axis where its size is 1 or 3, else the last."""
    if info.profile is not None:
        dims: tuple[Dim | None, ...] = info.profile.dims
    else:
        dims = tuple(Dim.fixed(dim) if isinstance(dim, int) else None for dim in info.shape or ())
    if len(dims) == _RANK:
        for axis in (1, 3):
            dim = dims[axis]
            if dim is not None and not dim.dynamic and dim.opt in _MODES:
                height, width = (dims[2], dims[3]) if axis == 1 else (dims[1], dims[2])
                return _Layout(dim.opt, height, width, channels_last=axis == 3)  # noqa: PLR2004 - the last axis
    raise InputRankError(
        f"input {shown_input(info)} is not shaped like a picture",
        mend="a picture fits batch x channels x height x width, or channels last, with 1 or 3 channels",
    )


def _pixels(path: Path, layout: _Layout, say: Callable[[str], None]) -> Array:
    """Return the picture as uint8 of shape (height, width, channels)."""
    image = require("PIL.Image", extra="pictures", why="to read pictures")
    operations = require("PIL.ImageOps", extra="pictures", why="to read pictures")
    try:
        with image.open(path) as opened:
            if opened.mode in ("I", "F") or opened.mode.startswith("I;"):
                raise DataError(f"{path} has more than 8 bits a channel ({opened.mode})", mend="save it with 8 bits")
            picture: Image.Image = operations.exif_transpose(opened).convert(_MODES[layout.channels])
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", mend="check the path") from error
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture: {error}", mend="check that it opens elsewhere") from error
    size = (_side(picture.width, layout.width), _side(picture.height, layout.height))
    if picture.size != size:
        say(f"{path} is resized from {picture.width}x{picture.height} to {size[0]}x{size[1]} (width x height)")
        picture = picture.resize(size, image.Resampling.BILINEAR)
    return np.asarray(picture, np.uint8).reshape(size[1], size[0], layout.channels)


def _side(own: int, dim: Dim | None) -> int:
    return own if dim is None or own in dim else dim.opt
