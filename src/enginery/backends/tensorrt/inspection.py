"""What an engine is made of: each layer's kind, types and formats, and the ONNX nodes it came from.

TensorRT's inspector writes JSON in two dialects: up to 10 with ``Bindings`` and one text for format and type, from 11
on with ``I/O Tensors`` and two. Layers read alike in both (https://docs.nvidia.com/deeplearning/tensorrt, "Engine
Inspector").
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from enginery.backends.tensorrt.layer_types import computed_in, precision_word, tensor_text
from enginery.backends.tensorrt.node_names import NodeNames
from enginery.backends.tensorrt.versions import layer_metadata
from enginery.records import LayerRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from enginery.backends.tensorrt.versions import Api

__all__ = ["UNREADABLE", "count", "read_engine_text", "read_layers", "read_network_layers"]

UNREADABLE = "unreadable"
"""Kind of the one record that stands for an inspector's text which is no JSON; its name says why."""

_BARE_NUMBER = re.compile(r"(?<=[:\[, ])(-?)(?:inf|nan)(?=[,\]} \n])")
_EXCERPT = 80
_PASSING = ("IDENTITY", "SHUFFLE", "SQUEEZE", "UNSQUEEZE")


def read_layers(api: Api, engine: Any, graph: ir.Model) -> tuple[LayerRecord, ...]:
    """Read the layers of a built engine; it must have been built with detailed profiling verbosity.

    Args:
        api: the library.
        engine: an opened engine.
        graph: what its network was parsed from, for the names of nodes and modules.
    """
    trt = api.module
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return read_engine_text(str(text), graph)


def read_engine_text(text: str, graph: ir.Model) -> tuple[LayerRecord, ...]:
    """Read what an inspector wrote of an engine, in either dialect; the order is the engine's.

    Where the text is no JSON, one record of kind `UNREADABLE` says so: a finished engine is not thrown away for it.
    """
    try:
        said = json.loads(_BARE_NUMBER.sub("null", text), strict=False)
    except ValueError as error:
        return (
            LayerRecord(f"the inspector's text is no JSON: {error}; it begins {text[:_EXCERPT]!r}", UNREADABLE, ""),
        )
    names = NodeNames(graph)
    layers = said.get("Layers", []) if isinstance(said, Mapping) else said
    return _with_regions(tuple(_record(one, names) for one in layers), names)


def read_network_layers(api: Api, network: Any, graph: ir.Model) -> tuple[LayerRecord, ...]:
    """Read the layers of a typed network before it is built, where the engine cannot be opened here.

    In a typed network a layer computes in the types it says: only fusion and formats are still open. One that reads
    what is dequantised is going to be fused with that, and computes in INT8.
    """
    names = NodeNames(graph)
    dequantised: dict[str, str] = {}
    found = []
    for at in range(network.num_layers):
        layer = network.get_layer(at)
        record = _network_record(api, layer, names)
        first = layer.get_input(0) if layer.num_inputs else None
        quantised = dequantised.get(first.name, "") if first is not None else ""
        if record.kind == "DEQUANTIZE":
            quantised = precision_word(str(first.dtype)) if first is not None else "int8"
        if record.kind == "DEQUANTIZE" or (quantised and record.kind in _PASSING):
            made = (layer.get_output(place).name for place in range(layer.num_outputs))
            dequantised.update(dict.fromkeys(made, quantised))
        found.append(replace(record, precision=quantised) if quantised and record.precision else record)
    return tuple(found)


def count(layers: Iterable[LayerRecord]) -> dict[str, int]:
    """Count the layers that compute in each precision.

    Example:
        >>> count([LayerRecord("a", "conv", "fp16"), LayerRecord("b", "Reformat", "")])
        {'fp16': 1}
    """
    return dict(sorted(Counter(one.precision for one in layers if one.precision).items()))


def _record(said: Mapping[str, Any] | str, names: NodeNames) -> LayerRecord:
    """Make a record of one layer; of an engine without details, a layer is its name alone."""
    if isinstance(said, str):
        nodes = names.of_layer(said)
        return LayerRecord(said, "", "", nodes=nodes, modules=names.modules_of(nodes))
    name, kind = str(said.get("Name", "")), str(said.get("LayerType", ""))
    inputs, outputs = (tuple(tensor_text(one) for one in said.get(key) or ()) for key in ("Inputs", "Outputs"))
    nodes = names.of_layer(name, str(said.get("Metadata", "")))
    return LayerRecord(
        name=name,
        kind=kind,
        precision=computed_in(said, kind, inputs, outputs),
        inputs=inputs,
        outputs=outputs,
        nodes=nodes,
        modules=names.modules_of(nodes),
        tactic=str(said.get("TacticName", "")),
    )


def _with_regions(layers: Sequence[LayerRecord], names: NodeNames) -> tuple[LayerRecord, ...]:
    """Say of a region that names its ends only which nodes lie between them and are in no other layer."""
    taken = {node for one in layers if names.region(one.name) is None for node in one.nodes}
    found = []
    for one in layers:
        ends = names.region(one.name)
        if ends is not None and set(one.nodes) <= set(ends):
            nodes = names.between(ends, taken)
            found.append(replace(one, nodes=nodes, modules=names.modules_of(nodes)))
        else:
            found.append(one)
    return tuple(found)


def _network_record(api: Api, layer: Any, names: NodeNames) -> LayerRecord:
    """Make a record of a layer that is not built yet."""
    kind = str(layer.type).rpartition(".")[2]
    read = [layer.get_input(at) for at in range(layer.num_inputs)]
    made = [layer.get_output(at) for at in range(layer.num_outputs)]
    inputs, outputs = (tuple(_type_of(one) for one in these if one is not None) for these in (read, made))
    nodes = names.of_layer(layer.name, layer_metadata(api, layer))
    said: dict[str, Any] = {"Name": layer.name}
    shapes = all(one is None or one.is_shape_tensor for one in made)
    return LayerRecord(
        name=layer.name,
        kind=kind,
        precision="" if shapes else computed_in(said, kind, inputs, outputs),
        inputs=inputs,
        outputs=outputs,
        nodes=nodes,
        modules=names.modules_of(nodes),
    )


def _type_of(tensor: Any) -> str:
    return precision_word(str(tensor.dtype).rpartition(".")[2])
