"""In which precision OpenVINO compiled each layer, and whether that is what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enginery.errors import PrecisionError

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Layer", "count_layers", "element_types", "precision_notes", "read_layers"]

_PRECISION_OF = {"f32": "fp32", "f64": "fp64", "f16": "fp16", "bf16": "bf16"}
_BYTES = ("i8", "u8")
_MOVEMENT = frozenset({
    "Broadcast", "Concatenation", "Const", "Convert", "Gather", "Input", "MemoryInput", "MemoryOutput", "Output", "Pad",
    "Reorder", "Reshape", "ShapeOf", "Split", "StridedSlice", "Tile", "Transpose", "Unknown",
})  # fmt: skip
_INT8_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNCell", "RNNSeq"})


@dataclass(frozen=True)
class Layer:
    """One layer that computes, as the compiled model tells.

    Args:
        kind: what it is, such as ``FullyConnected``.
        precision: what it computes in.
        names: of the model's operators that it was made of.
    """

    kind: str
    precision: str
    names: tuple[str, ...]

    @property
    def heavy(self) -> bool:
        """Whether it multiplies matrices."""
        return self.kind in _INT8_LAYERS


def read_layers(compiled: Any) -> Iterator[Layer]:
    """Yield every layer; one that only moves data, or computes on integers, has no precision."""
    for layer in compiled.get_runtime_model().get_ordered_ops():
        info = layer.get_rt_info()
        kind, precision = str(info["layerType"].value), str(info["runtimePrecision"].value)
        names = tuple(name for name in str(info["originalLayersNames"].value).split(",") if name)
        floating = _PRECISION_OF.get(precision, "") if kind not in _MOVEMENT else ""
        yield Layer(kind, "int8" if precision in _BYTES and kind in _INT8_LAYERS else floating, names)


def count_layers(compiled: Any) -> dict[str, int]:
    """Count the layers that compute in each precision, as the compiled model tells."""
    return dict(sorted(Counter(layer.precision for layer in read_layers(compiled) if layer.precision).items()))


def precision_notes(precision: str, counts: Mapping[str, int], own: Collection[str]) -> list[str]:
    """Hold what was built against what was asked for; a model that itself is half-precision may stay so.

    Args:
        precision: what was asked for.
        counts: what `count_layers` found.
        own: the element types that the model names itself, as ONNX calls them.
    """
    lower = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}
    lowered = [f"{counts[name]} in {name}" for name, kind in lower.items() if name in counts and kind not in own]
    if precision == "fp32" and lowered:
        raise PrecisionError(
            f"fp32 was asked for, and OpenVINO compiled layers lower: {', '.join(lowered)}",
            mend="report this with the graph, and build with another backend",
        )
    if precision != "fp32" and not counts.get(precision):
        built = ", ".join(f"{count} in {name}" for name, count in counts.items()) or "none"
        return [f"{precision} was asked for, but OpenVINO chose it for no layer (layers: {built})"]
    return []


def element_types(graph: ir.Model) -> set[str]:
    """Return every element type a graph names: those of its tensors, and those its operators make by attribute."""
    import onnx_ir as ir

    values = list(graph.graph.inputs)
    numbers = []
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        values += [value for value in (*node.inputs, *node.outputs) if value is not None]
        numbers += [
            node.attributes[name].as_int() for name in ("to", "dtype", "output_dtype") if name in node.attributes
        ]
        numbers += [item.as_tensor().dtype for item in node.attributes.values() if item.type == ir.AttributeType.TENSOR]
    return {value.dtype.name for value in values if value.dtype is not None} | {ir.DataType(n).name for n in numbers}
