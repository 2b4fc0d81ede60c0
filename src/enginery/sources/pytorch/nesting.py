"""Nested inputs and outputs as a flat list of named arrays, and back: dicts, tuples, lists and dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from enginery.errors import SourceError
from enginery.sources.pytorch.caches import cache_tensors, filled_cache, is_cache

__all__ = ["fill", "name_leaves"]

IsLeaf = Callable[[Any], bool]


def name_leaves(tree: Any, is_leaf: IsLeaf, *, single: str, constants: bool = False) -> list[tuple[str, Any]]:
    """Name every array of a nested value, in the order of its parts.

    A field of a dict, dataclass or named tuple gives its own name, an element of a sequence its place
    (``output_0``); names of deeper parts are joined with ``_``. None is left out. A cache of keys and values gives
    ``past_key_values.0.key``, and among the outputs ``present.0.key``.

    Args:
        tree: an array, or dicts, sequences and dataclasses of them.
        is_leaf: whether a value is an array.
        single: the name of an array that stands alone, and the stem for the elements of a sequence.
        constants: leave out whatever is no array, instead of refusing it.

    Raises:
        SourceError: a part is neither an array nor a known container, or two parts have one name.

    Example:
        >>> is_leaf = lambda value: isinstance(value, int)
        >>> name_leaves({"logits": 1, "states": (2, 3)}, is_leaf, single="output")
        [('logits', 1), ('states_0', 2), ('states_1', 3)]
        >>> name_leaves((1,), is_leaf, single="output")
        [('output', 1)]
    """
    found = list(_walk(tree, "", single, is_leaf, constants=constants))
    if len(found) == 1 and isinstance(tree, (tuple, list)) and not hasattr(tree, "_fields"):
        found = [(single, found[0][1])]
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"two parts of the model's {single}s are called {name!r}", mend="rename one of them")
    return found


def _walk(tree: Any, name: str, single: str, is_leaf: IsLeaf, *, constants: bool) -> Iterator[tuple[str, Any]]:
    if is_leaf(tree):
        yield name or single, tree
        return
    if is_cache(tree):
        yield from _walk_cache(tree, name, single)
        return
    parts = _parts(tree)
    if parts is None:
        if tree is None or constants:
            return
        raise SourceError(
            f"{single} {name or 'of the model'} is a {type(tree).__name__}, not a tensor",
            mend="wrap the model in one whose forward returns tensors, or a tuple or dict of them",
        )
    keyed, items = parts
    for key, value in items:
        # A field at the top needs no stem; the place in a sequence means nothing without one.
        joined = f"{name}_{key}" if name else (key if keyed else f"{single}_{key}")
        yield from _walk(value, joined, single, is_leaf, constants=constants)


def _walk_cache(cache: Any, name: str, single: str) -> Iterator[tuple[str, Any]]:
    """Name the keys and values of a cache as the field does: ``past_key_values.0.key``, ``present.0.key``."""
    stem = "present" if single == "output" else name or "past_key_values"
    for place, key, tensor in cache_tensors(cache):
        yield f"{stem}.{place}.{key}", tensor


def _parts(tree: Any) -> tuple[bool, list[tuple[str, Any]]] | None:
    """Return whether the parts have names, and the parts; None for what is no container."""
    if isinstance(tree, Mapping):
        return True, [(str(key), value) for key, value in tree.items()]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return True, [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    if isinstance(tree, (tuple, list)):
        fields = getattr(tree, "_fields", None)
        names = fields or [str(place) for place in range(len(tree))]
        return fields is not None, list(zip(names, tree, strict=True))
    return None


def fill(tree: Any, is_leaf: IsLeaf, values: Iterator[Any]) -> Any:
    """Return the nested value with its arrays replaced, in order, by `values`; everything else stays.

    Example:
        >>> fill({"a": 1, "b": (2, None)}, lambda value: isinstance(value, int), iter("xy"))
        {'a': 'x', 'b': ('y', None)}
    """
    if is_leaf(tree):
        return next(values)
    if is_cache(tree):
        return filled_cache(tree, values)
    if isinstance(tree, Mapping):
        return {key: fill(value, is_leaf, values) for key, value in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {f.name: fill(getattr(tree, f.name), is_leaf, values) for f in dataclasses.fields(tree) if f.init}
        return dataclasses.replace(tree, **fields)
    if isinstance(tree, (tuple, list)):
        filled = [fill(value, is_leaf, values) for value in tree]
        return type(tree)(*filled) if hasattr(tree, "_fields") else type(tree)(filled)
    return tree
