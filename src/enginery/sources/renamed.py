"""A source whose outputs are called as the user asked; whatever its framework, its inner source keeps its own names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from enginery.benchmark.base import Timer
from enginery.errors import UnknownNameError, UsageError
from enginery.sources.base import Array, Evaluate, Exported, Source
from enginery.spec import Shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RenamedOutputs", "match_names"]


def match_names(asked: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """Return the new name of every output by its own.

    Args:
        asked: a name for each output, in order; or ``OLD=NEW`` for those that shall have another.
        own: the outputs, in order.

    Raises:
        UnknownNameError: there is no output of an old name.
        UsageError: there are too many or too few names, or two outputs would have one.

    Example:
        >>> match_names(["scores"], ["output"]), match_names(["y=b"], ["x", "y"])
        ({'output': 'scores'}, {'x': 'x', 'y': 'b'})
    """
    pairs = dict(_pairs(asked, own))
    names = {name: pairs.get(name, name) for name in own}
    for name in names.values():
        if list(names.values()).count(name) > 1:
            raise UsageError(f"two outputs would be called {name!r}", mend="give each a name of its own")
    return names


def _pairs(asked: Sequence[str], own: Sequence[str]) -> Iterator[tuple[str, str]]:
    if any("=" in text for text in asked):
        for text in asked:
            old, equals, new = (part.strip() for part in text.partition("="))
            if not equals or not new:
                raise UsageError(
                    f"{text!r} is no output's old and new name", mend="write each as OLD=NEW, or each as NEW, in order"
                )
            if old not in own:
                raise UnknownNameError.from_choices("output", old, own)
            yield old, new
        return
    if len(asked) != len(own):
        names = f"{len(asked)} output name{'s' * (len(asked) != 1)}"
        outputs = f"{len(own)} output{'s' * (len(own) != 1)}"
        raise UsageError(
            f"{names} for {outputs}: {', '.join(own)}",
            mend="give one name for each, in this order, or OLD=NEW for those that shall change",
        )
    yield from zip(own, asked, strict=True)


class RenamedOutputs:
    """Another source with other names of its outputs, in the graph and where it computes itself.

    Args:
        source: closed with this one.
        asked: as for `match_names`.
    """

    def __init__(self, source: Source, asked: Sequence[str]) -> None:
        self._source = source
        self._asked = tuple(asked)

    @property
    def kind(self) -> str:
        """That of the inner source."""
        return self._source.kind

    @property
    def label(self) -> str:
        """That of the inner source."""
        return self._source.label

    @property
    def framework(self) -> str | None:
        """What `run` computes with; None where the graph is its own reference."""
        return self._source.framework

    @property
    def sha256(self) -> str:
        """That of the inner source: names of outputs are no part of it."""
        return self._source.sha256

    def export(
        self, *, shapes: Mapping[str, Shape], opset: int | None = None, evaluate: Evaluate | None = None
    ) -> Exported:
        """Export the inner source, and rename the outputs of its graph.

        Raises:
            UnknownNameError: an old name is none of an output.
            UsageError: the names do not fit the outputs.
            ExportError: as the inner source raises it.
        """
        exported = self._source.export(shapes=shapes, opset=opset, evaluate=evaluate)
        names = match_names(self._asked, [value.name or "" for value in exported.graph.graph.outputs])
        for model in (exported.graph, exported.original):
            if model is not None:
                _rename(model.graph, names)
        changed = [f"the output {old!r} is called {new!r}, as asked for" for old, new in names.items() if old != new]
        notes = (*exported.record.notes, *changed)
        return replace(exported, record=replace(exported.record, notes=notes))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute in the inner source's framework; the caller owns what is returned."""
        outputs = self._source.run(feeds)
        names = match_names(self._asked, list(outputs))
        return {names[name]: array for name, array in outputs.items()}

    def timer(self, feeds: Mapping[str, Array]) -> Timer:
        """Return the inner source's timer."""
        return self._source.timer(feeds)

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def example_feeds(self) -> dict[str, Array] | None:
        """Return the inner source's example inputs."""
        return self._source.example_feeds()


def _rename(graph: ir.Graph, names: Mapping[str, str]) -> None:
    """Rename a graph's outputs; inner values of the new names give way."""
    new = {name for old, name in names.items() if name != old}
    for value in graph.inputs:
        if value.name in new:
            raise UsageError(f"an input is called {value.name!r} already", mend="give the output another name")
    _give_way(graph, new)
    for place, value in enumerate(graph.outputs):
        wanted = names[value.name or ""]
        if wanted == value.name:
            continue
        if value.producer() is None:  # an input or a weight, whose own name stays
            graph.outputs[place] = _passed_on(graph, value)
        graph.outputs[place].name = wanted


def _give_way(graph: ir.Graph, new: set[str]) -> None:
    inner = [value for node in graph.all_nodes() for value in node.outputs if value not in set(graph.outputs)]
    inner += [value for value in graph.initializers.values() if value not in set(graph.outputs)]
    taken = new | {value.name or "" for value in (*inner, *graph.inputs, *graph.outputs)}
    for value in inner:
        if value.name in new:
            value.name = next(
                name for count in range(1, len(taken) + 2) if (name := f"{value.name}_{count}") not in taken
            )
            taken.add(value.name)


def _passed_on(graph: ir.Graph, value: ir.Value) -> ir.Value:
    import onnx_ir as ir

    node = ir.node("Identity", [value])
    graph.append(node)
    output = node.outputs[0]
    output.shape, output.type = value.shape, value.type
    return output
