"""trtexec's flags → what is asked for: each reader takes the flags of one matter, and no flag is left unread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from enginery.cli.flags import Given, read_number
from enginery.errors import UnknownNameError, UsageError
from enginery.spec import PRECISIONS, Dim, Option, Shape
from enginery.trtexec_spec import TrtexecSpec

__all__ = ["BACKEND_VARIABLE", "parse_bytes", "parse_named", "parse_sizes", "request"]

BACKEND_VARIABLE = "ENGINERY_TRTEXEC_BACKEND"
_MIB = 1 << 20
_UNITS = {"": _MIB, "B": 1, "K": 1 << 10, "M": _MIB, "G": 1 << 30}
_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int64": "int64", "int32": "int32",
          "int8": "int8", "uint8": "uint8", "bool": "bool", "fp8": "float8e4m3fn"}  # fmt: skip
_LEVELS = {"none": "none", "ampere+": "ampere_plus", "sameComputeCapability": "same_compute_capability"}


def request(given: Sequence[Given]) -> TrtexecSpec:
    """Return what a line of trtexec's flags asks for.

    Raises:
        UsageError: a value cannot be read, or two flags disagree.

    Example:
        >>> from enginery.cli.flags import read_flags
        >>> from enginery.cli.trtexec_flags import TRTEXEC
        >>> flags, _ = read_flags(TRTEXEC, ["--onnx=m.onnx", "--fp16", "--optShapes=x:4x3"])
        >>> asked = request(flags)
        >>> asked.precision, str(asked.shapes["x"])
        ('fp16', '4x3')
    """
    found: dict[str, Any] = {"backend": os.environ.get(BACKEND_VARIABLE, "")}
    options: dict[str, Option] = {}
    for one in given:
        kind, _, name = one.flag.sets.rpartition(":")
        if kind == "option":
            options[name] = one.on if not one.flag.takes else one.value
        elif kind == "switch":
            found[name] = one.on
        elif kind:
            found[name] = read_number(one, 1 if kind == "whole" else 0, whole=kind == "whole")
        elif name:
            found[name] = one.value
    by_name = {one.flag.name: one for one in given if one.value != "false"}
    found.update(_precision(by_name))
    found.update(_shapes(given))
    found.update(_measuring(by_name))
    found["types"] = {
        f"{way}s": _types(by_name[f"{way}IOFormats"]) for way in ("input", "output") if f"{way}IOFormats" in by_name
    }
    found["nodes"], whole = _layer_precisions(by_name)
    if whole:
        found["precision"] = whole
    files = _all(given, "loadInputs")
    found["files"] = {name: path for text in files for name, path in parse_named(text, "input", "name:file").items()}
    found["options"] = {**options, **_options(by_name, given), **_weight_options(by_name)}
    return TrtexecSpec(**found)


def _all(given: Iterable[Given], name: str) -> list[str]:
    return [one.value for one in given if one.flag.name == name]


def _precision(given: Mapping[str, Given]) -> dict[str, str]:
    named = [name for name in (*PRECISIONS, "best") if name in given]
    if len(named) > 1 and set(named) != {"int8", "fp16"}:
        flags = ", ".join(f"--{name}" for name in named)
        mend = "give one; --best tries them all, and --layerPrecisions names single nodes"
        raise UsageError(f"{flags} are given together, and a graph has one precision", mend=mend)
    if "precisionConstraints" in given and (said := given["precisionConstraints"].value) != "obey":
        mend = "give --precisionConstraints=obey, or leave it out: each node's precision is obeyed"
        raise UsageError(f"--precisionConstraints is {said!r}", mend=mend)
    if "profilingVerbosity" in given and (said := given["profilingVerbosity"].value) != "detailed":
        mend = "leave it out: the layers that were built are always read back, which needs detailed"
        raise UsageError(f"--profilingVerbosity is {said!r}", mend=mend)
    if len(named) > 1:
        return {"precision": "int8", "rest": "fp16"}
    if named:
        return {"precision": named[0]}
    return {"precision": "fp32" if "noTF32" in given else "tf32"}


def _layer_precisions(given: Mapping[str, Given]) -> tuple[dict[str, str], str]:
    """Return the precision of single nodes, and that of all others where ``*`` names it."""
    if "layerPrecisions" not in given:
        return {}, ""
    if "precisionConstraints" not in given:
        mend = "give --precisionConstraints=obey too, as trtexec wants it"
        raise UsageError("--layerPrecisions is given without --precisionConstraints", mend=mend)
    nodes = parse_named(given["layerPrecisions"].value, "layer", "name:fp16")
    for precision in nodes.values():
        if precision not in PRECISIONS:
            raise UnknownNameError.from_choices("precision", precision, PRECISIONS)
    whole = nodes.pop("*", "")
    if patterns := [name for name in nodes if "*" in name]:
        raise UsageError(f"--layerPrecisions names {patterns[0]!r}", mend="name each node, or * alone for all others")
    return nodes, whole


def _shapes(given: Sequence[Given]) -> dict[str, Any]:
    """Read the shapes of every profile; the first profile holds all others, as an engine folder wants it."""
    profiles: dict[int, dict[str, dict[str, tuple[int, ...]]]] = {}
    at: dict[str, tuple[int, ...]] = {}
    index = 0
    for one in given:
        if one.flag.name == "profile":
            index = int(read_number(one, 0))
        elif one.flag.name == "shapes":
            at.update(parse_sizes(one.value))
        elif one.flag.name in ("minShapes", "optShapes", "maxShapes"):
            profiles.setdefault(index, {}).setdefault(one.flag.name, {}).update(parse_sizes(one.value))
    if sorted(profiles) != list(range(len(profiles))):
        raise UsageError(f"profiles {sorted(profiles)} have shapes", mend="number them 0, 1, 2, ... without a gap")
    read = [_profile(profiles[number]) for number in sorted(profiles)]
    if not read:
        return {"shapes": {name: Shape.fixed(sizes) for name, sizes in at.items()}, "at": at}
    shapes = {name: _hull([one[name] for one in read if name in one]) for one in read for name in one}
    return {"shapes": shapes, "profiles": tuple(read[1:]), "at": at}


def _profile(said: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, Shape]:
    if set(said) not in ({"optShapes"}, {"minShapes", "optShapes", "maxShapes"}):
        flags = ", ".join(f"--{name}" for name in said)
        mend = "give --optShapes alone, or all of --minShapes, --optShapes and --maxShapes"
        raise UsageError(f"of a profile only {flags} is given", mend=mend)
    found: dict[str, Shape] = {}
    for name, opt in said["optShapes"].items():
        low, high = said.get("minShapes", {name: opt}).get(name), said.get("maxShapes", {name: opt}).get(name)
        if low is None or high is None or not len(low) == len(opt) == len(high):
            mend = "give the same inputs and ranks to --minShapes, --optShapes and --maxShapes"
            raise UsageError(f"input {name!r} has sizes {low}, {opt} and {high}", mend=mend)
        found[name] = Shape(tuple(Dim(*sizes) for sizes in zip(low, opt, high, strict=True)))
    if lost := sorted({name for sizes in said.values() for name in sizes} - set(found)):
        raise UsageError(f"input {lost[0]!r} is not in --optShapes", mend="give it there too")
    return found


def _hull(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that holds them all, tuned for what the first is tuned for."""
    axes = zip(*(shape.dims for shape in shapes), strict=True)
    return Shape(tuple(Dim(min(d.min for d in axis), axis[0].opt, max(d.max for d in axis)) for axis in axes))


def _measuring(given: Mapping[str, Given]) -> dict[str, Any]:
    found: dict[str, Any] = {"measure": "skipInference" not in given}
    for name, on, off in (
        ("cuda_graph", "useCudaGraph", "noCudaGraph"),
        ("spin", "useSpinWait", "noSpinWait"),
        ("transfers", "includeDataTransfers", "noDataTransfers"),
    ):
        if on in given and off in given:
            raise UsageError(f"--{on} and --{off} are given together", mend="give one of them")
        if on in given or off in given:
            found[name] = on in given
    if "percentile" in given:
        texts = given["percentile"].value.split(",")
        parts = [Given(given["percentile"].flag, text) for text in texts]
        found["percentiles"] = tuple(read_number(part, 0, whole=False) for part in parts)
        if max(found["percentiles"]) > 100:  # noqa: PLR2004 - per cent
            raise UsageError(f"--percentile is {','.join(texts)}", mend="give numbers from 0 to 100")
    return found


def _options(given: Mapping[str, Given], flags: Sequence[Given]) -> dict[str, Option]:
    """Read what becomes an option of the backend under another name or in another unit."""
    found: dict[str, Option] = {}
    if "workspace" in given:
        found["workspace_mib"] = int(read_number(given["workspace"], 1))
    for pool, size in ((p, s) for text in _all(flags, "memPoolSize") for p, s in parse_named(text, "pool").items()):
        if pool != "workspace":
            raise UsageError(f"--memPoolSize names {pool}", mend="only the pool workspace can be sized here")
        found["workspace_mib"] = max(parse_bytes(size) // _MIB, 1)
    if "timingCacheFile" in given:
        found["timing_cache"] = str(Path(given["timingCacheFile"].value).absolute())
    if "noBuilderCache" in given:
        found["timing_cache"] = "off"
    if "hardwareCompatibilityLevel" in given:
        found["hardware_compatibility"] = _choice(given["hardwareCompatibilityLevel"], _LEVELS)
    if "sparsity" in given:
        found["sparse_weights"] = _choice(given["sparsity"], {"disable": False, "enable": True})
    if paths := _all(flags, "plugins"):
        found["plugins"] = ",".join(str(Path(path).absolute()) for text in paths for path in text.split(","))
    if "stronglyTyped" in given:
        found["allow_precision"] = ",".join(PRECISIONS)
    return found


def _weight_options(given: Mapping[str, Given]) -> dict[str, Option]:
    found: dict[str, Option] = {}
    strips = "stripWeights" in given or "stripAllWeights" in given
    if strips:
        found.update(strip_weights=True, refit="identical")
    if "refit" in given or "stripAllWeights" in given:
        found["refit"] = "yes"
    if "weightStreamingBudget" in given:
        found["weight_budget_mib"] = _budget(given["weightStreamingBudget"].value)
    return found


def _choice(given: Given, words: Mapping[str, Option]) -> Option:
    if given.value not in words:
        raise UnknownNameError.from_choices(f"value of --{given.flag.name}:", given.value, words)
    return words[given.value]


def _budget(text: str) -> int:
    if text == "-1":
        return -1
    if text == "-2" or text.endswith("%"):
        mend = "give -1 for TensorRT's own choice, or a size such as 512M"
        raise UsageError(f"--weightStreamingBudget is {text!r}", mend=mend)
    return parse_bytes(text, unit=1) // _MIB


def _types(given: Given) -> tuple[str, ...]:
    """Read ``fp32:chw`` or ``chw`` of each tensor as an element type, empty where none is named."""
    found = []
    for part in given.value.split(","):
        kind, colon, layout = part.rpartition(":")
        if layout != "chw" or (colon and kind not in _TYPES):
            mend = f"give {', '.join(f'{name}:chw' for name in _TYPES)}, or leave it out: tensors are linear here"
            raise UsageError(f"--{given.flag.name} names {part!r}", mend=mend)
        found.append(_TYPES[kind] if colon else "")
    return tuple(found)


def parse_named(text: str, kind: str, form: str = "name:value") -> dict[str, str]:
    """Read ``name:value,name:value``; a name may hold colons, and may stand in single quotes.

    Raises:
        UsageError: a part has no name, or a name occurs twice.

    Example:
        >>> parse_named("'Input:0':a.bin,mask:b.bin", "input")
        {'Input:0': 'a.bin', 'mask': 'b.bin'}
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, colon, value = part.strip().rpartition(":")
        name = name.strip("'\"\\")
        if not colon or not name:
            raise UsageError(f"{part.strip()!r} names no {kind}", mend=f"write it as {form}, joined by commas")
        if name in found:
            raise UsageError(f"{kind} {name!r} is given twice", mend="give it once")
        found[name] = value
    return found


def parse_sizes(text: str) -> dict[str, tuple[int, ...]]:
    """Read ``name:1x3x224x224,mask:1x128``; a scalar is ``name:scalar`` or ``name:``.

    Raises:
        UsageError: a part is not of that form.

    Example:
        >>> parse_sizes("input:1x3x8x8,step:scalar")
        {'input': (1, 3, 8, 8), 'step': ()}
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, body in parse_named(text, "input", "name:1x3x224x224").items():
        if body not in ("", "scalar") and not re.fullmatch(r"\d+(x\d+)*", body):
            raise UsageError(f"{body!r} is no shape for {name!r}", mend="write it as name:1x3x224x224")
        found[name] = tuple(int(size) for size in body.split("x")) if body not in ("", "scalar") else ()
    return found


def parse_bytes(text: str, *, unit: int = _MIB) -> int:
    """Read a size with B, K, M or G (and ``iB`` or ``B`` after it); in `unit` where none stands.

    Raises:
        UsageError: it is no size.

    Example:
        >>> parse_bytes("4096M") == parse_bytes("4G") == parse_bytes("4096"), parse_bytes("0.5MiB")
        (True, 524288)
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*(?:([KMG])(?:I?B)?|(B))?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is no size", mend="write it as 512M, 4G or 0.5MiB; a number alone is in MiB")
    suffix = (match[2] or match[3] or "").upper()
    return int(float(match[1]) * (_UNITS[suffix] if suffix else unit))
