"""Graphs on disk: read with care, written whole or not at all, never 2 GB in one protobuf."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from enginery import storage
from enginery.errors import CorruptModelError, GraphError, SourceError, SourceNotFoundError
from enginery.graph.base import all_graphs, all_nodes, constants, normalise
from enginery.graph.checks import check_file, check_proto, external_files
from enginery.graph.weights import (
    INLINE_BYTES,
    inline_attributes,
    moved_tensor,
    read_in,
    tensor_bytes,
    to_proto,
    write_data,
    write_inline,
)

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = [
    "EXTERNAL_ABOVE_BYTES",
    "PROTOBUF_LIMIT_BYTES",
    "SHARED_ABOVE_BYTES",
    "hash_model",
    "load",
    "save",
    "save_shared",
]

EXTERNAL_ABOVE_BYTES = 1 << 30
"""A model with more tensor data than this is saved with its weights beside it."""

SHARED_ABOVE_BYTES = 1 << 24
"""The same for graphs in passing, whose weights then need not be written again."""

PROTOBUF_LIMIT_BYTES = (1 << 31) - 1
"""No protobuf message can be larger."""

_READ_AT_ONCE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20


def load(path: str | Path) -> ir.Model:
    """Read an ONNX file; large external data stays on disk and is memory-mapped when it is looked at.

    Inputs that also are initializers are dropped from the inputs (`enginery.graph.base.normalise`).

    Args:
        path: an ONNX protobuf, its external data in the same folder or below.

    Returns:
        The model. Its external tensors name the files by absolute path.

    Raises:
        SourceNotFoundError: there is no such file.
        SourceError: it may not be read.
        CorruptModelError: it is no ONNX model, is cut short, or its external data is missing, short or elsewhere.
        GraphError: it holds something that cannot be represented, such as sparse initializers.

    Example:
        >>> load("missing.onnx")
        Traceback (most recent call last):
        enginery.errors.SourceNotFoundError: there is no file missing.onnx; check the path
    """
    import onnx_ir as ir

    path = Path(path)
    proto = _parse(path)
    check_proto(proto, path)
    if proto.graph.sparse_initializer:
        mend = "store them dense"
        raise GraphError(f"{path} has sparse initializers, which Enginery cannot transform", mend=mend)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        mend = "check the file with onnx.checker, or export the model again"
        raise CorruptModelError(f"{path} is no valid ONNX model: {error}", mend=mend) from error
    _set_folder(model, path.absolute().parent)
    _read_small(model)
    _check_links(model, path)
    normalise(model)
    return model


def save(model: ir.Model, path: str | Path) -> None:
    """Write a model whole or not at all; above `EXTERNAL_ABOVE_BYTES` its weights go to ``<name>.data`` beside it.

    Weights are written one after another, from the file they lie in where they lie in one, so that none is held in
    memory for it. What is written shares no file with anything else.

    The model may have been loaded from `path`. Where its weights are written beside it, its tensors are pointed at
    the new file, because the old one may just have been replaced; nothing else of the model changes. Other models
    that still read the old file must not be used any more.

    Args:
        model: what to write.
        path: the ONNX file; one that stands there is replaced.

    Raises:
        OutputError: `path` cannot be written.
        DiskFullError: no space is left.
        CorruptModelError: the file that a weight lies in has become too short.
        GraphError: what has to stand in one protobuf is above 2 GB.
    """
    path = Path(path).absolute()
    if tensor_bytes(model) > EXTERNAL_ABOVE_BYTES:
        _save_external(model, path, shared=False)
    else:
        _save_inline(model, path)


def save_shared(model: ir.Model, path: str | Path) -> None:
    """Write a graph in passing: weights in files beside `path`, or below, stay there, and only others are written.

    So any number of graphs in one folder hold a weight once. They live as long as that folder; what a user keeps is
    written by `save`. As there, the tensors of the model are pointed at the file they were written to; a caller that
    removes it first hands over a clone.

    Args:
        model: what to write; above `SHARED_ABOVE_BYTES` its weights stand beside it.
        path: the ONNX file; one that stands there is replaced.

    Raises:
        OutputError: `path` cannot be written.
        DiskFullError: no space is left.
        CorruptModelError: the file that a weight lies in has become too short.
        GraphError: what has to stand in one protobuf is above 2 GB.
    """
    path = Path(path).absolute()
    if tensor_bytes(model) > SHARED_ABOVE_BYTES:
        _save_external(model, path, shared=True)
    else:
        _save_inline(model, path)


def hash_model(path: str | Path) -> str:
    """Return the SHA-256 of an ONNX file and its external data.

    Without external data this is the hash of the file; with it, the names and contents of the data files follow in
    the order of their names.

    Raises:
        SourceNotFoundError: there is no such file.
        CorruptModelError: it is no ONNX model, or external data is missing.
    """
    path = Path(path)
    locations = external_files(_parse(path))
    digest = hashlib.sha256()
    _update(digest, path)
    for location in locations:
        file = path.parent / location
        if not file.is_file():
            raise CorruptModelError(f"{path} has its data in {file}, and there is no such file", mend="copy it too")
        digest.update(f"\0{location}\0{file.stat().st_size}\0".encode())
        _update(digest, file)
    return digest.hexdigest()


def _parse(path: Path) -> onnx.ModelProto:
    import onnx

    if not path.exists():
        raise SourceNotFoundError(f"there is no file {path}", mend="check the path")
    try:
        check_file(path)
        size = path.stat().st_size
        if size > PROTOBUF_LIMIT_BYTES:
            mend = "export it again with external data"
            raise CorruptModelError(f"{path} has {size} bytes, and a protobuf cannot be above 2 GiB", mend=mend)
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", mend="check its permissions") from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:
        message = f"{path} ({size} bytes) is no ONNX model, or is cut short: {error}"
        raise CorruptModelError(message, mend="copy or download the file again, or export the model again") from error
    return proto


def _set_folder(model: ir.Model, folder: Path) -> None:
    import onnx_ir as ir

    for tensor in constants(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = folder


def _read_small(model: ir.Model) -> None:
    """Read small external tensors: each that is mapped holds a file open, and there may be thousands."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and tensor.nbytes <= _READ_AT_ONCE_BYTES:
                value.const_value = read_in(tensor)


def _check_links(model: ir.Model, path: Path) -> None:
    """Check that every input of a node is made by another node, or is an input or an initializer."""
    for node in all_nodes(model):
        for value in node.inputs:
            if value is not None and value.producer() is None and not value.is_graph_input():
                if value.is_initializer() or value.const_value is not None:
                    continue
                message = f"{path}: node {node.name or node.op_type!r} reads {value.name!r}, which nothing makes"
                raise CorruptModelError(message, mend="the graph is damaged: export the model again")


def _save_inline(model: ir.Model, path: Path) -> None:
    copy = model.clone()
    inline_attributes(copy)
    with storage.new_file(path) as part, part.open("wb") as file:
        write_inline(copy, file, PROTOBUF_LIMIT_BYTES)


def _save_external(model: ir.Model, path: Path, *, shared: bool) -> None:
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    copy = model.clone()
    LiftConstantsToInitializersPass(size_limit=INLINE_BYTES)(copy)
    inline_attributes(copy)
    data = path.with_name(f"{path.name}.data")
    moved = [value for value in _large(copy) if not (shared and _keep(value, data))]
    # The weights take their place first. The graph that stood there is gone by then: an old graph with new weights
    # would look finished and be wrong.
    with storage.new_file(path) as part:
        with storage.new_file(data) if moved else contextlib.nullcontext() as data_part:
            if data_part is not None:
                write_data(moved, data_part, data)
            part.write_bytes(_serialise(copy))
            path.unlink(missing_ok=True)
        _adopt(model, copy)


def _large(model: ir.Model) -> Iterator[ir.Value]:
    """Yield the initializers that stand beside the graph where the model is large."""
    import onnx_ir as ir

    for graph in all_graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING and tensor.nbytes > INLINE_BYTES:
                yield value


def _keep(value: ir.Value, data: Path) -> bool:
    """Leave a weight where it is, if that is a file of the folder that is not about to be written."""
    import onnx_ir as ir

    tensor = value.const_value
    if not isinstance(tensor, ir.ExternalTensor):
        return False
    file = Path(tensor.path).absolute()
    if file == data or not file.is_relative_to(data.parent):
        return False
    value.const_value = moved_tensor(tensor, data.parent, file.relative_to(data.parent), tensor.offset or 0)
    return True


def _adopt(model: ir.Model, saved: ir.Model) -> None:
    """Point the tensors of `model` at the files that those of `saved`, its copy, lie in now."""
    for graph, other in zip(model.graphs(), saved.graphs(), strict=True):
        for name, value in graph.initializers.items():
            value.const_value = other.initializers[name].const_value


def _serialise(model: ir.Model) -> bytes:
    data: bytes = to_proto(model).SerializeToString()
    if len(data) > PROTOBUF_LIMIT_BYTES:
        mend = "turn large constants into initializers, which are saved beside the graph"
        raise GraphError(f"the graph alone has {len(data)} bytes, and a protobuf cannot be above 2 GiB", mend=mend)
    return data


def _update(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
