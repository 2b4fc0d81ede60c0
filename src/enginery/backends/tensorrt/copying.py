"""Copies between arrays of the host: one thread for small ones, several for large ones.

One thread moves some 10 GB/s, a machine's memory many times that; numpy gives up the interpreter's lock meanwhile.
"""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

__all__ = ["Copier"]

_WORTH_A_THREAD = 2 << 20  # bytes: handing a part to a thread and waiting for it takes some 30 microseconds
_MOST_THREADS = 8


class Copier:
    """Copies arrays of one shape into each other, with threads where that is sooner.

    Args:
        threads: how many copy a large array; 0 chooses by its size and the processors of this process.

    Example:
        >>> target = np.empty(3, np.int32)
        >>> Copier().copy(target, np.array([1, 2, 3]))
        >>> target
        array([1, 2, 3], dtype=int32)
    """

    def __init__(self, threads: int = 0) -> None:
        self._most = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    def copy(self, target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
        """Copy `source` into `target`, converted to its element type."""
        parts = min(self._most, target.nbytes // _WORTH_A_THREAD)
        if parts < 2 or not (target.flags.c_contiguous and source.flags.c_contiguous):  # noqa: PLR2004 - nothing to split
            np.copyto(target, source, casting="unsafe")
            return
        self._copy_parts(target.reshape(-1), source.reshape(-1), parts)

    def _copy_parts(self, target: np.ndarray[Any, Any], source: np.ndarray[Any, Any], parts: int) -> None:
        pool = self._threads()
        bounds = [target.size * part // parts for part in range(parts + 1)]
        slices = [slice(low, high) for low, high in itertools.pairwise(bounds)]
        others = [pool.submit(np.copyto, target[part], source[part], "unsafe") for part in slices[1:]]
        np.copyto(target[slices[0]], source[slices[0]], casting="unsafe")
        for other in others:
            other.result()

    def _threads(self) -> ThreadPoolExecutor:
        """Return the threads, which begin with the first large array; the lanes of a session share them."""
        with self._making:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max(1, self._most - 1), "enginery-copy")
            return self._pool

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
