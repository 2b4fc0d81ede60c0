"""What other stages need to know of a graph: its tensors and its identity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from enginery.records import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

    from enginery.graph.cuts import Cuts
    from enginery.graph.passes.base import Pass
    from enginery.graph.precision.convert import Loss
    from enginery.spec import PrecisionPlan, Shape

__all__ = [
    "LAYOUT",
    "Edge",
    "NodeStudy",
    "OpsetLimits",
    "Outline",
    "OutlineNode",
    "Part",
    "Partition",
    "Ranges",
    "Study",
    "Weight",
    "activation_bytes",
    "all_graphs",
    "all_nodes",
    "apply_plan",
    "axis_name",
    "calibrate",
    "check_plan",
    "check_quantised",
    "constants",
    "convert_opset",
    "count_flops",
    "cuts_of",
    "emulate",
    "gelu_by_tanh",
    "hash_model",
    "inner_nodes",
    "load_model",
    "make_dynamic",
    "make_plan",
    "module_path",
    "normalise",
    "partition",
    "patches_by_product",
    "plan_from_json",
    "plan_to_json",
    "quantisable",
    "quantize",
    "read_plan",
    "save_model",
    "save_shared",
    "settle_plan",
    "sized_by_data",
    "sizes_of",
    "skeleton",
    "split_layer_norms",
    "study",
    "subgraphs",
    "tensor_info",
    "tensor_infos",
    "type_name",
    "with_outputs",
    "working_copy",
]

LAYOUT = "enginery.layout"
"""Key of an input's metadata; its value says what the axes stand for, such as ``NHWC``."""

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_SKELETON_BYTES = 1024

_NUMPY_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


@dataclass(frozen=True)
class OpsetLimits:
    """Which graphs a backend reads rightly.

    Args:
        max_opset: highest version of ONNX's own operator set.
        min_opset: lowest.
        max_ir_version: highest version of the file format; None for any.
        domains: highest version of other operator sets, such as ``ai.onnx.ml``; any of those that are not named.

    Example:
        >>> limits = OpsetLimits(max_opset=17, min_opset=7)
        >>> limits.nearest(20), limits.nearest(13), limits.nearest(6), limits.nearest(5, "ai.onnx.ml")
        (17, 13, 7, 5)
    """

    max_opset: int
    min_opset: int = 1
    max_ir_version: int | None = None
    domains: Mapping[str, int] = field(default_factory=dict)

    def nearest(self, version: int, domain: str = "") -> int:
        """Return the version nearest to a graph's own that is read."""
        if domain:
            return min(version, self.domains.get(domain, version))
        return max(self.min_opset, min(version, self.max_opset))

    def refuses(self, model: ir.Model) -> str:
        """Say which version of a model is not read; empty where all are."""
        for domain, version in model.opset_imports.items():
            if (nearest := self.nearest(version, domain)) != version:
                of = f" of {domain}" if domain else ""
                edge = "at most" if nearest < version else "at least"
                return f"reads opset {nearest}{of} {edge} and the graph has {version}"
        if self.max_ir_version is not None and (model.ir_version or 0) > self.max_ir_version:
            return f"reads IR version {self.max_ir_version} at most and the graph has {model.ir_version}"
        return ""


@dataclass(frozen=True)
class Weight:
    """A constant that a node reads: its place among the inputs, name, element type, shape and bytes."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class OutlineNode:
    """One node.

    Args:
        id: unique in the outline: ``0``, ``1``, ... in the main graph; ``3/then_branch/0`` is the first node of a
            subgraph of node 3.
        name: as the graph has it; may be empty.
        op: the operator.
        domain: its domain; empty for ONNX's own.
        module: the modules it came from, outermost first: ``("layer1", "0", "conv1")``; empty where unknown.
        attributes: each as a short text.
        inputs: names of the tensors it reads, in their places; empty where an optional one is left out.
        outputs: what it writes.
        weights: the constants among its inputs.
        parameter_bytes: bytes of these.
        parent: id of the node whose subgraph it stands in; None in the main graph.
    """

    id: str
    name: str
    op: str
    domain: str
    module: tuple[str, ...]
    attributes: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[TensorInfo, ...]
    weights: tuple[Weight, ...]
    parameter_bytes: int
    parent: str | None = None


@dataclass(frozen=True)
class Edge:
    """A tensor on its way: from a node or ``input:NAME``, to a node or ``output:NAME``."""

    source: str
    target: str
    tensor: str
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True)
class Outline:
    """A graph as plain data; `enginery.plain.to_plain` turns it into JSON's types."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: tuple[OutlineNode, ...] = field(default=())
    edges: tuple[Edge, ...] = field(default=())


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        model: a whole model; its inputs are inputs of the whole graph and outputs of earlier parts, by name.
        main: whether it is for the main backend.
        nodes: names of its nodes. Arithmetic on shapes that a part before it also does is not counted again.
    """

    model: ir.Model = field(repr=False)
    main: bool
    nodes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it reads."""
        return tuple(value.name or "" for value in self.model.graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it makes for later parts and for the caller."""
        return tuple(value.name or "" for value in self.model.graph.outputs)


@dataclass(frozen=True)
class Partition:
    """A graph in parts that run one after another.

    Args:
        parts: in their order; a part reads only the graph's inputs and what parts before it made.
        moved: nodes that the main backend would take and that are with the rest nevertheless, by name, with why.
    """

    parts: tuple[Part, ...]
    moved: Mapping[str, str] = field(default_factory=dict)

    def count(self, *, main: bool) -> int:
        """Return how many nodes are with the main backend, or with the rest."""
        return sum(len(part.nodes) for part in self.parts if part.main is main)


@dataclass(frozen=True)
class Ranges:
    """The values that a graph's activations take, as `calibrate` saw them; plain data.

    Args:
        method: how the ends follow from the values: ``minmax``, ``entropy`` or ``percentile``.
        tensors: the ends by the tensor's name.
        batches: how many were seen.
    """

    method: str
    tensors: Mapping[str, tuple[float, float]]
    batches: int


@dataclass(frozen=True)
class NodeStudy:
    """What a narrower type may do to one node, as far as the graph tells.

    Args:
        module: path of the source's module that it came from; empty where nothing tells.
        lowers: whether it computes lower where the whole graph is asked to.
        inputs: names of what it reads, in their places; empty where an optional one is left out.
        outputs: names of the float32 tensors that it makes.
        losses: what the constants it reads lose, by name.
    """

    name: str
    operator: str
    module: str
    lowers: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    losses: Mapping[str, Loss]


@dataclass(frozen=True)
class Study:
    """A graph's nodes under a narrower type.

    Args:
        largest: largest finite number of the type.
        normal: smallest normal one.
        smallest: smallest of all.
        nodes: every named node, those of subgraphs too, in their order.
        watched: names of the float32 tensors between nodes of the main graph, in their order.
        constants: sizes of the float32 constants, by name.
    """

    largest: float
    normal: float
    smallest: float
    nodes: tuple[NodeStudy, ...]
    watched: tuple[str, ...]
    constants: Mapping[str, tuple[int, ...]]


def tensor_info(value: ir.Value) -> TensorInfo:
    """Describe one value of a graph; a dimension without a name is ``?``, a type without elements ``unknown``."""
    shape = value.shape
    dims = None if shape is None else tuple(_dim(dim) for dim in shape)
    return TensorInfo(value.name or "", type_name(value.type), dims, layout=value.metadata_props.get(LAYOUT))


def axis_name(axis: int, tensor: str = "") -> str:
    """Name an axis that nobody named: ``batch`` or ``dim1``, ``dim2``...; with `tensor`, that one's alone.

    Example:
        >>> axis_name(0), axis_name(1), axis_name(1, "mask")
        ('batch', 'dim1', 'mask_dim1')
    """
    name = f"dim{axis}" if axis else "batch"
    return f"{tensor}_{name}" if tensor else name


def type_name(kind: ir.TypeProtocol | None) -> str:
    """Name a type: ``float32``, or ``sequence(float32)`` and ``optional(...)`` for what is no tensor.

    Example:
        >>> import onnx_ir as ir
        >>> type_name(ir.SequenceType(ir.TensorType(ir.DataType.FLOAT)))
        'sequence(float32)'
    """
    import onnx_ir as ir

    if isinstance(kind, ir.SequenceType):
        return f"sequence({type_name(kind.elem_type)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({type_name(kind.elem_type)})"
    if kind is None:
        return "unknown"
    return _NUMPY_NAMES.get(kind.dtype.name, kind.dtype.name.lower())


def tensor_infos(values: Iterable[ir.Value]) -> tuple[TensorInfo, ...]:
    """Describe several values in their order."""
    return tuple(tensor_info(value) for value in values)


def load_model(path: str | Path) -> ir.Model:
    """Read an ONNX file; its external data stays on disk, mapped into memory."""
    from enginery.graph.files import load

    return load(Path(path))


def make_dynamic(
    model: ir.Model,
    texts: Sequence[str],
    *,
    shapes: Mapping[str, Shape | str] | None = None,
    evaluate: Callable[[ir.Model, Mapping[str, Array]], dict[str, Array]] | None = None,
    examples: Mapping[str, Array] | None = None,
) -> tuple[ir.Model, tuple[str, ...]]:
    """Let axes vary that a graph has fixed; see `enginery.graph.dynamic.rewrite.make_dynamic`."""
    from enginery.graph.dynamic.rewrite import make_dynamic as change

    return change(model, texts, shapes=shapes, evaluate=evaluate, examples=examples)


def partition(model: ir.Model, supported: Callable[[ir.Node], bool], min_nodes: int | None = None) -> Partition:
    """Cut a graph in parts for two backends; see `enginery.graph.partition.partition`."""
    from enginery.graph.partition import MIN_NODES
    from enginery.graph.partition import partition as cut

    return cut(model, supported, MIN_NODES if min_nodes is None else min_nodes)


def activation_bytes(model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> int | None:
    """Estimate the memory of the tensors between nodes; see `enginery.graph.parts.memory.activation_bytes`."""
    from enginery.graph.parts.memory import activation_bytes as estimate

    return estimate(model, sizes)


def sized_by_data(model: ir.Model) -> tuple[ir.Node, ...]:
    """Return the nodes whose output's size depends on what the inputs hold, and not on such an input's own size."""
    from enginery.graph.parts.dependence import study

    unknown = study(model.graph).sized_by_data
    return tuple(
        node
        for node in model.graph
        if not unknown.isdisjoint(node.outputs) and unknown.isdisjoint(value for value in node.inputs if value)
    )


def working_copy(model: ir.Model) -> ir.Model:
    """Return a copy whose nodes are in order, needed and named, and whose shapes were inferred."""
    from enginery.graph.parts.extract import working_copy as copy

    return copy(model)[0]


def cuts_of(model: ir.Model) -> Cuts:
    """Return the places where a graph can be cut in two; see `enginery.graph.cuts.Cuts`."""
    from enginery.graph.cuts import Cuts

    return Cuts(model)


def inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes in a node's subgraphs, at any depth."""
    from enginery.graph.parts.dependence import nested_graphs

    for body in nested_graphs(node):
        yield from body


def sizes_of(
    model: ir.Model, names: Sequence[str], sizes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...] | None]:
    """Return the sizes of tensors where the inputs have given ones; see `enginery.graph.parts.sizes.sizes_of`."""
    from enginery.graph.parts.sizes import sizes_of as infer

    return infer(model, names, sizes)


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a copy of a graph whose outputs are the values of these names, and nothing that only others need."""
    from enginery.graph.parts.sizes import with_outputs as cut

    return cut(model, names)


def hash_model(path: str | Path) -> str:
    """Return the SHA-256 over an ONNX file and its external data, as hexadecimal digits."""
    from enginery.graph.files import hash_model as hash_files

    return hash_files(Path(path))


def normalise(model: ir.Model) -> None:
    """Bring a model that was read into the form that all else relies on, in place.

    Inputs that also are initializers, as every weight was before IR version 4, are dropped from the inputs; ONNX's own
    operator set, which may also be spelled ``ai.onnx``, has the empty name (onnx_ir does the same for nodes). Every
    node has a name of its own.
    """
    for graph in model.graphs():
        kept = [value for value in graph.inputs if not value.is_initializer()]
        if len(kept) < len(graph.inputs):
            graph.inputs.clear()
            graph.inputs.extend(kept)
            model.ir_version = max(model.ir_version or 0, 4)  # the first that allows it
    for imports in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        if "ai.onnx" in imports:
            imports[""] = max(imports.pop("ai.onnx"), imports.get("", 0))
    from enginery.graph.node_names import name_nodes

    name_nodes(model)


def convert_opset(model: ir.Model, target: int) -> ir.Model:
    """Return the same model at another version of ONNX's operator set; its outputs are still to be compared.

    Raises:
        GraphError: there is no such version, or nodes stand in the way; the message names them.
    """
    from enginery.graph.opset.convert import convert_opset as convert

    return convert(model, target)


def make_plan(model: ir.Model, precision: str, *, rest: str = "fp32") -> PrecisionPlan:
    """Give every node the same precision; for ``int8``, name what the graph has quantised and give the others `rest`.

    Raises:
        UnknownNameError: there is no such precision.
        GraphError: int8 was asked for, and nothing in the graph is quantised.
    """
    from enginery.graph.precision.plan import make_plan as make

    return make(model, precision, rest=rest)


def apply_plan(
    model: ir.Model, plan: PrecisionPlan, *, convert_io: bool = False, say: Callable[[str], None] | None = None
) -> ir.Model:
    """Return a graph whose element types are those of a plan: the graph itself where there is nothing to cast.

    Weights beyond a type's range become its largest finite value.

    Args:
        model: not changed; the result shares its weights where they stay as they are.
        plan: its nodes must be in the graph. tf32 and int8 are float32 in the graph.
        convert_io: whether inputs and outputs of float32 take the plan's own type; they keep theirs otherwise.
        say: told what a user should know, such as weights that were beyond the range.

    Raises:
        GraphError: the plan does not fit the graph, or the types of the graph are not known.
    """
    from enginery.graph.precision.cast import apply_plan as apply

    return apply(model, plan, convert_io=convert_io, say=say)


def settle_plan(model: ir.Model, plan: PrecisionPlan) -> dict[str, tuple[str, str]]:
    """Return the precision that each node really takes under a plan, with the reason, in the graph's order.

    Where ONNX has no such operator, or a node computes sizes, it stays in fp32 whatever the plan says. Nodes without a
    name, those that touch no floating-point values, casts, constants and quantisers are left out: they follow others.

    Raises:
        UnknownNameError: the plan names a node that the graph does not have.
        GraphError: the types of the graph are not known.
    """
    from enginery.graph.precision.settle import settle_plan as settle

    return settle(model, plan)


def check_plan(model: ir.Model, plan: PrecisionPlan) -> None:
    """Raise `UnknownNameError` where a plan names nodes or precisions that there are not, with the nearest."""
    from enginery.graph.precision.plan import check_plan as check

    check(model, plan)


def check_quantised(model: ir.Model, plan: PrecisionPlan) -> None:
    """Raise `GraphError` where a plan has nodes in int8, and nothing in the graph quantises what they read."""
    from enginery.graph.precision.plan import check_quantised as check

    check(model, plan)


def plan_to_json(plan: PrecisionPlan, model: ir.Model | None = None) -> str:
    """Write a plan as text that can be edited, with a line for each node of a graph where one is given."""
    from enginery.graph.precision.plan_file import plan_to_json as write

    return write(plan, model)


def plan_from_json(text: str) -> PrecisionPlan:
    """Read a plan's text.

    Raises:
        UsageError: it is no such text; `UnknownNameError` where a word in it is not known.
    """
    from enginery.graph.precision.plan_file import plan_from_json as read

    return read(text)


def read_plan(path: str | Path, model: ir.Model | None = None) -> PrecisionPlan:
    """Read a plan from its file, or from the engine folder that holds it.

    Args:
        path: a file such as ``precision.json``, or an engine folder.
        model: a graph that must have every node that is named; None where that is looked at later.

    Raises:
        UsageError: there is no such file, or it holds no plan; `UnknownNameError` where a word in it is not known.
    """
    from enginery.graph.precision.plan_file import read_plan as read

    return read(path, model)


def emulate(model: ir.Model, plan: PrecisionPlan) -> ir.Model:
    """Return a float32 graph that computes what a plan gives, rounding and overflow included, on any backend.

    Every tensor that the plan makes narrow is rounded to its type; sums inside a node stay float32.

    Args:
        model: not changed.
        plan: as for `apply_plan`; int8 is not emulated.

    Raises:
        GraphError: the plan does not fit the graph, or the types of the graph are not known.
    """
    from enginery.graph.precision.emulate import emulate as round_as

    return round_as(model, plan)


def study(model: ir.Model, precision: str) -> Study:
    """Say what ``fp16`` or ``bf16`` may do to each node, as far as the graph tells without running it."""
    from enginery.graph.precision.study import study as look

    return look(model, precision)


def save_shared(model: ir.Model, path: Path) -> None:
    """Write a graph in passing: weights that lie in files beside it stay there; see `enginery.graph.files`."""
    from enginery.graph.files import save_shared as save

    save(model, path)


def module_path(node: ir.Node) -> str:
    """Return the module of the source that a node came from, such as ``layer3.0.conv2``; empty where nothing tells."""
    from enginery.graph.modules import module_parts

    return ".".join(module_parts(node))


def quantisable(model: ir.Model, form: str = "symmetric") -> tuple[str, ...]:
    """Return the names of the nodes that read INT8 in a form where no plan names any.

    See `enginery.graph.precision.quantisable.quantisable`.
    """
    from enginery.graph.infer import infer_shapes
    from enginery.graph.precision.forms import FORMS
    from enginery.graph.precision.quantisable import quantisable as find

    copy = model.clone()
    infer_shapes(copy)
    return tuple(node.name or "" for node in find(copy, few_depthwise=FORMS[form].few_depthwise))


def calibrate(
    model: ir.Model,
    batches: Iterable[Mapping[str, Array]],
    *,
    method: str = "minmax",
    examples: Mapping[str, Array] | None = None,
    say: Callable[[str], None] | None = None,
) -> Ranges:
    """Return the ranges of a graph's activations over recorded inputs, which `quantize` takes in the data's stead.

    One batch is held at a time. ``entropy`` and ``percentile`` count values in a histogram for each tensor.

    Args:
        model: float32; not changed. ONNX Runtime runs it.
        batches: arrays of real inputs by name, a dict for each call.
        method: ``minmax``, ``entropy`` or ``percentile``.
        examples: inputs that are known to be like real ones, to hold the data against.
        say: told what was done.

    Raises:
        UnknownNameError: there is no such method.
        DataError: the data do not look like the model's inputs: no range follows from them.
        GraphError: there is nothing to quantise, or the graph does not run.
    """
    from enginery.graph.precision.calibrate import calibrate as see

    return see(model, batches, method=method, examples=examples, say=say)


def quantize(
    model: ir.Model,
    batches: Iterable[Mapping[str, Array]] | Ranges,
    *,
    nodes: Iterable[str] | None = None,
    method: str = "minmax",
    form: str = "symmetric",
    exclude: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> ir.Model:
    """Return a graph whose convolutions and matrix products read INT8, by ranges seen on recorded inputs.

    The nodes keep names and modules; QuantizeLinear and DequantizeLinear stand before them, with a signed and
    symmetric scale for each channel of a weight.

    Args:
        model: float32, at opset 13 or later; not changed.
        batches: arrays of real inputs by name, a dict for each call; or what `calibrate` made of them.
        nodes: names of the nodes that shall read INT8; None for all that can, `quantisable`.
        method: how a range follows from the values: ``minmax``, ``entropy`` or ``percentile``.
        form: of the numbers, a name of `enginery.graph.precision.forms.FORMS`: ``symmetric`` as TensorRT takes them,
            ``asymmetric`` for OpenVINO, ``whole`` for ONNX Runtime on CPUs.
        exclude: names of nodes that stay as they are.
        say: told what was done.

    Raises:
        UnknownNameError: there is no such method, form or node.
        DataError: no range follows from the data.
        GraphError: the graph, or one of the nodes, cannot be quantised.
    """
    from enginery.graph.precision.quantize import quantize as quantise

    return quantise(model, batches, nodes=nodes, method=method, form=form, exclude=exclude, say=say)


def split_layer_norms(model: ir.Model) -> ir.Model:
    """Return the same graph with layer normalisations in parts; the graph itself where it has none to split."""
    from enginery.graph.passes.split_layer_norm import SplitLayerNorm

    return _changed(model, SplitLayerNorm())


def patches_by_product(model: ir.Model) -> ir.Model:
    """Return the same graph with patches embedded by a matrix product; the graph itself where it embeds none."""
    from enginery.graph.passes.patch_products import PatchProducts

    return _changed(model, PatchProducts())


def _changed(model: ir.Model, one: Pass) -> ir.Model:
    """Return a copy of a graph after one pass; the graph itself where there is nothing for it to do."""
    if not one.requires(model):
        return model
    copy = model.clone()
    one.apply(copy)
    return copy


def gelu_by_tanh(model: ir.Model) -> ir.Model:
    """Return the graph with GELU's approximation by tanh; the graph itself where it has none by an error function."""
    from enginery.graph.passes.tanh_gelu import TanhGelu

    copy = model.clone()
    return copy if TanhGelu().apply(copy) else model


def save_model(model: ir.Model, path: Path) -> None:
    """Write a graph as an ONNX file, with weights above 1 GiB as external data beside it."""
    from enginery.graph.files import save

    save(model, path)


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield the main graph, its subgraphs, and the graphs of the functions with theirs."""
    yield from model.graphs()
    for function in model.functions.values():
        yield function.graph
        yield from function.subgraphs()


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield every node once: of the main graph, its subgraphs and the functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs in a node's attributes, such as the branches of an If; those inside them are not among them."""
    import onnx_ir as ir

    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def count_flops(model: ir.Model, shapes: Mapping[str, Shape | str]) -> int | None:
    """Return the floating-point operations of one run; see `enginery.graph.summary.count_flops`."""
    from enginery.graph.summary import count_flops as count

    return count(model, shapes)


def constants(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Yield every tensor that the model holds: initializers, and tensors in the attributes of nodes."""
    import onnx_ir as ir

    for graph in all_graphs(model):
        yield from (v.const_value for v in graph.initializers.values() if v.const_value is not None)
    for node in all_nodes(model):
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Serialise the graph without its large weights, which become inputs behind the graph's own.

    ONNX's checker and shape inference take no model of 2 GB or more, and need no weights beyond the small ones that
    say shapes. The model is not changed.
    """
    import onnx_ir as ir

    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes > _SKELETON_BYTES:
            del copy.graph.initializers[name]
            if tensor is not None:
                value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
            if not value.is_graph_output() and not value.is_graph_input():
                copy.graph.inputs.append(value)
            value.const_value = None
    copy.ir_version = max(copy.ir_version or 0, 4)  # before 4, every initializer had to be an input too
    return ir.to_proto(copy)


def _dim(dim: int | ir.SymbolicDim) -> int | str:
    if isinstance(dim, int):
        return dim
    return dim.value if isinstance(dim.value, str) and dim.value else "?"
