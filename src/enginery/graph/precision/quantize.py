"""Put QuantizeLinear and DequantizeLinear nodes into a graph: static INT8, with ranges seen on recorded inputs.

The ranges and the nodes are ONNX Runtime's ``quantize_static``, with what TensorRT asks for: signed and symmetric (a
zero point other than 0 does not parse), weights per channel, biases left as they are, and only the inputs of heavy
operators quantised, so that the rest of the graph stays what it was. ``minmax`` keeps two numbers of each tensor and
call; ``entropy`` and ``percentile`` hold every tensor of all calls in memory, so give them few.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginery import optional
from enginery.errors import DataError, GraphError, UnknownNameError
from enginery.graph.base import all_nodes, load_model
from enginery.graph.files import save_shared
from enginery.graph.modules import MODULE_KEY
from enginery.graph.weights import read_in
from enginery.streams import still_loggers

if TYPE_CHECKING:
    import onnx_ir as ir

    Feeds = Mapping[str, np.ndarray[Any, np.dtype[Any]]]

__all__ = ["FORMS", "METHODS", "OPERATORS", "quantize"]

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""How a range is chosen from the values seen, by name: ONNX Runtime's own name for it."""

FORMS = ("symmetric", "asymmetric")
"""How what is no weight is quantised: signed with zero point 0, or unsigned with a zero point."""

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Whose inputs are quantised."""

_LOWEST_OPSET = 13  # the first with scales per channel
_WHY = "to quantise a graph"


def quantize(
    model: ir.Model,
    batches: Sequence[Feeds],
    *,
    nodes: Iterable[str] | None = None,
    method: str = "minmax",
    form: str = "symmetric",
    exclude: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> ir.Model:
    """Return a graph whose heavy operators read INT8; see `enginery.graph.base.quantize`."""
    if method not in METHODS:
        raise UnknownNameError.from_choices("method of calibration", method, METHODS)
    if form not in FORMS:
        raise UnknownNameError.from_choices("form", form, FORMS)
    wanted = None if nodes is None else list(nodes)
    _check_graph(model, [*exclude, *(wanted or ())])
    _check_batches(model, batches)
    with tempfile.TemporaryDirectory(prefix="enginery-") as name:
        folder = Path(name)
        save_shared(model.clone(), folder / "float.onnx")
        _run(
            folder / "float.onnx", folder / "int8.onnx", batches, method=method, form=form, nodes=wanted,
            exclude=exclude,
        )  # fmt: skip
        result = load_model(folder / "int8.onnx")
        _read_in(result)
    _keep_names(model, result)
    if say is not None:
        count = sum(node.op_type == "QuantizeLinear" for node in all_nodes(result))
        say(f"quantised {count} tensors, by {method} over {len(batches)} batches")
    return result


def _check_graph(model: ir.Model, exclude: Sequence[str]) -> None:
    nodes = list(all_nodes(model))
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in nodes):
        raise GraphError("the graph is quantised already", mend="give the graph as it was before")
    if not any(node.op_type in OPERATORS for node in nodes):
        kinds = ", ".join(OPERATORS)
        raise GraphError(f"the graph has none of the operators that are quantised ({kinds})", mend="keep it in fp16")
    if (version := model.opset_imports.get("", 1)) < _LOWEST_OPSET:
        mend = f"convert it first: enginery export MODEL -o converted.onnx --opset {_LOWEST_OPSET}"
        raise GraphError(f"the graph has opset {version}, and scales per channel came with {_LOWEST_OPSET}", mend=mend)
    if unknown := sorted(set(exclude) - {node.name for node in nodes}):
        raise UnknownNameError.from_choices("node", unknown[0], [node.name for node in nodes if node.name])


def _check_batches(model: ir.Model, batches: Sequence[Feeds]) -> None:
    """Refuse data from which no range follows.

    Raises:
        DataError: there is none, an input is missing, or a floating-point input is the same number everywhere.
    """
    names = [value.name or "" for value in model.graph.inputs]
    if not batches:
        raise DataError("there is no data to calibrate with", mend="record a hundred real inputs or more")
    for name in names:
        if any(name not in feeds for feeds in batches):
            raise DataError(f"the data to calibrate with lacks the input {name!r}", mend="record every input")
        values = [np.asarray(feeds[name]) for feeds in batches]
        if values[0].dtype.kind != "f":
            continue
        low, high = min(float(one.min()) for one in values), max(float(one.max()) for one in values)
        if not np.isfinite([low, high]).all():
            raise DataError(f"the data for {name!r} is not finite", mend="look at how it was recorded")
        if low == high and sum(one.size for one in values) > 1:
            mend = "record real inputs: ranges that follow from these are wrong for all others"
            raise DataError(f"the data for {name!r} is {low:g} everywhere", mend=mend)


def _run(
    source: Path,
    target: Path,
    batches: Sequence[Feeds],
    *,
    method: str,
    form: str,
    nodes: Sequence[str] | None,
    exclude: Sequence[str],
) -> None:
    quantization = optional.require("onnxruntime.quantization", extra="", why=_WHY)
    signed = quantization.QuantType.QInt8
    try:
        with still_loggers("root"):  # it asks for a preparation that simplifying has done
            quantization.quantize_static(
                source,
                target,
                _reader(quantization, batches),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_quantize=nodes,
                nodes_to_exclude=list(exclude),
                per_channel=True,
                activation_type=signed if form == "symmetric" else quantization.QuantType.QUInt8,
                weight_type=signed,
                calibrate_method=getattr(quantization.CalibrationMethod, METHODS[method]),
                use_external_data_format=source.with_name(f"{source.name}.data").exists(),
                extra_options={  # never CalibMaxIntermediateOutputs: what it clears has not been looked at
                    "ActivationSymmetric": form == "symmetric",
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "OpTypesToExcludeOutputQuantization": list(OPERATORS),
                },
            )
    except Exception as error:
        mend = "check the data against the graph's inputs, or exclude the node that is named"
        raise GraphError(f"ONNX Runtime cannot quantise the graph: {error}", mend=mend) from error


def _reader(quantization: Any, batches: Sequence[Feeds]) -> Any:
    """Make what the library reads its data from; it may be asked to begin again."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands out one batch after another."""

        def __init__(self) -> None:
            self.left: Iterator[Feeds] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            """Return the next batch; None after the last."""
            feeds = next(self.left, None)
            return None if feeds is None else dict(feeds)

    return Reader()


def _read_in(model: ir.Model) -> None:
    """Hold external weights in memory: the folder they lie in is about to go."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = read_in(value.const_value)


def _keep_names(before: ir.Model, after: ir.Model) -> None:
    """Give nodes their metadata back, and the new ones the module of the node that reads what they make."""
    kept = {node.name: dict(node.metadata_props) for node in all_nodes(before) if node.name}
    nodes = list(all_nodes(after))
    for node in nodes:
        for key, value in kept.get(node.name or "", {}).items():
            node.metadata_props.setdefault(key, value)
    for node in reversed(nodes):
        reader = next((use.node for output in node.outputs for use in output.uses()), None)
        module = reader.metadata_props.get(MODULE_KEY) if reader is not None else None
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and module is not None:
            node.metadata_props.setdefault(MODULE_KEY, module)
    for given, read in zip(before.graph.inputs, after.graph.inputs, strict=True):
        read.metadata_props.update(given.metadata_props)
