"""A fake GPU whose events know when they were recorded."""

from __future__ import annotations

import time

from fake_gpu import FakeRuntime


class ClockedRuntime(FakeRuntime):
    """CUDA's runtime with a clock: the time between two events is the host's."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[int, float] = {}

    def cudaEventRecord(self, event, stream):  # noqa: N802 - CUDA's own name
        self.at[event] = time.perf_counter()
        return super().cudaEventRecord(event, stream)

    def cudaEventElapsedTime(self, begin, end):  # noqa: N802 - CUDA's own name
        code = self._said("cudaEventElapsedTime")
        return code, (self.at[end] - self.at[begin]) * 1e3
