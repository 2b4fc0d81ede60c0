"""What TensorRT's warnings mean, in a user's words: many lines become a few notes, each with its count.

The wordings are those of TensorRT 8.5 to 11 and TensorRT-RTX. What is not known here is grouped by its shape (numbers
and names left out) and told once with its count, so that nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["is_noise", "translate"]

_QUOTED = 200
_GROUPS_SHOWN = 8
_NAMES_SHOWN = 3
_TOLD = ("WARNING", "ERROR", "INTERNAL_ERROR")


@dataclass(frozen=True)
class _Meaning:
    """What lines of one pattern mean.

    Args:
        pattern: found anywhere in a line; its group ``name``, where it has one, is what the line is about.
        note: what they mean; ``{count}`` stands for how many there were, ``{s}`` for an ``s`` where there were
            several, and ``{names}`` for what they were about.
    """

    pattern: re.Pattern[str]
    note: str


def _means(pattern: str, note: str) -> _Meaning:
    return _Meaning(re.compile(pattern, re.IGNORECASE | re.DOTALL), note)


_NO_CACHE = "the timing cache was not used"
_PART_OF_CACHE = (
    "the timing cache was used for single kernels, and not for fused regions: TensorRT 8.5 and 8.6 do not read that "
    "part back"
)
"""Seen with 8.6.0: it says after that part that the cache will not be used, and takes the timings it has loaded."""

_MEANINGS = (
    _means(
        r"skipping tactic .*insuff?icient memory|due to insufficient workspace|tactic.*skipped.*memory",
        "{count} kernel{s} (tactics) could not be tried for want of memory: the engine is right, and may be slower "
        "than it could be; free GPU memory or raise workspace_mib",
    ),
    _means(r"skipping tactic|initializeTactic failure", "{count} kernel{s} (tactics) did not start and were passed "
           "over: the engine is right"),
    _means(
        r"generated with int64 weights|cast(ing)? down to int32|doesn't support int64 for inputs, will cast",
        "INT64 was cast to INT32 ({count} place{s}): this version computes shapes and indices in INT32",
    ),
    _means(
        r"outside the range of (int32|float) was clamped|out of range\. clamping to",
        "values that INT32 or FLOAT cannot hold were clamped ({count} warning{s}): compare the outputs, where such a "
        "value is more than an 'until the end' of a slice they are wrong",
    ),
    _means(
        r"layernorm.*(overflow|fp16)|(overflow|fp16).*layernorm",
        "LayerNorm is computed in FP16 and may overflow: keep it in FP32, or use the LayerNormalization operator of "
        "opset 17",
    ),
    _means(r"subnormal fp16 values", "some weights are so small that FP16 holds them inexactly ({count} warning{s}): "
           "harmless as long as the outputs agree"),
    _means(r"weights?.*(overflow|infinit|inf\b|not.*finite).*fp16|values less than smallest positive fp16",
           "some weights do not fit FP16 ({count} warning{s}): compare the outputs, or keep those layers in FP32"),
    _means(
        r"no implementation (of layer (?P<name>\S+) )?obeys the requested (constraints|precision)",
        "fell back to another precision than was asked for, as no kernel has that one: {names}",
    ),
    _means(r"layer (?P<name>\S+).*(falling back|fall back|falls back|fallback) to (fp32|float|gpu)",
           "fell back to FP32 or to the GPU: {names}"),
    _means(r"missing scale and zero-point|missing int8 scales for tensor",
           "{count} tensor{s} had no INT8 scale, so the layers around stay in a wider type"),
    _means(r"uint8 zero_point only on dla|defaulting to int8 instead",
           "UINT8 quantisation was read as INT8, which halves its range: the outputs are wrong; quantise to INT8"),
    _means(r"cuda lazy loading is not enabled", "CUDA's lazy loading is off, which costs GPU memory: "
           "export CUDA_MODULE_LOADING=LAZY"),
    _means(r"linked against (cudnn|cublas|cublaslt)", "TensorRT was made with another version of cuDNN or cuBLAS than "
           "is loaded here: the engine is right, and may be slower than it could be"),
    _means(r"myelincache\.h::\S*deserializefrombuffer", _PART_OF_CACHE),
    _means(
        r"timing cache (will not be used|.*mismatch|.*is deprecated)"
        r"|could not read timing cache|failed to deserialize timing cache",
        _NO_CACHE,
    ),
    _means(r"engine plan file across different models of devices",
           "the engine was built on another model of GPU: it may be slow here, or fail; build it again"),
    _means(r"only (fp32|fp16|int8).*dla|dla.*not supported|switching to gpu fallback|falling back to gpu",
           "{count} layer{s} cannot run on the DLA and run{run} on the GPU"),
    _means(r"shape values? .*self-consistent|profile.*not self-consistent",
           "an optimisation profile holds sizes that contradict each other"),
    _means(r"zero-sized? tensors?|might or might not be zero", "a tensor may be empty at some allowed shape"),
    _means(r"scan length|loop.*trip", "a loop has both a limit and a condition, so its scan outputs may be cut: "
           "compare the outputs"),
    _means(r"ignores the .?seed.? field", "the seed of a random operator is not obeyed: each run draws other numbers"),
    _means(r"is deprecated|deprecated in tensorrt", "{count} call{s} that this version has deprecated"),
)  # fmt: skip

_BESIDE = (
    # Every session compares element types anyway.
    re.compile(r"make sure (input|output) \S+ has int64 binding", re.IGNORECASE),
    # The second line of a pair: the first one says which kernel, and is counted.
    re.compile(r"tactic device request: .*device memory is insufficient to use tactic", re.IGNORECASE),
    re.compile(r"try decreasing the workspace size with ibuilderconfig", re.IGNORECASE),
    re.compile(r"if this is not the desired behavior, please modify the weights", re.IGNORECASE),
    re.compile(r"had the following issues when converted to fp16|list of affected weights", re.IGNORECASE),
    re.compile(r"check verbose logs for the list of affected weights", re.IGNORECASE),
)
"""Lines that say nothing by themselves: another one of the same matter is told."""

_PLACE = re.compile(r"^\S+\.(?:cpp|h):\d+: ")
"""Where in TensorRT's own source a line comes from."""

_FALSE_ALARM = re.compile(r"thread context has not been set", re.IGNORECASE)


def is_noise(text: str) -> bool:
    """Say whether a line of severity ERROR or INTERNAL_ERROR is no failure.

    Example:
        >>> is_noise("Error Code 9: Internal Error (Thread context has not been set)")
        True
    """
    return _FALSE_ALARM.search(text) is not None


def translate(lines: Iterable[tuple[str, str]], label: str, where: str = "the build's log") -> tuple[str, ...]:
    """Turn lines of severity and text into a few notes, in the order in which each first came.

    Args:
        lines: severity by TensorRT's name, and the text; below WARNING nothing is told.
        label: what the library is called.
        where: what to say of where all lines are.

    Example:
        >>> translate([("WARNING", "CUDA lazy loading is not enabled.")], "TensorRT")
        ("CUDA's lazy loading is off, which costs GPU memory: export CUDA_MODULE_LOADING=LAZY",)
    """
    known: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    for severity, text in lines:
        if severity not in _TOLD or is_noise(text):
            continue
        found = next(((meaning, match) for meaning in _MEANINGS if (match := meaning.pattern.search(text))), None)
        if found is None and any(pattern.search(text) for pattern in _BESIDE):
            continue
        if found is None:
            unknown.setdefault(f"{severity} {_shape_of(text)}", []).append(text)
        else:
            meaning, match = found
            known.setdefault(meaning.note, []).append(match.groupdict().get("name") or "")
    if _PART_OF_CACHE in known:
        known.pop(_NO_CACHE, None)
    return tuple(_filled(note, names) for note, names in known.items()) + _quoted(unknown, label, where)


def _filled(note: str, names: list[str]) -> str:
    named = list(dict.fromkeys(name.strip(",.;:'\"") for name in names if name)) or ["a layer"]
    shown = ", ".join(named[:_NAMES_SHOWN])
    more = f" and {len(named) - _NAMES_SHOWN} more" if len(named) > _NAMES_SHOWN else ""
    several = len(names) > 1
    return note.format(
        count=len(names), s="s" if several else "", run="" if several else "s", names=f"{shown}{more}"
    )  # fmt: skip


def _quoted(unknown: dict[str, list[str]], label: str, where: str) -> tuple[str, ...]:
    """Tell lines that nobody has translated: each kind once, with its count."""
    told = []
    for key, texts in list(unknown.items())[:_GROUPS_SHOWN]:
        line = _PLACE.sub("", " ".join(texts[0].split()))
        line = line if len(line) <= _QUOTED else f"{line[:_QUOTED]}..."
        said = "reported" if key.startswith(("ERROR", "INTERNAL")) else "warned"
        times = f" ({len(texts)} times, of such a kind)" if len(texts) > 1 else ""
        told.append(f"{label} {said}{times}: {line}")
    rest = list(unknown.values())[_GROUPS_SHOWN:]
    if rest:
        told.append(f"{label} said {sum(map(len, rest))} more lines, of {len(rest)} kinds: see {where}")
    return tuple(told)


def _shape_of(text: str) -> str:
    """Return a line without what differs between two of its kind: numbers, and names in quotes or with a slash."""
    without_names = re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\S*/\S*|\b\w*\d\w*\b", "_", text)
    return re.sub(r"[\W_]+", " ", without_names).strip().lower()[:_QUOTED]
