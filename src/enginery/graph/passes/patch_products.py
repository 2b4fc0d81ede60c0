"""Write the embedding of patches as a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from enginery.graph.base import all_nodes
from enginery.graph.passes.base import Pass, constant_value, is_op, only_reader, put_in_place
from enginery.graph.passes.remove_unused import RemoveUnused

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PatchProducts"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_RANK = 4
_PATCHES_FIRST = (0, 2, 4, 1, 3, 5)
_TOKENS_FIRST = [0, 2, 1]


class PatchProducts(Pass):
    """Write ``Transpose(Reshape(Conv(x)))`` over patches that do not overlap as ``MatMul(patches, W) + b``.

    That is how vision transformers make tokens of pictures: a convolution whose kernel is as large as its stride, its
    result flattened, and its channels put last (Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", equation 1).
    It computes the same, and is for readers whose convolutions of so few channels are slow; it is none of the passes
    that every graph gets. Pictures whose number varies keep their convolution: TensorRT 8 was not seen to build the
    other form with a dynamic batch.
    """

    name = "embed patches by a product"

    def requires(self, model: ir.Model) -> bool:
        """There must be one."""
        return any(_found(node) is not None for node in all_nodes(model))

    def apply(self, model: ir.Model) -> bool:
        """Rewrite each whose parts are all found."""
        changed = False
        for node in list(model.graph.all_nodes()):
            if node.graph is not None and (found := _found(node)) is not None:
                _rewrite(found)
                changed = True
        RemoveUnused().apply(model)  # the convolution's weights, in their old form
        return changed

    def ensures(self, model: ir.Model) -> str:
        """None that fits is left."""
        left = [str(node.name) for node in model.graph.all_nodes() if _found(node) is not None]
        return f"embeddings of patches are left: {', '.join(left)}" if left else ""


@dataclass(frozen=True)
class _Embedding:
    """A convolution over patches, and the nodes that make tokens of its result.

    Args:
        weights: [channels out, channels, patch height, patch width].
        rows, columns: how many patches there are in height and width.
    """

    conv: ir.Node
    reshape: ir.Node
    transpose: ir.Node
    weights: Array
    rows: int
    columns: int


def _found(conv: ir.Node) -> _Embedding | None:
    weights = constant_value(conv.inputs[1]) if is_op(conv, "Conv") and conv.graph is not None else None
    sizes = None if weights is None or conv.inputs[0] is None else _sizes(conv.inputs[0].shape)
    reshape = only_reader(conv.outputs[0])
    transpose = None if reshape is None else only_reader(reshape.outputs[0])
    if weights is None or sizes is None or reshape is None or transpose is None or not _is_patchwise(conv, weights):
        return None
    batch, _, *picture = sizes
    (rows, rest), (columns, other_rest) = map(divmod, picture, weights.shape[2:])
    if rest or other_rest or not _flattens(reshape, (batch, len(weights), rows * columns)):
        return None
    if not is_op(transpose, "Transpose") or list(transpose.attributes.get_ints("perm", [])) != _TOKENS_FIRST:
        return None
    return _Embedding(conv, reshape, transpose, weights, rows, columns)


def _sizes(shape: ir.Shape | None) -> list[int] | None:
    """Return the four sizes of pictures; None where one varies."""
    sizes = [] if shape is None else [size for size in shape if isinstance(size, int)]
    return sizes if shape is not None and len(shape) == len(sizes) == _RANK else None


def _is_patchwise(conv: ir.Node, weights: Array) -> bool:
    """Say whether a convolution of two dimensions steps from patch to patch, and nothing is between or around them."""
    attributes, patch = conv.attributes, list(weights.shape[2:])
    return (
        attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and max(patch) > 1
        and list(attributes.get_ints("strides", [1, 1])) == patch
        and not any(attributes.get_ints("pads", [0]))
        and all(step == 1 for step in attributes.get_ints("dilations", [1]))
        and attributes.get_int("group", 1) == 1
    )


def _flattens(reshape: ir.Node, sizes: tuple[int, int, int]) -> bool:
    """Say whether a Reshape makes [batch, channels, patches], of the sizes given, of the convolution's result."""
    target = constant_value(reshape.inputs[1]) if is_op(reshape, "Reshape") else None
    if target is None or target.shape != (3,):
        return False
    copied = () if reshape.attributes.get_int("allowzero", 0) else (0,)
    first, middle, last = (int(size) for size in target)
    batch, channels, patches = sizes
    return first in (batch, -1, *copied) and middle in (channels, -1, *copied) and last in (patches, -1)


def _rewrite(found: _Embedding) -> None:
    import onnx_ir as ir

    conv, rows, columns = found.conv, found.rows, found.columns
    size, channels, height, width = found.weights.shape
    tape = ir.tape.Tape()

    def constant(array: Array) -> ir.Value:
        made: ir.Value = tape.op("Constant", [], {"value": ir.tensor(array)})
        return made

    def shaped(value: ir.Value | None, *sizes: int) -> ir.Value:
        made: ir.Value = tape.op("Reshape", [value, constant(np.array([0, *sizes], np.int64))])  # 0: the batch's own
        return made

    parted = shaped(conv.inputs[0], channels, rows, height, columns, width)
    patches = tape.op("Transpose", [parted], {"perm": list(_PATCHES_FIRST)})
    columns_of = np.ascontiguousarray(found.weights.reshape(size, -1).T)
    made = tape.op("MatMul", [shaped(patches, rows * columns, channels * height * width), constant(columns_of)])
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:  # noqa: PLR2004 - the third is the bias
        made = tape.op("Add", [made, conv.inputs[2]])
    for part in tape.nodes:
        part.metadata_props.update(conv.metadata_props)
    put_in_place(found.transpose, tape, made)
    for node in (found.reshape, found.conv):
        if node.graph is not None:
            node.graph.remove(node, safe=True)
