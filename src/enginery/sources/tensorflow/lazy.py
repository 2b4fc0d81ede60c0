"""Tensors of a graph that are computed when they are looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["lazy_tensor", "type_of"]


def lazy_tensor(name: str | None, read: Callable[[], np.ndarray[Any, Any]]) -> ir.LazyTensor:
    """Return a tensor whose values `read` gives, each time anew: nobody holds them.

    Example:
        >>> import numpy as np
        >>> lazy_tensor("ones", lambda: np.ones(3, np.float32)).numpy()
        array([1., 1., 1.], dtype=float32)
    """
    import numpy as np
    import onnx_ir as ir

    array = read()
    dtype, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    return ir.LazyTensor(lambda: ir.Tensor(np.ascontiguousarray(read())), dtype=dtype, shape=shape, name=name)


def type_of(tensor: ir.TensorProtocol) -> ir.TensorType:
    """Return the type of a value that holds a tensor."""
    import onnx_ir as ir

    return ir.TensorType(tensor.dtype)
