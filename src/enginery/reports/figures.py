"""Numbers as people read them: three significant digits, a unit, a dash where there is nothing to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from enginery.records import BenchRecord, TensorInfo
from enginery.spec import Option, show_sizes

__all__ = [
    "NOTHING",
    "byte_size",
    "count",
    "duration",
    "error",
    "integer",
    "median_ms",
    "milliseconds",
    "options",
    "percent",
    "plural",
    "ratio",
    "shape",
    "tensor_shape",
]

NOTHING = "-"
_KIB = 1024
_EXACT_BELOW = 10_000
_LARGE = 100
_MINUTE_S = 60


def milliseconds(value: float | None) -> str:
    """Write a time in milliseconds with three significant digits.

    Example:
        >>> milliseconds(12.345), milliseconds(0.01234), milliseconds(1234.5)
        ('12.3', '0.0123', '1234')
    """
    return NOTHING if value is None else f"{value:.{_decimals(value)}f}"


def median_ms(bench: BenchRecord) -> str:
    """Write the median with half the width of its confidence interval; ``~`` before one that did not settle.

    Half the width is rounded up, so that it never looks narrower than it is.
    """
    half = max(bench.ci_high_ms - bench.p50_ms, bench.p50_ms - bench.ci_low_ms, 0.0)
    places = _decimals(bench.p50_ms)
    shown = math.ceil(round(half * 10**places, 6)) / 10**places
    return f"{'' if bench.stable else '~'}{bench.p50_ms:.{places}f} ±{shown:.{places}f}"


def _decimals(value: float) -> int:
    """Return how many decimals show three significant digits."""
    if value == 0 or not math.isfinite(value):
        return 2
    return max(2 - math.floor(math.log10(abs(value))), 0)


def byte_size(value: int | None) -> str:
    """Write a size with a binary unit.

    Example:
        >>> byte_size(900), byte_size(102_400_000)
        ('900 B', '97.7 MiB')
    """
    if value is None:
        return NOTHING
    if abs(value) < _KIB:
        return f"{value} B"
    size, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(size) < _KIB:
            break
        size, unit = size / _KIB, larger
    return f"{size:.{0 if size >= _LARGE else 1}f} {unit}"


def integer(value: float | None) -> str:
    """Write a whole number with separators; a small one keeps three significant digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if value >= _LARGE or value == int(value) else f"{value:.3g}"


def count(value: int | None) -> str:
    """Write a large count in short.

    Example:
        >>> count(25_557_032), count(640)
        ('25.6 M', '640')
    """
    if value is None:
        return NOTHING
    if abs(value) < _EXACT_BELOW:
        return str(value)
    size, unit = float(value), ""
    for larger in ("k", "M", "G", "T"):
        if abs(size) < 1000:  # noqa: PLR2004 - decimal prefixes
            break
        size, unit = size / 1000, larger
    return f"{size:.{0 if size >= _LARGE else 1}f} {unit}"


def plural(number: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> plural(1, "engine"), plural(3, "engine")
        ('1 engine', '3 engines')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def error(value: float | None) -> str:
    """Write an error: ``0`` where it is exactly that, else two significant digits."""
    if value is None:
        return NOTHING
    return "0" if value == 0 else f"{value:.1e}"


def ratio(value: float | None) -> str:
    """Write a speed-up."""
    return NOTHING if value is None else f"{value:.2f}x" if value < _LARGE else f"{value:.0f}x"


def percent(value: float | None) -> str:
    """Write a share as a percentage.

    Example:
        >>> percent(0.97777)
        '97.78 %'
    """
    return NOTHING if value is None else f"{100 * value:.2f} %"


def duration(seconds: float) -> str:
    """Write a time that people wait for.

    Example:
        >>> duration(3.21), duration(75)
        ('3.2 s', '1 min 15 s')
    """
    if seconds < 10:  # noqa: PLR2004 - tenths matter below ten seconds
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < _MINUTE_S else f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"


def shape(sizes: Iterable[int | str]) -> str:
    """Write sizes joined by ``x``; ``scalar`` where there are none."""
    return show_sizes(sizes)


def tensor_shape(info: TensorInfo) -> str:
    """Write the profile of an input, or else its shape."""
    if info.profile is not None:
        return str(info.profile)
    return "any rank" if info.shape is None else shape(info.shape)


def options(values: Mapping[str, Option]) -> str:
    """Write options as the command line takes them."""
    return " ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    )
