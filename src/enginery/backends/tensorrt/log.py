"""TensorRT's log: kept line by line with severity and time, and told to a user in a few sentences.

TensorRT has one logger in a process: whatever logger comes second is silently not used while the first one's objects
live. So there is one of ours for each library, and it hands each line to the `BuildLog` whose work it belongs to: the
one that its thread is `taking`, else the newest that its thread made, else (a thread of TensorRT's own) every one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginery.backends.tensorrt.log_words import is_noise, translate
from enginery.backends.tensorrt.versions import Api
from enginery.caches import cache_folder

__all__ = ["BuildLog", "LogLine"]

_LOG = logging.getLogger("enginery.tensorrt")
_ERRORS = ("ERROR", "INTERNAL_ERROR")
_VERBOSE_KEPT = 20_000
_OLDER_KEPT = 10_000
_FILES_KEPT = 5
_SERIAL = itertools.count()


@dataclass(frozen=True)
class LogLine:
    """One line of TensorRT's log.

    Args:
        severity: TensorRT's name of it: INTERNAL_ERROR, ERROR, WARNING, INFO or VERBOSE.
        text: what it says.
        at_s: seconds since the log began.
    """

    severity: str
    text: str
    at_s: float

    def __str__(self) -> str:
        return f"[{self.at_s:8.3f}] {self.severity}: {self.text}"


class BuildLog:
    """What TensorRT says while one engine is built, or opened.

    Its ``followers`` are called with each line as it comes; its ``own_notes`` take what Enginery has to add; ``path``
    is the file that has every line, where it is `kept`.

    Args:
        api: the library whose log it is.

    Example:
        >>> import types
        >>> from enginery.backends.tensorrt.versions import LIBRARIES
        >>> trt = types.SimpleNamespace(ILogger=type("ILogger", (), {"__init__": lambda self: None}))
        >>> log = BuildLog(Api(LIBRARIES["tensorrt"], trt, "8.6.0"))
        >>> log.take("WARNING", "something new")
        >>> log.notes()
        ('TensorRT warned: something new',)
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.followers: list[Callable[[LogLine], None]] = []
        self.own_notes: list[str] = []
        self.path: Path | None = None
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._lines: list[LogLine] = []
        self._file: int | None = None
        self._hub = _hub_of(api)
        self._hub.add(self)

    @property
    def logger(self) -> Any:
        """The ``ILogger`` to give to TensorRT; lives as long as the process."""
        return self._hub.logger

    @property
    def lines(self) -> tuple[LogLine, ...]:
        """All lines so far; of very many VERBOSE ones only the newest."""
        with self._lock:
            return tuple(self._lines)

    def errors(self) -> tuple[str, ...]:
        """Return what was said as ERROR or INTERNAL_ERROR, noise that means no failure left out."""
        return tuple(line.text for line in self.lines if line.severity in _ERRORS and not is_noise(line.text))

    def tail(self, count: int = 15) -> str:
        """Return the last lines, VERBOSE ones left out, as text."""
        told = [str(line) for line in self.lines if line.severity != "VERBOSE"]
        return "\n".join(told[-count:])

    def notes(self) -> tuple[str, ...]:
        """Say in a few sentences what a user should know: `own_notes`, then what the lines mean."""
        said = [(line.severity, line.text) for line in self.lines if line.severity != "VERBOSE"]
        return (*self.own_notes, *translate(said, self.api.library.label, str(self.path or "the build's log")))

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Take all that this thread's calls make TensorRT say, where several logs are open."""
        with self._hub.given_to(self):
            yield

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Write every line into a file of the user's cache folder as well, as it comes: it outlives a crash.

        The newest few of such files stay. Where none can be written, that is a note.
        """
        try:
            handle = os.open(self._new_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            self.path = None
            self.own_notes.append(f"the full log of {self.api.library.label} was not kept: {error}")
            yield
            return
        with self._lock:
            for line in self._lines:
                _write(handle, line)
            self._file = handle
        _LOG.info("the full log of %s is %s", self.api.library.label, self.path)
        try:
            yield
        finally:
            with self._lock:
                self._file = None
            os.close(handle)

    def _new_path(self) -> Path:
        folder = cache_folder("logs")
        for old in sorted(folder.glob("*.log"), key=lambda file: file.stat().st_mtime)[: 1 - _FILES_KEPT]:
            old.unlink(missing_ok=True)
        when = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_SERIAL)}"
        self.path = folder / f"{self.api.library.module}-{self.api.version}-{when}.log"
        return self.path

    def take(self, severity: str, text: str) -> None:
        """Keep one line; TensorRT's threads call it through the logger."""
        line = LogLine(severity, text, time.monotonic() - self._begun)
        with self._lock:
            self._lines.append(line)
            if self._file is not None:
                _write(self._file, line)
            if len(self._lines) > 2 * _VERBOSE_KEPT:
                self._thin()
        if severity != "VERBOSE":
            _LOG.info("%s", line)
        for follow in tuple(self.followers):
            follow(line)

    def _thin(self) -> None:
        """Drop the older VERBOSE lines, of which a build says hundreds of thousands, and keep the first of the others.

        An engine that warns in each call would fill the memory otherwise.
        """
        older, newest = self._lines[:-_VERBOSE_KEPT], self._lines[-_VERBOSE_KEPT:]
        self._lines = [line for line in older if line.severity != "VERBOSE"][:_OLDER_KEPT] + newest


class _Hub:
    """The one logger that a library gets in this process, and the logs that its lines are handed to."""

    def __init__(self, api: Api) -> None:
        self.logger = _make_logger(api, self._hand_on)
        self._lock = threading.Lock()
        self._logs: list[tuple[int, weakref.ref[BuildLog]]] = []
        self._taking = threading.local()

    def add(self, log: BuildLog) -> None:
        """Hand lines to a log from now on, until nothing refers to it."""
        with self._lock:
            self._logs = [(thread, kept) for thread, kept in self._logs if kept() is not None]
            self._logs.append((threading.get_ident(), weakref.ref(log)))

    @contextlib.contextmanager
    def given_to(self, log: BuildLog) -> Iterator[None]:
        """Hand this thread's lines to one log within the block."""
        before = getattr(self._taking, "log", None)
        self._taking.log = log
        try:
            yield
        finally:
            self._taking.log = before

    def _hand_on(self, severity: str, text: str) -> None:
        for log in self._takers():
            log.take(severity, text)

    def _takers(self) -> list[BuildLog]:
        taking: BuildLog | None = getattr(self._taking, "log", None)
        if taking is not None:
            return [taking]
        own = threading.get_ident()
        with self._lock:
            living = [(thread, log) for thread, kept in self._logs if (log := kept()) is not None]
        mine = [log for thread, log in living if thread == own]
        return mine[-1:] or [log for _, log in living]


_HUBS: dict[int, _Hub] = {}


def _hub_of(api: Api) -> _Hub:
    """Return the library's hub; its logger's class refers to the module, whose id can so never be another's."""
    key = id(api.module)
    if key not in _HUBS:
        _HUBS.setdefault(key, _Hub(api))
    return _HUBS[key]


def _make_logger(api: Api, hand_on: Callable[[str, str], None]) -> Any:
    trt = api.module

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined] # the library is passed around
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # not super(): a pybind class wants it called by name

        def log(self, severity: Any, text: str) -> None:
            hand_on(severity.name, text)

    return Logger()


def _write(handle: int, line: LogLine) -> None:
    os.write(handle, f"{line}\n".encode(errors="replace"))
