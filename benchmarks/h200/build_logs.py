"""Where the seconds of a build went, by the log that it kept."""

from __future__ import annotations

import re

__all__ = ["time_spent"]

_LINE = re.compile(r"\[ *(\d+\.\d+)\] \w+: (.*)")


def time_spent(log: str) -> dict[str, float]:
    r"""Say how many kernels a build of TensorRT 8 timed, and how long it spent on that and on everything else.

    A line stands for the time since the one before it: TensorRT writes each kernel's time when it has it.

    Example:
        >>> time_spent("[   1.000] INFO: a\n[   1.500] VERBOSE: Tactic: 0x1 Time: 0.02\n[   3.000] INFO: b\n")
        {'kernels_timed': 1, 'timing_s': 0.5, 'other_s': 2.5}
    """
    before = timing = 0.0
    timed = 0
    for at, text in (match.groups() for match in map(_LINE.match, log.splitlines()) if match is not None):
        if "Tactic" in text and " Time: " in text:
            timed += 1
            timing += float(at) - before
        before = float(at)
    return {"kernels_timed": timed, "timing_s": round(timing, 3), "other_s": round(before - timing, 3)}
