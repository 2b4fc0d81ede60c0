"""Caches of keys and values as `transformers` has them, taken apart into tensors and put together again.

A cache is known by its shape, not by its class, so that the library is not needed: ``layers``, each with ``keys`` and
``values``; or two such caches, of a decoder's own tokens and of an encoder's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

__all__ = ["cache_tensors", "filled_cache", "is_cache"]

_PARTS = {"self_attention_cache": "decoder.", "cross_attention_cache": "encoder."}
_FIELDS = {"keys": "key", "values": "value"}
_LENGTH = "cumulative_length"


def is_cache(value: Any) -> bool:
    """Say whether a value is such a cache; one without any layer yet is one too."""
    if all(hasattr(value, part) for part in _PARTS):
        return True
    layers = getattr(value, "layers", None)
    return isinstance(layers, list) and hasattr(value, "update") and all(map(_is_layer, layers))


def cache_tensors(cache: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield the layer, the name and the tensor of all keys and values; layers that are still empty give none."""
    for place, name, layer in _layers(cache):
        for field, key in _FIELDS.items():
            if getattr(layer, field) is not None:
                yield place, f"{name}{key}", getattr(layer, field)


def filled_cache(cache: Any, values: Iterator[Any]) -> Any:
    """Return a copy with other tensors, taken from `values` in the order of `cache_tensors`.

    An empty cache is copied too: a model writes into what it is given.
    """
    new = _copied(cache)
    for _, _, layer in _layers(new):
        for field in _FIELDS:
            if getattr(layer, field) is not None:
                setattr(layer, field, next(values))
        if isinstance(getattr(layer, _LENGTH, None), int) and layer.keys is not None:
            setattr(layer, _LENGTH, layer.keys.shape[-2])
    return new


def _is_layer(layer: Any) -> bool:
    return all(hasattr(layer, field) and not callable(getattr(layer, field)) for field in _FIELDS)


def _layers(cache: Any) -> Iterator[tuple[int, str, Any]]:
    """Yield every layer with its place, and with the name of the part that it stands in: layer by layer."""
    parts = {name: getattr(cache, part) for part, name in _PARTS.items() if hasattr(cache, part)} or {"": cache}
    for place in range(max(len(part.layers) for part in parts.values())):
        for name, part in parts.items():
            if place < len(part.layers):
                yield place, name, part.layers[place]


def _copied(cache: Any) -> Any:
    new = copy.copy(cache)
    for part in _PARTS:
        if hasattr(cache, part):
            setattr(new, part, _copied(getattr(cache, part)))
    if hasattr(cache, "is_updated"):
        new.is_updated = dict(cache.is_updated)
    if isinstance(getattr(cache, "layers", None), list):
        new.layers = [copy.copy(layer) for layer in cache.layers]
    return new
