import ml_dtypes
import numpy as np
import pytest

from compiler.bundle.arrays import from_npy, to_npy
from compiler.support.dtypes import numpy_dtype
from compiler.support.errors import BundleError

DTYPES = ["float32", "float16", "float64", "int8", "int64", "uint16", "bool", "bfloat16", "float8_e4m3fn"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3, 4)])
def test_there_and_back(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(numpy_dtype(dtype))
    back = from_npy(to_npy(array), dtype, "x.npy")
    assert back.dtype == array.dtype
    assert back.shape == shape
    assert back.tobytes() == array.tobytes()


def test_strided_arrays_keep_their_values():
    array = np.arange(12.0).reshape(3, 4).T
    np.testing.assert_array_equal(from_npy(to_npy(array), "float64", "x.npy"), array)


@pytest.mark.parametrize("name", ["object", "str", "datetime64", "float", "complex64", "nonsense", "V8"])
def test_names_that_are_no_number_types(name):
    with pytest.raises(TypeError):
        numpy_dtype(name)


def test_bytes_that_are_no_array():
    with pytest.raises(BundleError, match=r"'x.npy' is not a readable"):
        from_npy(b"garbage", "float32", "x.npy")
    with pytest.raises(BundleError, match="expected elements of type float32, got float64"):
        from_npy(to_npy(np.zeros(2)), "float32", "x.npy")
    with pytest.raises(BundleError):
        from_npy(to_npy(np.zeros(2, np.float32))[:-1], "float32", "x.npy")


def test_the_bits_of_bfloat16_survive():
    array = np.array([1.0, np.nan, -0.0, 3.3895314e38], ml_dtypes.bfloat16)
    assert from_npy(to_npy(array), "bfloat16", "x").view(np.uint16).tolist() == array.view(np.uint16).tolist()
