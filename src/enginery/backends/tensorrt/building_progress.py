"""How far a build has come: from TensorRT's progress monitor where it has one (10 and later), else from its log.

The fraction is announced to whoever listens (`enginery.progress.announce`) and never goes back. The time that earlier
similar builds took (`history`) goes with it, so that the end can be foretold before much is done. Cancelling goes
through the monitor as well: what a listener raises, and Ctrl-C, make it tell TensorRT to stop.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from enginery.backends.tensorrt import history
from enginery.backends.tensorrt.log import BuildLog, LogLine
from enginery.backends.tensorrt.log_fraction import LogFraction
from enginery.backends.tensorrt.phases import Phases
from enginery.backends.tensorrt.versions import Api
from enginery.errors import OutputError
from enginery.progress import Advance, Listener, listener

__all__ = ["following"]

_EVERY_S = 0.2
_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PHASE = 100


@contextlib.contextmanager
def following(
    api: Api, config: Any, log: BuildLog, *, work: history.Work | None = None, expected_s: float | None = None
) -> Iterator[None]:
    """Announce how far the build within the block has come.

    Args:
        api: the library that builds.
        config: the ``IBuilderConfig`` of the build, whose progress monitor is set where it can have one.
        log: the build's log.
        work: how large the build is; its duration is looked up before and kept after, where it ends without an error.
        expected_s: how long it will take, where the caller knows better.

    Raises:
        BaseException: what a listener raised (a time limit), or KeyboardInterrupt: the build was cancelled.
    """
    if expected_s is None and work is not None:
        expected_s = history.expected_s(work)
    follower = _Follower(listener(), expected_s)
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(log.kept())
        stack.callback(follower.raise_what_stopped)
        if api.find("IProgressMonitor") is not None:
            stack.enter_context(_monitored(api, config, follower))
        else:
            stack.enter_context(_read_from(log, follower, int(config.num_optimization_profiles)))
        stack.enter_context(_signals_held(follower))
        yield
        follower.tell(1.0, "built", at_once=True)
    if work is not None:
        try:
            history.remember(work, time.monotonic() - begun)
        except (OSError, OutputError) as error:  # an engine is not lost for it
            log.own_notes.append(f"how long this build took was not kept: {error}")


class _Follower:
    """Hands on how far a build is, a few times a second; keeps what says that it should stop."""

    def __init__(self, hear: Listener | None, expected_s: float | None) -> None:
        self.stopped: BaseException | None = None
        self.cancelled = False
        self._hear = hear
        self._expected_s = expected_s
        self._furthest = 0.0
        self._told_at = float("-inf")
        self._lock = threading.Lock()

    def tell(self, fraction: float, phase: str, *, at_once: bool = False) -> bool:
        """Announce, unless it was done just now; say whether the build should go on.

        TensorRT's threads call it, so nothing is raised here.
        """
        with self._lock:
            self._furthest = max(self._furthest, min(fraction, 1.0))
            now = time.monotonic()
            if self.stopped is None and self._hear is not None and (at_once or now - self._told_at >= _EVERY_S):
                self._told_at = now
                try:
                    self._hear(Advance(self._furthest, phase[:_PHASE], self._expected_s))
                except BaseException as error:  # noqa: BLE001 - raised again when TensorRT has returned
                    self.stopped = error
            return self.stopped is None and not self.cancelled

    def raise_what_stopped(self) -> None:
        """Raise what said that the build should stop, now that TensorRT has returned."""
        if self.stopped is not None:
            raise self.stopped


@contextlib.contextmanager
def _monitored(api: Api, config: Any, follower: _Follower) -> Iterator[None]:
    monitor = _make_monitor(api, follower, Phases())
    api.set(config, "IBuilderConfig.progress_monitor", monitor)
    try:
        yield
    finally:
        api.set(config, "IBuilderConfig.progress_monitor", None)
        del monitor  # kept until here: TensorRT itself keeps no reference to it


@contextlib.contextmanager
def _read_from(log: BuildLog, follower: _Follower, profiles: int) -> Iterator[None]:
    fraction = LogFraction(max(profiles, 1))

    last = fraction.take("")

    def follow(line: LogLine) -> None:
        nonlocal last
        if (now := fraction.take(line.text)) != last:
            last = now
            follower.tell(*now)

    log.followers.append(follow)
    try:
        yield
    finally:
        log.followers.remove(follow)


def _make_monitor(api: Api, follower: _Follower, phases: Phases) -> Any:
    base = api.need("IProgressMonitor")

    class Monitor(base):  # type: ignore[misc, valid-type] # the library is passed around
        def __init__(self) -> None:
            base.__init__(self)  # not super(): a pybind class wants it called by name

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)
            follower.tell(phases.fraction, phases.current)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return follower.tell(phases.fraction, phases.current)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)
            follower.tell(phases.fraction, phases.current)

    return Monitor()


@contextlib.contextmanager
def _signals_held(follower: _Follower) -> Iterator[None]:
    """Let Ctrl-C and its like cancel the build first, and do what they always do when TensorRT has returned.

    An exception out of a callback would end the process. A second Ctrl-C does so at once, for a builder without a
    monitor cannot be cancelled. Only the main thread may change what a signal does; in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def hold(number: int, _frame: Any) -> None:
        came.append(number)
        follower.cancelled = True
        signal.signal(number, signal.SIG_DFL)

    before = {number: found for number in _HELD if callable(found := signal.getsignal(number))}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)
        for late in came:
            before[signal.Signals(late)](late, None)
