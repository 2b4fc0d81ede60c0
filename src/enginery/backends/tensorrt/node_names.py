"""From the names that TensorRT gives its layers to the ONNX nodes and modules that they came from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from enginery.backends.tensorrt.versions import layer_metadata
from enginery.graph.base import all_nodes, module_path

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.versions import Api

__all__ = ["NodeNames"]

_METADATA = re.compile(r"\[ONNX Layer: ([^\x1f]*?)(?: \| [^\x1f]*)?\](?=\x1f|\[ONNX|$|\s)")
_RANGE = re.compile(r"\{ForeignNode\[(.+?)\.\.\.(.+?)\]\}", re.DOTALL)
_BETWEEN = re.compile(r" \+ | \|\| |, |\|\||[(){}\[\]]|\.\.\.|_myl\d+_\d+")
_PREFIX = re.compile(r"^(?:Reformatting CopyNode for (?:Input|Output) Tensor \d+ to |copied_squeeze_after_|PWN)")
_COUNTER = re.compile(r"_\d+$")
_NODE_OF = "node_of_"
_UNTOUCHED = ("Constant",)


class NodeNames:
    """Knows the nodes of a graph by every name that TensorRT may use for them.

    Args:
        graph: what the network was parsed from.

    The parser calls a layer after its node, and where the node has no name, ``node_of_`` and its first output; further
    layers of the same node get a counter behind that. The builder joins names: ``a + b`` for a fusion, ``a || b`` for
    nodes side by side, ``PWN(a, b)`` for a pointwise kernel, ``{ForeignNode[a...b]}`` for a region from a to b.
    """

    def __init__(self, graph: ir.Model) -> None:
        self.order: list[str] = []
        self.by_name: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self._makers: dict[str, str] = {}
        for node in all_nodes(graph):
            first = next((value.name for value in node.outputs if value.name), "")
            name = node.name or f"{_NODE_OF}{first}"
            if node.op_type not in _UNTOUCHED:
                self.order.append(name)
            self.by_name.setdefault(name, name)
            self.by_name.setdefault(f"{_NODE_OF}{first}", name)
            self._makers.update({value.name: name for value in node.outputs if value.name})
            if module := module_path(node):
                self.modules[name] = module

    def of_layer(self, name: str, metadata: str = "") -> tuple[str, ...]:
        """Return the nodes that a layer came from: of its metadata where that tells, else of its name.

        Those of a region (``ForeignNode``) without metadata are the first and the last; `between` lists the rest.
        """
        told = [self._known(match.strip()) for match in _METADATA.findall(metadata)]
        if any(told):
            return _once(told)
        found = self._known(name)
        parts = [found] if found else [self._known(part.strip()) for part in self._parts(name)]
        return _once(parts)

    def of_network(self, api: Api, network: Any) -> list[tuple[str, ...]]:
        """Return the nodes of every layer of a network that is not built yet, in its order.

        A layer that the parser gave no name of its own, as 8.6 those of a LayerNormalization, is found by the tensors
        that it makes, which are called as in the graph; one inside a node, by what reads it.
        """
        layers = [network.get_layer(at) for at in range(network.num_layers)]
        found = [self.of_layer(layer.name, layer_metadata(api, layer)) for layer in layers]
        readers: dict[str, set[str]] = {}
        for at in reversed(range(len(layers))):
            layer = layers[at]
            made = [layer.get_output(place).name for place in range(layer.num_outputs)]
            if not found[at]:
                own = _once([self._makers.get(name, "") for name in made])
                found[at] = own or _once(sorted(set().union(*(readers.get(name, ()) for name in made))))
            for place in range(layer.num_inputs):
                if (tensor := layer.get_input(place)) is not None:
                    readers.setdefault(tensor.name, set()).update(found[at])
        return found

    def region(self, name: str) -> tuple[str, str] | None:
        """Return the first and the last node of a region by its layer's name; None where it is none.

        An end that is no node is empty: a region may begin with a weight.
        """
        match = _RANGE.match(name)
        return (self._known(match[1].strip()), self._known(match[2].strip())) if match else None

    def between(self, ends: tuple[str, str], taken: Iterable[str]) -> tuple[str, ...]:
        """Return the nodes from one to another in the graph's order, without those that other layers have.

        The order is topological, so every node on a way from the first to the last is among them. From an end that is
        not known, all nodes on that side are.
        """
        places = [self.order.index(end) if end in self.order else None for end in ends]
        first, last = places[0] or 0, len(self.order) - 1 if places[1] is None else places[1]
        first, last = min(first, last), max(first, last)
        others = set(taken) - set(ends)
        return tuple(name for name in self.order[first : last + 1] if name not in others)

    def modules_of(self, nodes: Sequence[str]) -> tuple[str, ...]:
        """Return the paths of the modules that nodes came from, each once."""
        return _once([self.modules.get(name, "") for name in nodes])

    def _parts(self, name: str) -> list[str]:
        """Cut a name at what joins names; one that has such signs in itself is kept whole where it is known."""
        bare = _PREFIX.sub("", name)
        parts: list[str] = []
        for piece in re.split(r" \+ | \|\| ", bare):
            stripped = _PREFIX.sub("", piece.strip())
            parts += [stripped] if self._known(stripped) else _BETWEEN.split(stripped)
        return parts

    def _known(self, name: str) -> str:
        """Return the node that a name stands for; empty for none."""
        if name in self.by_name:
            return self.by_name[name]
        bare = _COUNTER.sub("", name)
        return self.by_name.get(bare, "") if bare != name else ""


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))
