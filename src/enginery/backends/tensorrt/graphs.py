"""One step of work as a CUDA graph: done twice as it is, then written down once and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enginery.backends.tensorrt.cuda import Cuda
from enginery.errors import EngineryError

__all__ = ["Replay"]

_WARM_UPS = 2
"""Calls before a step is captured: the first ones allocate and choose, and a shape seen twice pays for no graph."""


class Replay:
    """Work on a stream that is captured in its third call; where that cannot be, it is done as it is ever after.

    Args:
        cuda: the calls.
        stream: what the work is asked of.
        step: asks for the work; must give the same addresses each time.
        failed: told why a capture failed; None where none shall be tried.

    The capture is of this thread alone (thread-local), so that other threads may allocate meanwhile.
    """

    def __init__(
        self, cuda: Cuda, stream: Any, step: Callable[[], None], failed: Callable[[EngineryError], None] | None
    ) -> None:
        self._cuda = cuda
        self._stream = stream
        self._step = step
        self._failed = failed
        self._runs = 0
        self._graph: Any = None

    @property
    def captured(self) -> bool:
        """Whether calls replay a graph."""
        return self._graph is not None

    def go(self) -> None:
        """Ask for the work once; returns before it is done."""
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
        elif self._failed is None or self._runs < _WARM_UPS:
            self._runs += 1
            self._step()
        else:
            self._capture()
            self.go()

    def _capture(self) -> None:
        failed, self._failed = self._failed, None
        self._cuda.synchronize(self._stream)
        self._graph = capture(self._cuda, self._stream, self._step, failed)
        if self._graph is not None:
            self._failed = failed

    def drop(self) -> None:
        """Forget the graph: what it was captured from has changed, or is about to go."""
        self._runs = 0
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._cuda.destroy_graph(graph)


def capture(
    cuda: Cuda, stream: Any, step: Callable[[], None], failed: Callable[[EngineryError], None] | None
) -> Any | None:
    """Return a graph of what `step` asks of the stream; None where that cannot stand in one, which `failed` is told."""
    cuda.begin_capture(stream)
    try:
        step()
    except BaseException as error:  # Ctrl-C too: a stream left in capture would refuse every call after it
        cuda.abandon_capture(stream)
        if not isinstance(error, EngineryError):
            raise
        if failed is not None:
            failed(error)
        return None
    try:
        return cuda.end_capture(stream)
    except EngineryError as error:
        cuda.forget_error()
        if failed is not None:
            failed(error)
        return None
