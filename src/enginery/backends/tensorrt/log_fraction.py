"""How far a build has come, read from the builder's log: for versions before 10, which have no progress monitor.

At severity VERBOSE the builder says how many layers are left after each fusion, then names each layer as it times it;
nearly all of a build's time passes there, once for every optimisation profile.
"""

from __future__ import annotations

import re

__all__ = ["LogFraction"]

_LAYERS_LEFT = re.compile(r"^After (?:[\w-]+ )+?(?:removal|fusions|merging|optimization): (\d+) layers", re.IGNORECASE)
_TIMED = re.compile(r"^=+ Computing costs for (?P<layer>.+?)\s*$", re.MULTILINE)
_MARKS = (
    (re.compile(r"^Graph construction and optimization completed"), 0.05, "timing kernels"),
    (re.compile(r"^Formats and tactics selection completed"), 0.93, "assembling the engine"),
    (re.compile(r"^Engine generation completed"), 0.99, "writing the engine"),
)
_FIRST_LETTERS = frozenset("AGFE=")
_FIRST, _LAST = 0.05, 0.93
_NAME = 60


class LogFraction:
    """Reads one build's log line by line.

    Args:
        profiles: number of optimisation profiles; each layer is timed once for each.

    Example:
        >>> fraction = LogFraction(profiles=1)
        >>> fraction.take("After vertical fusions: 4 layers")
        (0.03, 'optimising the graph')
        >>> round(fraction.take("=============== Computing costs for conv1 + relu1")[0], 2)
        0.05
    """

    def __init__(self, profiles: int) -> None:
        self._profiles = profiles
        self._layers = 0
        self._timed = 0
        self._at = (0.0, "reading the graph")

    def take(self, line: str) -> tuple[float, str]:
        """Take a line; return how far the build is, 0 to 1, and what it does now."""
        if line[:1] not in _FIRST_LETTERS:  # of some hundred thousand lines nearly all
            return self._at
        mark = next(((at, phase) for pattern, at, phase in _MARKS if pattern.search(line)), None)
        if mark is not None:
            self._move(*mark)
        elif left := _LAYERS_LEFT.search(line):
            self._layers = int(left[1])
            self._move(0.03, "optimising the graph")
        elif timed := _TIMED.search(line):
            total = max(self._layers * self._profiles, self._timed + 1)
            self._move(_FIRST + (_LAST - _FIRST) * self._timed / total, f"timing {timed['layer'][:_NAME]}")
            self._timed += 1
        return self._at

    def _move(self, fraction: float, phase: str) -> None:
        self._at = max(self._at[0], fraction), phase
