"""Cast a graph to the precision of a plan.

`enginery.graph.precision.decide` says which type each tensor takes; here the graph is changed to it: weights are
converted, and a Cast stands wherever a tensor is read in another type than it is made in, one for all its readers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginery.graph.modules import MODULE_KEY
from enginery.graph.passes.base import constant_value, is_op
from enginery.graph.precision.convert import cast_array, cast_tensor
from enginery.graph.precision.decide import Types, low_type
from enginery.graph.precision.losses import Losses
from enginery.graph.precision.names import Names
from enginery.graph.precision.plan import check_plan
from enginery.graph.precision.prepare import prepared
from enginery.graph.precision.slots import is_float32

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import PrecisionPlan

__all__ = ["apply_plan"]

_WORDS = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16"}


def apply_plan(
    model: ir.Model, plan: PrecisionPlan, *, convert_io: bool = False, say: Callable[[str], None] | None = None
) -> ir.Model:
    """Return the graph with element types as a plan says; see `enginery.graph.base.apply_plan`."""
    check_plan(model, plan)
    asked = {low_type(precision).name for precision in (plan.precision, *plan.nodes.values())} - {"FLOAT"}
    if not asked:
        return model
    typed = prepared(model, asked)
    caster = _Caster(typed, Types(typed, plan, convert_io=convert_io))
    caster.run()
    for note in caster.notes():
        if say is not None:
            say(note)
    return typed


@dataclass
class _Edit:
    """What shall become of one float32 tensor: the type it is made in, and in which each reader wants it."""

    value: ir.Value
    made: ir.DataType
    reads: list[tuple[ir.Node, int, ir.DataType]]
    outputs: list[tuple[ir.Graph, int, ir.DataType]]

    @property
    def wanted(self) -> list[ir.DataType]:
        """Every type in which it is read, the plain float32 first."""
        found = {dtype for _, _, dtype in self.reads} | {dtype for _, _, dtype in self.outputs}
        return sorted(found, key=lambda dtype: dtype.value)


class _Caster:
    """Changes a graph in place to the types that were decided."""

    def __init__(self, model: ir.Model, types: Types) -> None:
        self.model, self.types = model, types
        self.losses = Losses()
        self.edits: dict[ir.Value, _Edit] = {}
        self.cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self.names = Names(model)

    def run(self) -> None:
        """Decide everything first: what is decided depends on types that are then changed."""
        for value in _values(self.model):
            if is_float32(value):
                self.edits[value] = self._edit(value)
        for edit in self.edits.values():
            self._set_maker(edit)
        for edit in list(self.edits.values()):
            tensor = self._weight(edit.value)
            if tensor is not None:
                self._convert_weight(edit, tensor)
            else:
                self._insert_casts(edit)
        self._drop_empty_casts()

    def notes(self) -> tuple[str, ...]:
        """Say what a user should know of what was changed."""
        full = self.types.full
        if any(edit.made != full or edit.wanted not in ([], [full]) for edit in self.edits.values()):
            return self.losses.notes()
        return ("no tensor of the graph became narrower: none of float32 can",)

    def _edit(self, value: ir.Value) -> _Edit:
        reads = []
        for use in value.uses():
            dtype = self.types.want(use.node, use.idx)
            if dtype is not None:
                reads.append((use.node, use.idx, dtype))
        outputs = []
        if value.is_graph_output():
            graph = value.graph
            for at, output in enumerate(graph.outputs if graph is not None else ()):
                if output is value:
                    outputs.append((graph, at, self.types.want_of_output(graph)))  # type: ignore[arg-type]
        return _Edit(value, self.types.made(value), reads, outputs)  # type: ignore[arg-type]

    def _set_maker(self, edit: _Edit) -> None:
        """Let the node that makes a tensor make it in its type, where an attribute says the type."""
        import onnx_ir as ir

        node = edit.value.producer()
        if node is None or edit.made == self.types.full:
            return
        if is_op(node, "Cast"):
            node.attributes["to"] = ir.AttrInt64("to", edit.made.value)
        elif is_op(node, "ConstantOfShape"):
            given = node.attributes.get("value")
            zero = ir.tensor([0.0], dtype=ir.DataType.FLOAT)
            tensor = given.as_tensor() if given is not None else zero
            self.losses.note(tensor, edit.made, edit.value.name or "")
            array = cast_array(tensor.numpy(), edit.made)
            node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(array, dtype=edit.made))

    def _weight(self, value: ir.Value) -> ir.TensorProtocol | None:
        """Return the tensor that a value always is: an initializer's, or a Constant node's."""
        import onnx_ir as ir

        if value.is_initializer() and not value.is_graph_input():
            return value.const_value
        node = value.producer()
        array = constant_value(value) if node is not None and is_op(node, "Constant") else None
        return None if array is None else ir.Tensor(array, name=value.name)

    def _convert_weight(self, edit: _Edit, tensor: ir.TensorProtocol) -> None:
        """Convert a weight where all read it in one type; else add a copy for each other type."""
        import onnx_ir as ir

        full = self.types.full
        for dtype in edit.wanted:
            if dtype == full:
                continue
            self.losses.note(tensor, dtype, edit.value.name or "")
            target = edit.value
            if dtype != edit.wanted[0]:
                target = self._copy_weight(edit.value, dtype)
                self._redirect(edit, dtype, target)
            cast = cast_tensor(tensor, dtype, target.name or "")
            target.type = ir.TensorType(dtype)
            node = target.producer()
            if node is not None:
                node.attributes.clear()
                node.attributes["value"] = ir.AttrTensor("value", cast)
            else:
                target.const_value = cast

    def _copy_weight(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Make a second weight beside one, still without its tensor's data."""
        import onnx_ir as ir

        name = self.names.free(f"{value.name}_{_WORDS[dtype.name]}")
        node, graph = value.producer(), value.graph
        if node is None:
            copy = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype), const_value=value.const_value)
            graph.register_initializer(copy)  # type: ignore[union-attr]
            return copy
        made = ir.Node("", "Constant", [], [*node.attributes.values()], name=self.names.free(f"{node.name}_{name}"))
        made.metadata_props.update(node.metadata_props)
        made.outputs[0].name, made.outputs[0].shape = name, value.shape
        node.append(made)
        return made.outputs[0]

    def _insert_casts(self, edit: _Edit) -> None:
        """Let every reader read a computed tensor in the type it wants."""
        import onnx_ir as ir

        edit.value.type = ir.TensorType(edit.made)
        for dtype in edit.wanted:
            if dtype == edit.made:
                continue
            self._redirect(edit, dtype, self._cast_of(edit.value, dtype))

    def _redirect(self, edit: _Edit, dtype: ir.DataType, target: ir.Value) -> None:
        """Let those that want a type, nodes and graphs whose output it is, take another tensor that has it."""
        for node, index, wanted in edit.reads:
            if wanted == dtype:
                node.replace_input_with(index, target)
        for graph, at, wanted in edit.outputs:
            if wanted == dtype:
                self._take_output(graph, at, target, edit.value)

    def _cast_of(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return a tensor in another type: what it was cast from where that has the type, else a new Cast's."""
        import onnx_ir as ir

        if (value, dtype) in self.cast:
            return self.cast[value, dtype]
        node, source = value.producer(), value
        if node is not None and is_op(node, "Cast") and node.inputs[0] is not None:
            source = node.inputs[0]  # past the cast to float32
            edit = self.edits.get(source)
            if (edit.made if edit else source.dtype) == dtype:
                return source
        name = self.names.free(f"{value.name}_{_WORDS[dtype.name]}")
        cast = ir.Node(
            "",
            "Cast",
            [source],
            [ir.AttrInt64("to", dtype.value)],
            name=self.names.free(f"{value.name}_Cast_{_WORDS[dtype.name]}"),
        )
        output = cast.outputs[0]
        output.name, output.type, output.shape = name, ir.TensorType(dtype), value.shape
        reader = next((use.node for use in value.uses()), None)
        origin = node or reader
        if origin is not None and MODULE_KEY in origin.metadata_props:
            cast.metadata_props[MODULE_KEY] = origin.metadata_props[MODULE_KEY]
        _put_after(cast, value)
        self.cast[value, dtype] = output
        return output

    def _take_output(self, graph: ir.Graph, at: int, cast: ir.Value, value: ir.Value) -> None:
        """Let a cast tensor be a graph's output in a tensor's stead, under its name."""
        if graph is self.model.graph and cast.name != graph.outputs[at].name and cast is not value:
            name = value.name
            if name in {output.name for output in graph.outputs} and not cast.is_graph_output():
                word = "" if value.dtype is None else _WORDS[value.dtype.name]
                value.name, cast.name = self.names.free(f"{name}_{word}"), name
                cast.metadata_props.update(value.metadata_props)
        graph.outputs[at] = cast

    def _drop_empty_casts(self) -> None:
        """Remove each Cast whose input has its type already, unless it makes an output."""
        for node in list(self.types.nodes):
            source, output = (node.inputs[0], node.outputs[0]) if is_op(node, "Cast") else (None, None)
            if source is None or output is None or source.dtype is None or output.is_graph_output():
                continue
            if node.attributes["to"].as_int() == source.dtype.value and node.graph is not None:
                output.replace_all_uses_with(source)
                node.graph.remove(node, safe=True)


def _values(model: ir.Model) -> list[ir.Value]:
    """Return every tensor of a model once: inputs, initializers and outputs of nodes, of subgraphs too."""
    found: dict[ir.Value, None] = {}
    for graph in model.graphs():
        found.update(dict.fromkeys((*graph.inputs, *graph.initializers.values())))
        for node in graph:
            found.update(dict.fromkeys(node.outputs))
    return list(found)


def _put_after(node: ir.Node, value: ir.Value) -> None:
    """Put a node right after what makes a tensor, or first in the graph whose input it is."""
    producer, graph = value.producer(), value.graph
    if producer is not None:
        producer.append(node)
    elif graph is not None and len(graph):
        graph.insert_before(graph[0], node)
    elif graph is not None:
        graph.append(node)
