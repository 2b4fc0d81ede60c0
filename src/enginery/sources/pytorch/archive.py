"""Whether a file of PyTorch can be read without running what it brings.

``torch.export.load`` unpickles without restriction where the restricted way fails, evaluates the texts of sizes and
guards as Python, and writes names into Python that it then runs. So an archive is read here first, as data only.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from enginery.errors import CorruptModelError, UnsafeModelError

__all__ = ["check_program", "entries", "pickled_globals", "unsafe_pickle"]

_SAVE_AGAIN = "save it again with torch.export.save, where its inputs are plain tensors; or give a factory"
_PICKLES = 5
_PICKLED = (".pt", ".pkl")
_NAME = re.compile(r"[\w.:/\- ]*")
_TARGET = re.compile(r"torch\.ops\.[A-Za-z]\w*\.\w+(\.\w+)?|torch\.(_sym|sym)_\w+")
_ARITHMETIC = (
    "getitem", "add", "mul", "sub", "truediv", "ge", "le", "gt", "lt", "eq", "ne", "floordiv", "mod", "and_", "or_",
    "not_", "pow", "neg", "abs", "lshift", "rshift", "pos",
)  # fmt: skip
_BUILTIN = {f"_operator.{name}" for name in _ARITHMETIC} | {"math.ceil", "math.floor", "math.trunc"}
_FREE = frozenset({"as_string", "as_strings", "metadata", "torch_version"})  # quoted, or never evaluated
_EXPRESSION = (
    ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Constant, ast.Name, ast.Load, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop, ast.Call, ast.keyword, ast.Subscript, ast.Attribute,
)  # fmt: skip
_METHODS = frozenset({"size", "stride", "storage_offset", "shape", "ndim", "floor", "ceil", "trunc"})
_FUNCTIONS = frozenset({"floor", "ceiling", "len", "min", "max", "abs", "int", "float", "round"})


def entries(path: Path) -> dict[str, str]:
    """Return the entries of a zip archive by their path below its one top folder; nothing where it is no archive.

    Raises:
        CorruptModelError: it begins as an archive, and its end is missing.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise CorruptModelError(f"{path} is cut short: it begins as an archive", mend="copy or save it again")
        return {}
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(set(names)) < len(names):  # two readers could take two different ones
        raise CorruptModelError(f"{path} has two entries of one name", mend="save it again")
    top = names[0].partition("/")[0] + "/" if names else ""
    if not all(name.startswith(top) for name in names):
        top = ""  # before PyTorch 2.8, a program's files stood at the top
    return {name[len(top) :]: name for name in names}


def check_program(path: Path, is_plain: Callable[[bytes], bool]) -> None:
    """Refuse an exported program that could run code when it is loaded.

    Args:
        path: a ``.pt2`` archive.
        is_plain: whether a pickle holds nothing but tensors and containers.

    Raises:
        UnsafeModelError: it could; the message names the entry.
        CorruptModelError: its entries cannot be read.
    """
    found = entries(path)
    with zipfile.ZipFile(path) as archive:
        for short, name in found.items():
            if "aotinductor/" in short:
                raise UnsafeModelError(f"{path} brings compiled code: {short}", mend=_SAVE_AGAIN)
            try:
                if short.endswith(_PICKLED) and not is_plain(data := archive.read(name)) and data:
                    raise unsafe_pickle(path, short, data)
                if short.endswith(".json"):
                    _check_json(path, short, json.loads(archive.read(name)))
            except (ValueError, zipfile.BadZipFile, EOFError) as error:
                raise CorruptModelError(f"{path} is damaged at {short}: {error}", mend="save it again") from error


def unsafe_pickle(path: Path, entry: str, data: bytes) -> UnsafeModelError:
    """Say which globals a pickle wants to import."""
    wanted = ", ".join(list(dict.fromkeys(pickled_globals(data)))[:3])
    where = f"{path} ({entry})" if entry else str(path)
    return UnsafeModelError(f"{where} is a pickle that imports {wanted or 'code'} when it is loaded", mend=_SAVE_AGAIN)


def pickled_globals(data: bytes) -> Iterator[str]:
    """Yield the globals that a pickle imports, without unpickling it; those of containers and tensors are left out.

    Example:
        >>> import pickle
        >>> list(pickled_globals(pickle.dumps(print)))
        ['builtins.print']
    """
    strings: list[str] = []
    stream = io.BytesIO(data)
    try:  # before archives, several pickles stood one after another
        for opcode, argument, _ in itertools.chain.from_iterable(pickletools.genops(stream) for _ in range(_PICKLES)):
            if opcode.name in ("GLOBAL", "INST"):
                found = str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                found = ".".join(strings[-2:])
            else:
                if isinstance(argument, str):
                    strings.append(argument)
                continue
            if not found.startswith(("torch._utils.", "collections.OrderedDict")) and not found.endswith("Storage"):
                yield found
    except Exception:  # noqa: BLE001 - pickletools raises anything on what is no pickle; what was found before counts
        return


def _check_json(path: Path, entry: str, tree: Any) -> None:
    for key, value in _leaves(tree, ""):
        if key == "use_pickle" and value is True:
            raise UnsafeModelError(f"{path} ({entry}) has weights that are pickled objects", mend=_SAVE_AGAIN)
        if isinstance(value, str) and not _harmless(key, value):
            shown = value if len(value) <= 80 else f"{value[:77]}..."  # noqa: PLR2004 - a line
            raise UnsafeModelError(f"{path} ({entry}) has, as {key}, what could run: {shown}", mend=_SAVE_AGAIN)
        if key == "path_name" and isinstance(value, str) and not value.startswith(("weight_", "tensor_")):
            raise UnsafeModelError(f"{path} ({entry}) holds an object that is no tensor: {value}", mend=_SAVE_AGAIN)


def _leaves(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield each value with the key it stands under, and each key itself: both become names."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name not in _FREE:
                yield "name", name
                yield from _leaves(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, key)
    else:
        yield key, tree


def _harmless(key: str, value: str) -> bool:
    if key == "target":
        return value in _BUILTIN or value == "round" or _TARGET.fullmatch(value) is not None
    if key in ("expr_str", "guards_code"):
        return _is_arithmetic(value)
    if key in ("in_spec", "out_spec"):
        return not value or all(_spec_text(text) for _, text in _leaves(json.loads(value), "spec"))
    if key == "name" and "[" in value:  # a part of a list of tensors, such as "split[0]"
        value = re.sub(r"\[\d+\]", "", value)
    return _NAME.fullmatch(value) is not None


def _spec_text(text: Any) -> bool:
    if not isinstance(text, str):
        return True
    if "__enum__" in text or "default_factory" in text:
        return False
    return re.fullmatch(r"[\w.:/\- \"\[\],{}]*", text) is not None


def _is_arithmetic(text: str) -> bool:
    """Say whether a text only computes with sizes: no attribute, call or text beyond those that sizes need."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in nodes:
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in _METHODS:
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not re.fullmatch(r"\w+", node.value):
            return False
        if isinstance(node, ast.Call) and not _is_size_call(node.func):
            return False
    return True


def _is_size_call(called: ast.expr) -> bool:
    if isinstance(called, ast.Name):  # sympy's classes, such as Symbol and Mod
        return called.id in _FUNCTIONS or called.id[:1].isupper()
    return isinstance(called, ast.Attribute)
