"""What else kept the machine busy while a benchmark ran, from ``/proc/stat`` (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from enginery.machine import cpu_count
from enginery.processes import own_cpu_seconds
from enginery.records import LoadRecord

__all__ = ["LoadWatch", "Snapshot", "take_snapshot"]

_BUSY_SHARE = 0.05
_STEAL_SHARE = 0.01
_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class Snapshot:
    """Processor time so far, in seconds over all processors.

    Args:
        total: of any kind; 0 where the system does not tell.
        busy: spent on a process or on the system's own work.
        steal: that the host gave to other machines.
        own: spent by this benchmark's own processes.
    """

    total: float
    busy: float
    steal: float
    own: float


def take_snapshot(pids: Iterable[int] = (), *, stat: Path = Path("/proc/stat")) -> Snapshot:
    """Read the machine's processor time, and that of this process, its children that ended, and the living `pids`."""
    own = own_cpu_seconds(pids)
    try:
        first = stat.read_text(encoding="utf-8").split("\n", 1)[0].split()
    except OSError:
        return Snapshot(0.0, 0.0, 0.0, own)
    ticks = os.sysconf("SC_CLK_TCK")
    # The fields after these, guest time, are part of user and nice already.
    spent = dict(zip(_FIELDS, (int(field) / ticks for field in first[1:]), strict=False))
    total, steal = sum(spent.values()), spent.get("steal", 0.0)
    return Snapshot(total, total - spent.get("idle", 0.0) - spent.get("iowait", 0.0) - steal, steal, own)


class LoadWatch:
    """Watches the machine from its making to `record`.

    Args:
        pids: asked for the living worker processes whenever it looks.
        snapshot: takes the figures; another one for tests.
    """

    def __init__(
        self,
        pids: Callable[[], Iterable[int]] = tuple,
        *,
        snapshot: Callable[[Iterable[int]], Snapshot] = take_snapshot,
    ) -> None:
        self._pids = pids
        self._snapshot = snapshot
        self._begin = snapshot(pids())

    def record(self) -> LoadRecord:
        """Return what others used since the watch began, with a warning where it matters."""
        begin, end = self._begin, self._snapshot(self._pids())
        total = end.total - begin.total
        if total <= 0:
            return LoadRecord(cpu_count(), None, _load_average(), None)
        own = end.own - begin.own
        others = min(max((end.busy - begin.busy - own) / total, 0.0), 1.0)
        steal = max((end.steal - begin.steal) / total, 0.0)
        return LoadRecord(cpu_count(), others, _load_average(), steal, tuple(_warnings(others, steal)))


def _warnings(others: float, steal: float) -> Iterable[str]:
    if others > _BUSY_SHARE:
        yield f"other processes used {others:.0%} of the processors during the benchmark: repeat it on an idle machine"
    if steal > _STEAL_SHARE:
        yield f"the host took {steal:.0%} of the processors during the benchmark: figures vary with its other guests"


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
