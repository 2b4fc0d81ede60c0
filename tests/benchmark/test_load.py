"""What else kept the machine busy: the whole machine's time less our own."""

from __future__ import annotations

import os
import time

import pytest

from enginery.benchmark.load import LoadWatch, Snapshot, take_snapshot


def watch(*snapshots):
    """Return a watch that sees these, one after another."""
    found = iter(snapshots)
    return LoadWatch(snapshot=lambda _pids: next(found))


def test_others_are_what_is_not_ours():
    """Busy time less our own, as a share of all processors' time, with a warning."""
    record = watch(Snapshot(100, 50, 0, 10), Snapshot(200, 110, 0, 50)).record()
    assert record.others_busy == pytest.approx(0.2)
    assert record.steal == 0
    assert record.notes == (
        "other processes used 20% of the processors during the benchmark: repeat it on an idle machine",
    )


def test_an_idle_machine_has_no_notes():
    """Counting by ticks may give a little less than nothing: that is nothing."""
    record = watch(Snapshot(100, 50, 0, 10), Snapshot(200, 70, 0, 31)).record()
    assert (record.others_busy, record.notes) == (0.0, ())


def test_what_the_host_takes_is_told():
    """Steal is a share of its own."""
    record = watch(Snapshot(100, 0, 0, 0), Snapshot(200, 0, 3, 0)).record()
    assert record.steal == pytest.approx(0.03)
    assert record.notes[0].startswith("the host took 3% of the processors")


def test_a_system_that_does_not_tell_is_unknown():
    """Without /proc the shares are None, not zero."""
    record = watch(Snapshot(0, 0, 0, 1), Snapshot(0, 0, 0, 2)).record()
    assert (record.others_busy, record.steal) == (None, None)
    assert record.cpus >= 1


def test_proc_stat_is_read_in_seconds(tmp_path):
    """The first line's fields, in ticks; guest time is not counted twice."""
    stat = tmp_path / "stat"
    tick = os.sysconf("SC_CLK_TCK")
    fields = [10 * tick, tick, 2 * tick, 80 * tick, 5 * tick, 0, tick, tick, 7 * tick, 0]
    stat.write_text("cpu  " + " ".join(map(str, fields)) + "\ncpu0 1 1\n")
    found = take_snapshot(stat=stat)
    assert (found.total, found.busy, found.steal) == (100, 14, 1)
    assert take_snapshot(stat=tmp_path / "none").total == 0


def test_our_own_work_is_ours():
    """The processor time of this process is counted as our own."""
    before = take_snapshot()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert 0.05 < take_snapshot().own - before.own < 5
