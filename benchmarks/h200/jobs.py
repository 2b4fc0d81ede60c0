"""Which engines are built, and in which order: what the comparisons need first, then every model in every precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

__all__ = ["BATCHES", "ERRORS", "KEPT", "TANH", "TIMED", "Job", "choose", "engine_names", "list_jobs"]

BATCHES = (1, 7, 128)
"""Verified at each of these."""

ERRORS: Mapping[str, float] = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 1e-2, "int8": 1e-1}
"""Largest relative L2 against PyTorch by precision; INT8's is a bound of ours that says no more than `not nonsense`."""

TIMED = ("resnet50", "vit", "bert")
"""Timed beside PyTorch in half precision, at batch 1 and at the largest."""

KEPT = ("LayerNormalization", "Softmax")
"""What is usually kept in float32 of a transformer; timed beside the one in half precision alone."""

TANH = "GELU by tanh"
"""What an engine is called in the tables that is not exactly the model."""

_QUICK = 0
"""Optimisation level of engines whose speed is not asked: each kernel that is tried costs time of the one GPU."""


@dataclass(frozen=True)
class Job:
    """One engine to build.

    Args:
        model: of the models.
        precision: of Enginery's.
        batch: its batch, as in a shape: ``1``, ``128`` or ``1..32..128``.
        narrow: batches that have a profile of their own beside the wide one.
        pixels: whether it takes bytes and normalises them itself.
        tanh: whether GELU is approximated.
        kept: operators that stay in float32.
        level: optimisation level; -1 for the library's own.
    """

    model: str
    precision: str
    batch: str
    narrow: tuple[int, ...] = ()
    pixels: bool = False
    tanh: bool = False
    kept: tuple[str, ...] = ()
    level: int = _QUICK

    @property
    def name(self) -> str:
        """Of its folder.

        Example:
            >>> Job("resnet50", "fp16", "1..32..128").name, Job("resnet50", "fp16", "8", pixels=True).name
            ('resnet50.fp16.dynamic', 'resnet50.fp16.b8.uint8')
        """
        batch = "dynamic" if ".." in self.batch else f"b{self.batch}"
        return ".".join([self.model, self.precision, batch, *(["uint8"] if self.pixels else []),
                         *(["tanh"] if self.tanh else []), *(["kept"] if self.kept else [])])  # fmt: skip


def list_jobs(models: Sequence[str], convolutional: Sequence[str], *, largest: int) -> list[Job]:
    """Return every job, the most telling first.

    Args:
        models: names of all that are asked for.
        convolutional: those built in INT8 too.
        largest: the largest batch.

    Example:
        >>> [job.name for job in list_jobs(["minilm"], [], largest=4)]
        ['minilm.fp16.dynamic', 'minilm.fp32.dynamic', 'minilm.tf32.dynamic']
    """
    wide = f"1..{max(1, largest // 4)}..{largest}"
    timed = [model for model in TIMED if model in models]
    jobs = [Job(model, "fp16", str(batch), level=-1) for model in timed for batch in (1, largest)]
    if "resnet50" in models:
        jobs.append(Job("resnet50", "fp16", str(largest), pixels=True, level=-1))
        jobs += [Job("resnet50", precision, wide, (1, largest), level=-1) for precision in ("fp16", "int8")]
    if "bert" in models:
        jobs += [Job("bert", "fp16", str(batch), kept=KEPT, level=-1) for batch in (largest, 1)]
    transformers = [model for model in timed if model != "resnet50"]
    jobs += [Job(model, "fp16", wide, (1, largest), level=-1) for model in transformers]
    jobs += [Job(model, "fp16", str(largest), level=-1, tanh=True) for model in transformers]
    later = [model for model in models if model not in ("resnet50", "vit", "bert", "detector")]
    order = [model for model in ("resnet50", *later, "vit", "bert", "detector") if model in models]
    for model in order:
        narrow = ["fp16"] + ["int8"] * (model in convolutional)
        precisions = [*(narrow if model not in timed else []), "fp32", "tf32"]
        jobs += [Job(model, precision, wide, (1, largest) * (model == "minilm" and precision == "fp16"))
                 for precision in precisions]  # fmt: skip
    return jobs


def choose(jobs: Sequence[Job], *, only: str, without: Sequence[str], quick: Sequence[str]) -> list[Job]:
    """Return the jobs to do, where there is no time for all of them as they should be.

    Args:
        jobs: all of them.
        only: a pattern of their names.
        without: patterns of those that are left out.
        quick: patterns of those whose speed is not asked, and which get no profiles for it.

    Example:
        >>> jobs = list_jobs(["vit"], [], largest=4)
        >>> [job.name for job in choose(jobs, only="vit.fp16.*", without=["*.tanh"], quick=[])]
        ['vit.fp16.b1', 'vit.fp16.b4', 'vit.fp16.dynamic']
    """

    def matches(job: Job, patterns: Sequence[str]) -> bool:
        return any(fnmatch(job.name, pattern) for pattern in patterns)

    left = [job for job in jobs if fnmatch(job.name, only) and not matches(job, without)]
    return [replace(job, level=_QUICK, narrow=()) if matches(job, quick) else job for job in left]


def engine_names(model: str, batch: int) -> dict[str, str]:
    """Return the engines that may stand for a model in half precision at a batch: of one size, and with profiles.

    The last computes an approximation of GELU, and is timed beside the others.

    Example:
        >>> list(engine_names("vit", 1).items())[:2]
        [('one size', 'vit.fp16.b1'), ('narrow profile', 'vit.fp16.dynamic')]
    """
    own = f"{model}.fp16.b{batch}"
    return {"one size": own, "narrow profile": f"{model}.fp16.dynamic", TANH: f"{own}.tanh"}
