"""What must hold, and whether it does: one line for each bound, with what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.h200.jobs import ERRORS
from benchmarks.h200.store import look_up

__all__ = ["BOUNDS", "Bound", "Judged", "bounds_text", "judge", "model_bounds"]


@dataclass(frozen=True)
class Bound:
    """One figure and what it may be.

    Args:
        what: it says, in words.
        keys: where it stands among the results.
        least: no smaller than this.
        most: no larger than this.
        holds: it must be true; `least` and `most` are not asked.
    """

    what: str
    keys: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    holds: bool = False

    @property
    def limit(self) -> str:
        """The limit, as the table shows it."""
        if self.holds:
            return "yes"
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def judge(self, found: Any) -> str:
        """Return ``PASS``, ``FAIL``, or ``not run`` where there is no figure.

        Example:
            >>> bound = Bound("speed", ("latency", "speed"), least=2.2)
            >>> bound.judge(2.5), bound.judge(2.1), bound.judge("nan"), bound.judge(None)
            ('PASS', 'FAIL', 'FAIL', 'not run')
        """
        if found is None:
            return "not run"
        if self.holds:
            return "PASS" if found is True else "FAIL"
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return "FAIL"
        low = self.least is None or found >= self.least
        high = self.most is None or found <= self.most
        return "PASS" if low and high else "FAIL"


@dataclass(frozen=True)
class Judged:
    """A bound, what was found, and the verdict."""

    bound: Bound
    found: Any
    verdict: str


BOUNDS: tuple[Bound, ...] = (
    Bound("ResNet-50 b1, numpy to numpy: by the hand-written loop", ("latency", "by_hand_written"), most=1.05),
    Bound("ResNet-50 b1, numpy to numpy: Polygraphy by it", ("latency", "polygraphy_by_ours"), least=2.2),
    Bound("tensors of PyTorch on the device: µs over the graph", ("device", "torch", "added_us"), most=15),
    Bound("arrays of CuPy on the device: µs over the graph", ("device", "cupy", "added_us"), most=15),
    Bound("CUDA array interface: µs over the graph", ("device", "interface", "added_us"), most=15),
    Bound("pipeline, page-locked float32: of the slower part", ("pipeline", "locked_float32", "share"), least=0.95),
    Bound("pipeline, page-locked uint8: of the slower part", ("pipeline", "locked_uint8", "share"), least=0.95),
    Bound("pipeline, pageable uint8: of the slower part", ("pipeline", "pageable_uint8", "share"), least=0.95),
    Bound("pipeline, pageable float32: by the plain loop", ("pipeline", "pageable_float32", "by_plain"), least=2),
    Bound("ResNet-50 b1: PyTorch's best by TensorRT", ("pytorch", "resnet50 b1", "speed"), least=1.5),
    Bound("ResNet-50 b128: PyTorch's best by TensorRT", ("pytorch", "resnet50 b128", "speed"), least=1.4),
    Bound("ViT-B/16 b1: PyTorch's best by TensorRT", ("pytorch", "vit b1", "speed"), least=1),
    Bound("ViT-B/16 b128: PyTorch's best by TensorRT", ("pytorch", "vit b128", "speed"), least=1),
    Bound("BERT-base b1: PyTorch's best by TensorRT", ("pytorch", "bert b1", "speed"), least=1),
    Bound("BERT-base b128: PyTorch's best by TensorRT", ("pytorch", "bert b128", "speed"), least=1),
    Bound("ViT-B/16 b128: compiled, captured by TensorRT", ("pytorch", "vit b128", "speed_over_captured"), least=1),
    Bound("BERT-base b128: compiled, captured by TensorRT", ("pytorch", "bert b128", "speed_over_captured"), least=1),
    Bound("8 threads, one session: right answers", ("threads", "one_session", "right"), holds=True),
    Bound("4 threads, a session each: right answers", ("threads", "own_sessions", "right"), holds=True),
    Bound("10,000 calls: host memory grows by MiB", ("memory", "host_grew_mib"), most=8),
    Bound("10,000 calls: device memory grows by MiB", ("memory", "device_grew_mib"), most=1),
    Bound("NonZero runs and agrees", ("dynamic_outputs", "nonzero", "right"), holds=True),
    Bound("NonMaxSuppression runs and agrees", ("dynamic_outputs", "nms", "right"), holds=True),
    Bound("partitioned model runs: relative L2", ("partition", "error"), most=1e-5),
    Bound("second build with the timing cache, b1: by the first", ("cache", "second_by_first"), most=0.25),
    Bound("second build with the timing cache, b128: by the first", ("large_cache", "second_by_first"), most=0.25),
    Bound("timing cache of another GPU or version is not used", ("cache", "others_unused"), holds=True),
    Bound("a build killed half-way leaves nothing that loads", ("cache", "killed_leaves_nothing"), holds=True),
    Bound("fp32 where fp16 was asked for is an error", ("errors", "built_wide", "right"), holds=True),
    Bound("one plan: nodes that differ by more than a fusion", ("same_plan", "differing"), most=0),
    Bound("every error is one of ours, with a mend", ("errors", "all_ours"), holds=True),
)


def model_bounds(models: Iterable[str], convolutional: Iterable[str]) -> list[Bound]:
    """Return the bound of each model in each precision, on the worst of its batches.

    Example:
        >>> [bound.what for bound in model_bounds(["bert"], [])][-1]
        'bert fp16: relative L2 against PyTorch'
    """
    able = set(convolutional)
    return [
        Bound(f"{model} {precision}: relative L2 against PyTorch",
              ("verified", f"{model}.{precision}.dynamic", "error"), most=most)
        for model in models
        for precision, most in ERRORS.items()
        if precision != "int8" or model in able
    ]  # fmt: skip


def judge(results: Mapping[str, Any], bounds: Iterable[Bound]) -> list[Judged]:
    """Hold the results against the bounds."""
    judged = []
    for bound in bounds:
        found = look_up(results, bound.keys)
        judged.append(Judged(bound, found, bound.judge(found)))
    return judged


def bounds_text(judged: Sequence[Judged]) -> str:
    """Write the table and the count.

    Example:
        >>> bound = Bound("it grows", ("memory", "host_grew_mib"), most=8)
        >>> print(bounds_text(judge({"memory": {"host_grew_mib": 9}}, [bound])))
        it grows                                                             9  <= 8     FAIL
        0 PASS, 1 FAIL, 0 not run
    """
    lines = [f"{row.bound.what:60} {_shown(row.found):>9}  {row.bound.limit:8} {row.verdict}" for row in judged]
    counts = [sum(row.verdict == verdict for row in judged) for verdict in ("PASS", "FAIL", "not run")]
    return "\n".join([*lines, "{} PASS, {} FAIL, {} not run".format(*counts)])


def _shown(found: Any) -> str:
    if found is None:
        return "-"
    if isinstance(found, bool):
        return "yes" if found else "no"
    return f"{found:.3g}" if isinstance(found, (int, float)) else str(found)[:9]
