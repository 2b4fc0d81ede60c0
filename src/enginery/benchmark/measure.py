"""Session + inputs → BenchRecord, in this process and without company: the simple case."""

from __future__ import annotations

import time

from enginery.backends.base import Feeds, Session
from enginery.benchmark.base import Entry, call_timer, time_in_turns
from enginery.errors import EngineryError
from enginery.records import BenchRecord
from enginery.spec import BenchSpec

__all__ = ["measure"]


def measure(
    session: Session, feeds: Feeds, spec: BenchSpec | None = None, *, load_ms: float | None = None
) -> BenchRecord:
    """Time an opened session; its first call is timed apart.

    Args:
        session: any; nothing else should run in this process meanwhile.
        feeds: one array for each input by name.
        spec: when to stop.
        load_ms: how long opening took, for the record.

    Raises:
        InputError: the feeds do not fit.
        RunError: the session failed.
    """
    begin = time.perf_counter()
    session.run(feeds)
    first_call_ms = (time.perf_counter() - begin) * 1e3
    entry = Entry(call_timer(lambda: session.run(feeds)), session.placement, first_call_ms, load_ms)
    record = time_in_turns({"": entry}, feeds, spec or BenchSpec())[""]
    if isinstance(record, EngineryError):
        raise record
    return record
