import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compiler.compress.packing import pack_nibbles, pack_signs, unpack_nibbles, unpack_signs

SHAPES = hnp.array_shapes(max_dims=3, max_side=9)


@given(hnp.arrays(np.int8, SHAPES, elements=st.integers(-8, 7)))
def test_signed_codes_come_back(codes):
    packed = pack_nibbles(codes)
    assert packed.dtype == np.uint8
    assert packed.shape == (*codes.shape[:-1], (codes.shape[-1] + 1) // 2)
    back = unpack_nibbles(packed, codes.shape[-1], signed=True)
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, codes)


@given(hnp.arrays(np.uint8, SHAPES, elements=st.integers(0, 15)))
def test_unsigned_codes_come_back(codes):
    back = unpack_nibbles(pack_nibbles(codes), codes.shape[-1], signed=False)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, codes)


@given(hnp.arrays(np.int8, SHAPES, elements=st.sampled_from([-1, 1])))
def test_signs_come_back(codes):
    packed = pack_signs(codes)
    assert packed.shape == (*codes.shape[:-1], (codes.shape[-1] + 7) // 8)
    back = unpack_signs(packed, codes.shape[-1])
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize(
    ("pack", "codes", "packed"),
    [
        (pack_nibbles, np.array([1, -1, 7], np.int8), [0xF1, 0x07]),
        (pack_nibbles, np.array([[15, 0], [2, 9]], np.uint8), [[0x0F], [0x92]]),
        (pack_signs, np.array([1, -1, 1, 1, -1, -1, -1, -1, 1], np.int8), [0b1101, 1]),
    ],
)
def test_the_first_is_lowest(pack, codes, packed):
    assert pack(codes).tolist() == packed
