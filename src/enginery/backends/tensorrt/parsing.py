"""ONNX into a network, with every error of the parser told by node, operator and module."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginery.backends.tensorrt.diagnosis import UNSEEN_GPU, meaning_of
from enginery.backends.tensorrt.log import BuildLog
from enginery.backends.tensorrt.versions import Api, lacks_kernels_for, read_parser_error
from enginery.errors import BackendUnavailableError, BuildError
from enginery.graph.base import all_nodes, module_path

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "new_builder",
    "nodes_named",
    "parse_file",
    "refuse_uint8_quantisation",
    "type_notes",
    "unsupported_nodes",
    "unsupported_operators",
]

_SHOWN = 10
_SHOWN_BY_NAME = 3
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def new_builder(api: Api, log: BuildLog) -> Any:
    """Make a builder.

    Raises:
        BackendUnavailableError: TensorRT made none, for it finds no device; the message has its own words.
    """
    try:
        return api.module.Builder(log.logger)
    except TypeError as error:  # what the binding makes of a null pointer
        said = (
            "; ".join(dict.fromkeys(line.strip() for line in log.errors())) or "it gives no builder, and says nothing"
        )
        raise BackendUnavailableError(
            f"{api.library.label} {api.version} cannot begin a build here: {said}",
            mend=UNSEEN_GPU,
        ) from error


def parse_file(api: Api, network: Any, path: Path, graph: ir.Model, log: BuildLog) -> Any:
    """Parse the file of a graph into an empty network; weights beside the file are read from there.

    Args:
        api: the library.
        network: what it is parsed into.
        path: the file, as `graph` was saved.
        graph: for the names of nodes and modules in messages.
        log: where the parser says what it does.

    Returns:
        The parser, which must live until the engine is built: it holds the weights.

    Raises:
        BuildError: the parser refused the graph; the message lists every error, one in a line.
    """
    parser = api.module.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(path)) and not parser.num_errors:
        return parser
    told = _errors(parser, graph)
    named = {node for node, _ in told}
    unknown = [_line(node, _not_known(api)) for node in unsupported_nodes(api, graph, parser) if node not in named]
    lines = [*(_line(node, text) for node, text in told), *unknown]
    shown = [*lines[:_SHOWN], *([f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])]
    count = f"{len(lines)} error{'s' if len(lines) > 1 else ''}"
    text = "\n  ".join(shown) or log.tail() or "the parser says nothing more"
    mend = next((found for line in lines if (found := meaning_of(line, api.library))), "")
    raise BuildError(
        f"{api.library.label} {api.version} cannot read this graph, {count}:\n  {text}",
        mend=mend
        or "the text above is the parser's own: --option partition=auto runs those nodes on ONNX Runtime; or build "
        "with another backend, or rewrite them",
    )


def unsupported_operators(api: Api, graph: ir.Model) -> tuple[str, ...]:
    """Return the operators of a graph that cannot be built, as far as their names tell.

    The parser is asked about each; what it is known to answer wrongly is added. Only a build proves the rest.
    """
    return tuple(sorted({_operator(node) for node in unsupported_nodes(api, graph)}))


def unsupported_nodes(api: Api, graph: ir.Model, parser: Any = None) -> list[ir.Node]:
    """Return the nodes of a graph whose operators cannot be built, as far as their names tell.

    Args:
        api: the library.
        graph: what is looked through, with its subgraphs and functions.
        parser: one that is there already; else one is made.
    """
    keep: list[Any] = []
    if parser is None:
        log = BuildLog(api)
        builder = new_builder(api, log)
        network = builder.create_network(api.network_flags())
        parser = api.module.OnnxParser(network, log.logger)
        keep += [log, builder, network]  # a parser does not keep alive what it stands on
    own = {(function.domain, function.name) for function in graph.functions.values()}
    answers: dict[str, bool] = {}
    found = []
    for node in all_nodes(graph):
        name = node.op_type
        if (node.domain, name) in own:
            continue
        if name not in answers:
            answers[name] = parser.supports_operator(name) and not lacks_kernels_for(api, name)
        if not answers[name]:
            found.append(node)
    return found


def refuse_uint8_quantisation(api: Api, graph: ir.Model) -> None:
    """Refuse what the parser would read wrongly: it takes UINT8 for INT8, which halves the range, with a warning.

    Raises:
        BuildError: nodes quantise to UINT8; they are named.
    """
    import onnx_ir as ir

    found = [node for node in all_nodes(graph) if _quantised_type(node) == ir.DataType.UINT8]
    if found:
        first = found[:_SHOWN_BY_NAME]
        named = ", ".join(_called(node) for node in first) + (" ..." if len(found) > len(first) else "")
        raise BuildError(
            f"{len(found)} nodes quantise to UINT8 ({named}), which {api.library.label} would read as INT8 with half "
            "the range: every output would be wrong",
            mend="quantise to INT8 with zero point 0: onnxruntime.quantization.quantize_static(..., "
            "activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, "
            'extra_options={"ActivationSymmetric": True, "WeightSymmetric": True})',
        )


def type_notes(api: Api, network: Any, graph: ir.Model) -> tuple[str, ...]:
    """Say where the parser gave inputs and outputs another element type than the graph's: DOUBLE, and INT64 on 8."""
    ours = {value.name: value.dtype for value in (*graph.graph.inputs, *graph.graph.outputs)}
    tensors = [network.get_input(at) for at in range(network.num_inputs)]
    tensors += [network.get_output(at) for at in range(network.num_outputs)]
    changed: dict[tuple[str, str], list[str]] = {}
    for tensor in tensors:
        own = ours.get(tensor.name)
        built = str(tensor.dtype).rpartition(".")[2]
        if own is not None and (own.name, built) in (("DOUBLE", "FLOAT"), ("INT64", "INT32")):
            changed.setdefault((own.name, built), []).append(tensor.name)
    return tuple(
        f"{', '.join(names)}: {own} in the graph, {built} in the engine; {api.library.label} {api.version} has no "
        f"{own} tensors, so what {built} cannot hold is refused or rounded"
        for (own, built), names in changed.items()
    )


def nodes_named(texts: Iterable[str], graph: ir.Model) -> list[str]:
    """Say which nodes of a graph the builder's texts are about: its layers are called as the nodes are.

    Example:
        >>> import onnx_ir as ir
        >>> head = '<ir_version: 8, opset_import: ["" : 17]>'
        >>> graph = ir.from_onnx_text(head + "g (float[n] x) => (float[n] y) { [r1] y = Relu(x) }")
        >>> nodes_named(["r1_0 has no runners that implement it"], graph)
        ["node 'r1' (Relu)"]
    """
    words = {word for text in texts for word in re.findall(r"[^\s:,()'\[\]]+", text)}
    stems = words | {re.sub(r"_\d+$", "", word) for word in words}
    return [_line(node, "").removesuffix(": ") for node in all_nodes(graph) if _layer_name(node) in stems]


def _layer_name(node: ir.Node) -> str:
    """Return what the parser calls the layers of a node: after what it makes, where it has no name."""
    return node.name or f"node_of_{next((out.name for out in node.outputs), '')}"


def _errors(parser: Any, graph: ir.Model) -> list[tuple[ir.Node | None, str]]:
    """Pair what the parser says with the node that it is about, as far as it tells."""
    nodes = list(graph.graph)
    named = {node.name: node for node in all_nodes(graph) if node.name}
    found = []
    for at in range(parser.num_errors):
        said = read_parser_error(parser.get_error(at))
        node = named.get(said.name)
        if node is None and not said.name and 0 <= said.index < len(nodes):
            node = nodes[said.index]
        subject = f"input {said.file!r}: " if node is None and said.function == "importInput" else ""
        found.append((node, subject + _plain(said.text)))
    return found


def _plain(text: str) -> str:
    """Cut the parser's assertion down to what it says to a reader, where it says anything."""
    said = re.search(r'&& "([^"]+)"', text)
    return said[1] if said else re.sub(r"^Assertion failed: ", "", text.strip())


def _line(node: ir.Node | None, text: str) -> str:
    if node is None:
        return text
    module = module_path(node)
    return f"node {_called(node)} ({_operator(node)}{f', {module}' if module else ''}): {text}"


def _called(node: ir.Node) -> str:
    """Return a node's name, or what it makes where it has none."""
    return repr(node.name) if node.name else f"that makes {next((out.name for out in node.outputs), '')!r}"


def _not_known(api: Api) -> str:
    return f"no importer in {api.library.label} {api.version}"


def _operator(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _quantised_type(node: ir.Node) -> ir.DataType | None:
    """Return the type that a Q or DQ node quantises to: its zero point's, else the default, which is UINT8."""
    import onnx_ir as ir

    if node.op_type not in _QUANTISERS:
        return None
    zero = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - data, scale, zero point
    if zero is not None:
        return zero.dtype
    if node.op_type == "DequantizeLinear":
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    asked = node.attributes.get("output_dtype")
    return ir.DataType(asked.as_int()) if asked is not None and asked.as_int() else ir.DataType.UINT8
