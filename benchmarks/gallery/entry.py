"""What an entry of the gallery is: a model with random weights, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Made"]


@dataclass(frozen=True)
class Made:
    """What an entry's `make` returns.

    Args:
        thing: whatever `enginery.export` takes: a module in memory, or a path that `make` wrote.
        example_inputs: of one call, where the source needs them.
    """

    thing: Any
    example_inputs: Any = None


@dataclass(frozen=True)
class Entry:
    """One architecture from one source.

    Args:
        name: unique in the gallery.
        family: what it is, such as ``cnn`` or ``text decoder``.
        source: where it comes from, such as ``torch`` or ``keras file``.
        make: makes the model, the same each time; whatever it writes goes into the folder it is given.
        shapes: the profile of each input as text; `min` and `opt` must differ, for two shapes are verified.
        ranges: of the random inputs, as text, by name; an integer input needs one.
        make_dynamic: axes of an ONNX model that shall vary.
        needs: packages that must be installed; without them the entry is skipped.
        known: why it does not pass; empty where it must.
        constant: why its outputs do not depend on its inputs; empty where they must.
        max_error: the largest relative L2 of an output.
    """

    name: str
    family: str
    source: str
    make: Callable[[Path], Made]
    shapes: Mapping[str, str]
    ranges: Mapping[str, str] = field(default_factory=dict)
    make_dynamic: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    known: str = ""
    constant: str = ""
    max_error: float = 1e-4
