"""Element types under eight bits, and those numpy lacks, survive packing and unpacking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginery.backends.elements import from_bytes, is_extended, nbytes, to_bytes
from enginery.dtypes import DTYPES, numpy_dtype

EXTENDED = [name for name in DTYPES if is_extended(name)]


def test_knows_what_numpy_lacks():
    """bfloat16, the float8s and everything under eight bits need help; numpy's own types and texts do not."""
    assert {"bfloat16", "float8e4m3fn", "int4", "uint2", "float4e2m1"} <= set(EXTENDED)
    assert not {"float32", "float16", "bool", "string", "int64"} & set(EXTENDED)


@pytest.mark.parametrize("dtype", EXTENDED)
@given(numbers=st.lists(st.sampled_from([0, 1]), max_size=9))
def test_packs_and_unpacks(dtype, numbers):
    """Any number of elements, a last byte that is partly used included, comes back as it went in."""
    array = np.array(numbers, np.float32).astype(numpy_dtype(dtype))
    raw = to_bytes(array, dtype)
    assert raw.dtype == np.uint8
    assert raw.nbytes == nbytes(array.shape, dtype)
    back = from_bytes(raw, array.shape, dtype)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back.astype(np.float32), array.astype(np.float32))


def test_lays_out_as_onnx_does():
    """The first element stands in the lowest bits, negative ones in two's complement."""
    array = np.array([[1, -2], [7, -8], [-1, 0]]).astype(numpy_dtype("int4"))
    assert to_bytes(array, "int4").tolist() == [0xE1, 0x87, 0x0F]
    assert from_bytes(to_bytes(array, "int4"), (3, 2), "int4").tolist() == array.tolist()


def test_agrees_with_onnx():
    """ONNX's own tensors hold the same bytes."""
    import onnx

    array = np.array([3, -4, 1, 2, -1]).astype(numpy_dtype("int4"))
    assert onnx.numpy_helper.from_array(array).raw_data == to_bytes(array, "int4").tobytes()
