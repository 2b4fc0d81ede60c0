"""Proof by numbers that a graph whose axis was made dynamic still computes what it did, at other sizes too."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from enginery.errors import EngineryError, OutputError
from enginery.graph.agree import difference
from enginery.graph.dynamic.facts import PROBES, Array, Facts
from enginery.graph.dynamic.refusal import Blocker, named_in, refuse
from enginery.graph.dynamic.request import DynamicAxes
from enginery.graph.passes.base import is_random
from enginery.spec import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Evaluate", "Proof", "prove"]

Feeds: TypeAlias = dict[str, Array]
Evaluate: TypeAlias = "Callable[[ir.Model, Mapping[str, Array]], Feeds]"
"""Runs a graph on some inputs and returns the outputs by name."""

_OPEN_SIZED = frozenset({"NonMaxSuppression", "NonZero", "Compress", "Unique", "If", "Loop", "Scan"})
_MOST_ENDS = 3
_AT_ONCE_BYTES = 1 << 26
_WORDS = ("the", "engine", "runs", "fast")


@dataclass(frozen=True)
class Proof:
    """What is compared: the original, the changed graph, and what is known of it.

    Args:
        original: the graph with the axis fixed.
        changed: the graph with the axis dynamic.
        group: the axes.
        facts: of `changed`.
        shapes: profiles of the inputs.
        others: sizes of the names that were dynamic before.
    """

    original: ir.Model
    changed: ir.Model
    group: DynamicAxes
    facts: Facts
    shapes: Mapping[str, Shape]
    others: Mapping[str, int]


def prove(
    proof: Proof, evaluate: Evaluate | None, examples: Mapping[str, Array] | None, blockers: Sequence[Blocker]
) -> str:
    """Compare the changed graph with the original one, and say in a note what was proved and what was not.

    Raises:
        GraphError: they differ, or the changed one does not run at another size; names the nodes.
    """
    if evaluate is None:
        return "not proved: there was nothing to run the graph with"
    if any(is_random(node) for node in proof.changed.graph.all_nodes()):
        return "not proved: the graph draws random numbers"
    run = _Runs(proof, evaluate, tuple(blockers))
    try:
        first = _random_feeds(proof, 0)
    except ValueError as error:
        return f"not proved: {error}"
    if examples is not None and _fits(examples, first):
        first = {name: np.asarray(examples[name], array.dtype) for name, array in first.items()}
    expected = run.original(first)
    found = run.changed(first, proof.group.size or 1)
    if said := difference([expected], [found]):
        run.refuse_mixing([first], f"at the original size {proof.group.size}, {said}")
    if proof.group.may_be_rows:
        said = _prove_rows(proof, run, first, expected)
        if said or proof.group.every_first:
            return said
    return _prove_shapes(proof, run)


def _prove_rows(proof: Proof, run: _Runs, first: Feeds, expected: Feeds) -> str:
    """Run other numbers of rows and compare each with what the original gives; empty where rows are not alone."""
    size = proof.group.size or 1
    samples = [first, *(_other_rows(proof, first, seed) for seed in (1, 2))]
    outputs = [expected, *(run.original(sample) for sample in samples[1:])]
    sizes = sorted({1, 2, 3, size + 1} - {size})[-3 if size > 1 else -2 :]
    open_ended: set[str] = set()
    for rows in sizes:
        stacked = _stack(proof, samples, rows)
        found = run.changed(stacked, rows)
        for name, array in found.items():
            said = _compare_rows(name, array, [output[name] for output in outputs], rows, size)
            if said and _is_open(proof, name):
                open_ended.add(name)
            elif said:
                if not proof.group.every_first:
                    return ""
                run.refuse_mixing(samples, f"with {rows} rows, {said}")
    return _described_rows(sizes, outputs, expected, open_ended)


def _described_rows(sizes: Sequence[int], outputs: Sequence[Feeds], expected: Feeds, open_ended: set[str]) -> str:
    shown = " and ".join([", ".join(map(str, sizes[:-1])), str(sizes[-1])])
    text = f"proved: the original's outputs at its own size, and each row's at {shown} different rows"
    if open_ended:
        names = ", ".join(repr(name) for name in sorted(open_ended))
        text += f"; not proved for {names}, whose size depends on the data: it runs at these sizes"
    if len(open_ended) < len(expected) and not difference(outputs[:1], outputs[1:2]):
        text += "; the outputs are the same for every input tried, so this proves little"
    return text


def _compare_rows(name: str, found: Array, parts: Sequence[Array], rows: int, size: int) -> str:
    """Say where stacked rows differ from the original's own; empty where they are the same."""
    first = parts[0]
    if isinstance(first, np.ndarray) and isinstance(found, np.ndarray) and first.ndim == found.ndim:
        for axis, length in enumerate(first.shape):
            if found.shape[axis] * size == length * rows and found.shape != first.shape:
                joined = np.concatenate(parts, axis).take(range(found.shape[axis]), axis)
                return difference([{name: joined}], [{name: found}]) if joined.shape == found.shape else _shapes(
                    name, found, first)  # fmt: skip
        if found.shape == first.shape:
            differ = (difference([{name: part}], [{name: found}]) for part in parts[: -(-rows // size)])
            return next((f"{said}, and it has no axis for the rows" for said in differ if said), "")
    return _shapes(name, found, first)


def _shapes(name: str, found: Array, first: Array) -> str:
    return f"output {name!r} is {list(np.shape(found))} where one call of the original gives {list(np.shape(first))}"


def _is_open(proof: Proof, name: str) -> bool:
    """Say whether an output's size depends on the data, so that rows cannot be told apart."""
    value = next(value for value in proof.changed.graph.outputs if value.name == name)
    if proof.facts.of(value).known:
        return False
    seen, waiting = set(), [value]
    while waiting:
        node = waiting.pop().producer()
        if node is not None and node not in seen:
            seen.add(node)
            if node.op_type in _OPEN_SIZED:
                return True
            waiting += [value for value in node.inputs if value is not None]
    return False


def _prove_shapes(proof: Proof, run: _Runs) -> str:
    """Run two other sizes, and compare the outputs' shapes with those that were inferred."""
    sizes = _sizes_to_try(proof)
    followed: set[str] = set()
    for size in sizes:
        found = run.changed(_random_feeds(proof, 1, size), size)
        facts = Facts(proof.changed, [{**proof.others, proof.group.name: size}] * PROBES)
        for node in proof.changed.graph:
            facts.learn(node)
        for value in proof.changed.graph.outputs:
            name, inferred = value.name or "", facts.of(value).shapes[0]
            real = np.shape(found[name])
            known = inferred is not None and len(inferred) == len(real)
            if known and any(a not in (None, b) for a, b in zip(inferred or (), real, strict=True)):
                run.refuse(f"at {size}, output {name!r} has the shape {list(real)} instead of {list(inferred or ())}")
            followed |= {name} if proof.facts.of(value).moves else set()
    names = ", ".join(repr(name) for name in sorted(followed)) or "no output"
    shown = " and ".join(map(str, sizes))
    return (
        f"proved: the original's outputs at its own size; at {shown} it runs, and the outputs have the shapes that "
        f"follow ({names} vary); their values there were not compared with anything"
        + (f"; the axis ends at {ends}" if (ends := _ends(run.blockers)) else "")
    )


def _ends(blockers: Sequence[Blocker]) -> str:
    """Name the nodes whose output the axis does not reach."""
    shown = ", ".join(blocker.place for blocker in blockers[:_MOST_ENDS])
    return shown + (f" and {len(blockers) - _MOST_ENDS} more" if len(blockers) > _MOST_ENDS else "")


def _sizes_to_try(proof: Proof) -> list[int]:
    """Return two other sizes: the ends of the profile where there is one, else half and double."""
    size = proof.group.size or 1
    given: list[int] = []
    for axis in proof.group.axes:
        profile = proof.shapes.get(axis.tensor)
        if profile is not None and axis.index < len(profile.dims):
            dim = profile.dims[axis.index]
            given += [dim.min, dim.max, dim.opt]
    usual = [size // 2, 2 * size] if size > 1 and size % 2 == 0 else [2 * size, 3 * size]
    return list(dict.fromkeys(one for one in (*given, *usual) if one not in (0, size)))[:2]


@dataclass(frozen=True)
class _Runs:
    """Runs of both graphs; what fails becomes the refusal that names a node."""

    proof: Proof
    evaluate: Evaluate
    blockers: tuple[Blocker, ...]

    def original(self, feeds: Feeds) -> Feeds:
        """Run the graph as it was; what it raises is the caller's."""
        return self.evaluate(self.proof.original, feeds)

    def changed(self, feeds: Feeds, size: int) -> Feeds:
        """Run the changed graph.

        Raises:
            GraphError: it fails.
        """
        named = _with_names(self.proof.changed)
        try:
            return self.evaluate(named, feeds)
        except OutputError:
            raise
        except EngineryError as error:
            said = str(error.message)
            node = named_in(said, named)
            first = said.strip().split("\n", 1)[0]
            refuse(self.proof.group, [node] if node else self.blockers, f"it does not run at size {size}"
                   + ("" if node else f": {first}"))  # fmt: skip

    def refuse(self, found: str) -> None:
        """Refuse, naming where the axis gets lost."""
        refuse(self.proof.group, self.blockers, found)

    def refuse_mixing(self, samples: Sequence[Feeds], found: str) -> None:
        """Refuse, naming the first node whose output for some rows depends on the others."""
        node = self._first_mixing(samples)
        lost = any(node is not None and node.outputs[0].name == other.node.outputs[0].name for other in self.blockers)
        why = "its output has no axis for the rows" if lost else "its output for one row depends on the other rows"
        blockers = [Blocker.of(node, why, certain=True)] if node is not None else self.blockers
        refuse(self.proof.group, blockers, found)

    def _first_mixing(self, samples: Sequence[Feeds]) -> ir.Node | None:
        """Compare what every node computes for stacked rows with what it computes for them alone."""
        size = self.proof.group.size or 1
        rows = size * min(len(samples), 2)
        stacked = _stack(self.proof, samples, rows)
        makers = {value.name: node for node in self.proof.changed.graph for value in node.outputs}
        for names in self._portions():
            try:
                found = self.evaluate(self._showing(self.proof.changed, names), stacked)
                alone = [self.evaluate(self._showing(self.proof.original, names), one) for one in samples[:2]]
            except OutputError:
                raise
            except EngineryError:  # some tensors can be no outputs; the refusal then names where the axis gets lost
                return None
            for name in names:
                if _compare_rows(name, found[name], [one[name] for one in alone], rows, size):
                    return makers[name]
        return None

    def _showing(self, model: ir.Model, names: Sequence[str]) -> ir.Model:
        """Return a copy of one of the graphs whose outputs are these tensors."""
        copy = model.clone()
        types = {value.name: value.type for node in self.proof.changed.graph for value in node.outputs}
        values = {value.name: value for node in copy.graph for value in node.outputs}
        copy.graph.outputs.clear()
        for name in names:
            values[name].type = types[name]
            copy.graph.outputs.append(values[name])
        return copy

    def _portions(self) -> Iterator[list[str]]:
        """Yield names of tensors that both graphs have, in their order, a limited number of bytes at a time."""
        both = {value.name for node in self.proof.original.graph for value in node.outputs}
        names: list[str] = []
        total = 0
        for node in self.proof.changed.graph:
            for value in node.outputs:
                fact = self.proof.facts.of(value)
                shape = fact.shapes[1]
                if (
                    value.name in both
                    and value.name
                    and fact.data[0] is None
                    and value.type is not None
                    and shape
                    and None not in shape
                ):
                    names.append(value.name)
                    total += 4 * int(np.prod([dim or 1 for dim in shape]))
                if total > _AT_ONCE_BYTES:
                    yield names
                    names, total = [], 0
        if names:
            yield names


def _with_names(model: ir.Model) -> ir.Model:
    """Return a copy whose nodes all have names, so that a runtime's message can tell which it is about."""
    copy = model.clone()
    for node in copy.graph.all_nodes():
        node.name = node.name or (node.outputs[0].name if node.outputs else None)
    return copy


def _stack(proof: Proof, samples: Sequence[Feeds], rows: int) -> Feeds:
    """Join the samples along the axes that vary, and cut to so many rows; other inputs are the first's."""
    axes = {axis.tensor: axis.index for axis in proof.group.axes}
    return {
        name: np.concatenate([sample[name] for sample in samples], axes[name]).take(range(rows), axes[name])
        if name in axes
        else array
        for name, array in samples[0].items()
    }


def _other_rows(proof: Proof, first: Feeds, seed: int) -> Feeds:
    """Make another sample; inputs that do not vary stay as they are."""
    axes = {axis.tensor for axis in proof.group.axes}
    return {name: array if name in axes else first[name] for name, array in _random_feeds(proof, seed).items()}


def _random_feeds(proof: Proof, seed: int, size: int | None = None) -> Feeds:
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


def _fits(examples: Mapping[str, Array], feeds: Feeds) -> bool:
    return feeds.keys() == examples.keys() and all(np.shape(examples[name]) == a.shape for name, a in feeds.items())
