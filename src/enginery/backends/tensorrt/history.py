"""How long earlier builds took, kept in the user's cache folder, and how long a similar one will take."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import exp, log, log2
from pathlib import Path

from enginery.caches import cache_folder, changed_alone
from enginery.storage import write_text

__all__ = ["Work", "expected_s", "remember"]

_KEPT = 200
_NEAREST = 3
_TOO_FAR = 4.0
_FLOPS_WEIGHT = 0.25


@dataclass(frozen=True)
class Work:
    """How large one build is, as far as its duration depends on it.

    Args:
        library: module and version, such as ``tensorrt 8.6.0``.
        gpu: name of the GPU; empty for a build ahead of time.
        layers: layers of the network.
        flops: operations of one run at the optimum shapes; 0 where not known.
        precision: as asked for.
        level: optimisation level; -1 for the library's own.
        profiles: number of optimisation profiles.
        warm: whether an earlier build's timings were there.
    """

    library: str
    gpu: str
    layers: int
    precision: str
    flops: int = 0
    level: int = -1
    profiles: int = 1
    warm: bool = False


def expected_s(work: Work) -> float | None:
    """Return how long a build will take, from the nearest earlier ones; None where none is near."""
    scored = sorted((_distance(work, earlier), seconds * _scale(work, earlier)) for earlier, seconds in _read())
    near = [seconds for distance, seconds in scored[:_NEAREST] if distance <= _TOO_FAR]
    if not near:
        return None
    return exp(sum(log(max(seconds, 1e-3)) for seconds in near) / len(near))


def remember(work: Work, seconds: float) -> None:
    """Keep how long a build took; of many the newest are kept.

    Raises:
        OutputError: the cache folder cannot be written to.
    """
    path = _path()
    with changed_alone(path):
        rows = [{**asdict(earlier), "seconds": taken} for earlier, taken in _read()]
        rows.append({**asdict(work), "seconds": round(seconds, 3)})
        write_text(path, json.dumps(rows[-_KEPT:], indent=0))


def _path() -> Path:
    return cache_folder() / "tensorrt-builds.json"


def _read() -> list[tuple[Work, float]]:
    try:
        rows = json.loads(_path().read_text(encoding="utf-8"))
        return [(Work(**{key: row[key] for key in row if key != "seconds"}), float(row["seconds"])) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # no builds yet, or a file of another version of Enginery: only an estimate is lost


def _distance(work: Work, earlier: Work) -> float:
    """Return how unlike two builds are: each thing that differs counts, and each doubling of the size."""
    differing = (
        (work.library != earlier.library) + 2 * (work.gpu != earlier.gpu) + (work.precision != earlier.precision)
        + (work.level != earlier.level) + 2 * (work.warm != earlier.warm)
    )  # fmt: skip
    return differing + abs(log2(_scale(work, earlier))) + _FLOPS_WEIGHT * _doublings(work.flops, earlier.flops)


def _doublings(one: int, other: int) -> float:
    """Return how often one number is doubled to get the other; 0 where one is not known."""
    return abs(log2(one / other)) if one > 0 and other > 0 else 0.0


def _scale(work: Work, earlier: Work) -> float:
    return _size(work) / _size(earlier)


def _size(work: Work) -> float:
    return max(work.layers, 1) * max(work.profiles, 1)
