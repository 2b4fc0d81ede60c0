"""What the system tells of a process: its memory, its processor time; and dying with a parent. Linux; else None.

Read from ``/proc`` (proc(5)), so that nothing has to be installed for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

__all__ = ["anonymous_bytes", "cpu_seconds", "die_with_parent", "exit_code", "kill_group", "own_cpu_seconds"]

_PR_SET_PDEATHSIG = 1
_COUNTED = ("RssAnon:", "RssShmem:", "VmSwap:")
_UTIME, _STIME = 11, 12  # after the name, where the third field of proc(5) is number 0


def anonymous_bytes(pid: int) -> int | None:
    """Return the memory that only this process's end would give back; None where the system does not tell.

    Pages of mapped files (a model's weights) are left out: the system can drop and read them again.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(_COUNTED)]
    return sum(sizes) if sizes else None


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a process has used, all its threads together; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK")


def own_cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time of this process, of its children that have ended, and of the living `pids`."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(used for pid in pids if (used := cpu_seconds(pid)) is not None)


def die_with_parent(parent: int) -> None:
    """Ask the system to kill this process when its parent dies (prctl(2), ``PR_SET_PDEATHSIG``).

    Args:
        parent: the process id of the parent, which may have died before the question was asked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def exit_code(pid: int) -> int | None:
    """Return how a child ended (minus the signal that killed it), or None while it lives.

    The child is left to be reaped: until then nobody else can get its id, and its group can safely be killed.
    """
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def kill_group(pid: int) -> None:
    """Kill a process group; does nothing where it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
