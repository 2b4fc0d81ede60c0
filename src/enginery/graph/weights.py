"""Tensors on their way into a file: one after another, so that a model's weights are never held twice."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from enginery.errors import CorruptModelError, GraphError
from enginery.graph.base import all_nodes, constants

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = [
    "INLINE_BYTES",
    "chunks",
    "drop_pages",
    "inline_attributes",
    "moved_tensor",
    "read_in",
    "tensor_bytes",
    "to_proto",
    "write_data",
    "write_inline",
]

INLINE_BYTES = 1024
"""Smaller tensors stand in the protobuf in any case."""

_ALIGNED_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_PAGE_BYTES = 4096
_TOO_LARGE = "turn large constants into initializers, which are saved beside the graph"
# Tags of protobuf fields that hold bytes: the number of the field, three bits to the left, and wire type 2.
_GRAPH, _INITIALIZER, _RAW_DATA = b"\x3a", b"\x2a", b"\x4a"


def tensor_bytes(model: ir.Model) -> int:
    """Return the bytes of all tensors that a model holds; a tensor that two values share counts twice."""
    return sum(tensor.nbytes for tensor in constants(model))


def moved_tensor(tensor: ir.TensorProtocol, folder: Path, location: Path, offset: int) -> ir.ExternalTensor:
    """Return what says that a tensor lies in the file `location` of `folder`, from the byte `offset` on."""
    import onnx_ir as ir

    return ir.ExternalTensor(
        location.as_posix(), offset, tensor.nbytes, ir.DataType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "", doc_string=tensor.doc_string, metadata_props=dict(tensor.metadata_props),
        base_dir=folder,
    )  # fmt: skip


def chunks(tensor: ir.TensorProtocol, size_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Yield a tensor's bytes, those of one on disk chunk by chunk: nothing is mapped."""
    import onnx_ir as ir

    if not isinstance(tensor, ir.ExternalTensor):
        yield tensor.tobytes()
        return
    left = tensor.nbytes
    with Path(tensor.path).open("rb") as file:
        file.seek(tensor.offset or 0)
        while left > 0 and (chunk := file.read(min(size_bytes, left))):
            left -= len(chunk)
            yield chunk


def drop_pages(tensors: Iterable[ir.TensorProtocol]) -> None:
    """Give back the memory that mapped tensors take since they were looked at; arrays of them stay good."""
    import onnx_ir as ir

    for tensor in tensors:
        if isinstance(tensor, ir.ExternalTensor) and tensor.raw is not None and hasattr(mmap, "MADV_DONTNEED"):
            tensor.raw.madvise(mmap.MADV_DONTNEED)


def write_data(values: Iterable[ir.Value], part: Path, data: Path) -> None:
    """Write the tensors of values into one file, and point the values at it; one that several share is written once.

    Args:
        values: initializers.
        part: the file to write.
        data: the name it is going to have.

    Raises:
        CorruptModelError: the file that a tensor lies in has become too short.
    """
    places: dict[Any, tuple[int, ir.TensorProtocol]] = {}  # the tensor too: an id is its own while it lives
    with part.open("wb") as file:
        for value in values:
            tensor = value.const_value
            if tensor is None:
                continue
            key = _identity(tensor)
            if key not in places:
                if tensor.nbytes >= _ALIGNED_BYTES:  # so that it can be mapped
                    file.write(bytes(-file.tell() % _PAGE_BYTES))
                places[key] = file.tell(), tensor
                _write(tensor, file)
            value.const_value = moved_tensor(tensor, data.parent, Path(data.name), places[key][0])


def write_inline(model: ir.Model, file: BinaryIO, limit_bytes: int) -> None:
    """Write a model as one protobuf, its large weights straight from where they lie.

    Building the whole message in memory first would hold every weight three times: as it was, in the message, and in
    its bytes. So the message is written without the large initializers of the main graph, whose fields follow by hand
    (https://protobuf.dev/programming-guides/encoding).

    Args:
        model: a copy: the tensors of its values are replaced.
        file: where to.
        limit_bytes: the largest message there may be.

    Raises:
        GraphError: the message would be larger.
    """
    tensors = dict(_take_large(model))
    proto = to_proto(model)
    initializers = list(proto.graph.initializer)
    heads, sizes = [], []
    for initializer in initializers:
        tensor = tensors.get(initializer.name)
        if tensor is not None:
            initializer.ClearField("external_data")
            initializer.ClearField("data_location")
        head = initializer.SerializeToString()
        heads.append(head if tensor is None else head + _RAW_DATA + _varint(tensor.nbytes))
        sizes.append(len(heads[-1]) + (0 if tensor is None else tensor.nbytes))
    names = [initializer.name for initializer in initializers]
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString()
    before, after = _around_graph(proto)
    length = len(graph) + sum(len(_INITIALIZER) + len(_varint(size)) + size for size in sizes)
    total = len(before) + len(after) + len(_GRAPH) + len(_varint(length)) + length
    if total > limit_bytes:
        raise GraphError(f"the model has {total} bytes, and a protobuf cannot be above 2 GiB", mend=_TOO_LARGE)
    file.write(before + _GRAPH + _varint(length) + graph)
    for name, head, size in zip(names, heads, sizes, strict=True):
        file.write(_INITIALIZER + _varint(size) + head)
        if name in tensors:
            _write(tensors[name], file)
    file.write(after)


def _around_graph(proto: onnx.ModelProto) -> tuple[bytes, bytes]:
    """Serialise what comes before the graph and after it: OpenVINO knows an ONNX file by the order of its fields."""
    number = proto.DESCRIPTOR.fields_by_name["graph"].number
    proto.ClearField("graph")
    before, after = type(proto)(), type(proto)()
    before.CopyFrom(proto)
    after.CopyFrom(proto)
    for field in proto.DESCRIPTOR.fields:
        (after if field.number < number else before).ClearField(field.name)
    return before.SerializeToString(), after.SerializeToString()


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Turn a model into ONNX's own message.

    Raises:
        GraphError: it cannot be.
    """
    import onnx_ir as ir

    try:
        return ir.to_proto(model)
    except Exception as error:
        raise GraphError(f"the graph cannot be written as one protobuf: {error}", mend=_TOO_LARGE) from error


def inline_attributes(model: ir.Model) -> None:
    """Let external tensors in the attributes of nodes be written into the protobuf: they cannot stand beside it."""
    import onnx_ir as ir

    for node in all_nodes(model):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, _as_view(attribute.value))


def read_in(tensor: ir.ExternalTensor) -> ir.Tensor[Any]:
    """Read an external tensor into memory, and close the file that was mapped for it."""
    import onnx_ir as ir

    held = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
    tensor.release()
    return held


def _take_large(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Yield the large initializers of the main graph, each of which is replaced by one without data."""
    import onnx_ir as ir

    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.dtype == ir.DataType.STRING:
                continue
            if graph is model.graph and tensor.nbytes > INLINE_BYTES:
                yield name, tensor
                value.const_value = moved_tensor(tensor, Path(), Path("elsewhere"), 0)
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = _as_view(tensor)


def _as_view(tensor: ir.ExternalTensor) -> ir.Tensor[Any]:
    import onnx_ir as ir

    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name, doc_string=tensor.doc_string)


def _identity(tensor: ir.TensorProtocol) -> Any:
    """Return what is the same for two tensors that are one in memory or on disk."""
    import onnx_ir as ir

    if isinstance(tensor, ir.ExternalTensor):
        return tensor.path, tensor.offset or 0, tensor.nbytes
    return id(tensor)


def _write(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    begin = file.tell()
    try:
        if hasattr(tensor, "tofile"):
            tensor.tofile(file)
        else:
            file.write(tensor.tobytes())
    except OSError as error:
        if error.errno is not None:  # the system's refusal to read or write
            raise
        raise CorruptModelError(str(error), mend="the file was changed meanwhile: copy it again") from error
    if (written := file.tell() - begin) != tensor.nbytes:
        message = f"tensor {tensor.name!r} has {written} bytes, its shape and element type ask for {tensor.nbytes}"
        raise CorruptModelError(message, mend="export the model again")


def _varint(number: int) -> bytes:
    """Encode a length as protobuf does: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
