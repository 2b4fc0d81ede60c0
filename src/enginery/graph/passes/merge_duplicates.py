"""Keep one of several equal initializers, and one of several equal computations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, is_random, run_library_pass
from enginery.graph.weights import chunks

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MergeEqualInitializers", "MergeEqualNodes"]

_BEGIN_BYTES = 1 << 12


class MergeEqualInitializers(Pass):
    """Keep one of several equal initializers, of any size; those on disk are read without being mapped."""

    name = "merge equal initializers"

    def requires(self, model: ir.Model) -> bool:
        """There must be two."""
        return any(len(graph.initializers) > 1 for graph in model.graphs())

    def apply(self, model: ir.Model) -> bool:
        """Compare them by their first bytes and by a hash; in ONNX's order, whatever their strides in memory are."""
        changed = False
        for graph in model.graphs():
            for alike in _grouped(list(_candidates(graph)), _begin):
                for equal in _grouped(alike, _digest):
                    _merge(graph, equal)
                    changed = True
        return changed


def _candidates(graph: ir.Graph) -> Iterator[ir.Value]:
    import onnx_ir as ir

    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        if not value.is_graph_input() and not value.is_graph_output():
            yield value


def _grouped(values: Iterable[ir.Value], key: Callable[[ir.TensorProtocol], Hashable]) -> list[list[ir.Value]]:
    """Return the values that share type, shape and key with another one."""
    groups: dict[Hashable, list[ir.Value]] = {}
    for value in values:
        tensor = value.const_value
        if tensor is not None:
            shape = tuple(tensor.shape.numpy())
            groups.setdefault((tensor.dtype, shape, key(tensor)), []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def _begin(tensor: ir.TensorProtocol) -> bytes:
    return next(chunks(tensor, _BEGIN_BYTES))[:_BEGIN_BYTES]


def _digest(tensor: ir.TensorProtocol) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks(tensor):
        digest.update(chunk)
    return digest.digest()


def _merge(graph: ir.Graph, equal: list[ir.Value]) -> None:
    first, *others = equal
    for value in others:
        value.replace_all_uses_with(first)
        del graph.initializers[value.name or ""]


class MergeEqualNodes(Pass):
    """Keep one of several nodes that do the same with the same inputs (common subexpressions)."""

    name = "merge equal nodes"

    def requires(self, model: ir.Model) -> bool:
        """Nothing may be random: two equal dice are still two."""
        return not any(is_random(node) for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Compare operator, inputs and attributes."""
        from onnx_ir.passes.common import CommonSubexpressionEliminationPass

        return run_library_pass(CommonSubexpressionEliminationPass(), model)
