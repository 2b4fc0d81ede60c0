"""Which type each float32 tensor of a graph takes under a plan, before anything is changed.

A node takes the type its plan says, where ONNX's schema allows it. Four kinds do not follow the plan alone:

- What computes sizes (from ``Shape`` to a scale or an index) stays float32: in float16, 2049 is 2048.
- What only moves values between two places that stay float32 stays so too: down and up again loses digits for nothing.
- A ``Cast`` to float32 goes straight to the type that is read, and a ``DequantizeLinear`` likewise.
- A ``QuantizeLinear`` reads whatever type there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from enginery.graph.base import subgraphs
from enginery.graph.passes.base import is_op
from enginery.graph.precision.convert import loss_of
from enginery.graph.precision.shape_nodes import shape_nodes
from enginery.graph.precision.slots import HOLDERS, MOVEMENT, SOURCES, castable_slots, is_float32, reads_any_type
from enginery.spec import QUANTISED

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.spec import PrecisionPlan

__all__ = ["Types", "low_type"]

_INDEX_OF_STATE = 2  # a Loop's body is given the iteration and the condition before its states


def low_type(precision: str) -> ir.DataType:
    """Return the type of a precision's tensors in a graph: float32 for fp32, tf32 and all that is not a cast."""
    import onnx_ir as ir

    return {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}.get(precision, ir.DataType.FLOAT)


class Types:
    """The types of a graph's tensors under a plan.

    Args:
        model: with the types of its tensors inferred.
        plan: what each node shall compute in; a node that is int8 works on what is dequantised to the plan's own.
        convert_io: whether inputs and outputs of the model take the plan's type too.
    """

    def __init__(self, model: ir.Model, plan: PrecisionPlan, *, convert_io: bool = False) -> None:
        import onnx_ir as ir

        self.full = ir.DataType.FLOAT
        self.outside = low_type(plan.precision) if convert_io else self.full
        self.plan = plan
        self.version = model.opset_imports.get("", 1)
        self.nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
        self.holders = {
            graph: node for node in self.nodes for graph in subgraphs(node)
        }  # the node that each subgraph belongs to
        self.of_node: dict[ir.Node, ir.DataType] = {}
        sizes = shape_nodes(self.nodes)
        for node in self.nodes:
            self.of_node[node] = self.full if node in sizes else self._asked(node)
        self._spare_movement()
        self._follow_quantisers()

    def want(self, node: ir.Node, index: int) -> ir.DataType | None:
        """Return the type in which a node reads one of its inputs; None where any will do."""
        if reads_any_type(node):
            return None
        dtype = self.of_node[node]
        if is_op(node, *HOLDERS):
            return dtype
        return dtype if dtype != self.full and index in self._slots(node)[0] else self.full

    def want_of_output(self, graph: ir.Graph) -> ir.DataType:
        """Return the type of the float32 outputs of a graph: the main graph keeps its own, unless told otherwise."""
        holder = self.holders.get(graph)
        if holder is None:
            return self.outside
        return self.of_node[holder] if is_op(holder, *HOLDERS) else self.full

    def made(self, value: ir.Value) -> ir.DataType:
        """Return the type in which a float32 tensor is made."""
        node = value.producer()
        if node is None:
            graph = value.graph
            holder = self.holders.get(graph) if graph is not None else None
            if holder is None:
                return self.outside if value.is_graph_input() else self.full
            return self.of_node[holder] if value.is_graph_input() and is_op(holder, *HOLDERS) else self.full
        dtype = self.of_node[node]
        if is_op(node, *HOLDERS, *SOURCES, "Cast"):
            return dtype
        return dtype if dtype != self.full and value.index() in self._slots(node)[1] else self.full

    def wants(self, value: ir.Value) -> set[ir.DataType]:
        """Return the types in which a tensor is read, by nodes and as an output of its graph."""
        found = {self.want(use.node, use.idx) for use in value.uses()} - {None}
        if value.is_graph_output() and value.graph is not None:
            found.add(self.want_of_output(value.graph))
        return {dtype for dtype in found if dtype is not None}

    def _slots(self, node: ir.Node) -> tuple[frozenset[int], frozenset[int]]:
        return castable_slots(node, self.version, self.of_node[node])

    def _asked(self, node: ir.Node) -> ir.DataType:
        """Return the type that the plan gives a node, where it can have it."""
        precision = self.plan.of(node.name or "")
        dtype = low_type(self.plan.precision if precision in QUANTISED else precision)
        if dtype == self.full or is_op(node, *HOLDERS):
            return dtype
        if is_op(node, *SOURCES):
            return self.full  # decided by who reads it
        inputs, outputs = castable_slots(node, self.version, dtype)
        return dtype if inputs or outputs else self.full

    def _spare_movement(self) -> None:
        """Let what moves float32 values to float32 places alone stay float32."""
        spared: set[ir.Node] = set()
        for node in reversed(self.nodes):
            if is_op(node, *MOVEMENT) and (node.name or "") not in self.plan.nodes and self._leads_up(node, spared):
                spared.add(node)
        for node in self.nodes:
            source = node.inputs[0] if node.inputs else None
            if node in spared and source is not None and not _is_constant(source) and self.made(source) == self.full:
                self.of_node[node] = self.full

    def _leads_up(self, node: ir.Node, spared: set[ir.Node]) -> bool:
        """Say whether everything that reads a node's outputs reads float32."""
        readers = [use for value in node.outputs for use in value.uses()]
        ends = [value for value in node.outputs if value.is_graph_output()]
        read = [None if use.node in spared else self.want(use.node, use.idx) for use in readers]
        read += [self.want_of_output(value.graph) for value in ends if value.graph is not None]
        return bool(read) and all(dtype in (self.full, None) for dtype in read)

    def _follow_quantisers(self) -> None:
        """Give casts, constants and dequantisers the type that is read, and quantisers the one that is there."""
        for node in reversed(self.nodes):
            follows = is_op(node, *SOURCES, "DequantizeLinear") or _casts_to_float32(node)
            if follows and is_float32(node.outputs[0]) and self.plan.nodes.get(node.name or "") != "fp32":
                wanted = self.wants(node.outputs[0])
                dtype = next(iter(wanted)) if len(wanted) == 1 else self.full
                self.of_node[node] = dtype if self._can_follow(node, dtype) else self.full
        for node in self.nodes:
            source = node.inputs[0] if is_op(node, "QuantizeLinear") else None
            if source is not None:
                dtype = self.made(source) if is_float32(source) else self.full
                self.of_node[node] = dtype if self._can_follow(node, dtype) else self.full

    def _can_follow(self, node: ir.Node, dtype: ir.DataType) -> bool:
        """Say whether a node can have a type: a quantiser's scale must survive in it."""
        if not is_op(node, "QuantizeLinear", "DequantizeLinear") or dtype == self.full:
            return True
        scale = node.inputs[1]
        if scale is None or scale.const_value is None or not castable_slots(node, self.version, dtype)[0]:
            return False
        loss = loss_of(scale.const_value, dtype)
        return not (loss.clamped or loss.vanished or loss.subnormal)


def _is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return value.is_initializer() or (node is not None and is_op(node, "Constant"))


def _casts_to_float32(node: ir.Node) -> bool:
    import onnx_ir as ir

    return is_op(node, "Cast") and node.attributes["to"].as_int() == ir.DataType.FLOAT
