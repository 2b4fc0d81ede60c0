"""The framework's process, from the outside: started when it is first needed, again after a crash, ended with us."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enginery.errors import MissingExtraError
from enginery.optional import installed
from enginery.worker import Worker

__all__ = ["FrameworkProcess", "require_tensorflow"]

_ENTRY = ("-m", "enginery.sources.tensorflow.jobs")
_LIMIT_S = 600.0


def require_tensorflow(why: str) -> None:
    """See that TensorFlow is installed, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    if not installed("tensorflow"):
        raise MissingExtraError(
            f"tensorflow is not installed, and is needed {why}", mend='run: pip install "enginery[tensorflow]"'
        )


class FrameworkProcess:
    """TensorFlow in a process of its own, with a folder for what passes between it and us.

    Args:
        name: what errors call it.
        entry: the interpreter's arguments that start the loop of jobs.
    """

    def __init__(self, name: str, *, entry: Sequence[str] = _ENTRY) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="enginery-"))
        self._name = name
        self._entry = tuple(entry)
        self._workers: list[Worker] = []
        self._places = 0
        self._end = weakref.finalize(self, _end, self._workers, self.folder)

    def call(self, job: str, arguments: Mapping[str, Any]) -> Any:
        """Do one job within 600 seconds; a process that died before is started again.

        Raises:
            EngineryError: what the job raised.
            WorkerError: the process crashed, hung or outgrew its memory.
        """
        if not self._workers or self._workers[-1].pid is None:
            self._workers[:] = [Worker(self._name, folder=self.place("worker"), entry=self._entry)]
            self._workers[-1].start()
        return self._workers[-1].call(job, arguments, limit_s=_LIMIT_S)

    def place(self, name: str) -> Path:
        """Return a path in its folder that nothing stands at."""
        self._places += 1
        return self.folder / f"{self._places}-{name}"

    def close(self) -> None:
        """End the process and remove the folder; a second call does nothing."""
        self._end()


def _end(workers: Sequence[Worker], folder: Path) -> None:
    for worker in workers:
        worker.close()
    shutil.rmtree(folder, ignore_errors=True)
