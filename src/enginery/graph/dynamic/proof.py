"""Proof by numbers that a graph whose axis was made dynamic still computes what it did, at other sizes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from enginery.graph.agree import difference
from enginery.graph.dynamic.facts import PROBES, Array, Facts
from enginery.graph.dynamic.refusal import Blocker
from enginery.graph.dynamic.runs import Evaluate, Proof, Runs, compare_rows
from enginery.graph.dynamic.samples import Feeds, fits, other_rows, random_feeds, stack
from enginery.graph.passes.base import is_random

__all__ = ["prove"]

_OPEN_SIZED = frozenset({"NonMaxSuppression", "NonZero", "Compress", "Unique", "If", "Loop", "Scan"})
_MOST_ENDS = 3


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
    run = Runs(proof, evaluate, tuple(blockers))
    try:
        first = random_feeds(proof, 0)
    except ValueError as error:
        return f"not proved: {error}"
    if examples is not None and fits(examples, first):
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


def _prove_rows(proof: Proof, run: Runs, first: Feeds, expected: Feeds) -> str:
    """Run other numbers of rows and compare each with what the original gives; empty where rows are not alone."""
    size = proof.group.size or 1
    samples = [first, *(other_rows(proof, first, seed) for seed in (1, 2))]
    outputs = [expected, *(run.original(sample) for sample in samples[1:])]
    sizes = sorted({1, 2, 3, size + 1} - {size})[-3 if size > 1 else -2 :]
    open_ended: set[str] = set()
    for rows in sizes:
        stacked = stack(proof, samples, rows)
        found = run.changed(stacked, rows)
        for name, array in found.items():
            said = compare_rows(name, array, [output[name] for output in outputs], rows, size)
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


def _prove_shapes(proof: Proof, run: Runs) -> str:
    """Run two other sizes, and compare the outputs' shapes with those that were inferred."""
    sizes = _sizes_to_try(proof)
    followed: set[str] = set()
    for size in sizes:
        found = run.changed(random_feeds(proof, 1, size), size)
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
    names = ", ".join(repr(name) for name in sorted(followed)) or "none"
    shown = " and ".join(map(str, sizes))
    return (
        f"proved: the original's outputs at its own size; at {shown} it runs, and the outputs have the shapes that "
        f"follow (varying: {names}); their values there were not compared with anything"
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
