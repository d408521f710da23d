import ml_dtypes
import numpy as np
import pytest
import torch

from compiler.deploy.tensors import aligned_copy, as_numpy, from_numpy, from_torch, to_numpy
from compiler.support.errors import InputError
from compiler.support.signature import TensorSpec

SPEC = TensorSpec("x", (4, 4), "float32")
SCALAR = TensorSpec("s", (), "int32")


def aligned(shape=(4, 4)):
    return aligned_copy(np.random.rand(*shape).astype(np.float32))


def test_an_aligned_array_is_shared_both_ways():
    array = aligned()
    tensor = from_numpy(array, 64, None)
    back = to_numpy(tensor)
    back[1, 2] = 7
    assert array[1, 2] == 7


def test_a_torch_tensor_is_passed_as_it_is():
    tensor = torch.rand(4, 4)
    assert from_torch(tensor, SPEC, 64, "cpu").data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(
    "make",
    [
        lambda: aligned((8, 4))[::2],
        lambda: aligned().T,
        lambda: aligned().astype(">f4"),
        lambda: np.broadcast_to(np.float32(3), (4, 4)),
        lambda: aligned_copy(np.zeros(17, np.float32))[1:].reshape(4, 4),
        lambda: np.frombuffer(bytes(64), np.float32).reshape(4, 4),
    ],
    ids=["strided", "transposed", "byte-swapped", "broadcast", "misaligned", "read-only"],
)
def test_arrays_that_compiled_code_cannot_read_are_copied(make):
    array = as_numpy(make(), SPEC)
    tensor = from_numpy(array, 64, None)
    assert tensor.data_ptr() % 64 == 0
    np.testing.assert_array_equal(to_numpy(tensor), array)


def test_torch_tensors_that_compiled_code_cannot_read_are_copied():
    for tensor in (
        torch.rand(4, 4).t(),
        torch.rand(4, 4, requires_grad=True),
        torch.rand(17)[1:].reshape(4, 4),
        torch.rand(1).expand(4, 4),
        torch.nn.Parameter(torch.rand(4, 4)),
        torch._neg_view(torch.rand(4, 4)),
    ):
        ready = from_torch(tensor, SPEC, 64, "cpu")
        assert ready.is_contiguous()
        assert ready.data_ptr() % 64 == 0
        assert not ready.requires_grad
        assert torch.equal(ready, tensor.detach())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.rand(4, 4).double(), r"expected float32, got float64; convert it with .to\(torch.float32\)"),
        (torch.eye(4).to_sparse(), "dense tensor with data, got a sparse_coo one"),
        (torch.rand(4, 4, device="meta"), "dense tensor with data, got a meta one"),
    ],
)
def test_torch_tensors_that_are_refused(value, message):
    with pytest.raises(InputError, match=message):
        from_torch(value, SPEC, 64, "cpu")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 4)), r'expected float32, got float64; convert it with .astype\("float32"\)'),
        ([[1.0]], "expected a numpy array or a torch tensor, got list"),
        (3.0, "got float"),
        (None, "got NoneType"),
        (np.array(["a"]), "expected float32, got <U1"),
        (np.array([None]), "expected float32, got object"),
    ],
)
def test_values_that_are_refused(value, message):
    with pytest.raises(InputError, match=f"input 'x': .*{message}"):
        as_numpy(value, SPEC)


def test_numbers_for_inputs_without_dimensions():
    assert as_numpy(3, SCALAR) == np.int32(3)
    assert as_numpy(3, SCALAR).dtype == np.int32
    assert as_numpy(2, TensorSpec("s", (), "float32")).dtype == np.float32
    for wrong in (3.5, True, 2**40):
        with pytest.raises(InputError, match="input 's'"):
            as_numpy(wrong, SCALAR)


def test_whatever_speaks_dlpack():
    class Other:
        def __init__(self):
            self.data = np.ones((4, 4), np.float32)

        def __dlpack__(self, **keywords):
            return self.data.__dlpack__(**keywords)

        def __dlpack_device__(self):
            return self.data.__dlpack_device__()

    np.testing.assert_array_equal(as_numpy(Other(), SPEC), np.ones((4, 4)))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float64", "bfloat16"])
def test_every_dtype_there_and_back(dtype):
    kind = getattr(ml_dtypes, dtype, None) or dtype
    array = (np.arange(6).reshape(2, 3) % 2).astype(kind)
    back = to_numpy(from_numpy(array, 64, None))
    assert back.dtype == array.dtype
    assert back.tobytes() == array.tobytes()


def test_empty_arrays():
    assert to_numpy(from_numpy(np.empty((0, 3), np.float32), 64, None)).shape == (0, 3)
