"""Latency against error as one picture: every candidate a point, those that nobody betters joined by a line."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from enginery.records import CandidateRecord, OptimizeRecord
from enginery.reports import figures

__all__ = ["frontier", "pareto_svg"]

_WIDTH, _HEIGHT = 880, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 250, 56, 64
_FLOOR = 1e-9
"""An error of 0, or below this, is drawn here: a logarithm has no place for it."""

_COLOURS = {
    "fp32": "#4c566a", "tf32": "#7a6a9b", "fp16": "#2a7f9e", "bf16": "#3f8f5f", "int8": "#c2571a", "fp8": "#a3386c",
}  # fmt: skip


def pareto_svg(record: OptimizeRecord) -> str:
    """Draw an SVG image of latency and error, both on logarithmic axes.

    Args:
        record: what `optimize` found; candidates that were not timed or not verified are left out.

    Returns:
        The image as text; it fetches nothing and runs nothing.
    """
    points = _points(record.candidates)
    scale = _Scale.of(points, _bound(record))
    head = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12" role="img"'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {head} aria-label="Latency against error">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 24, record.source, size=15, weight="bold"),
        _text(_LEFT, 42, record.words or f"chosen: {record.chosen}", size=11, colour="#555555"),
        *_axes(scale),
        *_bound_line(scale, _bound(record)),
        _line(scale, frontier(record.candidates)),
        *(_mark(scale, row) for row in points),
        *_labels(scale, points),
        "</svg>",
    ]
    return "\n".join(part for part in drawn if part) + "\n"


def frontier(rows: Sequence[CandidateRecord]) -> tuple[CandidateRecord, ...]:
    """Return the candidates that no other betters in both latency and error, the fastest first."""
    found: list[CandidateRecord] = []
    for row in sorted(_points(rows), key=lambda row: (_ms(row), _error(row))):
        if row.role == "candidate" and (not found or _error(row) < _error(found[-1])):
            found.append(row)
    return tuple(found)


@dataclass(frozen=True)
class _Scale:
    """The ends of both axes."""

    low_ms: float
    high_ms: float
    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[CandidateRecord], bound: float | None) -> _Scale:
        times = [_ms(row) for row in points] or [1.0]
        errors = [_error(row) for row in points] + ([bound] if bound else []) or [1e-3]
        low, high = min(errors), max(errors)
        return cls(min(times) / 1.25, max(times) * 1.25, low / 3, max(high * 3, low * 10))

    def x(self, ms: float) -> float:
        span = math.log(self.high_ms / self.low_ms)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(ms / self.low_ms) / span

    def y(self, error: float) -> float:
        span = math.log(self.high / self.low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log(error / self.low) / span


def _points(rows: Sequence[CandidateRecord]) -> list[CandidateRecord]:
    return [row for row in rows if row.bench is not None and row.verify is not None and math.isfinite(row.verify.error)]


def _ms(row: CandidateRecord) -> float:
    assert row.bench is not None  # noqa: S101 - a point is timed
    return row.bench.p50_ms


def _error(row: CandidateRecord) -> float:
    assert row.verify is not None  # noqa: S101 - a point is verified
    return max(row.verify.error, _FLOOR)


def _bound(record: OptimizeRecord) -> float | None:
    bounds = {row.verify.max_error for row in record.candidates if row.verify is not None}
    found = next(iter(bounds), math.inf)
    return found if 0 < found < math.inf else None


def _axes(scale: _Scale) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    drawn = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333333"/>']
    for ms in _ticks(scale.low_ms, scale.high_ms, (1, 2, 5)):
        x = scale.x(ms)
        drawn.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#eeeeee"/>')
        drawn.append(_text(x, bottom + 18, f"{ms:g}", anchor="middle"))
    for error in _ticks(scale.low, scale.high, (1,)):
        y = scale.y(error)
        drawn.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#eeeeee"/>')
        drawn.append(_text(_LEFT - 8, y + 4, "0" if error <= _FLOOR else f"{error:.0e}", anchor="end"))
    middle = (_TOP + bottom) / 2
    drawn.append(_text((_LEFT + right) / 2, bottom + 42, "median latency, ms", anchor="middle"))
    drawn.append(
        f'<text x="22" y="{middle:.0f}" text-anchor="middle" fill="#222222" '
        f'transform="rotate(-90 22 {middle:.0f})">error of the outputs</text>'
    )
    return drawn


def _ticks(low: float, high: float, steps: Sequence[int]) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _bound_line(scale: _Scale, bound: float | None) -> list[str]:
    if bound is None:
        return []
    y, right = scale.y(bound), _WIDTH - _RIGHT
    return [
        f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#b00020" stroke-dasharray="6 4"/>',
        _text(right - 4, y - 5, f"bound {figures.error(bound)}", anchor="end", colour="#b00020"),
    ]


def _line(scale: _Scale, rows: Sequence[CandidateRecord]) -> str:
    places = " ".join(f"{scale.x(_ms(row)):.1f},{scale.y(_error(row)):.1f}" for row in rows)
    return f'<polyline points="{places}" fill="none" stroke="#999999" stroke-width="1.5"/>' if places else ""


def _mark(scale: _Scale, row: CandidateRecord) -> str:
    x, y = scale.x(_ms(row)), scale.y(_error(row))
    colour = _COLOURS.get(row.precision, "#333333")
    error = row.verify.error if row.verify is not None else None
    said = f"{row.label}: {figures.milliseconds(_ms(row))} ms, error {figures.error(error)}"
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="none" stroke="#111111" stroke-width="2"/>'
    hollow = row.role != "candidate" or row.status == "rejected"
    fill = "#ffffff" if hollow else colour
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
    return f"<g><title>{html.escape(said)}</title>{ring if row.status == 'chosen' else ''}{dot}</g>"


def _labels(scale: _Scale, points: Sequence[CandidateRecord]) -> list[str]:
    """Name the chosen one and the frontier in a column at the right, each joined to its point."""
    best = set(map(id, frontier(points)))
    named = [row for row in points if id(row) in best or row.status == "chosen" or row.role != "candidate"]
    drawn, last = [], float(_TOP) - 16
    for row in sorted(named, key=lambda row: scale.y(_error(row))):
        x, y = scale.x(_ms(row)), scale.y(_error(row))
        place = max(y, last + 16)
        last = place
        edge = _WIDTH - _RIGHT + 14
        drawn.append(f'<path d="M{x + 7:.1f} {y:.1f}L{edge - 4} {place:.1f}" stroke="#cccccc" fill="none"/>')
        weight = "bold" if row.status == "chosen" else "normal"
        drawn.append(_text(edge, place + 4, row.label, weight=weight, colour=_COLOURS.get(row.precision, "#333333")))
    return drawn


def _text(
    x: float, y: float, said: str, *, anchor: str = "start", size: int = 12, weight: str = "normal",
    colour: str = "#222222",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}">{html.escape(said)}</text>'
    )
