"""What is wrong with an ONNX file or a graph: told before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginery.errors import CorruptModelError
from enginery.graph.base import skeleton
from enginery.graph.passes.base import quiet

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["check_file", "check_proto", "checker_problem", "external_files"]

_COPY_AGAIN = "copy or download the file again, or export the model again"
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the model itself: git lfs pull"),
    (b"PK\x03\x04", "a zip archive, as PyTorch checkpoints and .keras files are", "give the ONNX file, or export it"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes", "give the ONNX file, or export it"),
    (b"\x1f\x8b", "gzip-compressed", "decompress it first"),
    (b"<!DOCTYPE", "an HTML page", "the download went wrong: fetch the file itself"),
    (b"<html", "an HTML page", "the download went wrong: fetch the file itself"),
)
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_SNIFFED_BYTES = 512
_BYTE = 8


def check_file(path: Path) -> None:
    """Say what a file is that cannot be an ONNX model.

    Raises:
        CorruptModelError: it is a folder, empty, text, or of another known format.
    """
    if path.is_dir():
        raise CorruptModelError(f"{path} is a folder, not an ONNX file", mend="name the .onnx file in it")
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if not head:
        raise CorruptModelError(f"{path} is empty (0 bytes)", mend=_COPY_AGAIN)
    for magic, what, mend in _MAGIC:
        if head.lower().startswith(magic.lower()):
            raise CorruptModelError(f"{path} is {what}, not an ONNX model", mend=mend)
    if head[:1] != b"\x08" and _is_text(head):
        begin = head.decode().strip()[:40]
        raise CorruptModelError(f"{path} is text, not an ONNX model; it begins {begin!r}", mend=_COPY_AGAIN)


def check_proto(proto: onnx.ModelProto, path: Path) -> None:
    """Check that a parsed file is a whole model whose tensors have all their data.

    A file cut short between two fields parses without an error, so what must stand there is looked for.

    Raises:
        CorruptModelError: something is missing, or external data lies outside the model's folder.
    """
    for field, what in (("ir_version", "IR version"), ("graph", "graph")):
        if not proto.HasField(field):
            raise CorruptModelError(f"{path} holds no {what}: it is no ONNX model, or is cut short", mend=_COPY_AGAIN)
    if not proto.opset_import:
        raise CorruptModelError(f"{path} imports no operator set: the file is cut short", mend=_COPY_AGAIN)
    for tensor in _tensors(proto):
        problem = _type_problem(tensor) or (
            _external_problem(tensor, path) if _is_external(tensor) else _data_problem(tensor)
        )
        if problem:
            raise CorruptModelError(f"{path}: tensor {tensor.name!r} {problem}", mend=_COPY_AGAIN)


def external_files(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the locations of a model's external data, each once, sorted."""
    return tuple(sorted({_entries(tensor).get("location", "") for tensor in _tensors(proto) if _is_external(tensor)}))


def checker_problem(model: ir.Model) -> str:
    """Return the first line of what ONNX's checker says against a graph; empty where it takes it."""
    import onnx

    try:
        with quiet():
            onnx.checker.check_model(skeleton(model))
    except Exception as error:  # noqa: BLE001 - the checker, or the graph cannot even be written
        return str(error).strip().split("\n", 1)[0]
    return ""


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character may be cut at the end
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _type_problem(tensor: onnx.TensorProto) -> str:
    import onnx_ir as ir

    if any(size < 0 for size in tensor.dims):
        return f"has the impossible shape {list(tensor.dims)}"
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        return f"has the unknown element type {tensor.data_type}"
    return "has no element type" if dtype == ir.DataType.UNDEFINED else ""


def _data_problem(tensor: onnx.TensorProto) -> str:
    """Compare the data that a tensor holds with what its shape asks for."""
    import onnx_ir as ir

    count, dtype = math.prod(tensor.dims), ir.DataType(tensor.data_type)
    if tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), math.ceil(count * dtype.bitwidth / _BYTE), "bytes"
    else:
        if dtype != ir.DataType.STRING and dtype.bitwidth < _BYTE:
            return ""  # packed, in ways that differ between versions of ONNX
        found = sum(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
        expected = count * 2 if dtype.name.startswith("COMPLEX") else count
        unit = "values"
    return "" if found == expected else f"of shape {list(tensor.dims)} holds {found} {unit} instead of {expected}"


def _external_problem(tensor: onnx.TensorProto, path: Path) -> str:
    """Check that a tensor's external data lies in the model's folder and is long enough."""
    entries = _entries(tensor)
    location = entries.get("location", "")
    folder = path.absolute().parent
    file = folder / location
    if not location or not file.resolve().is_relative_to(folder.resolve()):
        return f"has its data in {location!r}, outside the model's folder {folder}: refused"
    if not file.is_file():
        return f"has its data in {file}, and there is no such file"
    if file.stat().st_nlink > 1:
        return f"has its data in {file}, which has several hard links: refused, because it may be another's file"
    return _place_problem(tensor, entries, file)


def _place_problem(tensor: onnx.TensorProto, entries: Mapping[str, str], file: Path) -> str:
    """Check that a tensor's bytes, as their shape and type have them, lie within its file."""
    import onnx_ir as ir

    for key in ("offset", "length"):
        if not (entries.get(key) or "0").isdecimal():
            return f"has its data at the impossible {key} {entries[key]!r} of {file}"
    dtype = ir.DataType(tensor.data_type)
    if dtype == ir.DataType.STRING:
        return f"holds texts and has its data in {file}, which ONNX does not allow"
    offset = int(entries.get("offset") or 0)
    expected = math.ceil(math.prod(tensor.dims) * dtype.bitwidth / _BYTE)
    length = int(entries.get("length") or expected)
    if length != expected:
        return f"of shape {list(tensor.dims)} names {length} bytes of {file} instead of {expected}"
    if file.stat().st_size < offset + length:
        return f"needs bytes {offset} to {offset + length} of {file}, which has only {file.stat().st_size}"
    return ""
