"""The change itself: quantised weights, and pairs of QuantizeLinear and DequantizeLinear, put into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery.errors import GraphError
from enginery.graph.base import Ranges
from enginery.graph.modules import MODULE_KEY
from enginery.graph.passes.base import constant_value, is_op, only_reader
from enginery.graph.precision.forms import Form, Scaled, least_scale, scale_activation, scale_bias, scale_weight
from enginery.graph.precision.names import Names
from enginery.graph.precision.quantisable import Slot, activation_after, ends_convolution, slots

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, np.dtype[Any]]

__all__ = ["Quantiser"]

_MATRIX = 2
_BIAS = 2


class Quantiser:
    """Changes a graph in place; a tensor or weight that several nodes read is quantised once.

    Args:
        model: the graph.
        ranges: of its activations.
        form: of the numbers.
    """

    def __init__(self, model: ir.Model, ranges: Ranges, form: Form) -> None:
        self.graph, self.ranges, self.form = model.graph, ranges, form
        self.names = Names(model)
        self.activations: dict[ir.Value, ir.Value] = {}
        self.weights: dict[tuple[ir.Value, int | None], ir.Value] = {}
        self.scales: dict[ir.Value, Array] = {}
        self.least: dict[tuple[ir.Value, int | None], Array] = {}
        self.multiplied: set[ir.Value] = set()

    def run(self, nodes: Sequence[ir.Node]) -> str:
        """Quantise what the nodes read, and what they make where the form asks for it; say how many tensors."""
        if self.form.whole:
            makers = [node for node in nodes if is_op(node, "Conv", "ConvTranspose", "Add")]
            self._quantise_results([activation_after(node.outputs[0]) for node in makers])
        read = [(node, slot) for node in nodes for slot in self._slots(node)]
        if self.form.multiplied:
            self.multiplied = {slot.value for node, slot in read if _is_of_activations(node)}
        if self.form.before_pooling:
            self._quantise_before_pooling(read)
        self._note_biases(read)
        for node, slot in read:
            made = self._quantise(slot, node)
            node.replace_input_with(slot.index, made)
        if self.form.whole:
            for node in nodes:
                self._quantise_bias(node)
        self._drop_unread()
        activations = sum(made is not value for value, made in self.activations.items())
        return f"{activations} activations and {len(self.weights)} weights"

    def _slots(self, node: ir.Node) -> list[Slot]:
        """Return what of a node's inputs is quantised in this form."""
        found = list(slots(node))
        if not self.form.activation:
            kinds = ("MatMul",) if self.form.block else ("MatMul", "Gemm")
            found = [
                slot for slot in found if is_op(node, *kinds) and slot.weight is not None and slot.axis is not None
            ]
        if is_op(node, "Add") and not self.form.both_branches:
            ended = [slot for slot in found if ends_convolution(slot.value)]
            found = [slot for slot in found if slot not in ended[:1]]
        return found

    def _quantise(self, slot: Slot, reader: ir.Node) -> ir.Value:
        if slot.weight is None:
            if slot.value not in self.activations:
                self.activations[slot.value] = self._pair(slot.value, reader)
            return self.activations[slot.value]
        key = slot.value, slot.axis
        if key not in self.weights:
            self.weights[key] = self._dequantised(slot, reader)
        return self.weights[key]

    def _quantise_before_pooling(self, read: Sequence[tuple[ir.Node, Slot]]) -> None:
        """Put a pair like that behind a MaxPool before it too, where no other node would notice."""
        quantised = {(node, slot.index) for node, slot in read}
        for value in dict.fromkeys(slot.value for _, slot in read):
            pool = value.producer()
            if pool is None or not is_op(pool, "MaxPool") or len(pool.outputs) > 1:  # indices would notice
                continue
            source = pool.inputs[0]
            alone = source is not None and len(source.uses()) == 1 and not source.is_graph_output()
            all_read = all((use.node, use.idx) in quantised for use in value.uses())
            if source is not None and alone and all_read and not value.is_graph_output():
                self.activations[source] = self._pair(source, pool, of=value)
                pool.replace_input_with(0, self.activations[source])

    def _pair(self, value: ir.Value, reader: ir.Node, *, of: ir.Value | None = None) -> ir.Value:
        """Put a pair behind a tensor, for those who will read it; its range is that `of` another one, where given."""
        import onnx_ir as ir

        kind, scaled = self._scaled(value if of is None else of)
        name = value.name or ""
        scale, zero = self._constants(name, scaled, kind)
        self.scales[value] = scaled.scale
        quantise = self._node("QuantizeLinear", [value, scale, zero], name, reader)
        quantise.outputs[0].type = ir.TensorType(ir.DataType[kind])
        dequantise = self._node("DequantizeLinear", [quantise.outputs[0], scale, zero], name, reader)
        dequantise.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        for node in (quantise, dequantise):
            node.outputs[0].shape = value.shape
        self._put_after(value, (quantise, dequantise))
        return dequantise.outputs[0]

    def _scaled(self, value: ir.Value) -> tuple[str, Scaled]:
        """Choose an activation's element type and scale by the range that was seen."""
        found = self.ranges.tensors.get(value.name or "")
        if found is None:
            raise GraphError(
                f"the ranges do not say that of {value.name!r}", mend="calibrate this graph, after it was simplified"
            )
        signed = value in self.multiplied and found[0] < 0
        kind = self.form.multiplied if signed else self.form.activation
        return kind, scale_activation(*found, kind)

    def _dequantised(self, slot: Slot, reader: ir.Node) -> ir.Value:
        """Write a weight as small numbers, behind what makes floats of them."""
        import onnx_ir as ir

        assert slot.weight is not None  # noqa: S101 - said by the slot
        kind, block = self.form.weight, self.form.block
        scaled = scale_weight(
            np.asarray(slot.weight, np.float32), slot.axis, kind, block, self.least.get((slot.value, slot.axis))
        )
        name = slot.value.name or ""
        assert scaled.numbers is not None  # noqa: S101 - it is a weight's
        numbers = self._constant(f"{name}_quantized", scaled.numbers, kind)
        scale, zero = self._constants(name, scaled, kind)
        attributes = [] if scaled.axis is None else [ir.AttrInt64("axis", scaled.axis)]
        if block:
            attributes.append(ir.AttrInt64("block_size", block))
        node = self._node("DequantizeLinear", [numbers, scale, zero], name, reader, attributes)
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), slot.value.shape
        self.scales[node.outputs[0]] = scaled.scale
        self.graph.insert_before(self.graph[0], node)
        return node.outputs[0]

    def _quantise_results(self, values: Sequence[ir.Value]) -> None:
        """Put a pair behind what nodes make, for every reader of it."""
        for value in values:
            readers = [(use.node, use.idx) for use in value.uses()]
            if readers and not value.is_graph_output() and value not in self.activations:
                self.activations[value] = made = self._pair(value, readers[0][0])
                for node, index in readers:
                    node.replace_input_with(index, made)
                self.activations[made] = made  # whoever reads the pair's end has it quantised

    def _note_biases(self, read: Sequence[tuple[ir.Node, Slot]]) -> None:
        """Note for each weight how fine its scales may be, so that the biases of all its readers can be written.

        In every form: ONNX Runtime itself quantises a bias that is in full, and fuses a sum behind a MatMul as one.
        """
        if not self.form.activation or self.form.weight != "INT8":
            return
        activations = {node: slot.value for node, slot in read if slot.index == 0 and slot.weight is None}
        for node, slot in read:
            bias = _bias_of(node)
            if slot.weight is None or bias is None or node not in activations:
                continue
            least = least_scale(bias.reshape(-1), float(self._scale_of(activations[node])))
            count = 1 if slot.axis is None else slot.weight.shape[slot.axis]
            least = np.broadcast_to(least if least.size == count else least.max(), (count,))
            key = slot.value, slot.axis
            self.least[key] = np.maximum(least, self.least.get(key, least))

    def _scale_of(self, value: ir.Value) -> Array:
        """Return the scale that an activation has or will have."""
        pair = value.producer()
        if (
            pair is not None
            and is_op(pair, "DequantizeLinear")
            and (scale := constant_value(pair.inputs[1])) is not None
        ):
            return scale
        return self._scaled(value)[1].scale

    def _quantise_bias(self, node: ir.Node) -> None:
        """Write the bias of a node in units of its product, which needs no scale of its own."""
        import onnx_ir as ir

        bias = constant_value(node.inputs[_BIAS]) if len(node.inputs) > _BIAS else None
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        value = node.inputs[_BIAS] if bias is not None else None
        if bias is None or value is None or source is None or node.inputs[1] not in self.scales or bias.ndim != 1:
            return
        read = source.inputs[1]
        scale = (constant_value(read) * self.scales[node.inputs[1]]).astype(np.float32)
        numbers = scale_bias(bias, scale)
        scaled = Scaled(scale, np.zeros(scale.size, np.int32), numbers, 0 if scale.ndim else None)
        name = f"{value.name}_{node.name}"
        integer = self._constant(f"{name}_quantized", numbers, "INT32")
        constants = self._constants(name, scaled, "INT32")
        attributes = [] if scaled.axis is None else [ir.AttrInt64("axis", 0)]
        made = self._node("DequantizeLinear", [integer, *constants], name, node, attributes)
        made.outputs[0].type, made.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
        self.graph.insert_before(self.graph[0], made)
        node.replace_input_with(_BIAS, made.outputs[0])

    def _drop_unread(self) -> None:
        """Remove the weights that nobody reads any more."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]

    def _constants(self, name: str, scaled: Scaled, kind: str) -> tuple[ir.Value, ir.Value]:
        zero = scaled.zero.reshape(scaled.scale.shape)
        return self._constant(f"{name}_scale", scaled.scale, "FLOAT"), self._constant(f"{name}_zero_point", zero, kind)

    def _constant(self, name: str, array: Array, kind: str) -> ir.Value:
        """Add an initializer of an element type."""
        import onnx_ir as ir

        dtype = ir.DataType[kind]
        tensor = ir.Tensor(np.asarray(array).astype(dtype.numpy()), dtype=dtype, name=self.names.free(name))
        value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(dtype), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def _node(
        self, kind: str, inputs: Sequence[ir.Value], name: str, reader: ir.Node, attributes: Sequence[ir.Attr] = ()
    ) -> ir.Node:
        """Make a node of the module of the one that will read it."""
        import onnx_ir as ir

        node = ir.Node("", kind, inputs, attributes, name=self.names.free(f"{name}_{kind}"))
        node.outputs[0].name = self.names.free(f"{name}_{kind}_Output")
        if MODULE_KEY in reader.metadata_props:
            node.metadata_props[MODULE_KEY] = reader.metadata_props[MODULE_KEY]
        return node

    def _put_after(self, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, nodes)
        else:
            self.graph.insert_before(self.graph[0], nodes)


def _bias_of(node: ir.Node) -> Array | None:
    """Return the constant that is added to a product: its third input, or by a sum behind a MatMul."""
    if is_op(node, "MatMul"):
        reader = only_reader(node.outputs[0])
        added = reader.inputs if reader is not None and is_op(reader, "Add") else ()
    else:
        added = node.inputs[_BIAS : _BIAS + 1]
    found = [array for value in added if value is not None and (array := constant_value(value)) is not None]
    return found[0] if found and found[0].size else None


def _is_of_activations(node: ir.Node) -> bool:
    """Say whether a node multiplies two activations, as attention does."""
    return is_op(node, "MatMul") and all(slot.weight is None for slot in slots(node))
