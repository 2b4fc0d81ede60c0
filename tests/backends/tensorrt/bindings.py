"""What the real bindings of 28 versions have, and what our source uses of them."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import enginery.backends.tensorrt as package

__all__ = ["OBJECTS", "Use", "bindings", "exists_in", "members", "sources", "spans_of", "uses", "versions"]

OBJECTS = {
    "builder": "Builder", "network": "INetworkDefinition", "config": "IBuilderConfig", "parser": "OnnxParser",
    "profile": "IOptimizationProfile", "runtime": "Runtime", "engine": "ICudaEngine", "context": "IExecutionContext",
    "inspector": "EngineInspector", "refitter": "Refitter", "layer": "ILayer", "tensor": "ITensor",
    "cache": "ITimingCache",
}  # fmt: skip
"""The class of each object of TensorRT, by the name that our source gives to every variable that holds one."""

FUNCTIONS = frozenset({"init_libnvinfer_plugins", "get_plugin_registry", "nptype", "__version__"})
"""Functions of the module, which all versions have and the table, a table of classes, does not list."""

_NAMING_CALLS = ("find", "need", "lacks", "set")


@dataclass(frozen=True)
class Use:
    """One name below TensorRT's module that our source uses, such as ``BuilderFlag.TF32``, and where."""

    dotted: str
    line: int
    by_name: bool = False
    holder: str = ""


@functools.cache
def bindings() -> dict:
    """Return the table: about, versions, classes with the spans of each and of its members."""
    return json.loads((Path(__file__).parent / "tensorrt_api.json").read_text(encoding="utf-8"))


def versions() -> tuple[str, ...]:
    """Return all versions, those of TensorRT-RTX with an R before them."""
    return tuple(bindings()["versions"])


def exists_in(span: str) -> frozenset[str]:
    """Return the versions of a span such as ``8.5-10.16, 11.2 | R1.4``."""
    found = set()
    for part in re.split(r"[|,]", span):
        first, _, last = (word.strip() for word in part.partition("-"))
        if not first:
            continue
        known = [version for version in versions() if version.startswith("R") == first.startswith("R")]
        begin = known.index(first)
        found |= set(known[begin : known.index(last) + 1] if last else [first])
    return frozenset(found)


def members(dotted: str) -> frozenset[str] | None:
    """Return the versions that have a class, or a class's member; None where no version has."""
    name, _, member = dotted.partition(".")
    row = bindings()["classes"].get(name)
    if row is None:
        return None
    if not member:
        return exists_in(row["in"])
    if member not in row["members"]:
        return None
    return exists_in(row["members"][member]) & exists_in(row["in"])


def spans_of(tensorrt: str, rtx: str) -> frozenset[str]:
    """Return the versions that a `Feature` says have it: ``10.0+``, ``8.5-10.16``, ``1.4``, or nothing."""
    known = {"": [v for v in versions() if not v.startswith("R")], "R": [v for v in versions() if v.startswith("R")]}
    found: set[str] = set()
    for prefix, text in (("", tensorrt), ("R", rtx)):
        if not text:
            continue
        first, _, last = text.rstrip("+").partition("-")
        begin = known[prefix].index(prefix + first)
        end = len(known[prefix]) if text.endswith("+") else known[prefix].index(prefix + (last or first)) + 1
        found |= set(known[prefix][begin:end])
    return frozenset(found)


def sources() -> list[Path]:
    """Return the files of the TensorRT backend; cuda.py is left out, whose runtime is CUDA's."""
    return sorted(path for path in Path(package.__file__).parent.rglob("*.py") if path.name != "cuda.py")


def uses(tree: ast.AST) -> Iterator[Use]:
    """Yield what a source uses of TensorRT: ``trt.A.B``, members of `OBJECTS`, and names given to an `Api` as text.

    The runtime has a class `Tensor` of its own: where a source takes anything from its module, a tensor is ours.
    """
    ours = {"tensor"} if _knows_our_tensors(tree) else set()
    for use in _all_uses(tree):
        if use.holder not in ours:
            yield use


def _knows_our_tensors(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.ClassDef) and node.name == "Tensor")
        or (isinstance(node, ast.ImportFrom) and node.module == "enginery.backends.tensorrt.tensors")
        for node in ast.walk(tree)
    )


def _all_uses(tree: ast.AST) -> Iterator[Use]:
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            yield from _of_attribute(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in OBJECTS:
            yield Use(f"{OBJECTS[node.value.id]}.{node.attr}", node.lineno, holder=node.value.id)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_attribute(node: ast.Attribute) -> Iterator[Use]:
    words: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        words.insert(0, at.attr)
        at = at.value
    if isinstance(at, ast.Name):
        words.insert(0, at.id)
    start = _start(words)
    if start is None:
        return
    base, rest = start
    dotted = [word for word in (base, *rest) if word][:2]
    if dotted and not dotted[-1].startswith("__"):  # what every Python class has
        holder = next((name for name, kind in OBJECTS.items() if kind == base), "")
        yield Use(".".join(dotted), node.lineno, holder=holder)


def _start(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the class (empty for the module) that a chain of names begins below, and the names after it."""
    for at in range(len(words) - 1, -1, -1):
        if words[at] == "trt" or (words[at] == "module" and at > 0 and words[at - 1] == "api"):
            return "", words[at + 1 :]
        if words[at] in OBJECTS and at + 1 < len(words) and (at == 0 or words[at - 1] == "self"):
            return OBJECTS[words[at]], words[at + 1 :]
    return None


def _of_call(node: ast.Call) -> Iterator[Use]:
    called = node.func
    if isinstance(called, ast.Attribute) and called.attr in _NAMING_CALLS:
        for argument in node.args[:2]:
            if isinstance(argument, ast.Constant) and _is_dotted(argument.value):
                yield Use(argument.value, node.lineno, by_name=True)
    if isinstance(called, ast.Name) and called.id in ("getattr", "hasattr", "setattr") and len(node.args) > 1:
        holder, name = node.args[:2]
        if isinstance(holder, ast.Name) and holder.id in OBJECTS and isinstance(name, ast.Constant):
            yield Use(f"{OBJECTS[holder.id]}.{name.value}", node.lineno)


def _is_dotted(text: object) -> bool:
    return isinstance(text, str) and text.partition(".")[0] in bindings()["classes"]
