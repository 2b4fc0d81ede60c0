"""What a narrower type may do to each node, judged by the values its tensors took and by the constants it reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from enginery.records import DangerRecord
from enginery.tuning.watching import Seen

if TYPE_CHECKING:
    from enginery.graph.base import NodeStudy, Study

__all__ = ["SEVERITIES", "dangers_of", "depth_of"]

SEVERITIES = ("certain", "likely", "possible")
"""How sure a danger is: values are lost on what was watched, a constant is lost, or digits may be."""

_MASK = 1e30
_DEEP = 1 << 16
_MANY, _SOME = 0.5, 0.01
_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp",
               "GlobalAveragePool", "AveragePool")  # fmt: skip


def dangers_of(
    node: NodeStudy, study: Study, seen: Mapping[str, Seen], sizes: Mapping[str, tuple[int, ...]]
) -> tuple[DangerRecord, ...]:
    """List what may go wrong in one node, the worst first.

    Args:
        node: which one; none of it matters where the node computes in float32 anyway.
        study: the limits of the type.
        seen: what values tensors took.
        sizes: of every tensor that is known, constants and inputs among them.
    """
    if not node.lowers:
        return ()
    found = [*_of_tensors(node, study, seen), *_of_constants(node, study), *_of_sums(node, sizes)]
    return tuple(sorted(found, key=lambda danger: SEVERITIES.index(danger.severity)))


def _of_tensors(node: NodeStudy, study: Study, seen: Mapping[str, Seen]) -> Iterator[DangerRecord]:
    for name in dict.fromkeys((*node.outputs, *node.inputs)):
        one = seen.get(name)
        if one is None:
            continue
        verb = "makes" if name in node.outputs else "reads"
        if one.beyond:
            text = f"{verb} values up to {one.largest:.3g} in {name!r}, which exceed {study.largest:.6g}"
            yield DangerRecord("overflow", "certain", name, text)
        if one.vanished >= _SOME * one.elements and one.vanished:
            share = one.vanished / one.elements
            severity = "likely" if share > _MANY else "possible"
            text = f"{verb} values down to {one.smallest:.1e} in {name!r}: {share:.0%} of them become 0"
            yield DangerRecord("vanishing", severity, name, text)
        elif one.subnormal >= _SOME * one.elements and one.subnormal:
            share = one.subnormal / one.elements
            text = f"{verb} values down to {one.smallest:.1e} in {name!r}: {share:.0%} of them keep few digits"
            yield DangerRecord("subnormal", "possible", name, text)


def _of_constants(node: NodeStudy, study: Study) -> Iterator[DangerRecord]:
    for name, loss in node.losses.items():
        if loss.clamped:
            mask = loss.largest >= _MASK
            text = f"reads {_plural(loss.clamped, 'constant')} up to {loss.largest:.3g} in {name!r}, "
            text += f"which become {study.largest:.6g}" + (" (a mask)" if mask else "")
            yield DangerRecord("mask" if mask else "weight", "likely" if mask else "certain", name, text)
        if loss.vanished:
            text = f"reads {_plural(loss.vanished, 'constant')} in {name!r} below {study.smallest:.1e}, which become 0"
            severity = "likely" if loss.vanished == 1 else "possible"  # an epsilon, or a few weights of many
            yield DangerRecord("vanishing", severity, name, text)


def _of_sums(node: NodeStudy, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[DangerRecord]:
    depth = depth_of(node, sizes)
    if depth is not None and depth >= _DEEP:
        text = f"adds up {depth:,} numbers for each that it makes"
        yield DangerRecord("accumulation", "possible", node.outputs[0] if node.outputs else "", text)


def depth_of(node: NodeStudy, sizes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return how many numbers a node adds up for each number it makes; None where it adds up none, or nobody knows.

    Args:
        node: a matrix product, a convolution or a reduction.
        sizes: of tensors by name.
    """
    read = [sizes.get(name) for name in node.inputs]
    first = read[0] if read else None
    if node.operator in ("MatMul", "Gemm") and first:
        return first[-1]
    if node.operator in ("Conv", "ConvTranspose") and len(read) > 1 and read[1]:
        weight = read[1]
        return math.prod(weight[1:]) if node.operator == "Conv" else weight[0]
    made = sizes.get(node.outputs[0]) if node.outputs else None
    if node.operator in _REDUCTIONS and first and made is not None:
        return math.prod(first) // max(math.prod(made), 1)
    return None


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
