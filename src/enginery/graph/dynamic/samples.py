"""Inputs that a proof is made on: random ones of any size, and rows of several joined into one."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from enginery.graph.dynamic.facts import Array

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.graph.dynamic.runs import Proof

__all__ = ["Feeds", "fits", "other_rows", "random_feeds", "stack"]

Feeds: TypeAlias = dict[str, Array]

_WORDS = ("the", "engine", "runs", "fast")


def stack(proof: Proof, samples: Sequence[Feeds], rows: int) -> Feeds:
    """Join the samples along the axes that vary, and cut to so many rows; other inputs are the first's."""
    axes = {axis.tensor: axis.index for axis in proof.group.axes}
    return {
        name: np.concatenate([sample[name] for sample in samples], axes[name]).take(range(rows), axes[name])
        if name in axes
        else array
        for name, array in samples[0].items()
    }


def other_rows(proof: Proof, first: Feeds, seed: int) -> Feeds:
    """Make another sample; inputs that do not vary stay as they are."""
    axes = {axis.tensor for axis in proof.group.axes}
    return {name: array if name in axes else first[name] for name, array in random_feeds(proof, seed).items()}


def random_feeds(proof: Proof, seed: int, size: int | None = None) -> Feeds:
    """Make random inputs: floats standard normal, whole numbers 0 or 1, which index any table."""
    feeds: Feeds = {}
    varying = {(axis.tensor, axis.index) for axis in proof.group.axes}
    for value in proof.original.graph.inputs:
        name = value.name or ""
        if value.shape is None or value.dtype is None:
            raise ValueError(f"input {name!r} is no tensor of a known rank")
        sizes = [
            (size or proof.group.size or 1) if (name, axis) in varying
            else dim if isinstance(dim, int) else proof.others.get(dim.value or "", 1)
            for axis, dim in enumerate(value.shape)
        ]  # fmt: skip
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        feeds[name] = _random(random, tuple(sizes), value.dtype)
    return feeds


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: ir.DataType) -> Array:
    if dtype.name == "STRING":
        return np.array(_WORDS, object)[random.integers(0, len(_WORDS), shape)]
    if dtype.is_floating_point():
        return random.standard_normal(shape).astype(dtype.numpy())
    return random.integers(0, 2, shape).astype(dtype.numpy())


def fits(examples: Mapping[str, Array], feeds: Feeds) -> bool:
    """Say whether examples have the names and shapes of some inputs."""
    return feeds.keys() == examples.keys() and all(np.shape(examples[name]) == a.shape for name, a in feeds.items())
