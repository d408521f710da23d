"""Activations change their sign without changing what they stand for."""

import numpy as np
import pytest
from tvm import relax

from compiler.passes.byte_signs import byte_signs, wants_unsigned
from compiler.target import load
from tests.passes.graphs import graph, random, run
from tests.passes.test_lower_quantized import NETS, q

R = relax.op


def _dtypes(mod):
    return [
        str(binding.var.ty.dtype)
        for block in mod["main"].body.blocks
        for binding in block.bindings
        if getattr(getattr(binding.value, "op", None), "name", "") == "relax.quantize"
    ]


@pytest.mark.parametrize("name", NETS)
def test_numbers_stay_to_the_last_bit(name):
    before, x = graph(NETS[name], x=(2, 6, 10, 10)), random(2, 6, 10, 10)
    expected = run(before, x)
    for unsigned in (True, False):
        after = byte_signs(unsigned=unsigned)(before)
        found, wanted = _dtypes(after), "uint8" if unsigned else "int8"
        # On the right of a product bytes are signed: one of two, or two of attention's five.
        others = {"attention": 2}.get(name, int(name.startswith("a product"))) if unsigned else 0
        assert found.count(wanted) == len(found) - others
        np.testing.assert_array_equal(run(after, x), expected)


def test_bytes_on_both_sides_of_products_are_not_signed():
    def build(emit, x):
        both = q(emit, x, 0.03, 128)
        return R.matmul(both, emit(R.permute_dims(both)))

    assert _dtypes(byte_signs(unsigned=True)(graph(build, x=(5, 6)))) == ["uint8"]
    assert _dtypes(byte_signs(unsigned=False)(graph(build, x=(5, 6)))) == ["int8"]


def test_bytes_that_are_given_out_stay():
    scale, zero = relax.const(np.float32(0.1)), relax.const(np.int32(9))
    before = graph(lambda emit, x: R.quantize(x, scale, zero, axis=1, out_dtype="uint8"), x=(2, 3))
    assert _dtypes(byte_signs(unsigned=False)(before)) == ["uint8"]


def test_what_targets_want():
    assert all(wants_unsigned(load(name)) for name in ("znver4", "x86-64-v3"))
    assert not any(wants_unsigned(load(name)) for name in ("rpi4", "rpi5"))
