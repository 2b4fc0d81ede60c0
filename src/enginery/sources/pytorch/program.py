"""A ``torch.export.ExportedProgram``: its own signature, example inputs and dynamic axes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from enginery.errors import SourceError
from enginery.sources.axes import name_axes
from enginery.spec import Dim, Shape

__all__ = ["Program"]

_UNBOUNDED = 1 << 31


class Program:
    """What a program says of itself, in the terms of an export.

    Args:
        torch: the library.
        program: the caller's; it is not changed.
    """

    def __init__(self, torch: ModuleType, program: Any) -> None:
        self.program = program
        self.module = program.module()
        spec = program.call_spec.in_spec
        args, kwargs = torch.utils._pytree.tree_unflatten([None] * spec.num_leaves, spec)  # noqa: SLF001
        self._keywords = frozenset(kwargs)
        self._positional = len(args)
        users = set(program.graph_signature.user_inputs)
        nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in users]
        self._sizes: list[list[Any]] = [
            list(node.meta["val"].shape) for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)
        ]
        self._ranges = {
            str(symbol): _range(values)
            for symbol, values in program.range_constraints.items()
            if str(symbol).isidentifier()  # a formula such as 2*s27 has a range too
        }

    @property
    def signature(self) -> inspect.Signature:
        """Its arguments, of which some can be given by keyword only."""
        names = list(inspect.signature(self.module.forward).parameters)
        kinds = [
            inspect.Parameter.POSITIONAL_OR_KEYWORD if place < self._positional else inspect.Parameter.KEYWORD_ONLY
            for place in range(len(names))
        ]
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in zip(names, kinds, strict=True)])

    @property
    def tied(self) -> set[str]:
        """The symbols from which other sizes follow, as in ``2*s27``: they cannot be tried one by one."""
        texts = [str(size) for sizes in self._sizes for size in sizes if not isinstance(size, int)]
        return {symbol for text in texts if text not in self._ranges for symbol in re.findall(r"\w+", text)}

    def example_inputs(self) -> dict[str, Any] | None:
        """Return the inputs that it was exported with, by name; None where it was saved without."""
        if self.program.example_inputs is None:
            return None
        args, kwargs = self.program.example_inputs
        return {**dict(zip(self.signature.parameters, args, strict=False)), **kwargs}

    def resolve(
        self, shapes: Mapping[str, Shape], example: Mapping[str, tuple[int, ...]], label: str
    ) -> tuple[dict[str, Shape], dict[str, dict[int, str]], dict[str, str]]:
        """Join what was asked for with the axes that the program has.

        Args:
            shapes: the profiles asked for.
            example: sizes of the example inputs, in the program's order.
            label: what messages call it.

        Returns:
            A profile for every input, the names of its dynamic axes, and these names by the program's own symbols.

        Raises:
            SourceError: an axis is asked to vary, or to have a size, that the program does not allow.
        """
        own = dict(zip(example, self._sizes, strict=True))
        self._check(shapes, own, label)
        asked = name_axes(shapes)
        dims: dict[str, Dim] = {}
        for name, sizes in own.items():
            for axis, size in enumerate(sizes):
                if name in shapes and not isinstance(size, int):
                    dim = shapes[name].dims[axis]
                    dims.setdefault(str(size), replace(dim, name=asked[name].get(axis)))
        names: dict[str, str] = {}
        for name, sizes in own.items():
            for axis, size in enumerate(sizes):
                if str(size) in self._ranges and not isinstance(size, int):
                    dims.setdefault(str(size), self._open(str(size), example[name][axis]))
                    _name_symbol(names, str(size), dims[str(size)].name, axis)
        profiles = {
            name: Shape(
                tuple(
                    dims.get(str(size), Dim.fixed(now)) if not isinstance(size, int) else Dim.fixed(size)
                    for size, now in zip(sizes, example[name], strict=True)
                )
            )
            for name, sizes in own.items()
        }
        free = set(names) - self.tied
        axes = {
            name: {
                axis: names[str(size)]
                for axis, size in enumerate(sizes)
                if not isinstance(size, int) and str(size) in free and dims[str(size)].dynamic
            }
            for name, sizes in own.items()
        }
        return profiles, {name: found for name, found in axes.items() if found}, names

    def _check(self, shapes: Mapping[str, Shape], own: Mapping[str, Sequence[Any]], label: str) -> None:
        for name, shape in shapes.items():
            for axis, (dim, size) in enumerate(zip(shape.dims, own[name], strict=True)):
                where = f"input {name!r}, axis {axis}"
                again = f"export it again with dynamic_shapes={{{name!r}: {{{axis}: torch.export.Dim(...)}}}}"
                if isinstance(size, int):
                    if dim.dynamic or dim.opt != size:
                        raise SourceError(
                            f"{where} is fixed at {size} in {label}, {dim} was asked for",
                            mend=f"ask for {size} there, or {again}",
                        )
                    continue
                low, high = self._ranges.get(str(size), (0, _UNBOUNDED))
                if dim.max > high or (dim.min < low and low > 2):  # noqa: PLR2004 - torch says 2 where it means any
                    raise SourceError(
                        f"{where} may be {low}..{high if high < _UNBOUNDED else 'any'} in {label}, {dim} was asked for",
                        mend=f"ask for sizes in that range, or {again}",
                    )

    def _open(self, symbol: str, now: int) -> Dim:
        """Return sizes to try on an axis that nobody spoke of."""
        low, high = self._ranges[symbol]
        return Dim(min(max(low, 1), now), now, max(now, min(high, 2 * now)))


def _name_symbol(names: dict[str, str], symbol: str, given: str | None, axis: int) -> None:
    """Call a symbol as it was asked for, else after its place."""
    if symbol in names:
        return
    stem = given or ("batch" if axis == 0 else f"dim{axis}")
    taken = set(names.values())
    names[symbol] = next(name for place in range(len(taken) + 1) if (name := _numbered(stem, place)) not in taken)


def _numbered(stem: str, place: int) -> str:
    return f"{stem}_{place + 1}" if place else stem


def _range(values: Any) -> tuple[int, int]:
    low, high = values.lower, values.upper  # sympy's; infinities are no Integer
    return int(low) if low.is_Integer else 0, int(high) if high.is_Integer else _UNBOUNDED
