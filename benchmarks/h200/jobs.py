"""Which engines are built: every model in every precision for batch 1 to 128, and those that are timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BATCHES", "ERRORS", "TIMED", "Job", "list_jobs"]

BATCHES = (1, 7, 128)
"""Verified at each of these."""

ERRORS: Mapping[str, float] = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 1e-2, "int8": 1e-1}
"""Largest relative L2 against PyTorch by precision; INT8's is a bound of ours that says no more than `not nonsense`."""

TIMED = ("resnet50", "vit", "bert")
"""Timed beside PyTorch in half precision, at batch 1 and at the largest."""


@dataclass(frozen=True)
class Job:
    """One engine to build.

    Args:
        model: of the models.
        precision: of Enginery's.
        batch: its batch, as in a shape: ``1``, ``128`` or ``1..32..128``.
        timed: whether it is timed, and so is built while little else runs.
        pixels: whether it takes bytes and normalises them itself.
    """

    model: str
    precision: str
    batch: str
    timed: bool = False
    pixels: bool = False

    @property
    def name(self) -> str:
        """Of its folder.

        Example:
            >>> Job("resnet50", "fp16", "1..32..128").name, Job("resnet50", "fp16", "8", pixels=True).name
            ('resnet50.fp16.dynamic', 'resnet50.fp16.b8.uint8')
        """
        batch = "dynamic" if ".." in self.batch else f"b{self.batch}"
        return ".".join([self.model, self.precision, batch, *(["uint8"] if self.pixels else [])])


def list_jobs(models: Sequence[str], convolutional: Sequence[str], *, largest: int) -> list[Job]:
    """Return every job: those that are timed first.

    Args:
        models: names of all that are asked for.
        convolutional: those built in INT8 too.
        largest: the largest batch.

    Example:
        >>> [job.name for job in list_jobs(["minilm"], [], largest=4)]
        ['minilm.fp32.dynamic', 'minilm.tf32.dynamic', 'minilm.fp16.dynamic']
    """
    jobs = [Job(model, "fp16", str(batch), timed=True) for model in TIMED if model in models for batch in (1, largest)]
    if "resnet50" in models:
        jobs.append(Job("resnet50", "fp16", str(largest), timed=True, pixels=True))
    for model in models:
        precisions = ("fp32", "tf32", "fp16", *(["int8"] if model in convolutional else []))
        jobs += [Job(model, precision, f"1..{max(1, largest // 4)}..{largest}") for precision in precisions]
    return jobs
